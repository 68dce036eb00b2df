"""Named starting points for a job. A preset is a function that returns settings; flags change them further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlt_ray.config import EmbedConfig, RetrievalConfig

Settings = dict[str, Any]


def plain() -> Settings:
    """No limits and no layers: what a run on your own --corpus starts from when it names no preset."""
    return {}


def demo() -> Settings:
    """Whisper base on 50 sentences of studio speech in five languages: about 4 minutes on 2 cores."""
    return {"embed": EmbedConfig(num_sentences=50)}


def asterisk() -> Settings:
    """All 190 sentences of the demo's speech: what the README's fine-tuning figures were made with."""
    return {}


def asterisk_100() -> Settings:
    """The reference figures of the README: the first 100 sentences, encoded as the model was trained."""
    return {"embed": EmbedConfig(num_sentences=100)}


def layers() -> Settings:
    """R@1 by encoder layer: the demo, with the input of each of the six blocks of Whisper base scored too."""
    hidden = tuple(range(6))
    return {
        "embed": EmbedConfig(num_sentences=50, layers=hidden),
        "retrieval": RetrievalConfig(layers=hidden),
    }


def fleurs_large_v2() -> Settings:
    """The paper's 20 pairs: FLEURS test, en fr de zh ja, Whisper large-v2."""
    return {
        "corpus": "fleurs",
        "languages": ("en", "fr", "de", "zh", "ja"),
        "model": "openai/whisper-large-v2",
        "embed": EmbedConfig(split="test"),
    }


def mass_large_v2() -> Settings:
    """The paper's third corpus, on the user's own copy: add --corpus mass:PATH."""
    return {
        "corpus": "mass",
        "languages": ("en", "es", "eu", "fi", "fr", "hu", "ro", "ru"),
        "model": "openai/whisper-large-v2",
    }


PRESETS: dict[str, Callable[[], Settings]] = {
    preset.__name__: preset for preset in (demo, plain, asterisk, asterisk_100, layers, fleurs_large_v2, mass_large_v2)
}
