"""Gain and retention of fine-tuned decoders, compared with one baseline: the points of a Pareto plot.

    kept = mean over X-en of BLEU after / mean over X-en of BLEU before        (X-en: what Whisper was trained on)
    gain = mean BLEU after - mean BLEU before, over the directions into other languages

Kept is a ratio of means, because a mean of ratios would be dominated by directions whose BLEU was near 0 before.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from xlt_ray.languages import Direction
from xlt_ray.translate.recipe import DIALS, PLAIN, Dial, Recipe

KEPT_GOAL, GAIN_GOAL = 0.8, 0.8
"""The goal region: this fraction of X-en is kept, and this fraction of plain fine-tuning's best gain is reached."""

Rates = dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Retention and gain of one run.

    Attributes:
        kept: retention of X-en, a fraction.
        gain: gain into the new targets, BLEU.
        rates: mean error rate of transcription (before, after), fractions, by measure (`wer`, `cer`).
    """

    kept: float
    gain: float
    rates: Rates


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One translate run that was compared with a baseline.

    Attributes:
        baseline: name and fingerprint of the translate artifact before tuning.
        compared: `kept.directions` of metrics.json: `before` and `after` by direction.
        seed: seed of its fine-tuning; None if unknown.
    """

    name: str
    baseline: Mapping[str, str]
    compared: Mapping[str, Any]
    recipe: Recipe
    seed: int | None

    @property
    def yardstick(self) -> tuple[Any, ...]:
        """Equal for runs that can share a plot: same baseline, directions and number of texts."""
        directions = sorted((name, score["num"]) for name, score in self.compared.items() if score["measure"] == "bleu")
        return self.baseline["name"], self.baseline["fingerprint"], tuple(directions)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Runs that differ only in their seed: their means, and (lowest, highest) of each figure.

    Attributes:
        is_dominated: whether another point, or the baseline, is at least as good in both figures and better in one.
        in_goal: whether the means are in the goal region.
    """

    names: tuple[str, ...]
    num_seeds: int
    recipe: Recipe
    kept: float
    gain: float
    kept_range: tuple[float, float]
    gain_range: tuple[float, float]
    rates: Rates
    is_dominated: bool = False
    in_goal: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """The lower corner of the goal region: `kept` (a fraction), `gain` (BLEU); `plain_gain` is the largest of plain."""

    kept: float
    gain: float
    plain_gain: float

    def holds(self, kept: float, gain: float) -> bool:
        """Whether a point is inside or on the edge."""
        return kept >= self.kept and gain >= self.gain

    def distance(self, kept: float, gain: float) -> float:
        """Distance to the region: sqrt(max(0, goal - kept)^2 + max(0, goal - gain)^2), gains in units of plain's."""
        return math.hypot(max(0.0, self.kept - kept), max(0.0, self.gain - gain) / self.plain_gain)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """All runs that were compared with one baseline on the same directions.

    Attributes:
        native: the X-en directions; `new` has the others.
        points: by method, then by dial.
        goal: None if no plain run gained anything.
    """

    baseline: str
    native: tuple[str, ...]
    new: tuple[str, ...]
    points: tuple[Point, ...]
    goal: Goal | None

    @property
    def methods(self) -> list[str]:
        """Names of the methods in the order of the points."""
        return list(dict.fromkeys(point.recipe.method for point in self.points))

    @property
    def reached(self) -> list[Point]:
        """Points in the goal region."""
        return [point for point in self.points if point.in_goal]

    @property
    def nearest(self) -> Point | None:
        """The point nearest to the goal region; None without such a region."""
        goal = self.goal
        return min(self.points, key=lambda point: goal.distance(point.kept, point.gain)) if goal else None


def read_outcome(compared: Mapping[str, Any]) -> Outcome | None:
    """Figures of `kept.directions`; None if either kind of direction is missing, or X-en had BLEU 0 before."""
    native, new = _split(compared)
    before, after = ([compared[name][when] for name in native] for when in ("before", "after"))
    if not native or not new or not sum(before):
        return None
    gain = fmean(compared[name]["after"] for name in new) - fmean(compared[name]["before"] for name in new)
    return Outcome(kept=fmean(after) / fmean(before), gain=gain, rates=_mean_rates(compared.values()))


def _split(compared: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Directions of translation: those into English, and the others."""
    names = [name for name, score in compared.items() if score["measure"] == "bleu"]
    native = [name for name in names if Direction.parse(name).is_native]
    return native, [name for name in names if name not in native]


def _mean_rates(figures: Iterable[Mapping[str, Any]]) -> Rates:
    rates: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for score in figures:
        if score["measure"] != "bleu" and score["before"] is not None and score["after"] is not None:
            rates[score["measure"]].append((score["before"], score["after"]))
    return {measure: _means(pairs) for measure, pairs in rates.items()}


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(before for before, _ in pairs), fmean(after for _, after in pairs)


def group_runs(runs: Iterable[Run]) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Runs grouped by baseline, and the names of runs that can't be plotted."""
    groups: dict[tuple[Any, ...], list[tuple[Run, Outcome]]] = defaultdict(list)
    left_out = []
    for run in runs:
        if outcome := read_outcome(run.compared):
            groups[run.yardstick].append((run, outcome))
        else:
            left_out.append(run.name)
    return tuple(_group(members) for members in groups.values()), tuple(left_out)


def _group(members: Sequence[tuple[Run, Outcome]]) -> Group:
    points = _points(members)
    goal = goal_of(points)
    # The baseline competes too: a run that only loses is worse than none.
    on_front = front([(1.0, 0.0), *((point.kept, point.gain) for point in points)])[1:]
    judged = [
        dataclasses.replace(
            point, is_dominated=not best, in_goal=goal is not None and goal.holds(point.kept, point.gain)
        )
        for point, best in zip(points, on_front, strict=True)
    ]
    native, new = _split(members[0][0].compared)
    return Group(
        baseline=members[0][0].baseline["name"], native=tuple(native), new=tuple(new), points=tuple(judged), goal=goal
    )


def _points(members: Sequence[tuple[Run, Outcome]]) -> list[Point]:
    seeds: dict[str, list[tuple[Run, Outcome]]] = defaultdict(list)
    for run, outcome in members:
        seeds[run.recipe.key].append((run, outcome))
    return sorted((_point(same) for same in seeds.values()), key=_order)


def _point(same: Sequence[tuple[Run, Outcome]]) -> Point:
    outcomes = [outcome for _, outcome in same]
    kept, gain = [outcome.kept for outcome in outcomes], [outcome.gain for outcome in outcomes]
    # One seed may transcribe, another not.
    measures = dict.fromkeys(measure for outcome in outcomes for measure in outcome.rates)
    return Point(
        names=tuple(run.name for run, _ in same),
        num_seeds=len({run.seed for run, _ in same}),
        recipe=same[0][0].recipe,
        kept=fmean(kept),
        gain=fmean(gain),
        kept_range=(min(kept), max(kept)),
        gain_range=(min(gain), max(gain)),
        rates={
            measure: _means([outcome.rates[measure] for outcome in outcomes if measure in outcome.rates])
            for measure in measures
        },
    )


def _order(point: Point) -> tuple[Any, ...]:
    """The sort order: plain first, then single methods, combinations last; within a method by dial."""
    recipe = point.recipe
    place = [DIALS.index(dial) for dial in recipe.dials]
    return (
        recipe.method != PLAIN,
        len(place),
        place,
        recipe.method,
        [recipe.settings[dial.key] for dial in recipe.dials],
    )


def goal_of(points: Sequence[Point]) -> Goal | None:
    """The region with kept >= KEPT_GOAL and gain >= GAIN_GOAL of the largest gain of plain; None if plain has none."""
    best = max((point.gain for point in points if point.recipe.method == PLAIN), default=0.0)
    return Goal(kept=KEPT_GOAL, gain=GAIN_GOAL * best, plain_gain=best) if best > 0 else None


def front(figures: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of the points (kept, gain) are not dominated by another, in their order."""
    return [not any(dominates(other, one) for other in figures) for one in figures]


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether `one` is at least as good as `other` in both figures and better in one."""
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def sweeps(points: Sequence[Point]) -> list[list[Point]]:
    """Points that differ only in one dial, in the order of the dial, with the end at which it has no effect.

    So interpolation ends at the run whose weights it interpolates, and EWC and replay at the run without them. LoRA has
    no such end.
    """
    by_key = {point.recipe.key: point for point in points}
    found = []
    for dial in DIALS:
        members: dict[str, list[Point]] = defaultdict(list)
        for point in points:
            if dial in point.recipe.dials:
                members[point.recipe.beside(dial)].append(point)
        for on in members.values():
            end = on[0].recipe.without(dial)
            ends = [by_key[end.key]] if end and end.key in by_key else []
            found.append(sorted([*on, *ends], key=lambda point: _value(point, dial)))
    return [sweep for sweep in found if len(sweep) > 1]


def _value(point: Point, dial: Dial) -> float:
    return float(point.recipe.settings[dial.key])
