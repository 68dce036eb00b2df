"""A Whisper that is whole but tiny: all files, every language, real context of 30 s, random weights."""

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.tokenization_whisper import LANGUAGES

CODES = [code for code in LANGUAGES if code != "yue"]  # as all models before large-v3
NUM_BYTES = 256
END, START = NUM_BYTES, NUM_BYTES + 1
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in CODES)]
SPECIAL += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
TIMESTAMPS = [f"<|{0.02 * step:.2f}|>" for step in range(1501)]
IDS = {token: NUM_BYTES + i for i, token in enumerate(SPECIAL)}


def tiny_whisper(path: Path, **sizes: int) -> Path:
    """Write the model to `path`, the same at every call, and return `path`.

    2 layers and 2 heads a stack, 32 dimensions, 80 mels; a token is a byte, or one of Whisper's special tokens.
    `sizes` are those of WhisperConfig that should be others.
    """
    model = WhisperForConditionalGeneration(_config(**sizes))
    _randomise(model)
    model.generation_config = _generation_config()
    model.save_pretrained(path)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(path)
    _tokenizer().save_pretrained(path)
    return Path(path)


def _config(**sizes: int) -> WhisperConfig:
    twos = {f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    return WhisperConfig(
        **(twos | {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 48} | sizes),
        vocab_size=NUM_BYTES + len(SPECIAL) + len(TIMESTAMPS),
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _randomise(model: torch.nn.Module) -> None:
    """Every parameter, also the norms and biases that are constant in a new model: no two may be mistaken."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "layer_norm.weight" in name else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))


def _generation_config() -> GenerationConfig:
    return GenerationConfig(
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        max_length=448,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": IDS[f"<|{code}|>"] for code in CODES},
        task_to_id={task: IDS[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=IDS["<|notimestamps|>"],
        prev_sot_token_id=IDS["<|startofprev|>"],
        max_initial_timestamp_index=50,
        return_timestamps=False,
        alignment_heads=[[1, 0], [1, 1]],
        suppress_tokens=[1, 2, START, *range(IDS["<|translate|>"], IDS["<|notimestamps|>"])],
        begin_suppress_tokens=[220, END],
    )


def _tokenizer() -> WhisperTokenizer:
    letters = {letter: i for i, letter in enumerate(bytes_to_unicode().values())}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[], pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.add_tokens(TIMESTAMPS)
    return tokenizer
