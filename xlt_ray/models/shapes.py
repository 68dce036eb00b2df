"""Checks that config, weights and log-mel of a Hugging Face model belong to the same Whisper model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from xlt_ray.errors import UserError
from xlt_ray.models.files import COPY, FRONT_ENDS, Stored, full_name, read_json, tensors

OUTPUT = "proj_out.weight"
"""The output layer. It may be missing if it is tied to the token embedding, as in every published Whisper."""

EMBEDDING = "model.decoder.embed_tokens.weight"
NUM_FRAMES, NUM_POSITIONS = 1500, 448

_SIZES = ["d_model", "num_mel_bins", "vocab_size"]
_SIZES += [f"{stack}_{size}" for stack in ("encoder", "decoder") for size in ("layers", "attention_heads", "ffn_dim")]
_POSITIONS = {"max_source_positions": NUM_FRAMES, "max_target_positions": NUM_POSITIONS}
_FRONT_END = {"sampling_rate": 16_000, "n_fft": 400, "hop_length": 160, "chunk_length": 30}
_FLOATS = ("F16", "BF16", "F32", "F64")


def require_agreement(model_dir: Path) -> None:
    """Check that every weight that the config implies exists in the right shape, and that the log-mel fits the weights.

    Raises:
        UserError: with the file, its content and the fix.
    """
    config = read_json(model_dir / "config.json")
    _require_sizes(model_dir / "config.json", config)
    _require_shapes(model_dir, config, tensors(model_dir))
    if not require_front_end(model_dir, config["num_mel_bins"]):
        raise UserError(f"{model_dir} describes no log-mel: no {FRONT_ENDS[1]}; {COPY}")


def _require_sizes(path: Path, config: Mapping[str, Any]) -> None:
    if missing := [name for name in _SIZES if name not in config]:
        raise UserError(f"{path} lacks {', '.join(missing)}; {COPY}")
    for name in _SIZES:
        if not isinstance(config[name], int) or config[name] < 1:
            raise UserError(f"{path} says {name} {config[name]!r}, which must be a positive number; {COPY}")
    for name, value in _POSITIONS.items():
        if config.get(name, value) != value:
            raise UserError(f"{path} says {name} {config[name]}; only Whisper's own {value} can be used")
    for name in ("encoder_attention_heads", "decoder_attention_heads"):
        if config["d_model"] % config[name]:
            raise UserError(f"{path} says {name} {config[name]}, which does not divide d_model {config['d_model']}")
    pad = config.get("pad_token_id") or 0
    if not isinstance(pad, int) or pad >= config["vocab_size"]:
        raise UserError(f"{path} says pad_token_id {pad!r}, which is beyond vocab_size {config['vocab_size']}; {COPY}")


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a config implies, by its name in `WhisperForConditionalGeneration`.

    Without transformers: importing its model takes 7 s, and every job would wait for it.
    """
    dim, mels, vocabulary = (config[name] for name in ("d_model", "num_mel_bins", "vocab_size"))
    shapes: dict[str, tuple[int, ...]] = {"model.encoder.conv1.weight": (dim, mels, 3), EMBEDDING: (vocabulary, dim)}
    shapes |= {"model.encoder.conv2.weight": (dim, dim, 3)}
    shapes |= {f"model.encoder.conv{i}.bias": (dim,) for i in (1, 2)}
    for stack, positions in (("encoder", NUM_FRAMES), ("decoder", NUM_POSITIONS)):
        shapes[f"model.{stack}.embed_positions.weight"] = (positions, dim)
        shapes |= dict(_norm(f"model.{stack}.layer_norm", dim))
        for i in range(config[f"{stack}_layers"]):
            shapes |= dict(_layer(f"model.{stack}.layers.{i}", stack, dim, config[f"{stack}_ffn_dim"]))
    if not is_tied(config):
        shapes[OUTPUT] = (vocabulary, dim)
    return shapes


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output layer is tied to the token embedding."""
    return bool(config.get("tie_word_embeddings", True))


def _layer(scope: str, stack: str, dim: int, ffn_dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for attention in ("self_attn", "encoder_attn")[: 1 + (stack == "decoder")]:
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{scope}.{attention}.{part}.weight", (dim, dim)
            if part != "k_proj":
                yield f"{scope}.{attention}.{part}.bias", (dim,)
        yield from _norm(f"{scope}.{attention}_layer_norm", dim)
    for name, rows, columns in (("fc1", ffn_dim, dim), ("fc2", dim, ffn_dim)):
        yield f"{scope}.{name}.weight", (rows, columns)
        yield f"{scope}.{name}.bias", (rows,)
    yield from _norm(f"{scope}.final_layer_norm", dim)


def _norm(scope: str, dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{scope}.{name}", (dim,)) for name in ("weight", "bias"))


def _require_shapes(model_dir: Path, config: Mapping[str, Any], stored: Mapping[str, Stored]) -> None:
    for layers in ("encoder_layers", "decoder_layers"):
        if config[layers] > len(stored):  # a number that is far too large would take all memory
            raise UserError(
                f"{model_dir / 'config.json'} says {layers} {config[layers]}, and the weights are "
                f"{len(stored)} tensors; one of the two is of another model"
            )
    expected = expected_shapes(config)
    for name, (shape, dtype, path) in stored.items():
        if dtype not in _FLOATS:
            raise UserError(f"{path} holds {name} as {dtype}; only weights in {', '.join(_FLOATS)} can be read")
        if name in expected and shape != expected[name]:
            raise UserError(
                f"{path} holds {name} as {shape} and {model_dir / 'config.json'} asks for {expected[name]}; "
                "one of the two is of another model"
            )
    if missing := [name for name in expected if name not in stored]:
        tied = "; where it is the token embedding, say tie_word_embeddings true" if missing == [OUTPUT] else ""
        raise UserError(f"the weights in {model_dir} lack {_some(missing)}, which config.json asks for{tied}")
    if unknown := sorted(stored.keys() - expected.keys() - {OUTPUT}):
        raise UserError(f"the weights in {model_dir} hold {_some(unknown)}, which config.json has no place for")
    if OUTPUT in stored.keys() - expected.keys() and not _is_same(stored[OUTPUT], stored[EMBEDDING]):
        raise UserError(
            f"{stored[OUTPUT].path} holds a {OUTPUT} that is not the token embedding, and config.json says "
            "tie_word_embeddings true; say false there if the model was trained so"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_same(output: Stored, embedding: Stored) -> bool:
    if output[:2] != embedding[:2]:
        return False
    with safe_open(output.path, framework="pt") as one, safe_open(embedding.path, framework="pt") as other:
        names = {full_name(name): name for name in other.keys()}  # noqa: SIM118 - it is no dictionary
        return bool((one.get_tensor(OUTPUT) == other.get_tensor(names[EMBEDDING])).all())


def require_front_end(model_dir: Path, num_mel_bins: int) -> bool:
    """Check that the log-mel that a directory describes fits the weights, and has Whisper's own windows.

    Returns:
        Whether the directory describes a log-mel.

    Raises:
        UserError: with both numbers.
    """
    found = dict(_front_ends(model_dir))
    for path, settings in found.items():
        if (mels := settings.get("feature_size", 80)) != num_mel_bins:
            raise UserError(f"{path} makes {mels} mels and the weights take {num_mel_bins}; {COPY}")
        for name, value in _FRONT_END.items():
            if settings.get(name, value) != value:
                raise UserError(f"{path} says {name} {settings[name]}; only Whisper's own {value} can be used")
    return bool(found)


def _front_ends(model_dir: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in (model_dir / name for name in FRONT_ENDS):
        if path.is_file():
            content = read_json(path)
            if path.name == "preprocessor_config.json":
                yield path, content
            elif isinstance(nested := content.get("feature_extractor"), dict) and nested:
                yield path, nested
