"""F1 by threshold and the spread of scores, against loops."""

import naive_mining
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.mine import figures

rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde"), st.sampled_from([0.0, 0.5, 1.0, 1.5])), max_size=30
)


@given(rows)
def test_f1_by_threshold_is_that_of_the_pairs_above_it(pairs):
    pairs = sorted(pairs, key=lambda row: -row[2])
    sentences = [first for first, *_ in pairs], [second for _, second, _ in pairs]
    margins = np.array([margin for *_, margin in pairs], np.float64)
    shared = {"a", "b", "c", "d", "never said"}
    found = figures.against_corpus(sentences, margins, shared)
    everything = [(place, place) for place in range(len(pairs))]
    precision, recall, f1 = naive_mining.figures(everything, sentences, shared)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((precision, recall, f1))
    assert [point["threshold"] for point in found["curve"]] == sorted(set(margins.tolist()), reverse=True)
    for point in found["curve"]:
        kept = [key for key in everything if margins[key[0]] >= point["threshold"]]
        assert point["num"] == len(kept)
        naive = naive_mining.figures(kept, sentences, shared)
        assert (point["precision"], point["recall"], point["f1"]) == pytest.approx(naive)
    highest = max((point["f1"] for point in found["curve"]), default=None)
    assert (found["best"] and found["best"]["f1"]) == highest


def test_nothing_is_known_of_languages_that_share_no_sentence():
    assert figures.against_corpus((["a"], ["b"]), np.array([1.0]), set()) is None


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    margins = np.linspace(2, 1, 1000)
    sentences = ["a"] * 1000, ["a"] * 1000
    found = figures.against_corpus(sentences, margins, {"a"})
    assert len(found["curve"]) == figures.MAX_POINTS
    assert (found["curve"][0]["threshold"], found["curve"][-1]["threshold"]) == (2, 1)


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=20))
def test_the_spread_is_between_the_extremes(values):
    found = list(figures.spread(np.array(values)).values())
    assert found[0] == min(values)
    assert found[-1] == max(values)
    assert found == sorted(found)
