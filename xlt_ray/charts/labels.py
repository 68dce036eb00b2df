"""Labels beside the marks of a plot, placed so that they cover nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.charts.plane import Place, freeze
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

_MAX_LABEL = 26
_MARK = 5.0
_SIDES = (
    *((9, 0, "left", "center"), (-9, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top")),
    *((4, 8, "left", "bottom"), (-4, 8, "right", "bottom"), (4, -8, "left", "top"), (-4, -8, "right", "top")),
)
"""Right, left, above, below, then the four corners: the offset from the mark, and the side of the text there."""
_BEFORE = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
"""The fraction of a text that lies before its anchor."""

Boxes = Mapping[tuple[float, float, str, str], "Bbox"]


def label_marks(axes: Axes, texts: Sequence[tuple[Place, str]]) -> None:
    """Write texts beside their marks if they cover no mark, no other text and no edge. The others are left out.

    Texts with the least room are placed first, each at the first place that the fewest lines cross.

    Args:
        axes: with all marks and lines on it; its limits do not change.
        texts: each with the position of its mark.
    """
    freeze(axes)
    look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 11, "color": LIGHT["ink"], "parse_math": False}
    look |= {"ha": "left", "va": "bottom", "zorder": 5}
    cut = [(place, text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…") for place, text in texts]
    notes = {note: _boxes(note) for note in [axes.annotate(text, place, (0, 0), **look) for place, text in cut]}
    lines, taken = _lines_and_marks(axes)
    for note in sorted(notes, key=lambda note: len(_free(notes[note], axes.bbox, taken))):
        tag(note, "label")
        free = _free(notes[note], axes.bbox, taken)
        if not free:
            note.remove()
            continue
        side = min(free, key=lambda side: sum(line.intersects_bbox(free[side], filled=False) for line in lines))
        note.set(position=side[:2], horizontalalignment=side[2], verticalalignment=side[3])
        taken.append(free[side])


def _lines_and_marks(axes: Axes) -> tuple[list[Path], list[Bbox]]:
    """The lines on the axes, and the squares that the marks cover."""
    from matplotlib.transforms import Bbox

    paths = [(line, line.get_transform().transform_path(line.get_path())) for line in axes.lines]
    marked: list[Any] = [(path.vertices, line.get_markevery()) for line, path in paths if line.get_marker() != "None"]
    marks = [place for places, every in marked for place in places[every or slice(None)]]
    squares = [Bbox.from_extents(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    return [path for _, path in paths if len(np.asarray(path.vertices)) > 1], squares


def _boxes(note: Annotation) -> Boxes:
    """The box of the text on each side of its mark."""
    now = note.get_window_extent()  # to the right of the mark and above it
    return {
        side: now.translated(side[0] - _BEFORE[side[2]] * now.width, side[1] - _BEFORE[side[3]] * now.height)
        for side in _SIDES
    }


def _free(boxes: Boxes, edges: Bbox, taken: Sequence[Bbox]) -> Boxes:
    return {
        side: box
        for side, box in boxes.items()
        if edges.x0 <= box.x0 and box.x1 <= edges.x1 and edges.y0 <= box.y0 and box.y1 <= edges.y1
        if not box.count_overlaps(taken)
    }
