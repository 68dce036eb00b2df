import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.retrieval.seqsim import Frames, combine, match_map, seqsim

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)
MODES = ("f1", "mean", "recall", "precision")


def parts(seed, of_lengths, dim=5, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, dim, generator=generator) + shift for length in of_lengths]


def naive(x, y):
    """Recall and precision of two utterances, frame by frame in float64."""
    x, y = ([frame / np.linalg.norm(frame) for frame in part.double().numpy()] for part in (x, y))
    recall = sum(max(float(a @ b) for b in y) for a in x) / len(x)
    precision = sum(max(float(a @ b) for a in x) for b in y) / len(y)
    return recall, precision


@settings(max_examples=40, deadline=None)
@given(x_lengths=lengths, y_lengths=lengths, chunk=st.integers(1, 40), seed=st.integers(0, 9))
def test_equals_a_naive_double_loop_in_float64(x_lengths, y_lengths, chunk, seed):
    x, y = parts(seed, x_lengths), parts(seed + 100, y_lengths)
    recall, precision = seqsim(Frames.of(x), Frames.of(y), chunk)
    expected = np.array([[naive(a, b) for b in y] for a in x])
    np.testing.assert_allclose(recall, expected[:, :, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(precision, expected[:, :, 1], rtol=1e-5, atol=1e-6)


def test_equals_the_naive_loop_at_the_size_of_speech():
    x, y = parts(0, [137, 250, 61], 512), parts(1, [90, 311], 512)
    recall, precision = seqsim(Frames.of(x), Frames.of(y))
    expected = np.array([[naive(a, b) for b in y] for a in x])
    np.testing.assert_allclose(np.stack([recall, precision], axis=2), expected, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(x_lengths=lengths, y_lengths=lengths, seed=st.integers(0, 9), scale=st.floats(1e-3, 1e3))
def test_invariants(x_lengths, y_lengths, seed, scale):
    x, y = parts(seed, x_lengths), parts(seed + 100, y_lengths)
    recall, precision = seqsim(Frames.of(x), Frames.of(y))
    assert recall.abs().max() <= 1 + 1e-6
    assert precision.abs().max() <= 1 + 1e-6
    flipped_recall, flipped_precision = seqsim(Frames.of(y), Frames.of(x))
    torch.testing.assert_close(flipped_recall, precision.T)
    torch.testing.assert_close(flipped_precision, recall.T)
    scaled, _ = seqsim(Frames.of([scale * part for part in x]), Frames.of(y))
    torch.testing.assert_close(scaled, recall, rtol=1e-4, atol=1e-5)
    alone = torch.cat([seqsim(Frames.of([part]), Frames.of(y))[0] for part in x])
    torch.testing.assert_close(alone, recall)


@pytest.mark.parametrize("mode", MODES)
def test_an_utterance_is_most_like_itself(mode):
    x = Frames.of(parts(3, [4, 8, 2]))
    scores = combine(*seqsim(x, x), mode)
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-6)
    assert (scores <= 1 + 1e-6).all()


def test_f1_is_the_harmonic_mean_and_defined_everywhere():
    recall = torch.tensor([[0.5, -0.2, 0.3, 0.0, 1.0]])
    precision = torch.tensor([[0.25, 0.1, -0.3, 0.0, 1.0]])
    expected = [[2 * 0.5 * 0.25 / 0.75, 0, 0, 0, 1]]
    np.testing.assert_allclose(combine(recall, precision, "f1"), expected, rtol=1e-6)
    np.testing.assert_allclose(combine(recall, precision, "mean"), (recall + precision) / 2)
    with pytest.raises(ValueError, match="'best' is none of f1"):
        combine(recall, precision, "best")


def test_half_precision_frames_are_scored_in_single():
    x, y = parts(0, [30, 40], 64), parts(1, [20], 64)
    halves = [part.half() for part in x], [part.half() for part in y]
    recall, _ = seqsim(Frames.of(halves[0]), Frames.of(halves[1]))
    assert recall.dtype == torch.float32
    torch.testing.assert_close(recall, seqsim(Frames.of(x), Frames.of(y))[0], rtol=1e-3, atol=1e-3)


def test_a_broken_frame_spoils_its_own_utterance_alone():
    x, y = parts(0, [5, 6, 4]), parts(1, [4, 7])
    x[0][2] = torch.nan
    recall, precision = seqsim(Frames.of(x), Frames.of(y))
    assert torch.isnan(recall[0]).all()
    assert torch.isnan(precision[0]).all()
    expected = np.array([[naive(a, b) for b in y] for a in x[1:]])
    np.testing.assert_allclose(np.stack([recall, precision], axis=2)[1:], expected, rtol=1e-5, atol=1e-6)
    for mode in MODES:
        assert torch.isnan(combine(recall, precision, mode)).tolist() == [[True, True], [False, False], [False, False]]


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (7, [(0, 2, (3, 4)), (2, 3, (9,)), (3, 6, (1, 1, 5))]),
        (6, [(0, 1, (3,)), (1, 2, (4,)), (2, 3, (9,)), (3, 5, (1, 1)), (5, 6, (5,))]),
    ],
)
def test_chunks_hold_every_utterance_once_and_no_more_frames_than_asked(num_frames, expected):
    frames = Frames.of(parts(0, [3, 4, 9, 1, 1, 5]))
    assert [(first, last, part.lengths) for first, last, part in frames.chunks(num_frames)] == expected


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="needs a frame"):
        Frames.of([torch.randn(3, 2), torch.randn(0, 2)])


def test_match_map_holds_the_cosines():
    (x,), (y,) = parts(0, [3]), parts(1, [4])
    expected = torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=2)
    torch.testing.assert_close(match_map(Frames.of([x]), Frames.of([y])), expected)


def test_utterances_are_taken_in_the_order_given():
    frames = Frames.of(parts(0, [3, 1, 4]))
    taken = frames.take([2, 0, 2])
    assert taken.lengths == (4, 3, 4)
    torch.testing.assert_close(taken.data, torch.cat([frames.data[4:], frames.data[:3], frames.data[4:]]))
