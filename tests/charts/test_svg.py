"""What the page gets of a figure: the places of its marks, the page's colours, and text that is text."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from drawn import Drawn, crosses, markers, overlap
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.charts import plane
from xlt_ray.charts.curves import Curve, curves
from xlt_ray.charts.labels import label_marks
from xlt_ray.charts.scatter import Dot, scatter
from xlt_ray.charts.style import DARK, LIGHT
from xlt_ray.charts.svg import to_svg

HOSTILE = '</svg><script>alert("x")</script> & $x^2$ \x1b[31m'
SHOWN = HOSTILE.replace("\x1b", "\ufffd")
EDGES = (58, 12, 788, 403)  # of the plane: left, top, right, bottom


def dot(x: float, y: float, half: float = 1.0, name: str = "a") -> Dot:
    return Dot(x=x, y=y, interval=(y - half, y + half), title=name, label=name)


def every_plot(name: str = "n") -> list[str]:
    figure, axes = plane.new_plane(f"kept of {name}")
    plane.origin(axes, (100, 0), name)
    for style in range(8):
        plane.mark(axes, (10 * style, style), style, name)
    plane.front(axes, [(70, 7)])
    label_marks(axes, [((70, 7), name)])
    line = Curve(kind="new", points=[(1, 2), (3, 1)], title=name, level=1.5)
    drawn = [(figure, "plane"), (curves([line], 3, 2, 1), "curve"), (scatter([dot(1, 2, name=name)], name, name), "s")]
    return [str(to_svg(figure, kind, f"plot of {name}")) for figure, kind in drawn]


def test_the_page_has_no_ids_no_fonts_and_no_colours_of_the_plots() -> None:
    for source in [*every_plot(), *(str(plane.symbol(style)) for style in (None, 0, 5))]:
        assert not re.search(r"\bid=|url\(|href|http|font-family|xmlns|<style|<script|#[0-9a-fA-F]{3}", source)
        used = set(re.findall(r"var\(--(\w+)\)", source))
        assert used
        assert used <= LIGHT.keys() & DARK.keys()


def test_no_two_names_have_one_colour_in_either_theme() -> None:
    assert LIGHT.keys() == DARK.keys()
    for theme in (LIGHT, DARK):
        assert len({colour.lower() for colour in theme.values()}) == len(theme)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_text_from_data_is_text() -> None:
    for source in every_plot(HOSTILE):
        assert "<script" not in source
        drawn = Drawn(source)
        assert drawn.root.get("role") == "img"
        assert drawn.root.get("aria-label") == f"plot of {SHOWN}"
        assert {element.tag for element in drawn.root.iter()} <= {"svg", "g", "path", "text", "title"}
        assert SHOWN in drawn.titles
    texts = [text.text for text in Drawn(every_plot("a$b$c^{2}")[0]).root.iter("text")]
    assert {"kept of a$b$c^{2}", "a$b$c^{2}"} <= set(texts)


def test_a_plot_is_the_same_every_time() -> None:
    assert every_plot() == every_plot()


def test_a_symbol_is_hidden_from_screen_readers_and_has_the_shape_of_its_method() -> None:
    symbols = [str(plane.symbol(style)) for style in range(6)]
    assert all('aria-hidden="true"' in symbol for symbol in symbols)
    assert len(set(re.findall(r'd="(.*?)"', "".join(symbols)))) == 6
    assert len({plane.colour_of(style) for style in range(7)}) == 7


NUMBERS = st.integers(-4000, 14000).map(lambda number: number / 100)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0.1, 9)), min_size=1, max_size=8, unique_by=lambda at: at[0]))
def test_marks_and_intervals_are_where_the_axes_say(points: Sequence[tuple[float, float, float]]) -> None:
    dots = [dot(x, y, half, str(k)) for k, (x, y, half) in enumerate(points)]
    drawn = Drawn(str(to_svg(scatter(dots, "x", "y"), "scatter")))
    ends = [(ticks[0], ticks[-1]) for ticks in drawn.ticks]
    assert all(start != end for start, end in ends)
    across, up = (0.2 * abs((high - low) / (x1 - x0)) for (x0, low), (x1, high) in ends)
    places, lines = drawn.places("mark"), drawn.lines("mark")
    for placed, line in zip(dots, lines, strict=True):
        ((x, y),) = places[placed.title]
        assert 46 < x < 448
        assert drawn.read((x, y)) == (pytest.approx(placed.x, abs=across), pytest.approx(placed.y, abs=up))
        assert [drawn.read(at)[1] for at in line] == pytest.approx(
            [placed.interval[0], placed.y, placed.interval[1]], abs=up
        )
        assert all(12 < y < 273 for _, y in line)


def labelled(marks: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]] = ()) -> Drawn:
    """Marks at these units of the plane, those of `marks` with a text."""
    figure, axes = plane.new_plane("x")
    axes.set(xlim=(EDGES[0], EDGES[2]), ylim=(EDGES[3], EDGES[1]))
    for place in (*marks, *others):
        plane.mark(axes, place, 0)
    label_marks(axes, [(place, f"λ {10**k}") for k, place in enumerate(marks)])
    return Drawn(str(to_svg(figure, "plane")))


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(60, 780), st.integers(20, 400)), min_size=1, max_size=12, unique=True))
def test_labels_cover_no_mark_no_label_and_no_edge(marks: list[tuple[int, int]]) -> None:
    boxes = list(labelled(marks, [(400, 200)]).labels.values())
    for k, box in enumerate(boxes):
        left, top, right, bottom = box
        assert EDGES[0] - 1 <= left < right <= EDGES[2] + 1
        assert EDGES[1] - 1 <= top < bottom <= EDGES[3] + 1
        assert not any(overlap(box, (x - 4, y - 4, x + 4, y + 4)) for x, y in [*marks, (400, 200)])
        assert not any(overlap(box, other) for other in boxes[:k])


def test_a_label_without_room_is_left_out() -> None:
    around = [(400 + x, 200 + y) for x in (-14, 0, 14) for y in (-14, 0, 14) if x or y]
    assert labelled([(400, 200)]).labels.keys() == {"λ 1"}
    assert not labelled([(400, 200)], around).labels


def test_a_label_is_right_of_its_mark_or_where_fewest_lines_are() -> None:
    def side_of(*lines: Sequence[tuple[int, int]]) -> tuple[float, float, list[bool]]:
        figure, axes = plane.new_plane("x")
        axes.set(xlim=(EDGES[0], EDGES[2]), ylim=(EDGES[3], EDGES[1]))
        plane.mark(axes, (400, 200), 0)
        for line in lines:
            axes.plot(*zip(*line, strict=True), color=LIGHT["muted"])
        label_marks(axes, [((400, 200), "some text")])
        (box,) = Drawn(str(to_svg(figure, "plane"))).labels.values()
        return (box[0] + box[2]) / 2 - 400, (box[1] + box[3]) / 2 - 200, [crosses(list(line), box) for line in lines]

    x, y, _ = side_of()
    assert (x > 20, abs(y) < 2) == (True, True)
    x, y, crossed = side_of([(400, 200), (500, 200)])
    assert (x < -20, crossed) == (True, [False])
    across, up = [(300, 200), (500, 200)], [(400, 100), (400, 300)]
    x, y, crossed = side_of(across, up)
    assert (abs(x) > 20, abs(y) > 8, crossed) == (True, True, [False, False])
    fence = [(330, 150), (470, 150), (470, 250), (330, 250), (330, 150)]
    crowd = [
        [(402, 100), (402, 300)],
        [(440, 100), (440, 300)],
        across,
        [(330, 185), (395, 185)],
        [(330, 215), (395, 215)],
    ]
    *_, crossed = side_of(fence, *crowd)
    assert sum(crossed) <= 1


def test_a_long_label_is_cut() -> None:
    figure, axes = plane.new_plane("x")
    name = "a-run-with-quite-a-long-name-for-a-plot"
    plane.mark(axes, (50, 3), 0)
    label_marks(axes, [((50, 3), name)])
    assert [*Drawn(str(to_svg(figure, "plane"))).labels] == [name[:25] + "…"]


def test_curves_go_from_left_to_right_and_high_values_are_up() -> None:
    lines = [
        Curve(kind="new", points=[(1, 4.0), (4, 1.0)], title="new", level=3.0),
        Curve(kind="other", points=[(2, 2.0)], has_marks=False),
    ]
    drawn = Drawn(str(to_svg(curves(lines, 4, 4.0, 3), "curve")))
    assert drawn.lines("new") == [[(62, 4), (242, 56.5)]]
    assert markers(drawn.groups("new")[0]) == [(62, 4), (242, 56.5)]
    assert not markers(drawn.groups("other")[0])
    assert drawn.lines("level new") == [[(2, 21.5), (242, 21.5)]]
    assert drawn.lines("best") == [[(182, 74), (182, 4)]]
    assert [text.text for text in drawn.root.iter("text")] == ["0", "4 steps"]


def test_stairs_go_from_the_left_edge_through_the_best_to_the_bottom() -> None:
    figure, axes = plane.new_plane("x")
    for place in ((0, 0), (100, 10)):
        plane.mark(axes, place, 0)
    plane.front(axes, [(75, 4), (50, 8), (75, 4), (100, 0)])
    drawn = Drawn(str(to_svg(figure, "plane")))
    (stairs,) = drawn.lines("front")
    assert (stairs[0][0], stairs[-1][1]) == (EDGES[0], EDGES[3])
    values = [tuple(map(round, drawn.read(place))) for place in stairs]
    turns = [value for k, value in enumerate(values) if k == 0 or value != values[k - 1]]
    assert turns[1:-1] == [(50, 8), (50, 4), (75, 4), (75, 0), (100, 0)]
    assert (turns[0][1], turns[-1][0]) == (8, 100)


@pytest.mark.slow
def test_matplotlib_is_imported_when_a_plot_is_drawn_and_pyplot_never() -> None:
    code = """
import sys
import xlt_ray.report.render
from xlt_ray.charts.plane import symbol
from xlt_ray.report.collect import collect
print("matplotlib" in sys.modules)
print("<svg" in symbol(0), "matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True", "False"]
