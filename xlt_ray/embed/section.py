"""The section of an `embed` artifact in the report: how much speech was encoded, by language and split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageSpeech:
    """The speech of one language; None for values that the artifact does not have.

    Attributes:
        splits: recordings of each split, as text.
    """

    language: str
    num_utterances: int | None
    seconds: float | None
    num_rejected: int | None
    splits: str

    @property
    def mean_seconds(self) -> float | None:
        """Mean length of a recording in seconds."""
        return self.seconds / self.num_utterances if self.seconds is not None and self.num_utterances else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """All of an artifact."""

    languages: tuple[LanguageSpeech, ...]

    @property
    def num_utterances(self) -> int:
        """Over all languages."""
        return sum(row.num_utterances or 0 for row in self.languages)

    @property
    def seconds(self) -> float:
        """Over all languages."""
        return sum(row.seconds or 0.0 for row in self.languages)


def read_speech(metrics: Mapping[str, Any]) -> Speech:
    """The speech of the artifact whose metrics.json this is."""
    return Speech(languages=tuple(_row(code, row) for code, row in metrics.get("languages", {}).items()))


def _row(code: str, row: Mapping[str, Any]) -> LanguageSpeech:
    splits = ", ".join(f"{name} {count}" for name, count in row.get("splits", {}).items())
    counts = {name: row.get(name) for name in ("num_utterances", "seconds", "num_rejected")}
    return LanguageSpeech(language=code, splits=splits, **counts)
