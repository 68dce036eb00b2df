"""The Pareto plot of one group of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xlt_ray.charts import plane
from xlt_ray.charts.labels import label_marks
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag
from xlt_ray.translate.section import Goal, Group, Point, front, sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def pareto(group: Group) -> Figure:
    """Gain against kept of every point, with the spread of its seeds, the front, the sweeps and the goal."""
    figure, axes = plane.new_plane("kept of X→en, % of the baseline's mean BLEU")
    plane.origin(axes, (100, 0), f"{group.baseline}, the baseline")
    for sweep in sweeps(group.points):
        line = axes.plot(*zip(*map(_place, sweep), strict=True), color=LIGHT["muted"], linewidth=1, zorder=2)
        tag(line[0], "sweep")
    for point in group.points:
        style = group.methods.index(point.recipe.method)
        plane.mark(axes, _place(point), style, _title(point))
        if point.num_seeds > 1:
            _bars(axes, point, plane.colour_of(style))
    figures = [(1.0, 0.0), *((point.kept, point.gain) for point in group.points)]
    best = [(100 * kept, gain) for (kept, gain), is_best in zip(figures, front(figures), strict=True) if is_best]
    if group.goal:
        axes.update_datalim([(100 * group.goal.kept, group.goal.gain)])
    plane.front(axes, best)
    if group.goal:
        _goal(axes, group.goal)
    label_marks(axes, [(_place(point), point.recipe.dial_text or point.names[0]) for point in group.points])
    return figure


def _place(point: Point) -> plane.Place:
    return 100 * point.kept, point.gain


def _bars(axes: Axes, point: Point, colour: str) -> None:
    """The lowest and the highest value of the seeds, in x and y."""
    x, y = _place(point)
    for ends in (([100 * kept for kept in point.kept_range], [y, y]), ([x, x], point.gain_range)):
        tag(axes.plot(*ends, color=colour, linewidth=1.6, alpha=0.75, zorder=3)[0], "spread")


def _goal(axes: Axes, goal: Goal) -> None:
    """The corner above and to the right of the goal."""
    from matplotlib.patches import Rectangle

    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    corner = 100 * goal.kept, goal.gain
    region = Rectangle(corner, right - corner[0], top - corner[1], facecolor=LIGHT["right"], alpha=0.1, linewidth=0)
    tag(axes.add_patch(region), "goal")
    inward: dict[str, Any] = {"xytext": (-4, -4), "textcoords": "offset points", "ha": "right", "va": "top"}
    text = axes.annotate("goal", (right, top), color=LIGHT["right"], fontsize=11.5, fontweight="bold", **inward)
    tag(text, "goal")


def _title(point: Point) -> str:
    figures = f"kept {100 * point.kept:.1f}%, gain {point.gain:+.2f} BLEU"
    return f"{', '.join(point.names)}: {point.recipe.method} {point.recipe.dial_text}".rstrip() + f"; {figures}"
