import numpy as np
import pytest
import torch
import whole_matrix
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.retrieval import baselines
from xlt_ray.retrieval.seqsim import Frames


def ragged(seed, lengths, dim=6):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(length, dim, generator=generator) for length in lengths]
    return Frames.of(parts), [torch.nn.functional.normalize(part, dim=1).double().numpy() for part in parts]


X, X_PARTS = ragged(0, [3, 7, 1, 5])
Y, Y_PARTS = ragged(1, [4, 1, 9])


@pytest.mark.parametrize(
    ("score", "naive"),
    [(getattr(baselines, name), naive) for name, naive in whole_matrix.BASELINES.items()],
    ids=list(whole_matrix.BASELINES),
)
def test_equals_its_definition(score, naive):
    expected = [[naive(a, b) for b in Y_PARTS] for a in X_PARTS]
    np.testing.assert_allclose(score(X, Y).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_dtw_does_not_depend_on_how_many_candidates_it_takes_at_a_time(monkeypatch):
    together = baselines.dtw(X, Y)
    monkeypatch.setattr(baselines, "_DTW_FRAMES", 5)
    np.testing.assert_allclose(baselines.dtw(X, Y), together, rtol=1e-6)


def test_dtw_pads_no_short_utterances_to_a_long_one(monkeypatch):
    sizes = []

    def padded(blocks, batch_first):
        found = torch.nn.utils.rnn.pad_sequence(blocks, batch_first=batch_first)
        sizes.append(found.shape[:2])
        return found

    monkeypatch.setattr(baselines, "pad_sequence", padded)
    monkeypatch.setattr(baselines, "_DTW_FRAMES", 40)
    y, parts = ragged(2, [1, 2, 1, 30, 1, 2, 50, 1])
    found = baselines.dtw(X, y).numpy()
    assert max(num * longest for num, longest in sizes if num > 1) <= 40
    assert len(sizes) == 3 * len(X_PARTS)
    np.testing.assert_allclose(
        found, [[whole_matrix.BASELINES["dtw"](a, b) for b in parts] for a in X_PARTS], rtol=1e-5
    )


def test_dtw_of_an_utterance_with_itself_is_free():
    np.testing.assert_allclose(np.diag(baselines.dtw(X, X).numpy()), 0, atol=1e-6)
    assert baselines.dtw(X, Y).max() < -0.01


def test_random_depends_on_seed_and_pair_only():
    def drawn(seed, pair):
        return baselines.random(range(50), range(60), 60, seed, pair)

    assert np.array_equal(drawn(0, ("en", "fr")), drawn(0, ("en", "fr")))
    assert not np.array_equal(drawn(0, ("en", "fr")), drawn(1, ("en", "fr")))
    assert not np.array_equal(drawn(0, ("en", "fr")), drawn(0, ("fr", "en")))
    assert abs(drawn(0, ("en", "fr")).mean() - 0.5) < 0.03


@given(
    st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(0, 8), min_size=1), st.integers(0, 8), st.integers(1, 9)
)
def test_a_part_of_what_is_drawn_is_that_of_the_whole(num_rows, num_columns, rows, first, num):
    rows = [row % num_rows for row in rows]
    columns = range(first % num_columns, min(first % num_columns + num, num_columns))
    whole = whole_matrix.drawn(num_rows, num_columns, 3, "en-fr")
    part = baselines.random(rows, columns, num_columns, 3, ("en", "fr"))
    assert np.array_equal(part, whole[rows][:, columns.start : columns.stop])
