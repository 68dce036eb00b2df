"""Plots of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.charts.style import BLUE, INK, MUTED, SHADES, colorbar, grid, new_figure
from xlt_ray.study.results import PREDICTORS, rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def transfer(figures: Mapping[str, Any]) -> Figure:
    """Gains in BLEU: a row per training language, a column per test language; italics if the interval includes 0.

    Args:
        figures: metrics.json of a study.
    """
    sources = figures["sources"]
    values = np.array([[figures["transfer"][trained][tested]["gain"] for tested in sources] for trained in sources])
    side = max(3.2, 0.72 * len(sources))
    figure, axes = new_figure(side + 2.0, side + 1.1, f"Gain into {figures['target']}, BLEU")
    image = axes.imshow(values, cmap=SHADES, vmin=0)
    axes.set(xlabel="Tested on", ylabel="Trained on")
    axes.set_xticks(range(len(sources)), sources)
    axes.set_yticks(range(len(sources)), sources)
    for (row, column), value in np.ndenumerate(values):
        low, high = figures["transfer"][sources[row]][sources[column]]["gain_ci95"]
        style = "normal" if low > 0 or high < 0 else "italic"
        colour = "white" if value > 0.66 * values.max() else INK
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9.5, style=style)
    colorbar(figure, axes, image, "Gain (BLEU)")
    return figure


def predictors(figures: Mapping[str, Any]) -> Figure:
    """Gain of every cell off the diagonal against each predictor, side by side.

    Args:
        figures: metrics.json of a study.
    """
    off_diagonal = [row for row in rows(figures) if row["trained"] != row["heard"]]
    figure, first = new_figure(8.0, 3.8, "What predicts the transfer?")
    first.remove()
    for place, axes in zip(PREDICTORS, figure.subplots(1, len(PREDICTORS), sharey=True), strict=True):
        cells = [row for row in off_diagonal if row[place] is not None]
        axes.scatter([row[place] for row in cells], [row["gain"] for row in cells], color=BLUE, s=22, zorder=3)
        for row in cells:
            text, at = f"{row['trained']}→{row['heard']}", (row[place], row["gain"])
            axes.annotate(text, at, xytext=(4, 3), textcoords="offset points", fontsize=7, color=MUTED)
        axes.set(xlabel=PREDICTORS[place], ylabel="Gain (BLEU)")
        axes.spines[["top", "right"]].set_visible(False)
        grid(axes, "y")
    return figure
