"""Checks the files of a Hugging Face model before they are used: their format and their content.

Only JSON files and the headers of safetensors files are read, so a model of 6 GB is checked in a moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
from collections.abc import Iterator, Set
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from xlt_ray.errors import UserError
from xlt_ray.store import storage

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
COPY = "copy it again from the model it was made from"

FRONT_ENDS = ("processor_config.json", "preprocessor_config.json")
_JSON = {"config.json", "generation_config.json", *FRONT_ENDS, "tokenizer.json", "tokenizer_config.json", WEIGHTS[1]}
_JSON |= {"special_tokens_map.json", "added_tokens.json", "vocab.json", "normalizer.json"}
_NEEDED = (WEIGHTS, ("config.json",), ("generation_config.json",), FRONT_ENDS[::-1], ("tokenizer.json", "vocab.json"))
_LONGEST_HEADER = 100_000_000  # bytes, the limit of safetensors


class Stored(NamedTuple):
    """A tensor of a file, from its header: shape, type (`F16`) and file."""

    shape: tuple[int, ...]
    dtype: str
    path: Path


def fault(path: Path) -> str:
    """Why a file is not what its name says, with the fix; empty if nothing is wrong."""
    if path.is_symlink() and not path.exists():
        return f"is a link to {os.readlink(path)}, which does not exist; copy the model with `cp -rL` or `rsync -L`"
    try:
        with path.open("rb") as stream:
            head = stream.read(100)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not head.strip():
        return f"is empty; {COPY}"
    if head.startswith(b"version https://git-lfs"):
        return f"is a git-lfs pointer, not the file itself; run `git lfs pull` in {path.parent}"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"is a web page under another name; {COPY}"
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if it is not a JSON object; with the file and the position.
    """
    if problem := fault(path):
        raise UserError(f"{path} {problem}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}); {COPY}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be read; {COPY}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not an object; {COPY}")
    return content


@contextlib.contextmanager
def given_to_transformers(path: Path) -> Iterator[None]:
    """While inside, an error of transformers is treated as an error in the file.

    Raises:
        UserError: with the file and the error of transformers.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers raises any error of its dependencies
        if storage.is_at_fault(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} can't be used ({type(error).__name__}: {reason}); {COPY}") from error


def files(model_dir: Path) -> list[Path]:
    """The files of a Hugging Face directory that are read, weights first."""
    index = model_dir / WEIGHTS[1]
    return [*weight_files(model_dir), *([index] if index.is_file() else []), *small_files(model_dir)]


def small_files(model_dir: Path) -> list[Path]:
    """The files of a Hugging Face directory that are read beside its weights and their index."""
    names = (_JSON | {"merges.txt"}) - {WEIGHTS[1]}
    return [model_dir / name for name in sorted(names) if (model_dir / name).is_file()]


def weight_files(model_dir: Path) -> list[Path]:
    """The safetensors files of a model: a single file, or those named in its index."""
    single, index = (model_dir / name for name in WEIGHTS)
    if single.is_file() or single.is_symlink():
        return [single]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{index} names no files (weight_map); {COPY}")
    if elsewhere := [name for name in shards.values() if PurePosixPath(name).name != name or "\0" in name]:
        raise UserError(f"{index} names {elsewhere[0]!r} (weight_map), which is no file beside it; {COPY}")
    return [model_dir / name for name in sorted(set(shards.values()))]


def tensors(model_dir: Path) -> dict[str, Stored]:
    """Every tensor by its name in `WhisperForConditionalGeneration`, from the headers of all files.

    Raises:
        UserError: if a file is not a complete safetensors file, or two files contain the same tensor.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(model_dir):
        for name, stored in header(path).items():
            name = full_name(name)
            if name in found:
                raise UserError(f"{path} and {found[name].path.name} both hold {name}; {COPY}")
            found[name] = stored
    return found


def full_name(name: str) -> str:
    """The name of a tensor in `WhisperForConditionalGeneration`: `WhisperModel` saves it without `model.`."""
    return re.sub(r"^(?=(?:en|de)coder\.)", "model.", name)


def header(path: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by its name there.

    Raises:
        UserError: if the file has another format, or is cut short.
    """
    if problem := fault(path):
        raise UserError(f"{path} {problem}")
    try:
        with safe_open(path, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - it is no dictionary
            return {name: Stored(tuple(part.get_shape()), part.get_dtype(), path) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} {_unreadable(path) or f'is no safetensors file ({error}); {COPY}'}") from None


def _unreadable(path: Path) -> str:
    """Why safetensors does not read a file: it has another format, or is shorter than its header says."""
    with path.open("rb") as stream:
        head, size = stream.read(8), path.stat().st_size
        if head.startswith((b"PK\3\4", b"\x80")):
            return "is a pickle, which can run any code; load it where you trust it, and save it as safetensors"
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _LONGEST_HEADER + 1
        header = stream.read(length) if length <= _LONGEST_HEADER else b""
    try:
        offsets = [part["data_offsets"][1] for name, part in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max(offsets, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        cut = header.startswith(b"{") and size < 8 + length
        return f"is cut short within its header: {size:,} bytes; {COPY}" if cut else ""
    return f"is cut short: {size:,} of the {whole:,} bytes that its header names; {COPY}" if size < whole else ""


def require_files(model_dir: Path, spec: str) -> None:
    """Check that all files of a Whisper model exist, and that each JSON file can be read.

    Raises:
        UserError: with the file, the problem and the fix.
    """
    present = {path.name for path in model_dir.iterdir()}
    _require_present(present, model_dir, spec)
    for name in sorted(present & _JSON):
        read_json(model_dir / name)


def _require_present(present: Set[str], model_dir: Path, spec: str) -> None:
    for name in sorted(present & (_JSON | {"merges.txt", WEIGHTS[0]})):
        if problem := fault(model_dir / name):
            raise UserError(f"{model_dir / name} {problem}")
    if "config.json" in present and (kind := read_json(model_dir / "config.json").get("model_type")) != "whisper":
        raise UserError(f"{model_dir / 'config.json'} is of type {kind!r}; only whisper can be used")
    if present.isdisjoint(WEIGHTS) and any(name.endswith((".bin", ".pt", ".pth")) for name in present):
        raise UserError(
            f"model {spec!r} has pickled weights only, and a pickle can run any code; where you trust it, write "
            f'another directory: python -c "from transformers import WhisperForConditionalGeneration as W; '
            f"W.from_pretrained({spec!r}).save_pretrained('NEW')\" and copy the other files beside it"
        )
    missing = [" or ".join(names) for names in _NEEDED if present.isdisjoint(names)]
    if "tokenizer.json" not in present and "vocab.json" in present and "merges.txt" not in present:
        missing.append("merges.txt beside vocab.json")
    if missing:
        raise UserError(
            f"model {spec!r} is neither CTranslate2 (model.bin) nor a complete Hugging Face directory: "
            f"no {', no '.join(missing)}; {_elsewhere(model_dir)}"
        )


def _elsewhere(model_dir: Path) -> str:
    """A hint where the model may be: in a folder below or above, or nowhere near."""
    below = sorted(path.parent for depth in ("*", "*/*") for path in model_dir.glob(f"{depth}/config.json"))
    if below and not (model_dir / "config.json").exists():
        return f"config.json is in {below[0]}: give that directory"
    if not (model_dir / "config.json").exists() and (model_dir.parent / "config.json").is_file():
        return f"config.json is in {model_dir.parent}: give that directory"
    return "files other than weights can be copied from the original model"
