"""Layout of the Pareto plot of one group of runs; a template draws it."""

from __future__ import annotations

import dataclasses

from xlt_ray.charts.plane import PLANE, Axis, Frame, Label, Place, axes, cut, path, place_labels, staircase
from xlt_ray.translate.section import Group, Point, front, sweeps


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point of the plot: where it is, which style its method has, and its label, where one found room."""

    point: Point
    style: int
    x: float
    y: float
    label: Label | None

    @property
    def title(self) -> str:
        """Tooltip of the mark."""
        recipe = self.point.recipe
        figures = f"kept {100 * self.point.kept:.1f}%, gain {self.point.gain:+.2f} BLEU"
        return f"{', '.join(self.point.names)}: {recipe.method} {recipe.dial_text}".rstrip() + f"; {figures}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pareto:
    """The plot of one group, in SVG units. x is kept in percent, y is gain in BLEU.

    Attributes:
        front: corners of the staircase below which everything is dominated.
        sweeps: of each, the corners of the line through its points.
    """

    frame: Frame
    x: Axis
    y: Axis
    marks: list[Mark]
    front: str
    sweeps: list[str]


def pareto(group: Group) -> Pareto:
    """Lay out a group."""
    x, y = _axes(group)
    placed = [(x.place(100 * point.kept), y.place(point.gain)) for point in group.points]
    baseline = (x.place(100), y.place(0))
    texts = [_text(point) for point in group.points]
    where = {point.names: at for point, at in zip(group.points, placed, strict=True)}
    lines = [[where[point.names] for point in sweep] for sweep in sweeps(group.points)]
    stairs = staircase(_best(group, x, y), PLANE)
    bars = [bar for point in group.points for bar in _bars(point, x, y)]
    labels = place_labels(placed, texts, [baseline], [stairs, *lines, *bars])
    marks = [
        Mark(point=point, style=group.methods.index(point.recipe.method), x=at[0], y=at[1], label=label)
        for point, at, label in zip(group.points, placed, labels, strict=True)
    ]
    return Pareto(frame=PLANE, x=x, y=y, marks=marks, front=path(stairs), sweeps=[path(line) for line in lines])


def _axes(group: Group) -> tuple[Axis, Axis]:
    """Axes that show every bar, the baseline, and the goal, whose gain is below that of a point."""
    left = group.goal.kept if group.goal else 1.0
    kept = [100 * value for point in group.points for value in point.kept_range] + [100.0, 100 * left]
    gain = [value for point in group.points for value in point.gain_range] + [0.0]
    return axes(PLANE, kept, gain)


def _best(group: Group, x: Axis, y: Axis) -> list[Place]:
    """Places of the front; the baseline competes."""
    figures = [(1.0, 0.0), *((point.kept, point.gain) for point in group.points)]
    return [
        (x.place(100 * kept), y.place(gain))
        for (kept, gain), is_best in zip(figures, front(figures), strict=True)
        if is_best
    ]


def _bars(point: Point, x: Axis, y: Axis) -> list[list[Place]]:
    """The spread of the seeds, across and up."""
    across, up = [x.place(100 * kept) for kept in point.kept_range], [y.place(gain) for gain in point.gain_range]
    middle = x.place(100 * point.kept), y.place(point.gain)
    return [[(place, middle[1]) for place in across], [(middle[0], place) for place in up]]


def _text(point: Point) -> str:
    """The dial; the name of a run that has none."""
    return cut(point.recipe.dial_text or point.names[0])
