import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranked import spearman

from xlt_ray.metrics import rank_correlation
from xlt_ray.tune import results
from xlt_ray.tune.config import Axis, TuneConfig


def row(step, new, es, fr):
    return {"step": step, "dev_bleu": new, "dev_bleu/en-zh": new, "dev_bleu/es-en": es, "dev_bleu/fr-en": fr}


MEASURED = [row(10, 2.0, 8.0, 12.0), row(20, 6.0, 4.0, 6.0), row(30, 5.0, 9.0, 9.0)]


def test_the_outcome_is_that_of_the_weights_that_are_left():
    """The best by dev BLEU of what is learned, whatever happened to the rest."""
    found = results.outcome(MEASURED, ["es-en", "fr-en"])
    assert (found["step"], found["new_bleu"], found["old_bleu"]) == (20, 6.0, 5.0)
    assert found["bleu"] == {"en-zh": 6.0, "es-en": 4.0, "fr-en": 6.0}
    assert results.curve(MEASURED, ["es-en", "fr-en"]) == [
        {"step": 10, "new_bleu": 2.0, "old_bleu": 10.0},
        {"step": 20, "new_bleu": 6.0, "old_bleu": 5.0},
        {"step": 30, "new_bleu": 6.0, "old_bleu": 5.0},
    ]


def trial(number, new, old, status="finished", **settings):
    return {"trial": number, "new_bleu": new, "old_bleu": old, "status": status, "settings": settings}


TRIALS = [
    trial(0, 6.0, 1.0),
    trial(1, 4.0, 9.0),
    trial(2, 3.0, 8.0),
    trial(3, 2.0, 10.0),
    trial(4, 5.0, 5.0),
    trial(5, 99.0, 99.0, status="stopped"),
]


@pytest.mark.parametrize(
    ("objective", "more", "expected"),
    [
        ("gain", {}, [0, 4, 1]),
        ("kept", {}, [3, 1, 2]),
        ("mix", {"gain_weight": 0.9}, [0, 4, 1]),
        ("mix", {"gain_weight": 0.1}, [3, 1, 2]),
        ("pareto", {"num_chosen": 9}, [0, 4, 1, 3]),
        ("pareto", {"num_chosen": 2}, [0, 3]),
        ("pareto", {"num_chosen": 1}, [0]),
    ],
)
def test_which_trials_are_scored_on_test(objective, more, expected):
    config = TuneConfig(objective=objective, **{"num_chosen": 3, **more})
    assert results.choose(TRIALS, config) == expected


def test_scores_and_what_they_are_against():
    bleu = {"en-zh": 4.0, "es-en": 6.0, "fr-en": 10.0, "es-zh": 50.0, "en-en": 90.0}
    scores = results.scores_of(bleu, ["en-zh"], ["es-en", "fr-en"])
    assert scores == {"new_bleu": 4.0, "old_bleu": 8.0}
    assert results.against(scores, {"new_bleu": 1.0, "old_bleu": 16.0}) == {"gain": 3.0, "kept": 0.5}
    assert results.against(scores, {"new_bleu": 1.0, "old_bleu": 0.0})["kept"] is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20))
def test_the_rank_correlation_is_that_of_mean_ranks(pairs):
    first, second = zip(*pairs, strict=True)
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearman(first, second))


def test_importance_is_of_finished_trials():
    trials = [
        {**trial(0, 0, 0, learning_rate=1.0, ewc_lambda=5.0), "gain": 1.0, "kept": 0.9},
        {**trial(1, 0, 0, learning_rate=2.0, ewc_lambda=5.0), "gain": 2.0, "kept": 0.5},
        {**trial(2, 0, 0, learning_rate=3.0, ewc_lambda=5.0), "gain": 4.0, "kept": 0.1},
        {**trial(3, 0, 0, "stopped", learning_rate=9.0, ewc_lambda=0.0), "gain": -9.0, "kept": 2.0},
    ]
    found = results.importance(trials)
    assert found["learning_rate"] == pytest.approx({"gain": 1.0, "kept": -1.0})
    assert found["ewc_lambda"] == {"gain": None, "kept": None}


def test_the_table_and_the_sentence_name_the_chosen():
    shared = {"num_steps": 30, "on_front": True, "reason": None, "curve": [], "bleu": {}}
    best = {**trial(0, 6.0, 5.0, learning_rate=3e-5), **shared, "name": "s-000", "gain": 5.9, "kept": 0.5}
    best |= {"chosen": True, "test": {"gain": 4.4, "kept": 0.61}}
    failed = {**trial(1, None, None, "failed", learning_rate=1.0), **shared, "name": "s-001", "gain": None}
    failed |= {"kept": None, "chosen": False, "test": None, "on_front": False}
    before = {"new_bleu": 0.1, "old_bleu": 10.0}
    figures = {
        "trials": [failed, best],
        "objective": "pareto",
        "space": results.described({"learning_rate": Axis(values=(3e-5, 1.0))}),
        "baseline": {"dev": before, "test": before},
    }
    assert results.sentence(figures) == (
        "2 trials, 1 finished, 0 stopped, 1 failed. Best on dev by pareto: lr 3e-05: gain +5.9, kept 50 %."
    )
    table = results.as_table(figures)
    rows = [[column._cells[i] for column in table.columns] for i in range(2)]
    assert rows[0] == [">", "s-000", "3e-05", "finished", "30", "6.0", "5.9", "5.0", "50 %", "+4.4", "61 %"]
    assert rows[1][:4] == ["", "s-001", "1", "failed"]
    assert np.unique([len(row) for row in rows]).tolist() == [11]


def test_a_space_is_described_in_json():
    space = {"learning_rate": Axis(bounds=(1e-5, 1e-4)), "ewc_lambda": Axis(values=(0.0, 1.0))}
    assert results.described(space) == {
        "learning_rate": {"low": 1e-5, "high": 1e-4, "scale": "log"},
        "ewc_lambda": [0.0, 1.0],
    }
