"""Prompts and texts as tokens of Whisper.

Every task is a direction `source-target` and a prompt of four tokens. The prompt selects the output.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xlt_ray.errors import UserError
from xlt_ray.languages import Direction, is_spaced
from xlt_ray.models import tokens as model_tokens
from xlt_ray.models import whisper
from xlt_ray.models.files import given_to_transformers

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

Scheme = Literal["src_translate", "tgt_transcribe", "tgt_translate"]

MAX_POSITIONS = 448
"""Tokens that the decoder can hold, prompt included."""

LANGUAGE = 1
"""Position of the language in a prompt."""


class Prompter:
    """Encodes prompts and targets as tokens of a model.

    Args:
        model_dir: Hugging Face directory.

    Raises:
        UserError: if the model is English-only (`whisper-base.en`).
    """

    def __init__(self, model_dir: str | os.PathLike[str]) -> None:
        settings = model_tokens.generation(Path(model_dir))
        if not settings["is_multilingual"]:
            raise UserError(f"model {model_dir} is English-only; choose a multilingual --model")
        self._languages: dict[str, int] = settings["lang_to_id"]
        self._tasks: dict[str, int] = settings["task_to_id"]
        self._start: int = settings["decoder_start_token_id"]
        self._no_timestamps: int = settings["no_timestamps_token_id"]
        self.end: int = settings["eos_token_id"]
        from transformers.models.whisper.tokenization_whisper import WhisperTokenizer

        with given_to_transformers(Path(model_dir) / "tokenizer_config.json"):
            self._tokenizer: PreTrainedTokenizerFast = WhisperTokenizer.from_pretrained(model_dir)

    def prompt(self, direction: Direction, scheme: Scheme, spoken: str | None = None) -> list[int]:
        """The four prompt tokens of a direction: start, language, task, no timestamps.

        Whisper's own tasks use the prompt of its training, `<src><translate>` into English and `<src><transcribe>`.
        `scheme` is for other directions: `src_translate`, `tgt_transcribe` or `tgt_translate`.

        Args:
            direction: source and target language.
            scheme: prompt for directions that Whisper was not trained on.
            spoken: language to use as `<src>` in Whisper's own tasks; None: the source itself.

        Raises:
            UserError: if the language of the prompt has no token.
        """
        language, task = scheme.split("_")
        source = direction.source
        if direction.is_native:
            language, task = "src", "transcribe" if direction.source == direction.target else "translate"
            source = spoken or source
        code = source if language == "src" else direction.target
        token = self.language_id(code)
        if token is None:
            known = " ".join(self.languages)
            raise UserError(f"direction {direction}: the model has no token for language {code!r}; it knows {known}")
        return [self._start, token, self._tasks[task], self._no_timestamps]

    @property
    def languages(self) -> list[str]:
        """Codes of the languages with a token, sorted."""
        return sorted(name.strip("<|>") for name in self._languages)

    def language_id(self, code: str) -> int | None:
        """The token of a language, or None if it has none."""
        token = whisper.language_token(code, self._languages)
        return None if token is None else self._languages[token]

    def language(self, token: int) -> str:
        """The language code of a token."""
        (name,) = (name for name, id_ in self._languages.items() if id_ == token)
        return name.strip("<|>")

    def target(self, text: str, language: str) -> list[int]:
        """Tokens of a text in a language, including the end token."""
        # As in the model's own output, text begins with a space in the languages that have any.
        words = f" {text.strip()}" if is_spaced(language) else text.strip()
        return [*self._tokenizer.encode(words, add_special_tokens=False), self.end]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, without special tokens, stripped; in NFC, as the texts of every corpus."""
        return unicodedata.normalize("NFC", str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip())
