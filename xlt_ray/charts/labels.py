"""Texts beside the marks of a plot that cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xlt_ray.charts.plane import freeze
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import shown, tag

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


def cut(text: str) -> str:
    """The text, short enough for a label."""
    return shown(text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…")


def label_marks(axes: Axes, texts: Sequence[tuple[tuple[float, float], str]]) -> None:
    """Write texts beside their marks where they cover no mark, no other text, and no edge; leave out the others.

    Of such places the first that fewest lines cross is taken.

    Args:
        axes: with all marks and lines on it, in their final limits.
        texts: each with the place of its mark.
    """
    from matplotlib.transforms import Bbox

    freeze(axes)
    paths = [(line, line.get_transform().transform_path(line.get_path())) for line in axes.lines]
    lines = [path for _, path in paths if len(path.vertices) > 1]
    marked = [(line, path) for line, path in paths if line.get_marker() != "None"]
    marks = [at for line, path in marked for at in path.vertices[line.get_markevery() or slice(None)]]
    taken = [Bbox.from_extents(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    for place, text in texts:
        look = {"fontsize": 11, "color": LIGHT["ink"], "zorder": 5, "parse_math": False}
        note = axes.annotate(cut(text), place, (0, 0), textcoords="offset points", **look)
        tag(note, "label")
        if box := _settle(note, lines, taken):
            taken.append(box)
        else:
            note.remove()


def _settle(note: Annotation, lines: Sequence[Path], taken: Sequence[Bbox]) -> Bbox | None:
    """Put the text where it covers nothing and fewest lines cross it; where it then is, None where all is taken."""
    crossings = {}
    for side in _SIDES:
        box = _move(note, side)
        if _is_free(box, note.axes.bbox, taken):
            crossings[side] = sum(line.intersects_bbox(box, filled=False) for line in lines)
            if not crossings[side]:
                return box
    return _move(note, min(crossings, key=crossings.__getitem__)) if crossings else None


def _move(note: Annotation, side: tuple[float, float, str, str]) -> Bbox:
    """Put the text on that side of its mark; where it then is."""
    x, y, across, up = side
    note.set(position=(x, y), horizontalalignment=across, verticalalignment=up)
    return note.get_window_extent()


def _is_free(box: Bbox, edges: Bbox, taken: Sequence[Bbox]) -> bool:
    is_inside = edges.x0 <= box.x0 and box.x1 <= edges.x1 and edges.y0 <= box.y0 and box.y1 <= edges.y1
    return is_inside and not box.count_overlaps(taken)
