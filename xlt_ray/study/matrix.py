"""The transfer matrix: gains by language trained on and tested on, their intervals and predictors. Pure.

All intervals come from one bootstrap over sentences. A draw takes the same sentences in every cell, because the cells
share sentences and their errors are correlated.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from xlt_ray.metrics import bleu_of, rank_correlation

Cell = tuple[str, str]
"""Language trained on, language tested on."""

_DRAWS = 1000
_ALL_PERMUTATIONS = 7  # 5040; with more languages so many are drawn
_Gains = Mapping[Cell, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Texts:
    """The BLEU statistics of one cell.

    Attributes:
        sentences: (num,) sentence_id of each text.
        after: (num, 10) counts of the tuned model, from `metrics.sentence_counts`.
        before: (num, 10) counts of the untouched model.
    """

    sentences: Sequence[str]
    after: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]


def gains(cells: Mapping[Cell, Texts]) -> dict[Cell, float]:
    """BLEU after minus BLEU before, by cell."""
    return {pair: bleu_of(texts.after.sum(axis=0)) - bleu_of(texts.before.sum(axis=0)) for pair, texts in cells.items()}


def resampled(cells: Mapping[Cell, Texts], seed: int, num_draws: int = _DRAWS) -> list[dict[Cell, float]]:
    """The gains of every draw of sentences with replacement."""
    known = sorted({sentence for texts in cells.values() for sentence in texts.sentences})
    number = {sentence: i for i, sentence in enumerate(known)}
    places = {pair: [number[sentence] for sentence in texts.sentences] for pair, texts in cells.items()}
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(num_draws):
        times = rng.multinomial(len(known), np.full(len(known), 1 / len(known)))
        # If no text of a cell was drawn, its gain is 0.
        draws.append({pair: _gain(texts, times[places[pair]]) for pair, texts in cells.items()})
    return draws


def _gain(texts: Texts, weights: npt.NDArray[np.int64]) -> float:
    return bleu_of(weights @ texts.after) - bleu_of(weights @ texts.before)


def ranking(found: _Gains, draws: Sequence[_Gains]) -> list[dict[str, Any]]:
    """The sources by their mean gain over the languages not trained on, best first.

    `behind_ci95` is the interval of how much less a source gains than the best one, on the same draws of sentences;
    None for the best.
    """
    rows: list[dict[str, Any]] = []
    drawn: dict[str, list[float]] = {}
    for source in dict.fromkeys(trained for trained, _ in found):
        others = [pair for pair in found if pair[0] == source and pair[1] != source]
        drawn[source] = means = [fmean(draw[pair] for pair in others) for draw in draws]
        rows.append(
            {
                "source": source,
                "mean_gain": fmean(found[pair] for pair in others),
                "mean_gain_ci95": _interval(means),
                "own_gain": found.get((source, source)),
            }
        )
    rows.sort(key=lambda row: row["mean_gain"], reverse=True)
    best = drawn[rows[0]["source"]]
    for rank, row in enumerate(rows):
        behind = np.subtract(best, drawn[row["source"]]).tolist()
        row["behind_ci95"] = _interval(behind) if rank else None
    return rows


def correlation(
    predictor: Mapping[Cell, float], found: _Gains, draws: Sequence[_Gains], seed: int
) -> dict[str, float | int | list[float] | None]:
    """Rank correlation of a predictor with the gains, over the cells off the diagonal.

    Cells share languages, so they are not independent. p is the fraction of permutations of the language labels, the
    same for rows and columns, for which the correlation is at least as strong (a Mantel test; all permutations for up
    to 7 languages, otherwise as many as for 7, drawn with the seed). The interval covers only the choice of sentences,
    not the choice of languages.

    Args:
        predictor: a value for each cell off the diagonal.
        found: gains by cell.
        draws: gains by cell, for each draw of the bootstrap.
        seed: for the permutations.

    Returns:
        `spearman`, its `ci95`, `p_permutation` (two-sided), `num_cells`, `num_permutations`; null if one side is
        constant, or the predictor is unknown.
    """
    cells = [pair for pair in found if pair[0] != pair[1]]
    unknown = dict.fromkeys(("spearman", "ci95", "p_permutation"))
    nothing: dict[str, Any] = {**unknown, "num_cells": len(cells), "num_permutations": 0}
    if not predictor:
        return nothing

    def rank(gains: _Gains, names: Mapping[str, str]) -> float | None:
        values = [predictor[names[trained], names[tested]] for trained, tested in cells]
        return rank_correlation(values, [gains[pair] for pair in cells])

    languages = sorted({language for pair in cells for language in pair})
    same = {language: language for language in languages}
    rho = rank(found, same)
    if rho is None:
        return nothing
    others = [rank(found, dict(zip(languages, names, strict=True))) for names in _permutations(languages, seed)]
    # A tie up to rounding is a tie.
    num_as_good = sum(abs(other or 0.0) >= abs(rho) - 1e-9 for other in others)
    known = [drawn for draw in draws if (drawn := rank(draw, same)) is not None]
    return {
        "spearman": rho,
        "ci95": _interval(known),
        "p_permutation": num_as_good / len(others),
        "num_cells": len(cells),
        "num_permutations": len(others),
    }


def _permutations(languages: Sequence[str], seed: int) -> Iterator[Sequence[str]]:
    if len(languages) <= _ALL_PERMUTATIONS:
        yield from itertools.permutations(languages)
        return
    rng = np.random.default_rng(seed)
    yield languages  # what was found counts, so that no p is 0
    for _ in range(math.factorial(_ALL_PERMUTATIONS) - 1):
        yield [str(language) for language in rng.permutation(languages)]


def _interval(values: Sequence[float]) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]
