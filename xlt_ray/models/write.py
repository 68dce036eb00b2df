"""Writes new weights with the other files of a base model, as a Hugging Face directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import save_torch_state_dict
from safetensors import safe_open

from xlt_ray.models import tokens as model_tokens
from xlt_ray.models.files import full_name, read_json, small_files, weight_files
from xlt_ray.models.shapes import OUTPUT

if TYPE_CHECKING:
    from torch import Tensor


def read_weights(model_dir: Path) -> dict[str, Tensor]:
    """The weights by their names in `WhisperForConditionalGeneration`, as memory-mapped files."""
    state: dict[str, Tensor] = {}
    for path in weight_files(model_dir):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no dictionary
                state[full_name(name)] = weights.get_tensor(name)
    return state


def write_model(folder: Path, base_dir: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a Hugging Face directory, in shards of at most 5 GB.

    `config.json` asks for float32, which represents every precision exactly, so loading returns the saved values. A
    generation config that is too old to have ids of languages and tasks is completed.

    Args:
        folder: created if needed; existing weights are replaced.
        base_dir: its files of settings and tokenizer are copied, but nothing else: a README or the log of a training
            is about another model, and transformers would apply an adapter that lies beside a model.
        weights: all weights, each in its own precision; with an output layer only if it is not tied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in small_files(base_dir):
        shutil.copyfile(path, folder / path.name)
    config = read_json(base_dir / "config.json")
    config.pop("torch_dtype", None)  # the former name of `dtype`
    _write_json(folder / "config.json", config | {"dtype": "float32", "tie_word_embeddings": OUTPUT not in weights})
    generation = model_tokens.generation(base_dir)
    if generation != read_json(base_dir / "generation_config.json"):
        _write_json(folder / "generation_config.json", generation)
    save_torch_state_dict(dict(weights), folder)
    for path in weight_files(folder):
        shutil.copymode(folder / "config.json", path)  # safetensors lets nobody but the owner read


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
