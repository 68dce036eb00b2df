"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), for one objective or two.

Rungs are at the 1st, eta-th, eta^2-th ... evaluation of a trial. With two objectives, trials are compared by the number
of fronts before theirs, as in Schmucker et al. 2021 (arXiv 2106.12639). Ray's own scheduler has only one objective, and
can't load the results of an earlier run of the search. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Point = tuple[float, ...]
"""The objectives of a trial; higher is better."""


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good in every objective, and better in one."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def depths(points: Sequence[Point]) -> list[int]:
    """The index of the non-dominated front of each point: 0 if no point dominates it, 1 after removing these, etc."""
    depth = [-1] * len(points)
    left, front = set(range(len(points))), 0
    while left:
        best = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for i in best:
            depth[i] = front
        left -= best
        front += 1
    return depth


class Halving:
    """Decides after each evaluation whether a trial continues.

    Args:
        grace: number of evaluations at the first rung.
        reduction: eta; 1: no early stopping.
    """

    def __init__(self, grace: int, reduction: int) -> None:
        self._grace, self._reduction = grace, reduction
        self._rungs: dict[int, dict[int, Point]] = {}

    def record(self, trial: int, curve: Sequence[Point]) -> None:
        """Record earlier evaluations of a trial. Recording them again changes nothing.

        Args:
            trial: its number.
            curve: its point after each evaluation.
        """
        for count, point in enumerate(curve, 1):
            if self._is_rung(count):
                self._rungs.setdefault(count, {})[trial] = point

    def goes_on(self, trial: int, count: int, point: Point) -> bool:
        """Whether the trial continues.

        It continues if fewer than 1/eta, rounded up, of all trials that have reached this rung have a smaller depth. So
        the first trial at a rung continues. Decisions are never revised.

        Args:
            trial: its number.
            count: number of its evaluations.
            point: its objectives now.
        """
        if not self._is_rung(count) or trial in self._rungs.get(count, {}):
            return True
        rung = self._rungs.setdefault(count, {})
        rung[trial] = point
        depth = dict(zip(rung, depths(list(rung.values())), strict=True))
        num_better = sum(reached < depth[trial] for reached in depth.values())
        return num_better < -(-len(rung) // self._reduction)

    def _is_rung(self, count: int) -> bool:
        rung = self._grace
        while rung < count and self._reduction > 1:
            rung *= self._reduction
        return self._reduction > 1 and rung == count


def front(points: Mapping[int, Point]) -> list[int]:
    """The keys of the points that no other point dominates."""
    return [key for key, point in points.items() if not any(dominates(other, point) for other in points.values())]
