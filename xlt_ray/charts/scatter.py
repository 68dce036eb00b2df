"""A scatter of scores with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.labels import label_marks
from xlt_ray.charts.plane import new_plane
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A mark of a scatter; `interval` is (low, high) of y, `title` its tooltip, `label` the text beside it."""

    x: float
    y: float
    interval: Sequence[float]
    title: str
    label: str


def scatter(dots: Sequence[Dot], across: str, up: str, *, from_zero: bool = False) -> Figure:
    """Every dot with its interval and, if there is room, its label; y = 0 is always in view, with a line.

    Args:
        dots: one or more.
        across: title of x.
        up: title of y.
        from_zero: whether x = 0 is in view too.
    """
    figure, axes = new_plane(across, up, width=460, height=320, left=46)
    tag(axes.axhline(0, color=LIGHT["muted"], linewidth=1.6, zorder=2), "zero")
    if from_zero:
        axes.update_datalim([(0, 0)])
    for dot in dots:
        low, high = dot.interval
        look: dict[str, Any] = {"color": (LIGHT["ours"], 0.35), "markerfacecolor": LIGHT["ours"], "linewidth": 1.5}
        look |= {"marker": "o", "markevery": [1], "markersize": 7.2, "markeredgewidth": 0, "zorder": 3}
        tag(axes.plot([dot.x] * 3, [low, dot.y, high], **look)[0], "mark", dot.title)
    label_marks(axes, [((dot.x, dot.y), dot.label) for dot in dots])
    return figure
