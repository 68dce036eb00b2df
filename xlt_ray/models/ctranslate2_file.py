"""Reads `model.bin`, the file of CTranslate2, without CTranslate2.

`model.bin` is little-endian: version of the format, name and revision of the layout, number of variables, then the
name, shape, type and bytes of each, and last the aliases, names of variables that are stored under another name. A
quantised weight has a variable `..._scale` beside it; its value is value / scale.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from xlt_ray.errors import UserError

if TYPE_CHECKING:  # seconds to import, and most processes only ask where a model is
    from torch import Tensor

_LAYOUT = (6, "WhisperSpec", 3)  # version of the format, name and revision of the layout
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")  # by their id


def read_variables(model_bin: Path) -> dict[str, Tensor]:
    """Every variable of `model.bin` by name: quantised weights as float32, all others in their stored type.

    An alias is the same tensor as the variable that it names.

    Raises:
        UserError: if the file is not a Whisper model of the current format, or is cut short.
    """
    if (found := layout(model_bin)) != _LAYOUT:
        raise UserError(
            f"{str(model_bin)!r} has version, layout and revision {found}, and only {_LAYOUT} can be read; "
            "convert the original model again with ct2-transformers-converter"
        )
    with model_bin.open("rb") as stream:
        _header(stream)
        try:
            stored = dict(_variable(stream) for _ in range(_number(stream, "I")))
            aliases = [(_string(stream), _string(stream)) for _ in range(_number(stream, "I"))]
        except EOFError:
            raise UserError(f"{str(model_bin)!r} is cut short; copy or download it again") from None
        except (IndexError, ValueError, RuntimeError) as error:
            raise UserError(f"{str(model_bin)!r} is damaged ({error}); copy or download it again") from None
    try:
        variables = {name: _dequantised(name, stored) for name in stored if not name.endswith("_scale")}
        return variables | {alias: variables[name] for alias, name in aliases}
    except (KeyError, RuntimeError) as error:  # an alias of nothing, a scale of another shape
        raise UserError(f"{str(model_bin)!r} is damaged ({error}); copy or download it again") from None


def layout(model_bin: Path) -> tuple[int, str, int]:
    """Version of the format, name and revision of the layout; 0, empty and 0 for any other file."""
    try:
        with model_bin.open("rb") as stream:
            return _header(stream)
    except (OSError, EOFError, UnicodeDecodeError):
        return 0, "", 0


def _header(stream: BinaryIO) -> tuple[int, str, int]:
    return _number(stream, "I"), _string(stream), _number(stream, "I")


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _number(stream: BinaryIO, kind: str) -> int:
    return int(struct.unpack(f"<{kind}", _read(stream, struct.calcsize(f"<{kind}")))[0])


def _string(stream: BinaryIO) -> str:
    return _read(stream, _number(stream, "H")).rstrip(b"\0").decode()


def _variable(stream: BinaryIO) -> tuple[str, Tensor]:
    import torch

    name = _string(stream)
    shape = [_number(stream, "I") for _ in range(_number(stream, "B"))]
    dtype = getattr(torch, _DTYPES[_number(stream, "B")])
    data = _read(stream, _number(stream, "I"))
    return name, torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _dequantised(name: str, stored: dict[str, Tensor]) -> Tensor:
    """int8 has one scale per output channel, int16 a single one."""
    value, scale = stored[name], stored.get(f"{name}_scale")
    if scale is None:
        return value
    return value.float() / scale.float().reshape(-1, *[1] * (value.dim() - 1))
