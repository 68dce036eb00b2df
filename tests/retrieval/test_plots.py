"""What the figures draw is what they were given."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from xlt_ray.charts.style import BLUE, DPI, to_png
from xlt_ray.retrieval import plots

PAIRS = {
    "en-fr": {"r1": 0.91, "chance_r1": 0.005, "r1_ci95": [0.88, 0.94]},
    "fr-en": {"r1": 0.62, "chance_r1": 0.004, "r1_ci95": [0.55, 0.68]},
    "en-ru": {"r1": 0.30, "chance_r1": 0.005},
}
LAYERS = {
    str(layer): {"pairs": {"en-fr": {"r1": layer / 12}, "fr-en": {"r1": layer / 24}}, "mean": {"r1": layer / 16}}
    for layer in (10, 9, 0)
}


def test_heatmap_draws_the_query_language_down() -> None:
    figure = plots.r1_heatmap(PAIRS)
    axes, bar = figure.axes
    drawn = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    expected = np.full((3, 3), np.nan)
    expected[0, 1], expected[1, 0], expected[0, 2] = 91, 62, 30
    np.testing.assert_allclose(drawn, expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["en", "fr", "ru"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("Query language", "Candidate language")
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (1, 0): "91.0",
        (0, 1): "62.0",
        (2, 0): "30.0",
    }
    assert "chance 0.4 to 0.5%" in axes.get_title(loc="left")
    dashed = [line for line in bar.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_ydata() == pytest.approx([100 * 0.014 / 3] * 2)


def test_layers_are_in_numeric_order_with_chance_dashed() -> None:
    axes = plots.r1_by_layer(LAYERS, 0.02).axes[0]
    one, other, mean, chance = axes.lines
    assert list(mean.get_xdata()) == [0, 9, 10]
    assert mean.get_ydata() == pytest.approx([0, 900 / 16, 1000 / 16])
    assert one.get_ydata() == pytest.approx([0, 75, 1000 / 12])
    assert other.get_ydata() == pytest.approx([0, 37.5, 1000 / 24])
    assert mean.get_linewidth() > 2 * one.get_linewidth()
    assert (list(chance.get_ydata()), chance.get_linestyle()) == ([2, 2], "--")


def test_bars_have_intervals_baselines_and_chance() -> None:
    baselines = {
        "mean_pool": {"pairs": {pair: {"r1": figures["r1"] / 2} for pair, figures in PAIRS.items()}},
        "random": {"pairs": {pair: {"r1": 0.0} for pair in PAIRS}},
    }
    figure = plots.r1_bars(PAIRS, baselines)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["en → ru", "fr → en", "en → fr"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([30, 62, 91])
    intervals, mean_pool, chance = axes.collections
    np.testing.assert_allclose(np.array(intervals.get_segments())[:, :, 0], [[30, 30], [55, 68], [88, 94]])
    np.testing.assert_allclose(mean_pool.get_offsets(), [[15, 0], [31, 1], [45.5, 2]])
    np.testing.assert_allclose(chance.get_offsets(), [[0.5, 0], [0.4, 1], [0.5, 2]])
    assert [text.get_text() for text in figure.legends[0].texts] == ["Mean pooling", "Chance", "This run, 95% interval"]


def many(num: int) -> dict[str, dict[str, float]]:
    """Figures of every ordered pair of `num` languages, each with an R@1 of its own."""
    pairs = itertools.permutations(range(num), 2)
    return {f"l{a}-l{b}": {"r1": place / num**2, "chance_r1": 0.01} for place, (a, b) in enumerate(pairs)}


def test_plots_of_all_languages_of_fleurs_are_pictures_that_a_viewer_opens() -> None:
    pairs = many(102)
    heatmap, bars = plots.r1_heatmap(pairs), plots.r1_bars(pairs, {"mean_pool": {"pairs": pairs}})
    for figure in (heatmap, bars):
        width, height = figure.get_size_inches() * DPI
        assert max(width, height) < 10_000
    assert not heatmap.axes[0].texts
    assert len(plots.r1_heatmap(many(9)).axes[0].texts) == 72
    names = [label.get_text().replace(" → ", "-") for label in bars.axes[0].get_yticklabels()]
    assert names == [*list(pairs)[:100], *list(pairs)[-100:]]
    assert "the best 100 and the worst 100 of 10,302 pairs" in bars.axes[0].get_title(loc="left")
    assert "worst" not in plots.r1_bars(many(9), {}).axes[0].get_title(loc="left")


def test_frame_match_is_in_seconds_with_the_best_frame_of_each_row() -> None:
    match = np.random.default_rng(0).normal(size=(7, 5))
    axes = plots.frame_match(match, "Привет → hello").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), match)
    assert axes.images[0].get_extent() == pytest.approx([0, 0.1, 0.14, 0])
    best = [max(range(5), key=lambda column: match[row, column]) for row in range(7)]
    expected = [[0.02 * column + 0.01, 0.02 * row + 0.01] for row, column in enumerate(best)]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), expected)
    assert axes.get_xlabel() == "Candidate time (s)"
    assert axes.get_title(loc="left") == "Привет → hello"


def test_a_dollar_in_the_name_of_a_recording_is_a_dollar() -> None:
    name = "clip$1_2_3 against clip$4_5_6"
    figure = plots.frame_match(np.eye(3), name)
    assert to_png(figure)
    assert figure.axes[0].get_title(loc="left") == name


def test_png_keeps_its_caption_in_any_script() -> None:
    caption = "“Please hold” / «Подождите» / 请稍候"
    png = to_png(plots.r1_heatmap(PAIRS), caption)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.info["Description"] == caption
        assert min(image.size) > 400


def test_scores_have_distinct_colours() -> None:
    colours = [to_hex(colour) for _, colour, _ in plots.BASELINES.values()]
    assert len({*colours, to_hex(BLUE)}) == len(colours) + 1


def test_no_pyplot() -> None:
    code = "import sys, xlt_ray.retrieval.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
