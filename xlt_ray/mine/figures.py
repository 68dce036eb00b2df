"""Evaluates mined pairs: the spread of scores, and F1 if the corpus has sentence_ids. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Figures = dict[str, Any]

MAX_POINTS = 100
"""Maximum number of thresholds in the curve of F1."""

_QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def spread(values: npt.NDArray[Any]) -> dict[str, float] | None:
    """Quantiles of numbers; None if there are no numbers."""
    return {name: float(np.quantile(values, at)) for name, at in _QUANTILES.items()} if len(values) else None


def against_corpus(
    sentences: tuple[Sequence[str], Sequence[str]], margins: npt.NDArray[np.float64], shared: set[str]
) -> Figures | None:
    """Precision, recall and F1 of pairs by the sentence_id of their recordings, for every number of pairs.

    A pair is right if both recordings have the same sentence_id. Precision is the fraction of pairs that are right;
    recall is the fraction of shared sentences with a right pair.

    Args:
        sentences: the sentence_id of the first and of the second recording of each pair, highest margin first.
        margins: of each pair, descending.
        shared: the sentence_ids that both languages have.

    Returns:
        Figures of all pairs; `best`, with the threshold of the highest F1; `curve`, at most MAX_POINTS thresholds.
        None if the languages share no sentence_id.
    """
    if not shared:
        return None
    right = np.array([a == b for a, b in zip(*sentences, strict=True)], dtype=bool)
    is_new = np.zeros(len(right), dtype=bool)
    seen: set[str] = set()
    for place in np.flatnonzero(right).tolist():
        is_new[place] = sentences[0][place] not in seen
        seen.add(sentences[0][place])
    curve = _curve(margins, np.cumsum(right), np.cumsum(is_new), len(shared))
    best = max(curve, key=lambda point: point["f1"], default=None)
    last = curve[-1] if curve else _point(0, 0, 0, len(shared))
    figures = {key: last[key] for key in ("precision", "recall", "f1")}
    return {"num_shared": len(shared), **figures, "best": best, "curve": _thinned(curve)}


def _curve(
    margins: npt.NDArray[np.float64], right: npt.NDArray[Any], sentences: npt.NDArray[Any], num_shared: int
) -> list[Figures]:
    """A point at the last pair of each margin, because a threshold takes all pairs with the same margin or none."""
    ends = np.flatnonzero(np.append(margins[1:] != margins[:-1], True))[: len(margins)].tolist()
    return [
        {"threshold": float(margins[end]), **_point(end + 1, int(right[end]), int(sentences[end]), num_shared)}
        for end in ends
    ]


def _point(num: int, num_right: int, num_found: int, num_shared: int) -> Figures:
    precision, recall = num_right / num if num else 0.0, num_found / num_shared
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return {"num": num, "precision": precision, "recall": recall, "f1": f1}


def _thinned(curve: list[Figures]) -> list[Figures]:
    """At most MAX_POINTS of the points, evenly spaced, including the last."""
    places = np.linspace(0, len(curve) - 1, min(len(curve), MAX_POINTS)).round().astype(int)
    return [curve[place] for place in np.unique(places).tolist()]
