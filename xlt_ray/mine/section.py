"""The section of a `mine` artifact in the report: the mined pairs of each two languages, and their quality if known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlt_ray.mine.keys import candidates_hold


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The results of two languages.

    Attributes:
        held: fraction of the nearest recordings by exact scores that are candidates; or `all`, or `not measured`.
        known: precision, recall and F1 by sentence_id; None if the languages share none.
    """

    name: str
    num_first: int
    num_second: int
    num_mined: int
    margin: Mapping[str, float] | None
    held: float | str
    known: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mining:
    """One mining run."""

    figures: Mapping[str, Any]
    pairs: tuple[Pair, ...]

    @property
    def num_mined(self) -> int:
        """Over all pairs of languages."""
        return sum(pair.num_mined for pair in self.pairs)


def read_mining(metrics: Mapping[str, Any]) -> Mining:
    """The run whose metrics.json this is."""
    return Mining(figures=metrics, pairs=tuple(_pair(metrics, name) for name in metrics["pairs"]))


def _pair(metrics: Mapping[str, Any], name: str) -> Pair:
    figures = metrics["pairs"][name]
    counts = {key: figures[key] for key in ("num_first", "num_second", "num_mined", "margin")}
    return Pair(name=name, held=candidates_hold(metrics, figures), known=figures["against_corpus"], **counts)
