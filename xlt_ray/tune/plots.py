"""The plot of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.style import BLUE, INK, MUTED, ORANGE, grid, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = {"finished": (BLUE, "o"), "stopped": (MUTED, "x")}


def pareto(figures: Mapping[str, Any]) -> Figure:
    """Old BLEU against new BLEU of every trial, on dev: the front as a line, the untouched model as a diamond.

    Args:
        figures: metrics.json of a search.
    """
    figure, axes = new_figure(7.0, 4.6, f"Trials on the {figures['split']} split")
    for status, (colour, marker) in _MARKS.items():
        trials = [of for of in figures["trials"] if of["status"] == status]
        if trials:
            places = [of["old_bleu"] for of in trials], [of["new_bleu"] for of in trials]
            axes.scatter(*places, color=colour, marker=marker, s=32, label=status.capitalize(), zorder=3)
    best = sorted((of["old_bleu"], of["new_bleu"]) for of in figures["trials"] if of["on_front"])
    axes.plot(*zip(*best, strict=True), color=BLUE, linewidth=1, label="Front")
    before = figures["baseline"]["dev"]
    axes.scatter(before["old_bleu"], before["new_bleu"], color=ORANGE, marker="D", s=40, label="Before", zorder=3)
    for of in figures["trials"]:
        if of["chosen"]:
            place = of["old_bleu"], of["new_bleu"]
            axes.annotate(of["name"], place, xytext=(5, 5), textcoords="offset points", fontsize=8.5, color=INK)
    axes.set(xlabel=f"BLEU of {', '.join(figures['kept_directions'])}, mean (kept)")
    axes.set(ylabel=f"BLEU of {', '.join(figures['gain_directions'])}, mean (new)")
    for axis in ("x", "y"):
        grid(axes, axis)
    legend(figure, axes)
    return figure
