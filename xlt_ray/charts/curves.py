"""Small plots of figures by step, which share their scale with those beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.plane import Place, new_plot
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"new": "ours", "old": "base", "other": "muted"}
"""Colours of lines by what they stand for: what is learned, what shall be kept, anything else."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line through (step, value).

    Attributes:
        level: what the untouched model scores, drawn over all steps; None where that is not known.
        has_marks: whether its points are so few that each is marked.
    """

    kind: str
    points: Sequence[Place]
    title: str = ""
    level: float | None = None
    has_marks: bool = True


def curves(lines: Sequence[Curve], num_steps: int, highest: float, best_step: int | None = None) -> Figure:
    """Draw them from step 0 to `num_steps` and from 0 to `highest`, with a line at the best step."""
    figure, axes = new_plot(244, 92, 2, 242, 4, 74)
    axes.set_axis_off()
    axes.set(xlim=(0, num_steps), ylim=(0, highest))
    below: dict[str, Any] = {"textcoords": "offset points", "va": "baseline", "fontsize": 10.5, "color": LIGHT["muted"]}
    axes.annotate("0", (0, 0), (0, -13), ha="left", **below)
    axes.annotate(f"{num_steps:,} steps", (num_steps, 0), (0, -13), ha="right", **below)
    for height, colour in ((highest, "rule"), (highest / 2, "rule"), (0, "muted")):
        axes.axhline(height, color=LIGHT[colour], linewidth=1)
    if best_step is not None:
        tag(axes.axvline(best_step, color=LIGHT["right"], linewidth=1, dashes=(3, 3)), "best")
    for line in lines:
        colour = LIGHT[KINDS[line.kind]]
        if line.level is not None:
            level = axes.axhline(line.level, color=colour, linewidth=1.1, dashes=(4, 3))
            tag(level, f"level {line.kind}", f"untouched model, {line.kind}: {line.level:.1f}")
        marker = "o" if line.has_marks else "None"
        x, y = zip(*line.points, strict=True)
        drawn = axes.plot(x, y, color=colour, linewidth=1.6, marker=marker, markersize=4, markeredgewidth=0)
        tag(drawn[0], line.kind, line.title)
    return figure
