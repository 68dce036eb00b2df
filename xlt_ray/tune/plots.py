"""The plot of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.style import BLUE, INK, MUTED, ORANGE, grid, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = {"finished": (BLUE, "o"), "stopped": (MUTED, "x")}


def pareto(figures: Mapping[str, Any]) -> Figure:
    """Old BLEU against new BLEU of every trial, on dev, with the front as a line and the untouched model as a diamond.

    Args:
        figures: metrics.json of a search.
    """
    figure, axes = new_figure(7.0, 4.6, f"Trials on the {figures['split']} split")
    for status, (colour, marker) in _MARKS.items():
        trials = [trial for trial in figures["trials"] if trial["status"] == status]
        if trials:
            places = [trial["old_bleu"] for trial in trials], [trial["new_bleu"] for trial in trials]
            axes.scatter(*places, color=colour, marker=marker, s=32, label=status.capitalize(), zorder=3)
    best = sorted((trial["old_bleu"], trial["new_bleu"]) for trial in figures["trials"] if trial["on_front"])
    axes.plot(*zip(*best, strict=True), color=BLUE, linewidth=1, label="Front")
    before = figures["baseline"]["dev"]
    axes.scatter(before["old_bleu"], before["new_bleu"], color=ORANGE, marker="D", s=40, label="Before", zorder=3)
    for trial in figures["trials"]:
        if trial["chosen"]:
            place = trial["old_bleu"], trial["new_bleu"]
            axes.annotate(trial["name"], place, xytext=(5, 5), textcoords="offset points", fontsize=8.5, color=INK)
    axes.set(xlabel=f"BLEU of {', '.join(figures['kept_directions'])}, mean (kept)")
    axes.set(ylabel=f"BLEU of {', '.join(figures['gain_directions'])}, mean (new)")
    for axis in ("x", "y"):
        grid(axes, axis)
    legend(figure, axes)
    return figure
