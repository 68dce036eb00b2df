"""Where everything stands in the Pareto plot: an SVG of WIDTH x HEIGHT units, laid out here and drawn by a template."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from xlt_ray.report.keeping import Group, Point, front, sweeps

WIDTH, HEIGHT = 800, 450
LEFT, RIGHT, TOP, BOTTOM = 58, 786, 14, 404
"""The area inside the axes."""

_LETTER, _LINE, _GAP = 6.2, 13.0, 8.0  # of the labels, at 11 units of font size
_MAX_LABEL = 26

Place = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis: values from `low` to `high` lie between the positions `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Five to ten round values: the step is 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 10
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 10) for k in range(first, last + 1)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A text beside a mark; `anchor` as in SVG, (x, y) on its base line."""

    text: str
    x: float
    y: float
    anchor: str


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
        """What a pointer over the mark says."""
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
    stairs = _staircase(group, x, y)
    bars = [bar for point in group.points for bar in _bars(point, x, y)]
    labels = place_labels(placed, texts, [baseline], [stairs, *lines, *bars])
    marks = [
        Mark(point=point, style=group.methods.index(point.recipe.method), x=at[0], y=at[1], label=label)
        for point, at, label in zip(group.points, placed, labels, strict=True)
    ]
    return Pareto(x=x, y=y, marks=marks, front=_path(stairs), sweeps=[_path(line) for line in lines])


def _axes(group: Group) -> tuple[Axis, Axis]:
    """Axes that show every bar, the baseline, and the goal, whose gain is below that of a point; with a little air."""
    left = group.goal.kept if group.goal else 1.0
    kept = [100 * value for point in group.points for value in point.kept_range] + [100.0, 100 * left]
    gain = [value for point in group.points for value in point.gain_range] + [0.0]
    return Axis(*_widened(kept), LEFT, RIGHT), Axis(*_widened(gain), BOTTOM, TOP)


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 1.0
    return low - air, high + air


def _staircase(group: Group, x: Axis, y: Axis) -> list[Place]:
    """Corners from the left edge to the bottom: what lies below and left of a point of the front is dominated by it."""
    figures = [(1.0, 0.0), *((point.kept, point.gain) for point in group.points)]
    best = sorted({one for one, is_best in zip(figures, front(figures), strict=True) if is_best})
    places = [(x.place(100 * kept), y.place(gain)) for kept, gain in best]
    corners = [(float(LEFT), places[0][1])]
    for (x0, y0), (_, y1) in itertools.pairwise([*places, (0.0, float(BOTTOM))]):
        corners += [(x0, y0), (x0, y1)]
    return corners


def _bars(point: Point, x: Axis, y: Axis) -> list[list[Place]]:
    """The spread of the seeds, across and up."""
    across, up = [x.place(100 * kept) for kept in point.kept_range], [y.place(gain) for gain in point.gain_range]
    middle = x.place(100 * point.kept), y.place(point.gain)
    return [[(place, middle[1]) for place in across], [(middle[0], place) for place in up]]


def _path(corners: Sequence[Place]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _text(point: Point) -> str:
    """The dial; the name of a run that has none."""
    text = point.recipe.dial_text or point.names[0]
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"


def place_labels(
    marks: Sequence[Place], texts: Sequence[str], others: Sequence[Place] = (), lines: Sequence[Sequence[Place]] = ()
) -> list[Label | None]:
    """A place for each text beside its mark that covers no mark, no other text, and no edge; None where there is none.

    Of such places the first that no line crosses is taken, or else the first.

    Args:
        marks: positions of the marks that have a text.
        texts: one for each.
        others: positions of marks without.
        lines: corners of the lines.
    """
    taken = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y in (*marks, *others)]
    crossed = [(x, y, x, y) for line in lines for ends in itertools.pairwise(line) for x, y in _along(*ends)]
    labels: list[Label | None] = []
    for (x, y), text in zip(marks, texts, strict=True):
        free = [label for label in _candidates(x, y, text) if _is_free(extent(label), taken)]
        chosen = next((label for label in free if _is_free(extent(label), crossed)), free[0] if free else None)
        labels.append(chosen)
        taken += [extent(chosen)] if chosen else []
    return labels


def _along(start: Place, end: Place) -> Iterator[Place]:
    """Places on a line, two units apart at most."""
    num_parts = math.ceil(math.dist(start, end) / 2) or 1
    for k in range(num_parts + 1):
        yield start[0] + k / num_parts * (end[0] - start[0]), start[1] + k / num_parts * (end[1] - start[1])


def _candidates(x: float, y: float, text: str) -> Iterator[Label]:
    """Right, left, above, below, then the four corners."""
    middle, above, below = y + 4, y - _GAP, y + _GAP + 8
    yield Label(text=text, x=x + _GAP, y=middle, anchor="start")
    yield Label(text=text, x=x - _GAP, y=middle, anchor="end")
    yield from (Label(text=text, x=x, y=line, anchor="middle") for line in (above, below))
    for line in (above, below):
        yield Label(text=text, x=x + 4, y=line, anchor="start")
        yield Label(text=text, x=x - 4, y=line, anchor="end")


def extent(label: Label) -> Box:
    """(left, top, right, bottom) of a label."""
    width = _LETTER * len(label.text)
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return left, label.y - _LINE + 3, left + width, label.y + 3


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    left, top, right, bottom = box
    inside = left >= LEFT and right <= RIGHT and top >= TOP and bottom <= BOTTOM
    return inside and all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in taken)
