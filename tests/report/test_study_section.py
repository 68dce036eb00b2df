"""The page's section of a study: its matrix, ranking and scatters against figures worked out another way."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from drawn import Drawn, corners, markers, overlap
from rendered import Page
from searched_runs import MEANS, SOURCES, UNTOUCHED, cell_of, study_figures, write_study
from tuned_runs import write_baseline, write_translate

from xlt_ray.charts.svg import to_svg
from xlt_ray.report.collect import collect
from xlt_ray.report.render import render
from xlt_ray.study import section as transfer


def page_of(root: Path, **figures: Any) -> tuple[str, Page]:
    write_study(root, **figures)
    source = render(collect(str(root)))
    return source, Page(source)


def row_of(page: Page, name: str) -> list[str]:
    rows = [[" ".join(cell.split()) for cell in row] for row in page.rows]
    (found,) = [row for row in rows if row and row[0] == name and len(row) == 6 and row[1]]
    return found


def test_the_lead_names_the_best_source_and_its_doubt(tmp_path: Path) -> None:
    text = page_of(tmp_path)[1].words
    before = sum(bleu for heard, bleu in UNTOUCHED.items() if heard != "it") / 4
    assert "Of 5 languages, training on it helps the others most: +3.1 BLEU into zh" in text
    assert f"(95% interval +2.7 to +3.5) over the untouched model's {before:.1f}." in text
    assert "The order is not certain: on the same sentences, es may gain as much." in text
    assert text.count("Paper value: not available.") == 1


def test_a_clear_order_raises_no_doubt(tmp_path: Path) -> None:
    ranking = [row | {"mean_gain_ci95": [row["mean_gain"]] * 2} for row in study_figures()["ranking"]]
    assert "not certain" not in page_of(tmp_path, ranking=ranking)[1].words


def test_a_paired_difference_decides_the_order_where_there_is_one(tmp_path: Path) -> None:
    """The intervals of it and es overlap; on the same sentences es is behind, and fr may not be."""
    behind = {"it": None, "es": [0.1, 0.3], "fr": [-0.1, 1.9], "en": [1.0, 2.0], "ru": [2.0, 4.0]}
    ranking = [row | {"behind_ci95": behind[row["source"]]} for row in study_figures()["ranking"]]
    text = page_of(tmp_path, ranking=ranking)[1].words
    assert "on the same sentences, fr may gain as much." in text


def test_the_matrix_has_the_trained_language_in_the_row_below_the_untouched_model(tmp_path: Path) -> None:
    source, page = page_of(tmp_path)
    assert row_of(page, "untouched")[1:] == [f"{UNTOUCHED[heard]:.1f}" for heard in SOURCES]
    for trained in ("en", "es", "fr", "it"):
        (row,) = [row for row in page.rows if row[0].strip() == trained and "±" in row[1]]
        cells = [cell_of(trained, heard) for heard in SOURCES]
        assert [" ".join(cell.split()) for cell in row[1:]] == [
            f"{figures['bleu']:.1f}{figures['gain']:+.1f} ±0.8".replace("-", "−") for figures in cells
        ]
    assert 'title="trained on ru, tested on it: not available"' in source
    assert (
        'title="trained on it, tested on ru: BLEU 5.00, 95% interval 3.8 to 6.3; gain +4.00, +3.4 to +5.0, '
        "p = 0.002; 40" in source
    )


def test_shade_own_language_and_doubt_of_a_cell(tmp_path: Path) -> None:
    study = transfer.read_study(study_figures())
    assert study.largest == pytest.approx(8.1)
    for (trained, heard), cell in study.cells.items():
        figures = cell_of(trained, heard)
        assert study.shade(cell) == pytest.approx(max(0, figures["gain"]) / 8.1)
        assert cell.is_own == (trained == heard)
        assert cell.is_clear == (not figures["gain_ci95"][0] <= 0 <= figures["gain_ci95"][1])
        assert cell.half_width == pytest.approx(0.8)
    source, _ = page_of(tmp_path)
    assert len(re.findall(r'<td class="shade[^"]* own', source)) == 5
    unsure = {pair for pair, cell in study.cells.items() if not cell.is_clear}
    assert unsure == {("en", "es"), ("ru", "en"), ("ru", "es"), ("ru", "fr")}
    assert len(re.findall(r'<td class="shade[^"]* unsure', source)) == len(unsure)


def test_a_clear_loss_is_no_doubt() -> None:
    figures = cell_of("en", "es") | {"gain": -2.0, "gain_ci95": [-3.0, -1.0]}
    cell = transfer.Cell(trained="en", tested="es", figures=figures)
    assert cell.is_clear
    study = transfer.read_study(study_figures() | {"transfer": {"en": {"es": figures}}})
    assert (study.largest, study.shade(cell)) == (0.0, 0.0)


def test_sources_are_ranked_with_their_intervals_and_own_gain(tmp_path: Path) -> None:
    ranking = list(reversed(study_figures()["ranking"]))
    source, page = page_of(tmp_path, ranking=ranking)
    rows = [row for row in page.rows if row[0] in SOURCES and len(row) == 6 and " to " in row[3]]
    assert [row[0] for row in rows] == sorted(MEANS, key=lambda name: -MEANS[name])
    assert [cell.strip() for cell in rows[0][2:]] == ["+3.10", "+2.70 to +3.50", "1.5", "+8.10"]
    study = transfer.read_study(study_figures())
    assert study.ends == pytest.approx((-0.3, 8.1))
    assert study.ticks == pytest.approx(range(9))
    assert [study.along(value) for value in (-0.3, 3.9, 8.1)] == pytest.approx([0, 100, 200])
    x = f"{200 * (3.1 + 0.3) / 8.4:.1f}"
    assert source.count(f'<circle class="ours" cx="{x}" cy="9" r="4"/>') == 1


def test_a_source_without_own_gain_or_mean(tmp_path: Path) -> None:
    nothing = {"mean_gain": None, "mean_gain_ci95": None}
    ranking = [row | ({"own_gain": None} if row["source"] == "it" else {}) for row in study_figures()["ranking"]]
    ranking[4] |= nothing
    _, page = page_of(tmp_path, ranking=ranking)
    rows = {row[0]: row for row in page.rows if row[0] in SOURCES and len(row) == 6 and " to " in row[3]}
    assert set(rows) == {"it", "es", "fr", "en"}
    assert rows["it"][5] == "–"
    assert "No source could be compared" in page_of(tmp_path / "none", ranking=[])[1].words


@pytest.mark.parametrize(("predictor", "scale"), [("r1", 100), ("fisher_distance", 1)])
def test_the_scatter_has_a_dot_a_cell_of_another_language(predictor: str, scale: float) -> None:
    figures = study_figures()
    figure = transfer.predictor_scatter(transfer.read_study(figures), predictor)
    assert figure is not None
    drawn = Drawn(str(to_svg(figure, "scatter")))
    pairs = [pair for pair in itertools.permutations(SOURCES, 2) if pair != ("ru", "it")]
    dots = dict(zip(drawn.titles, drawn.groups("mark"), strict=True))
    assert len(dots) == len(pairs) == 19
    near = scale * 0.001
    for trained, heard in pairs:
        cell, value = cell_of(trained, heard), scale * figures["predictors"][predictor][trained][heard]
        (group,) = [dots[title] for title in dots if title.startswith(f"trained on {trained}, tested on {heard}: ")]
        (place,) = markers(group)
        assert drawn.read(place) == (pytest.approx(value, abs=near), pytest.approx(cell["gain"], abs=0.03))
        line = next(corners(path) for path in group.iter("path") if "transform" not in path.attrib)
        assert [drawn.read(at)[1] for at in (line[0], line[-1])] == pytest.approx(cell["gain_ci95"], abs=0.03)
    assert [drawn.read(at)[1] for at in drawn.lines("zero")[0]] == pytest.approx([0, 0], abs=0.03)
    boxes = drawn.labels
    assert len(boxes) > 10
    assert boxes.keys() <= {f"{trained}→{heard}" for trained, heard in pairs}
    assert not any(overlap(one, other) for one, other in itertools.combinations(boxes.values(), 2))


def test_correlations_are_told_with_their_limits(tmp_path: Path) -> None:
    text = page_of(tmp_path)[1].words.replace("\xa0", " ")
    assert "19 cells of 5 languages: Spearman's ρ = 0.74 (95% interval 0.51 to 0.86, over resampled sentences)" in text
    assert "p = 0.033 by permuting the labels of the languages" in text
    assert "120 permutations give no p below 0.0083" in text
    assert "ρ = −0.55 (95% interval −0.74 to −0.28" in text


def test_a_predictor_without_values_or_correlation(tmp_path: Path) -> None:
    predictors = study_figures()["predictors"] | {"r1": {}}
    nothing = {"spearman": None, "ci95": None, "p_permutation": None, "num_cells": 0, "num_permutations": 0}
    correlations = study_figures()["correlations"] | {"r1": nothing}
    source, page = page_of(tmp_path, predictors=predictors, correlations=correlations)
    assert source.count('<svg class="scatter"') == 1
    assert "No rank correlation: too few cells have a value" in page.words
    assert page.open == []


def test_runs_of_a_study_are_not_missed_in_the_pareto_plot(tmp_path: Path) -> None:
    baseline = write_baseline(tmp_path)
    for name in ("study-en-zh", "other"):
        write_translate(tmp_path, name, baseline, {"es-zh": 1.0}, None)
    assert collect(str(tmp_path)).not_placed == ("other", "study-en-zh")
    write_study(tmp_path)
    assert collect(str(tmp_path)).not_placed == ("other",)


def test_a_wide_matrix_leaves_gains_to_the_pointer(tmp_path: Path) -> None:
    languages = [f"l{k}" for k in range(8)]
    transfer_of = {trained: {heard: cell_of("en", "es") for heard in languages} for trained in languages}
    source, page = page_of(tmp_path, sources=languages, transfer=transfer_of, before={}, predictors={}, ranking=[])
    assert 'class="matrix transfer dense"' in source
    assert "Hover over a cell for its gain" in page.words


def test_hostile_names_are_text_and_the_page_is_whole(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    source, page = page_of(tmp_path, name=hostile.replace("/", ""), prompt=hostile, baseline=hostile)
    assert "img" not in page.tags
    assert hostile not in source
    assert page.open == []
    assert {tag for tag, _ in page.links} == {"a"}
