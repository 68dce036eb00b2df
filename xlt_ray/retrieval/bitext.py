"""Two languages to score: recordings, positions of their frames, relevance. No Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from xlt_ray.retrieval import baselines, relevance, units
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.retrieval.relevance import Relevance
from xlt_ray.retrieval.units import Stored

COLUMNS = ("utterance_id", "sentence_id", "language", "audio", "text", "unit", "row", "num_valid")
"""The columns of INDEX that are needed."""


@dataclasses.dataclass(frozen=True)
class Sides:
    """Recordings of two languages, which need not be translations.

    Attributes:
        uri: URI of the embed artifact.
        pair: codes of the languages.
        recordings: rows of INDEX of each.
    """

    uri: str
    pair: tuple[str, str]
    recordings: tuple[pa.Table, pa.Table]

    @property
    def sizes(self) -> tuple[int, int]:
        """Recordings of each language."""
        return self.recordings[0].num_rows, self.recordings[1].num_rows

    @property
    def directions(self) -> tuple[str, str]:
        """`en-fr` and `fr-en`: the language of the queries comes first."""
        return "-".join(self.pair), "-".join(reversed(self.pair))

    def read(self, side: int, layer: int | None, places: range | npt.NDArray[Any]) -> Stored:
        """Frames of recordings of the first (0) or of the second language (1)."""
        return units.read_strip(self.uri, self.recordings[side].take(pa.array(places)), layer)


@dataclasses.dataclass(frozen=True)
class Bitext(Sides):
    """Recordings of two languages, some of which are translations.

    Attributes:
        relevance: by protocol, for queries of the first and of the second language.
        seed: seed of the random baseline.
    """

    relevance: tuple[tuple[Relevance, ...], tuple[Relevance, ...]]
    seed: int

    @classmethod
    def make(
        cls, uri: str, recordings: Mapping[str, pa.Table], pair: tuple[str, str], config: RetrievalConfig
    ) -> Bitext:
        """The bitext of a pair of languages."""
        first, second = (recordings[code] for code in pair)
        both = relevance.both_ways(first, second, config.seed)
        return cls(uri, pair, (first, second), both, config.seed)

    def drawn(self, side: int, queries: range, candidates: range) -> npt.NDArray[Any]:
        """The random baseline for the queries of the language `side`: (queries, candidates)."""
        pair = self.pair if side == 0 else (self.pair[1], self.pair[0])
        return baselines.random(queries, candidates, self.sizes[1 - side], self.seed, pair)
