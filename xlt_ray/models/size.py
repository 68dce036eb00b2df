"""The sizes of a Whisper model that determine its cost: weights, and operations of encoder and decoder.

Operations follow from the shapes of Whisper (arXiv 2212.04356).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from xlt_ray.models import ctranslate2, whisper
from xlt_ray.models.whisper import MAX_FRAMES


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSize:
    """The sizes of a Whisper model that determine its operations, named as in config.json."""

    encoder_layers: int
    decoder_layers: int
    d_model: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    num_mel_bins: int
    vocab_size: int

    @classmethod
    def read(cls, model_dir: Path) -> ModelSize:
        """The sizes of the model in a Hugging Face directory."""
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})

    @property
    def decoder_parameters(self) -> int:
        """Weights of the decoder with its token embeddings, without biases and norms."""
        layer = 8 * self.d_model**2 + 2 * self.d_model * self.decoder_ffn_dim
        return self.decoder_layers * layer + (self.vocab_size + 448) * self.d_model

    @property
    def encoder_parameters(self) -> int:
        """Weights of the encoder, without biases and norms."""
        layer = 4 * self.d_model**2 + 2 * self.d_model * self.encoder_ffn_dim
        front = 3 * self.num_mel_bins * self.d_model + 3 * self.d_model**2 + MAX_FRAMES * self.d_model
        return self.encoder_layers * layer + front

    @property
    def parameters(self) -> int:
        """Weights of the whole model, without biases and norms."""
        return self.decoder_parameters + self.encoder_parameters

    def encoder_flops(self, num_frames: float) -> float:
        """Operations (a multiply-add is two) for one window of encoder frames of 20 ms; a padded window has 1500."""
        dim, layers = self.d_model, self.encoder_layers
        front = 2 * (2 * num_frames) * 3 * self.num_mel_bins * dim + 2 * num_frames * 3 * dim**2
        layer = 8 * num_frames * dim**2 + 4 * num_frames**2 * dim + 4 * num_frames * dim * self.encoder_ffn_dim
        return front + layers * layer

    def decoder_flops(self, num_tokens: float, num_frames: float) -> float:
        """Operations for all tokens of one text at once, over this many frames, including the output layer."""
        dim = self.d_model
        cross = 4 * num_frames * dim**2  # keys and values of cross-attention
        spoken = 12 * num_tokens * dim**2 + 4 * num_tokens**2 * dim + 4 * num_tokens * num_frames * dim
        layer = cross + spoken + 4 * num_tokens * dim * self.decoder_ffn_dim
        return self.decoder_layers * layer + 2 * num_tokens * dim * self.vocab_size


def _published_size(layers: int, d_model: int, num_mel_bins: int = 80, vocab_size: int = 51_865) -> ModelSize:
    return ModelSize(layers, layers, d_model, 4 * d_model, 4 * d_model, num_mel_bins, vocab_size)


MODELS = {
    "openai/whisper-tiny": _published_size(4, 384),
    "openai/whisper-base": _published_size(6, 512),
    "openai/whisper-small": _published_size(12, 768),
    "openai/whisper-medium": _published_size(24, 1024),
    "openai/whisper-large-v2": _published_size(32, 1280),
    "openai/whisper-large-v3": _published_size(32, 1280, 128, 51_866),
    ctranslate2.WHEELS: _published_size(6, 512),
}
"""Published sizes (arXiv 2212.04356, table 1), so that these models need not be on this machine."""


def model_size(spec: str) -> ModelSize:
    """The sizes of the model that `--model` names.

    Raises:
        UserError: if it is neither published nor on this machine.
    """
    return MODELS.get(spec) or ModelSize.read(whisper.resolve_model(spec))
