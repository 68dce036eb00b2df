"""Figures of a retrieval run: pure matplotlib, no pyplot, no display, no global state.

Every function returns a `matplotlib.figure.Figure`; `to_png` turns it into bytes that carry their own caption.
The palette is Okabe and Ito's, distinct under the common colour deficiencies: blue for the score under test, orange
and green for what it is compared with, grey and dashes for chance. Lightness alone carries the heat maps, light = low.

Texts in figures stay Latin, Greek or Cyrillic: DejaVu, the font of matplotlib, has no Chinese or Japanese.
Transcripts belong in the caption.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, MUTED, FAINT = "#1c1f24", "#6b7280", "#d9dce1"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SHADES = "Blues"
DPI = 160

BASELINES = {
    "mean_pool": ("Mean pooling", ORANGE, "o"),
    "max_pool": ("Max pooling", GREEN, "D"),
    "dtw": ("DTW", PURPLE, "s"),
}
"""What `r1_bars` compares with: label, colour and marker of each score."""


def r1_heatmap(pairs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """R@1 of every pair, in percent: a row for each query language, a column for each candidate language.

    Args:
        pairs: figures by `{query}-{candidate}`, with `r1` and `chance_r1` as fractions.
    """
    languages = list(dict.fromkeys(language for pair in pairs for language in pair.split("-", 1)))
    r1 = np.full((len(languages), len(languages)), np.nan)
    for pair, figures in pairs.items():
        query, candidate = pair.split("-", 1)
        r1[languages.index(query), languages.index(candidate)] = 100 * figures["r1"]
    side = max(3.2, 0.62 * len(languages))
    figure, axes = _figure(side + 2.0, side + 1.1, f"R@1 by language pair (chance {_chance_range(pairs)})")
    image = axes.imshow(r1, cmap=SHADES, vmin=0, vmax=100)
    axes.set(xlabel="Candidate language", ylabel="Query language")
    axes.set_xticks(range(len(languages)), languages)
    axes.set_yticks(range(len(languages)), languages)
    for (row, column), value in np.ndenumerate(r1):
        if not np.isnan(value):
            colour = "white" if value > 66 else INK
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9.5)
    axes.hlines(np.arange(0.5, len(languages) - 1), -0.5, len(languages) - 0.5, color="white", linewidth=2)
    axes.vlines(np.arange(0.5, len(languages) - 1), -0.5, len(languages) - 0.5, color="white", linewidth=2)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = _colorbar(figure, axes, image, "R@1 (%), dashed line: chance")
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
    figure, axes = _figure(7.0, 3.7, "R@1 by encoder layer")
    for index, pair in enumerate(layers[numbers[0]]["pairs"]):
        y = [100 * layers[number]["pairs"][pair]["r1"] for number in numbers]
        axes.plot(x, y, color=BLUE, alpha=0.28, linewidth=0.8, label="One language pair" if index == 0 else None)
    mean = [100 * layers[number]["mean"]["r1"] for number in numbers]
    axes.plot(x, mean, color=BLUE, linewidth=2.6, marker="o", markersize=5, label="Mean over pairs")
    axes.axhline(100 * chance, color=MUTED, linestyle="--", linewidth=1.2, label=f"Chance, {100 * chance:.2g}%")
    axes.set(xlabel="Encoder layer (0 = after the convolutions)", ylabel="R@1 (%)", ylim=(-2, 102))
    axes.set_xticks(x)
    axes.set_yticks(range(0, 101, 20))
    _grid(axes, "y")
    _legend(figure, axes)
    return figure


def r1_bars(pairs: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]]) -> Figure:
    """R@1 of every pair as a bar with its 95% interval, the baselines as markers, chance as a tick; best pair on top.

    Args:
        pairs: figures by pair with `r1`, `chance_r1` and, where known, `r1_ci95`.
        baselines: `{"pairs": {pair: {"r1": ..}}}` by name of the score; those in `BASELINES` are drawn.
    """
    names = sorted(pairs, key=lambda pair: pairs[pair]["r1"])
    y = np.arange(len(names))
    r1 = np.array([100 * pairs[name]["r1"] for name in names])
    figure, axes = _figure(7.0, 1.5 + 0.26 * len(names), "R@1 by language pair, against the baselines")
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
    _grid(axes, "x")
    _legend(figure, axes)
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
    figure, axes = _figure(7.0, float(np.clip(5.4 * num_query / num_candidate, 2.4, 6.0)) + 0.8, title)
    extent = (0, num_candidate * seconds_per_frame, num_query * seconds_per_frame, 0)
    image = axes.imshow(match, cmap=SHADES, aspect="auto", extent=extent, interpolation="nearest")
    x = (match.argmax(axis=1) + 0.5) * seconds_per_frame
    y = (np.arange(num_query) + 0.5) * seconds_per_frame
    axes.scatter(x, y, s=5, color=ORANGE, linewidths=0, label="Best candidate frame of each query frame")
    axes.set(xlabel="Candidate time (s)", ylabel="Query time (s)")
    _colorbar(figure, axes, image, "Cosine")
    _legend(figure, axes)
    return figure


def to_png(figure: Figure, caption: str = "") -> bytes:
    """The figure as PNG; `caption`, in any script, is kept in its `Description` chunk, where the report finds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Description": caption, "Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of that size in inches with one styled axes and a title flush left."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set(color=MUTED, fontsize=9.5)
    axes.yaxis.label.set(color=MUTED, fontsize=9.5)
    return figure, axes


def _colorbar(figure: Figure, axes: Axes, image: AxesImage, label: str) -> Colorbar:
    bar = figure.colorbar(image, ax=axes, pad=0.03, aspect=28)
    bar.set_label(label, color=MUTED, fontsize=9.5)
    bar.ax.tick_params(color=FAINT, labelsize=9, labelcolor=INK)
    bar.outline.set_visible(False)
    return bar


def _grid(axes: Axes, axis: Literal["x", "y"]) -> None:
    axes.grid(axis=axis, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    """One row below the axes: it never hides a mark."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=9, labelcolor=INK, markerscale=1.5
    )


def _mean_chance(pairs: Mapping[str, Mapping[str, Any]]) -> float:
    return float(np.mean([figures["chance_r1"] for figures in pairs.values()]))


def _chance_range(pairs: Mapping[str, Mapping[str, Any]]) -> str:
    """Lowest and highest chance in percent, two digits; one figure where they are the same."""
    chance = [100 * figures["chance_r1"] for figures in pairs.values()]
    low, high = f"{min(chance):.2g}", f"{max(chance):.2g}"
    return f"{low}%" if low == high else f"{low} to {high}%"
