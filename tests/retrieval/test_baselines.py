import numpy as np
import pytest
import torch

from xlt_ray.retrieval import baselines
from xlt_ray.retrieval.seqsim import Frames


def ragged(seed, lengths, dim=6):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(length, dim, generator=generator) for length in lengths]
    return Frames.of(parts), [torch.nn.functional.normalize(part, dim=1).double().numpy() for part in parts]


X, X_PARTS = ragged(0, [3, 7, 1, 5])
Y, Y_PARTS = ragged(1, [4, 1, 9])


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def naive_dtw(a, b):
    """The recursion as Sakoe and Chiba print it, cell by cell."""
    distance = 1 - a @ b.T
    cost = np.full(distance.shape, np.inf)
    for i in range(len(a)):
        for j in range(len(b)):
            d = distance[i, j]
            ways = [2 * d] if i == j == 0 else []
            ways += [cost[i - 1, j] + d] if i else []
            ways += [cost[i, j - 1] + d] if j else []
            ways += [cost[i - 1, j - 1] + 2 * d] if i and j else []
            cost[i, j] = min(ways)
    return -cost[-1, -1] / (len(a) + len(b))


@pytest.mark.parametrize(
    ("score", "naive"),
    [
        (baselines.mean_pool, lambda a, b: cosine(a.mean(axis=0), b.mean(axis=0))),
        (baselines.max_pool, lambda a, b: cosine(a.max(axis=0), b.max(axis=0))),
        (baselines.dtw, naive_dtw),
    ],
)
def test_equals_its_definition(score, naive):
    expected = [[naive(a, b) for b in Y_PARTS] for a in X_PARTS]
    np.testing.assert_allclose(score(X, Y).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_dtw_does_not_depend_on_how_many_candidates_it_takes_at_a_time(monkeypatch):
    together = baselines.dtw(X, Y)
    monkeypatch.setattr(baselines, "_DTW_FRAMES", 5)
    np.testing.assert_allclose(baselines.dtw(X, Y), together, rtol=1e-6)


def test_dtw_of_an_utterance_with_itself_is_free():
    np.testing.assert_allclose(np.diag(baselines.dtw(X, X).numpy()), 0, atol=1e-6)
    assert baselines.dtw(X, Y).max() < -0.01


def test_random_depends_on_seed_and_pair_only():
    drawn = baselines.random(50, 60, 0, ("en", "fr"))
    assert np.array_equal(drawn, baselines.random(50, 60, 0, ("en", "fr")))
    assert not np.array_equal(drawn, baselines.random(50, 60, 1, ("en", "fr")))
    assert not np.array_equal(drawn, baselines.random(50, 60, 0, ("fr", "en")))
    assert abs(drawn.mean() - 0.5) < 0.03
