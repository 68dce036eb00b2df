"""Spearman's rank correlation from its definition, apart from scipy."""

from collections.abc import Sequence

import numpy as np


def mean_ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, equal values sharing the mean of theirs."""
    ordered = sorted(values)
    return [np.mean([place for place, other in enumerate(ordered) if other == value]) for value in values]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks."""
    return float(np.corrcoef(mean_ranks(first), mean_ranks(second))[0, 1])
