"""The axes of the page's plots, and the marks of a plot of gain against kept. A unit is a point: 1/72 inch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = (("o", 9.2), ("s", 8.8), ("^", 9.8), ("D", 8.2), ("v", 9.8), ("P", 11.5))
COLOURS = ("ink", "ours", "right", "base", "m4", "m5", "m6")

Place = tuple[float, float]


def new_plot(width: float, height: float, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure of `width` x `height` units, and its axes between these edges, with y downwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height))
    axes.spines[:].set_visible(False)
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)
    return figure, axes


def new_plane(
    across: str, up: str = "gain, BLEU", *, width: float = 800, height: float = 450, left: float = 58
) -> tuple[Figure, Axes]:
    """Axes with a grid, ticks and titles; by default those of gain (y) against kept (x, percent)."""
    figure, axes = new_plot(width, height, left, width - 12, 12, height - 47)
    axes.margins(0.06)
    axes.locator_params(steps=[1, 2, 5, 10])
    axes.grid(color=LIGHT["rule"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=LIGHT["muted"], labelsize=11.5, pad=7)
    axes.ticklabel_format(useOffset=False)
    style: dict[str, Any] = {"color": LIGHT["muted"], "fontsize": 12.5, "parse_math": False}
    axes.set_xlabel(across, labelpad=9, **style)
    axes.set_ylabel(up, **style)
    axes.yaxis.set_label_coords((18 - left) / (width - 12 - left), 0.5)
    return figure, axes


def freeze(axes: Axes) -> None:
    """Fix the limits to what is drawn now, so that later drawing does not move them."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())


def mark(axes: Axes, place: Place, style: int, title: str = "") -> None:
    """The mark of a method: a shape and a colour, either of which is enough to tell methods apart."""
    marker, size = MARKERS[style % len(MARKERS)]
    drawn = axes.plot(*place, marker, markersize=size, color=colour_of(style), markeredgecolor=LIGHT["page"], zorder=4)
    tag(drawn[0], "mark", title)


def colour_of(style: int) -> str:
    """The colour of a method."""
    return LIGHT[COLOURS[style % len(COLOURS)]]


def origin(axes: Axes, place: Place, title: str = "") -> None:
    """The mark of the untouched model."""
    style: dict[str, Any] = {"color": LIGHT["page"], "markeredgecolor": LIGHT["ink"], "markeredgewidth": 1.7}
    tag(axes.plot(*place, "o", markersize=9, zorder=4, **style)[0], "origin", title)


def front(axes: Axes, best: Sequence[Place]) -> None:
    """A staircase from the left edge to the bottom: a point below and left of one of the best is dominated by it.

    Args:
        axes: with everything drawn that its limits must include.
        best: points that do not dominate one another.
    """
    x, y = zip(*sorted(set(best)), strict=True)
    freeze(axes)
    corners = [axes.get_xlim()[0], *x, x[-1]], [y[0], *y, axes.get_ylim()[0]]
    style: dict[str, Any] = {"color": LIGHT["muted"], "linewidth": 5, "alpha": 0.28, "solid_capstyle": "butt"}
    tag(axes.step(*corners, where="pre", **style)[0], "front")


@functools.cache
def symbol(style: int | None) -> Markup:
    """The mark of a method for a legend; for None, that of the untouched model."""
    figure, axes = new_plot(14, 14, 0, 14, 0, 14)
    axes.set_axis_off()
    axes.set(xlim=(-1, 1), ylim=(-1, 1))
    origin(axes, (0, 0)) if style is None else mark(axes, (0, 0), style)
    return to_svg(figure, "symbol")
