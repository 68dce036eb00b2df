"""Computes the margins of candidate pairs (Artetxe and Schwenk, 2019), and selects pairs. Pure numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xlt_ray.mine.config import MineConfig
from xlt_ray.retrieval import top
from xlt_ray.retrieval.candidates import Keys

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FOUND_BY = ("", "forward", "backward", "both")


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """The union of the nearest neighbours of both sides, sorted by position.

    Attributes:
        first: position of the recording of the first language of each pair.
        second: position of the recording of the second language.
        score: exact score, fp32.
        expected: mean, over both recordings, of the mean score of the nearest neighbours.
        found_by: index into FOUND_BY.
    """

    first: Indices
    second: Indices
    score: npt.NDArray[np.float32]
    expected: Numbers
    found_by: Indices

    @classmethod
    def make(cls, forward: Keys, backward: Keys) -> Pairs:
        """From the keys of the nearest neighbours of each recording: (num_first, k) and (num_second, k).

        Scores that are NaN are ignored.
        """
        found = [_found(forward), _found(backward)]
        means = [_means(keys) for keys in (forward, backward)]
        (first, second, there), (other, own, back) = found
        num = max(len(backward), 1)
        places = np.concatenate([first * num + second, own * num + other])
        ways = np.repeat([1, 2], [len(first), len(own)])
        unique, at, inverse = np.unique(places, return_index=True, return_inverse=True)
        found_by = np.bincount(inverse, ways, len(unique)).astype(np.int64)
        rows, columns = unique // num, unique % num
        return cls(rows, columns, np.concatenate([there, back])[at], _expected(means, rows, columns), found_by)

    def margins(self, kind: str) -> Numbers:
        """The margin of each pair; NaN for a ratio over a mean that is not above 0."""
        if kind == "absolute":
            return self.score.astype(np.float64)
        if kind == "distance":
            return self.score - self.expected
        over = np.where(self.expected > 0, self.expected, np.nan)
        ratio: Numbers = self.score / over
        return ratio


def _found(keys: Keys) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
    """Query, candidate and score of each neighbour."""
    places, scores = top.read(keys)
    query, number = np.nonzero((places >= 0) & ~np.isnan(scores))
    return query, places[query, number], scores[query, number]


def _means(keys: Keys) -> Numbers:
    """Mean score of the nearest neighbours of each query, however many there are; NaN if there are none."""
    query, _, scores = _found(keys)
    sums, counts = np.bincount(query, scores, len(keys)), np.bincount(query, minlength=len(keys))
    means: Numbers = np.divide(sums, counts, out=np.full(len(keys), np.nan), where=counts > 0)
    return means


def _expected(means: list[Numbers], rows: Indices, columns: Indices) -> Numbers:
    """Mean neighbour score of each pair. A pair found from one side has scores on both, so neither mean is missing."""
    return (means[0][rows] + means[1][columns]) / 2


def chosen(first: Indices, second: Indices, margins: Numbers, config: MineConfig) -> Indices:
    """The positions of the selected pairs, highest margin first; pairs with equal margins keep their order.

    Args:
        first: position of the recording of the first language of each pair.
        second: position of the recording of the second language.
        margins: of each pair; NaN is never selected.
        config: threshold, one-to-one selection, and maximum number.
    """
    least = -np.inf if config.threshold is None else config.threshold
    order = np.argsort(-margins, kind="stable")
    order = order[margins[order] >= least]
    if config.one_to_one:
        order = order[_greedy(first[order], second[order])]
    return order[: config.top_n]


def _greedy(first: Indices, second: Indices) -> npt.NDArray[np.bool_]:
    """Which pairs, in this order, have no recording of an earlier selected pair."""
    taken: tuple[set[int], set[int]] = set(), set()
    kept = np.zeros(len(first), dtype=bool)
    for place, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        if a not in taken[0] and b not in taken[1]:
            kept[place] = True
            taken[0].add(a)
            taken[1].add(b)
    return kept


def columns(pairs: Pairs) -> dict[str, pa.Array]:
    """The columns of PAIR without names."""
    return {
        "score": pa.array(pairs.score),
        "ratio": pa.array(pairs.margins("ratio"), from_pandas=True),
        "distance": pa.array(pairs.margins("distance")),
        "found_by": pa.array([FOUND_BY[way] for way in pairs.found_by], pa.string()),
    }
