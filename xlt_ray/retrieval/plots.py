"""Plots of a retrieval run. `charts.style.to_png` turns a plot into a PNG with its caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xlt_ray.charts.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SHADES, colorbar, grid, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINES = {
    "mean_pool": ("Mean pooling", ORANGE, "o"),
    "max_pool": ("Max pooling", GREEN, "D"),
    "dtw": ("DTW", PURPLE, "s"),
}
"""The baselines of `r1_bars`: label, colour and marker of each score."""

_CELL, _LARGEST_MATRIX = 0.62, 30.0  # inches: a side of a cell of the heat map, and of all cells
_MOST_NUMBERED = 40  # languages: beyond, numbers take minutes to draw and don't fit
_MOST_BARS = 200  # 8,700 pixels high; viewers refuse pictures of 100,000


def r1_heatmap(pairs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """R@1 of every pair, in percent: a row for each query language, a column for each candidate language.

    Cells have their number unless there are more than 40 languages.

    Args:
        pairs: figures by `{query}-{candidate}`, with `r1` and `chance_r1` as fractions.
    """
    languages = list(dict.fromkeys(language for pair in pairs for language in pair.split("-", 1)))
    r1 = np.full((len(languages), len(languages)), np.nan)
    for pair, figures in pairs.items():
        query, candidate = pair.split("-", 1)
        r1[languages.index(query), languages.index(candidate)] = 100 * figures["r1"]
    side = min(max(3.2, _CELL * len(languages)), _LARGEST_MATRIX)
    figure, axes = new_figure(side + 2.0, side + 1.1, f"R@1 by language pair (chance {_chance_range(pairs)})")
    image = axes.imshow(r1, cmap=SHADES, vmin=0, vmax=100)
    axes.set(xlabel="Candidate language", ylabel="Query language")
    axes.set_xticks(range(len(languages)), languages)
    axes.set_yticks(range(len(languages)), languages)
    for (row, column), value in np.ndenumerate(r1):
        if not np.isnan(value) and len(languages) <= _MOST_NUMBERED:
            colour = "white" if value > 66 else INK
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9.5)
    axes.hlines(np.arange(0.5, len(languages) - 1), -0.5, len(languages) - 0.5, color="white", linewidth=2)
    axes.vlines(np.arange(0.5, len(languages) - 1), -0.5, len(languages) - 0.5, color="white", linewidth=2)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = colorbar(figure, axes, image, "R@1 (%), dashed line: chance")
    bar.ax.axhline(100 * _mean_chance(pairs), color=INK, linestyle="--", linewidth=1)
    return figure


def r1_by_layer(layers: Mapping[str, Mapping[str, Any]], chance: float) -> Figure:
    """R@1 at each encoder layer: a thin line for each pair, a thick one for their mean, chance dashed.

    Args:
        layers: `{"pairs": {pair: {"r1": ..}}, "mean": {"r1": ..}}` by layer number, 0 = the output of the convolutions.
        chance: R@1 of a blind guess, a fraction.
    """
    numbers = sorted(layers, key=int)
    x = [int(number) for number in numbers]
    figure, axes = new_figure(7.0, 3.7, "R@1 by encoder layer")
    for index, pair in enumerate(layers[numbers[0]]["pairs"]):
        y = [100 * layers[number]["pairs"][pair]["r1"] for number in numbers]
        axes.plot(x, y, color=BLUE, alpha=0.28, linewidth=0.8, label="One language pair" if index == 0 else None)
    mean = [100 * layers[number]["mean"]["r1"] for number in numbers]
    axes.plot(x, mean, color=BLUE, linewidth=2.6, marker="o", markersize=5, label="Mean over pairs")
    axes.axhline(100 * chance, color=MUTED, linestyle="--", linewidth=1.2, label=f"Chance, {100 * chance:.2g}%")
    axes.set(xlabel="Encoder layer (0 = after the convolutions)", ylabel="R@1 (%)", ylim=(-2, 102))
    axes.set_xticks(x)
    axes.set_yticks(range(0, 101, 20))
    grid(axes, "y")
    legend(figure, axes)
    return figure


def r1_bars(pairs: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]]) -> Figure:
    """R@1 of every pair as a bar with its 95% interval, the baselines as markers, chance as a tick; best pair on top.

    Of more than 200 pairs, only the best 100 and the worst 100 are drawn, and the title says so.

    Args:
        pairs: figures by pair with `r1`, `chance_r1` and, where known, `r1_ci95`.
        baselines: `{"pairs": {pair: {"r1": ..}}}` by name of the score; those in `BASELINES` are drawn.
    """
    names, title = sorted(pairs, key=lambda pair: pairs[pair]["r1"]), "R@1 by language pair, against the baselines"
    if len(names) > _MOST_BARS:
        half = _MOST_BARS // 2
        title = f"R@1 of the best {half} and the worst {half} of {len(names):,} pairs"
        names = names[:half] + names[-half:]
    y = np.arange(len(names))
    r1 = np.array([100 * pairs[name]["r1"] for name in names])
    figure, axes = new_figure(7.0, 1.5 + 0.26 * len(names), title)
    axes.barh(y, r1, height=0.62, color=BLUE, alpha=0.32, label="This run, 95% interval")
    bounds = np.array([pairs[name].get("r1_ci95") or [pairs[name]["r1"]] * 2 for name in names]) * 100
    axes.hlines(y, bounds[:, 0], bounds[:, 1], color=BLUE, linewidth=2.2)
    for score, (label, colour, marker) in BASELINES.items():
        if score in baselines:
            values = [100 * baselines[score]["pairs"][name]["r1"] for name in names]
            axes.scatter(values, y, s=22, color=colour, marker=marker, label=label, zorder=3)
    chance = [100 * pairs[name]["chance_r1"] for name in names]
    axes.scatter(chance, y, s=70, color=INK, marker="|", label="Chance", zorder=3)
    axes.set_yticks(y, [name.replace("-", " → ", 1) for name in names])
    axes.set(xlabel="R@1 (%)", ylabel="Query → candidate", xlim=(0, 100), ylim=(-0.6, len(names) - 0.4))
    axes.tick_params(axis="y", length=0)
    grid(axes, "x")
    legend(figure, axes)
    return figure


def frame_match(match: npt.NDArray[np.floating], title: str, *, seconds_per_frame: float = 0.02) -> Figure:
    """Cosine of every query frame with every candidate frame, and the best candidate frame of each query frame.

    The mean of the marked cells is SeqSim's recall R = mean_i max_j x_i.y_j.

    Args:
        match: (Tx, Ty) cosines, query frames by candidate frames.
        title: Latin, Greek or Cyrillic text.
        seconds_per_frame: 0.02 in Whisper's encoder.
    """
    num_query, num_candidate = match.shape
    figure, axes = new_figure(7.0, float(np.clip(5.4 * num_query / num_candidate, 2.4, 6.0)) + 0.8, title)
    extent = (0, num_candidate * seconds_per_frame, num_query * seconds_per_frame, 0)
    image = axes.imshow(match, cmap=SHADES, aspect="auto", extent=extent, interpolation="nearest")
    x = (match.argmax(axis=1) + 0.5) * seconds_per_frame
    y = (np.arange(num_query) + 0.5) * seconds_per_frame
    axes.scatter(x, y, s=5, color=ORANGE, linewidths=0, label="Best candidate frame of each query frame")
    axes.set(xlabel="Candidate time (s)", ylabel="Query time (s)")
    colorbar(figure, axes, image, "Cosine")
    legend(figure, axes)
    return figure


def _mean_chance(pairs: Mapping[str, Mapping[str, Any]]) -> float:
    return float(np.mean([figures["chance_r1"] for figures in pairs.values()]))


def _chance_range(pairs: Mapping[str, Mapping[str, Any]]) -> str:
    """Lowest and highest chance in percent, two digits; a single figure if they are the same."""
    chance = [100 * figures["chance_r1"] for figures in pairs.values()]
    low, high = f"{min(chance):.2g}", f"{max(chance):.2g}"
    return f"{low}%" if low == high else f"{low} to {high}%"
