"""How plots look: palette, frame, legend, and a PNG that carries its caption. Pure matplotlib, no pyplot, no display.

The palette is Okabe and Ito's, which is distinct under the common colour deficiencies: blue for what is under test,
orange and green for what it is compared with, grey and dashes for chance. Heat maps use lightness only: light is low.

Texts in figures are Latin, Greek or Cyrillic, because matplotlib's font DejaVu has no Chinese or Japanese. Transcripts
belong in the caption.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a second to import, and most processes draw nothing
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

INK, MUTED, FAINT = "#1c1f24", "#6b7280", "#d9dce1"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
LIGHT = {"page": "#ffffff", "ink": INK, "muted": MUTED, "rule": "#e5e7ea"}
LIGHT |= {"ours": "#0072b2", "base": "#c25100", "right": "#00795a", "m4": "#a5407c", "m5": "#7a6200", "m6": "#5b4bb7"}
DARK = {"page": "#14171b", "ink": "#e4e7eb", "muted": "#949ca8", "rule": "#2b3037"}
DARK |= {"ours": "#56b4e9", "base": "#f0883e", "right": "#4cc9a0", "m4": "#e39ac4", "m5": "#e0c341", "m6": "#a99cf5"}
"""Colours of the page by the name of their CSS variable, all different in both themes."""
SHADES = "Blues"
DPI = 160


def to_png(figure: Figure, caption: str = "") -> bytes:
    """The plot as PNG. Its `Description` chunk keeps `caption`, in any script, for the report."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Description": caption, "Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of that size in inches with one styled axes and a title flush left."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=12, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set(color=MUTED, fontsize=9.5)
    axes.yaxis.label.set(color=MUTED, fontsize=9.5)
    return figure, axes


def colorbar(figure: Figure, axes: Axes, image: AxesImage, label: str) -> Colorbar:
    """The bar beside a heat map."""
    bar = figure.colorbar(image, ax=axes, pad=0.03, aspect=28)
    bar.set_label(label, color=MUTED, fontsize=9.5)
    bar.ax.tick_params(color=FAINT, labelsize=9, labelcolor=INK)
    bar.outline.set_visible(False)
    return bar


def grid(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Faint lines behind the marks."""
    axes.grid(axis=axis, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def legend(figure: Figure, axes: Axes) -> None:
    """One row below the axes: it never hides a mark."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=9, labelcolor=INK, markerscale=1.5
    )
