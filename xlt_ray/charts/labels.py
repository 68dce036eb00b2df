"""Texts beside the marks of a plot that cover nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xlt_ray.charts.plane import Place, freeze
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import any_script, tag

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
"""Right, left, above, below, then the four corners: how far from the mark, and which side of the text is there."""
_BEFORE = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
"""The share of a text that lies before the side it is held by."""

Side = tuple[float, float, str, str]


def label_marks(axes: Axes, texts: Sequence[tuple[Place, str]]) -> None:
    """Write texts beside their marks where they cover no mark, no other text, and no edge; leave out the others.

    Those with the least room go first, each to the first place that fewest lines cross.

    Args:
        axes: with all marks and lines on it; its limits stay as they are now.
        texts: each with the place of its mark.
    """
    freeze(axes)
    lines, taken = _lines_and_marks(axes)
    notes = [_note(axes, place, text) for place, text in texts]
    boxes = {note: _boxes(note, *axes.transData.transform(note.xy)) for note in notes}
    for note in sorted(notes, key=lambda note: len(_free(boxes[note], axes.bbox, taken))):
        free = _free(boxes[note], axes.bbox, taken)
        if not free:
            note.remove()
            continue
        x, y, across, up = side = _least_crossed(free, lines)
        note.set(position=(x, y), horizontalalignment=across, verticalalignment=up)
        taken.append(free[side])


def _lines_and_marks(axes: Axes) -> tuple[list[Path], list[Bbox]]:
    """The lines on the axes, and the squares that its marks take."""
    from matplotlib.transforms import Bbox

    lines, marks = [], []
    for line in axes.lines:
        path = line.get_transform().transform_path(line.get_path())
        if len(path.vertices) > 1:
            lines.append(path)
        if line.get_marker() != "None":
            places = path.vertices[line.get_markevery() or slice(None)]
            marks += [Bbox.from_extents(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    return lines, marks


def _note(axes: Axes, place: Place, text: str) -> Annotation:
    cut = text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
    look = {"fontsize": 11, "color": LIGHT["ink"], "zorder": 5, "parse_math": False}
    note = axes.annotate(cut, place, (0, 0), textcoords="offset points", **look)
    tag(note, "label")
    return note


def _boxes(note: Annotation, x: float, y: float) -> dict[Side, Bbox]:
    """Where the text is on each side of a mark at (x, y)."""
    from matplotlib.transforms import Bbox

    with any_script():
        width, height = note.get_window_extent().size
    return {
        side: Bbox.from_bounds(
            x + side[0] - _BEFORE[side[2]] * width, y + side[1] - _BEFORE[side[3]] * height, width, height
        )
        for side in _SIDES
    }


def _free(boxes: Mapping[Side, Bbox], edges: Bbox, taken: Sequence[Bbox]) -> dict[Side, Bbox]:
    return {
        side: box
        for side, box in boxes.items()
        if edges.x0 <= box.x0 and box.x1 <= edges.x1 and edges.y0 <= box.y0 and box.y1 <= edges.y1
        if not box.count_overlaps(taken)
    }


def _least_crossed(free: Mapping[Side, Bbox], lines: Sequence[Path]) -> Side:
    crossings = {}
    for side, box in free.items():
        crossings[side] = sum(line.intersects_bbox(box, filled=False) for line in lines)
        if not crossings[side]:
            break
    return min(crossings, key=crossings.__getitem__)
