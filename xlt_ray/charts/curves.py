"""Small plots of figures by step. Plots side by side share one scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.plane import Place
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"new": "ours", "old": "base", "other": "muted"}
"""Colours of lines by kind: directions learned, directions to preserve, others."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line through (step, value).

    Attributes:
        level: score of the untouched model, drawn over all steps; None if it is not known.
        has_marks: whether to mark each point, because there are few.
    """

    kind: str
    points: Sequence[Place]
    title: str = ""
    level: float | None = None
    has_marks: bool = True


def curves(lines: Sequence[Curve], num_steps: int, highest: float, best_step: int | None = None) -> Figure:
    """Draw the lines from step 0 to `num_steps` and from 0 to `highest`, with a vertical line at the best step."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox, BboxTransform

    figure = Figure(figsize=(244 / 72, 92 / 72), dpi=72)  # axes would take ten times as long, and there may be hundreds
    figure.patch.set_visible(False)
    scale = BboxTransform(Bbox.from_extents(0, 0, num_steps, highest), Bbox.from_extents(2, 18, 242, 88))

    def draw(points: Sequence[Place], colour: str, kind: str, title: str = "", **look: Any) -> None:
        line = Line2D(*zip(*points, strict=True), color=LIGHT[colour], transform=scale, **look)
        tag(figure.add_artist(line), kind, title)

    for height, colour in ((highest, "rule"), (highest / 2, "rule"), (0, "muted")):
        draw([(0, height), (num_steps, height)], colour, "grid", linewidth=1)
    for x, side, text in ((2, "left", "0"), (242, "right", f"{num_steps:,} steps")):
        figure.text(x, 5, text, transform=None, ha=side, fontsize=10.5, color=LIGHT["muted"])
    if best_step is not None:
        draw([(best_step, 0), (best_step, highest)], "right", "best", linewidth=1, dashes=(3, 3))
    for line in lines:
        colour = KINDS[line.kind]
        if line.level is not None:
            ends, said = [(0, line.level), (num_steps, line.level)], f"untouched model, {line.kind}: {line.level:.1f}"
            draw(ends, colour, f"level {line.kind}", said, linewidth=1.1, dashes=(4, 3))
        look = {"marker": "o", "markersize": 4, "markeredgewidth": 0} if line.has_marks else {}
        draw(line.points, colour, line.kind, line.title, linewidth=1.6, **look)
    return figure
