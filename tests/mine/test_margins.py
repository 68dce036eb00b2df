"""Margins, the union of both ways and the choice, against whole matrices and loops."""

import naive_mining
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from xlt_ray.mine.config import MineConfig
from xlt_ray.mine.margins import FOUND_BY, Pairs, chosen
from xlt_ray.retrieval import top

KINDS = ("ratio", "distance", "absolute")
scores = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -0.5]) | st.floats(-1, 1, width=32)
matrices = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.lists(scores, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda values: np.array(values, np.float32).reshape(shape)
    )
)


def nearest(matrix, k):
    """Keys of the k nearest of each row."""
    keys = top.keys(torch.from_numpy(matrix), range(matrix.shape[1]))
    return top.best(torch.full((len(matrix), k), top.NONE), keys).numpy()


def pairs_of(matrix, k):
    return Pairs.make(nearest(matrix, k), nearest(matrix.T.copy(), k))


@given(matrices, st.integers(1, 5))
@example(np.array([[0.5, np.nan], [np.nan, np.nan]], np.float32), 2)
@example(np.full((2, 3), np.nan, np.float32), 1)
def test_pairs_are_those_of_the_whole_matrix(matrix, k):
    found, expected = pairs_of(matrix, k), naive_mining.pairs(matrix.astype(np.float64), k)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == sorted(expected)
    for place, key in enumerate(sorted(expected)):
        score, ratio, distance, found_by = expected[key]
        assert found.score[place] == score
        assert found.margins("absolute")[place] == score
        assert found.margins("distance")[place] == pytest.approx(distance, abs=1e-12)
        assert FOUND_BY[found.found_by[place]] == found_by
        if ratio is None:
            assert np.isnan(found.margins("ratio")[place])
        elif abs(score - distance) > 1e-9:  # else it is rounding whether the mean is above 0
            assert found.margins("ratio")[place] == pytest.approx(ratio, rel=1e-6)


@given(
    matrices,
    st.integers(1, 4),
    st.sampled_from(KINDS),
    st.booleans(),
    st.none() | st.sampled_from([-0.5, 0.0, 0.5, 1.0]),
    st.none() | st.integers(1, 5),
)
def test_what_is_taken_is_what_a_loop_takes(matrix, k, kind, one_to_one, threshold, top_n):
    """Margins are given as they are, so that no rounding decides."""
    found = pairs_of(matrix, k)
    values = found.margins(kind)
    config = MineConfig(margin=kind, one_to_one=one_to_one, threshold=threshold, top_n=top_n)
    there = {
        (i, j): (value, value, value, "") if not np.isnan(value) else (None, None, None, "")
        for i, j, value in zip(found.first.tolist(), found.second.tolist(), values.tolist(), strict=True)
    }
    taken = chosen(found.first, found.second, values, config)
    keys = [(int(found.first[place]), int(found.second[place])) for place in taken]
    assert keys == naive_mining.chosen(there, kind, one_to_one, threshold, top_n)


def test_a_margin_is_what_the_paper_says():
    """Artetxe and Schwenk (2019): cos(x, y) over the sum of the cosines of the k nearest of both, each over 2k."""
    matrix = np.array([[0.9, 0.5, 0.1], [0.4, 0.8, 0.3]], np.float32)
    found = pairs_of(matrix, 2)
    place = [(0, 0), (0, 1)].index((0, 0))
    expected = (0.9 + 0.5) / 4 + (0.9 + 0.4) / 4
    assert found.margins("ratio")[place] == pytest.approx(0.9 / expected)
    assert found.margins("distance")[place] == pytest.approx(0.9 - expected)
