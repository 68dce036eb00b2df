"""BLEU by distance on the page: the dots against the table of distances, the rank correlation against SciPy's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from drawn import Drawn, corners, markers
from ranked import spearman
from rendered import Page
from tuned_runs import figures_of, write_artifact, write_baseline

from xlt_ray.charts.svg import to_svg
from xlt_ray.languages import LANGUAGES
from xlt_ray.report.collect import collect
from xlt_ray.report.render import render
from xlt_ray.translate import distance

TITLE = "BLEU into English by distance to the nearest seen language"
AUTO = {"kea-en": 21.0, "wo-en": 1.5, "ast-en": 24.0, "ig-en": 1.25, "sw-en": 7.0, "kea-zh": 3.0}
RELATED = {"kea-en": 25.0, "wo-en": 1.0, "ast-en": 26.0, "sw-en": 2.0, "kea-zh": 4.0}
BY_DISTANCE = ["ast", "kea", "ig", "wo"]


def page_of(root: Path, **runs: dict[str, float]) -> tuple[str, Page]:
    for name, bleu in runs.items():
        write_artifact(root, "translate", name, {"run": name}, {}, figures_of(bleu, {"kea-kea": 0.5}))
    source = render(collect(str(root)))
    return source, Page(source)


def figures(bleu: dict[str, float]) -> dict[str, Any]:
    return figures_of(bleu, {"kea-kea": 0.5})


def test_the_table_has_every_language_without_token_by_distance(tmp_path: Path) -> None:
    _, page = page_of(tmp_path, auto=AUTO, related=RELATED)
    assert page.words.count(TITLE) == 1
    heads = [row for row in page.rows if "nearest seen" in row]
    assert [row[-2:] for row in heads] == [["auto", "related"]]
    rows = [row for row in page.rows if row and re.fullmatch(r"(ast|kea|ig|wo|sw), .*", row[0])]
    assert [row[0].split(",")[0] for row in rows] == BY_DISTANCE
    kea = page.row("kea, Kabuverdianu")
    assert kea[1:] == ["Creole, Portuguese-based", "Latn", "it, Italian", "0.070", "158 of 289", "21.0", "25.0"]
    assert page.row("ig, Igbo")[-2:] == ["1.2", "–"]


def test_the_dots_lie_at_distance_and_bleu() -> None:
    drawn = Drawn(str(to_svg(distance.distance_scatter(figures(AUTO)), "scatter")))
    assert [title.split("-")[0] for title in drawn.titles] == BY_DISTANCE
    for group, code in zip(drawn.groups("mark"), BY_DISTANCE, strict=True):
        typology = LANGUAGES[code].typology
        assert typology is not None
        bleu = AUTO[f"{code}-en"]
        line, _ = group.iter("path")
        (place,) = markers(group)
        assert drawn.read(place)[0] == pytest.approx(typology.distance, abs=0.0002)
        assert [drawn.read(at)[1] for at in (*corners(line), place)] == pytest.approx(
            [bleu * 0.5, bleu, bleu * 1.5, bleu], abs=0.15
        )
    assert min(value for _, value in drawn.ticks[0]) == 0
    assert [*drawn.labels] == BY_DISTANCE


def test_the_correlation_is_spearmans(tmp_path: Path) -> None:
    distances = [typology.distance for code in BY_DISTANCE if (typology := LANGUAGES[code].typology)]
    expected = spearman(distances, [AUTO[f"{code}-en"] for code in BY_DISTANCE])
    assert distance.distance_correlation(figures(AUTO)) == pytest.approx(expected)
    _, page = page_of(tmp_path, auto=AUTO)
    assert f"4 languages: Spearman's ρ = {expected:.2f}".replace("-", "−") in page.words
    assert distance.distance_correlation(figures({"kea-en": 3.0, "wo-en": 2.0})) is None


def test_one_run_has_the_figure_too_and_runs_without_such_a_language_are_left_out(tmp_path: Path) -> None:
    source, page = page_of(tmp_path, auto=AUTO)
    assert (page.words.count(TITLE), source.count('class="scatter"')) == (1, 1)
    source, page = page_of(tmp_path, auto=AUTO, related=RELATED, seen={"fr-en": 9.0, "sw-en": 3.0})
    assert (page.words.count(TITLE), source.count('class="scatter"')) == (1, 2)
    assert page.row("kea, Kabuverdianu")[-2:] == ["21.0", "25.0"]


def test_no_figure_without_a_language_that_has_no_token(tmp_path: Path) -> None:
    write_baseline(tmp_path)
    assert TITLE not in page_of(tmp_path, into_zh={"kea-zh": 3.0})[1].words
