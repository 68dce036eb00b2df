"""The kernel of a GPU, run by Triton's interpreter, against float64. Real cards run benchmarks/gpu.py."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
from xlt_ray.retrieval import fused
from xlt_ray.retrieval.seqsim import Frames, seqsim

pytestmark = pytest.mark.timeout(400)  # the interpreter takes seconds a product

lengths = st.lists(st.integers(1, 150), min_size=1, max_size=4)


def unit(seed, of_lengths, dim):
    generator = torch.Generator().manual_seed(seed)
    return Frames.joined(torch.randn(sum(of_lengths), dim, generator=generator) + 0.5, of_lengths)


def in_float64(x, y):
    """Recall and precision from the halves that the kernel is given, pair by pair."""
    found = np.empty((2, len(x.lengths), len(y.lengths)))
    for i, rows in enumerate(x.data.half().double().split(x.lengths)):
        for j, columns in enumerate(y.data.half().double().split(y.lengths)):
            product = (rows @ columns.T).numpy()
            found[:, i, j] = product.max(axis=1).mean(), product.max(axis=0).mean()
    return found


def scored(x, y, **tuning):
    return fused.seqsim(x.data.half(), x.lengths, y.data.half(), y.lengths, **tuning)


@pytest.mark.slow
@settings(max_examples=12)
@given(x_lengths=lengths, y_lengths=lengths, dim=st.sampled_from([16, 80, 128]), seed=st.integers(0, 9))
@example(x_lengths=[128, 128], y_lengths=[127, 1, 128], dim=64, seed=0)  # tiles end with utterances
@example(x_lengths=[1] * 130, y_lengths=[2], dim=16, seed=0)  # many of them in a tile
def test_equals_float64(x_lengths, y_lengths, dim, seed):
    x, y = unit(seed, x_lengths, dim), unit(seed + 100, y_lengths, dim)
    np.testing.assert_allclose(np.stack(scored(x, y)), in_float64(x, y), atol=1e-6)


def test_halves_move_a_score_of_speech_by_less_than_1e_4():
    x, y = unit(0, [137, 61], 512), unit(1, [90, 111], 512)
    for mine, exact in zip(scored(x, y), seqsim(x, y), strict=True):
        assert (mine - exact).abs().max() < 1e-4


def test_tiles_of_any_shape_give_the_same():
    x, y = unit(0, [70, 20], 32), unit(1, [33, 90, 5], 32)
    small = scored(x, y, BLOCK_X=16, BLOCK_Y=32, BLOCK_D=16, GROUP=2)
    for one, other in zip(small, scored(x, y), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_a_pair_scores_the_same_alone_and_among_others():
    """What counts as a tie is nearer than 1e-6."""
    x, y = unit(0, [70, 20, 140], 32), unit(1, [33, 90, 5], 32)
    for many, one in zip(scored(x, y), scored(x.part(1, 2), y.part(1, 2)), strict=True):
        assert (many[1, 1] - one[0, 0]).abs() <= 1e-6


@pytest.mark.parametrize("side", [0, 1])
def test_nan_in_a_frame_spoils_the_pairs_of_its_utterance_and_no_other(side):
    sides = unit(0, [40, 20], 32), unit(1, [33, 90], 32)
    sides[side].data[5, 3] = torch.nan
    there, here = (np.isnan(np.stack(each)) for each in (scored(*sides), seqsim(*sides)))
    np.testing.assert_array_equal(there, here)
    assert there.sum() == 2 * 2  # recall and precision, with both utterances of the other side
