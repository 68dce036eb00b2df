"""Geometry of the plots that the page draws itself: axes, curves, staircases, and labels that cover nothing.

All of it is in SVG units: x grows to the right, y downwards.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

_LETTER, _LINE, _GAP = 6.2, 13.0, 8.0  # of the labels, at 11 units of font size
_MAX_LABEL = 26

Place = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A drawing of `width` x `height` units, and the area inside its axes."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


PLANE = Frame(width=800, height=450, left=58, right=786, top=14, bottom=404)
"""Layout of the plot of gain against retention."""


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


def axes(frame: Frame, across: Sequence[float], up: Sequence[float]) -> tuple[Axis, Axis]:
    """Axes that show all these values, with a little air."""
    return Axis(*_widened(across), frame.left, frame.right), Axis(*_widened(up), frame.bottom, frame.top)


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 1.0
    return low - air, high + air


def staircase(best: Sequence[Place], frame: Frame) -> list[Place]:
    """Corners from the left edge to the bottom: what lies below and left of one of these places is dominated by it.

    Args:
        best: places that do not dominate one another.
        frame: where they are drawn.
    """
    places = sorted(set(best))
    corners = [(frame.left, places[0][1])]
    for (x0, y0), (_, y1) in itertools.pairwise([*places, (0.0, frame.bottom)]):
        corners += [(x0, y0), (x0, y1)]
    return corners


def curve(points: Sequence[Place], last: float, highest: float, width: float, height: float) -> list[Place]:
    """Places of (step, value): step 0 to `last` over `width`, value `highest` to 0 over `height`."""
    across, up = Axis(0, last, 0, width), Axis(0, highest, height, 0)
    return [(across.place(step), up.place(value)) for step, value in points]


def path(corners: Sequence[Place]) -> str:
    """The places as SVG writes them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def cut(text: str) -> str:
    """The text, short enough for a label."""
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"


def place_labels(
    marks: Sequence[Place],
    texts: Sequence[str],
    others: Sequence[Place] = (),
    lines: Sequence[Sequence[Place]] = (),
    frame: Frame = PLANE,
) -> list[Label | None]:
    """A place for each text beside its mark that covers no mark, no other text, and no edge; None where there is none.

    Of such places the first that no line crosses is taken, or else the first.

    Args:
        marks: positions of the marks that have a text.
        texts: one for each.
        others: positions of marks without.
        lines: corners of the lines.
        frame: whose edges count.
    """
    taken = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y in (*marks, *others)]
    crossed = [(x, y, x, y) for line in lines for ends in itertools.pairwise(line) for x, y in _along(*ends)]
    labels: list[Label | None] = []
    for (x, y), text in zip(marks, texts, strict=True):
        inside = [label for label in _candidates(x, y, text) if _is_inside(extent(label), frame)]
        free = [label for label in inside if _is_free(extent(label), taken)]
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


def _is_inside(box: Box, frame: Frame) -> bool:
    left, top, right, bottom = box
    return left >= frame.left and right <= frame.right and top >= frame.top and bottom <= frame.bottom


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    left, top, right, bottom = box
    return all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in taken)
