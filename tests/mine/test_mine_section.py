"""What the report shows of mining, and of retrieval among candidates, from metrics.json alone."""

import types

import pytest

from xlt_ray.mine.keys import keys, table_columns
from xlt_ray.mine.results import as_table, sentence
from xlt_ray.mine.section import read_mining
from xlt_ray.report.render import _environment

SPREAD = {"min": 1.0, "median": 1.0625, "max": 1.25}
PAIRS = {
    "en-fr": {
        **{"num_first": 1200, "num_second": 9, "num_found": 40, "num_mined": 7, "score": SPREAD, "margin": SPREAD},
        "candidate_recall": {"en-fr": {"first": 0.75}, "fr-en": {"first": 0.25}},
        "against_corpus": {
            **{"num_shared": 8, "precision": 0.5, "recall": 0.25, "f1": 0.333, "curve": []},
            "best": {"threshold": 1.125, "num": 3, "precision": 1.0, "recall": 0.25, "f1": 0.4},
        },
    },
    "en-it": {
        **{"num_first": 1200, "num_second": 5, "num_found": 0, "num_mined": 0, "score": None, "margin": None},
        **{"candidate_recall": {}, "against_corpus": None},
    },
}
METRICS = {
    **{"score": "seqsim", "mode": "f1", "margin": "ratio", "neighbours": 4, "one_to_one": True, "threshold": 1.5},
    **{"candidates": 8, "pairs": PAIRS},
}


def test_the_page_shows_every_pair_and_what_is_not_known():
    results = types.SimpleNamespace(mining={"mine <1>": read_mining(METRICS)})
    page = _environment().get_template("mine/section.html.jinja").render(results=results)
    assert "mine &lt;1&gt;" in page
    assert "<b>7 pairs of recordings</b>" in page
    assert "of at least 1.5000" in page
    assert "1,200 × 9" in page
    for cell in ("1.0625", "50.0", "25.0", "33.3", "40.0", "1.1250"):
        assert f">{cell}</td>" in page
    assert page.count("not known</td>") == 1
    assert ">all</td>" in page


def test_candidates_that_nobody_measured_are_not_said_to_hold_all():
    """`--mine.sample 0`: only where there are no more recordings than candidates is every pair scored."""
    unmeasured = PAIRS["en-fr"] | {"candidate_recall": {}}
    held = {
        num: [pair.held for pair in read_mining(METRICS | {"candidates": num, "pairs": {"en-fr": unmeasured}}).pairs]
        for num in (8, 9, "all")
    }
    assert held == {8: ["not measured"], 9: ["all"], "all": ["all"]}
    table = as_table(METRICS | {"pairs": {"en-fr": unmeasured}})
    assert list(table.columns[4].cells) == ["not measured"]


def test_the_figures_of_a_run_line_up():
    assert keys(METRICS) == pytest.approx(
        {
            "mine/num_mined": 7,
            "mine/precision/mean": 0.5,
            "mine/recall/mean": 0.25,
            "mine/f1/mean": 0.333,
            "mine/candidate_recall/mean": 0.5,
        }
    )
    assert table_columns(METRICS) == {
        **{"pair": ["en-fr", "en-it"], "num_first": [1200, 1200], "num_second": [9, 5], "num_found": [40, 0]},
        **{"num_mined": [7, 0], "precision": [0.5, None], "recall": [0.25, None], "f1": [0.333, None]},
        **{"candidate_recall": [0.75, None], "candidate_recall_back": [0.25, None]},
    }
    assert sentence(METRICS).startswith("7 pairs of 2 pairs of languages; F1 by the corpus 33.3 %")
    assert as_table(METRICS).row_count == 2
