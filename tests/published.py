"""Tiny models with the vocabularies of the published ones: where every special token has its real id."""

import json
from pathlib import Path

import torch
from tiny import SPECIAL, TIMESTAMPS
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

SIZES = {"en": 51_864, "v2": 51_865, "v3": 51_866}
ENDS = {"en": 50_256, "v2": 50_257, "v3": 50_257}


def published_whisper(path: Path, kind: str, **changed: object) -> Path:
    """Write a model with random weights and the tokens of an English-only model, of large-v2 or of large-v3.

    Args:
        path: the new directory.
        kind: `en`, `v2` or `v3`.
        changed: settings of the config, such as `decoder_layers`.
    """
    torch.manual_seed(0)
    ids = special_ids(kind)
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    named = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    sizes = {f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 24, "vocab_size": SIZES[kind]}
    sizes |= {"num_mel_bins": 128 if kind == "v3" else 80, "begin_suppress_tokens": None}
    config = WhisperConfig(**{**sizes, **named, **changed})
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**named, max_length=448, **_generation(kind, ids))
    model.save_pretrained(path)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(path)
    tokenizer(kind).save(str(path / "tokenizer.json"))
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer", **special}))
    return path


def special_ids(kind: str) -> dict[str, int]:
    """The ids that openai's tokenizer gives: one token after the other, from the end token on."""
    tokens = list(SPECIAL)
    if kind == "v3":
        tokens.insert(tokens.index("<|translate|>"), "<|yue|>")
    return {token: ENDS[kind] + i for i, token in enumerate(tokens)}


def tokenizer(kind: str, *, timestamps: bool = True) -> Tokenizer:
    """Bytes, fillers up to the end token, and the special tokens; older ones leave out the timestamps."""
    letters = list(bytes_to_unicode().values())
    words = letters + [f"¤{i}" for i in range(ENDS[kind] - len(letters))]
    made = Tokenizer(BPE({word: i for i, word in enumerate(words)}, []))
    made.add_special_tokens([AddedToken(token, special=True) for token in special_ids(kind)])
    if timestamps:
        made.add_tokens([AddedToken(token, normalized=False) for token in TIMESTAMPS])
    return made


def _generation(kind: str, ids: dict[str, int]) -> dict[str, object]:
    common = {"no_timestamps_token_id": ids["<|notimestamps|>"], "is_multilingual": kind != "en"}
    if kind == "en":
        return common
    languages = list(ids)[2 : list(ids).index("<|translate|>")]
    tasks = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return common | {"lang_to_id": {token: ids[token] for token in languages}, "task_to_id": tasks}
