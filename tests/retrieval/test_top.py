"""The best candidates, in whatever pieces they are found, against sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.retrieval import top

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, -1.0]


def sorted_head(scores, k):
    """Places of the k best, equals in their order, NaN last."""
    order = sorted(range(len(scores)), key=lambda place: (np.isnan(scores[place]), -scores[place], place))
    return order[:k]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.sampled_from(SPECIAL) | st.floats(-2, 2, width=32), min_size=1, max_size=20),
    k=st.integers(1, 8),
    size=st.integers(1, 20),
    last_first=st.booleans(),
)
def test_the_best_of_pieces_is_the_sorted_head_of_the_whole(scores, k, size, last_first):
    whole = np.array(scores, np.float32)
    pieces = [range(start, min(start + size, len(scores))) for start in range(0, len(scores), size)]
    found = torch.full((1, k), top.NONE)
    for piece in reversed(pieces) if last_first else pieces:
        found = top.best(found, top.keys(torch.from_numpy(whole[None, piece.start : piece.stop]), piece))
    places, values = top.read(found.numpy())
    expected = sorted_head(whole, k)
    assert places[0].tolist() == expected + [-1] * (k - len(expected))
    np.testing.assert_array_equal(values[0][: len(expected)], whole[expected])


def test_a_candidate_that_is_masked_is_not_found():
    keys = top.keys(torch.tensor([[0.5, torch.nan, 0.9]]), range(7, 10))
    found = top.best(torch.full((1, 3), top.NONE), keys.masked_fill(torch.tensor([False, False, True]), top.NONE))
    places, values = top.read(found.numpy())
    assert places.tolist() == [[7, 8, -1]]
    assert values[0, 0] == pytest.approx(0.5)
    assert np.isnan(values[0, 1])
