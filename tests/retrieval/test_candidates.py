"""Pooled frames, candidates and their exact scores, against loops over recordings."""

import tempfile

import embedded
import numpy as np
import pyarrow.compute as pc
import pytest
import torch
import whole_matrix
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from xlt_ray.embed import committed
from xlt_ray.retrieval import candidates, top, units
from xlt_ray.retrieval.bitext import Sides
from xlt_ray.retrieval.candidates import CANDIDATES, Candidates
from xlt_ray.retrieval.config import MODES
from xlt_ray.retrieval.seqsim import Frames
from xlt_ray.retrieval.units import Stored
from xlt_ray.store.schema import Utterance

PAIR, DIM = ("en", "fr"), 4


def random_frames(seed, sizes):
    """By language; the first number keeps every mean away from zero, where a direction would be noise."""
    generator = np.random.default_rng(seed)
    shapes = [(int(generator.integers(1, 9)), DIM) for _ in range(sum(sizes))]
    made = [np.concatenate([np.ones((n, 1)), generator.normal(size=(n, d - 1))], axis=1) for n, d in shapes]
    made = [frames.astype(np.float16) for frames in made]
    return dict(zip(PAIR, (made[: sizes[0]], made[sizes[0] :]), strict=True))


def sides_of(root, frames):
    rows = [
        Utterance(utterance_id=f"{code}{n:03d}", sentence_id=f"{code}{n}", language=code, audio="/x.wav")
        for code in PAIR
        for n in range(len(frames[code]))
    ]
    artifact = embedded.write(
        root, "x", rows, lambda row: {None: frames[row.language][int(row.utterance_id[2:])]}, rows_per_unit=3
    )
    index = committed.read_index(artifact)
    first, second = (index.filter(pc.equal(index["language"], code)) for code in PAIR)
    return Sides(artifact.uri, PAIR, (first, second))


def naive_pooled(frames, num):
    unit = whole_matrix.unit(frames)
    return np.array([unit[start : start + num].mean(axis=0) for start in range(0, len(unit), num)])


@given(st.integers(0, 10**6), st.integers(1, 12), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_pooled_frames_are_means_of_unit_frames(seed, num, lengths):
    generator = np.random.default_rng(seed)
    parts = [generator.normal(size=(length, DIM)).astype(np.float16) for length in lengths]
    found = candidates.pooled(Stored(torch.from_numpy(np.concatenate(parts)), tuple(lengths)), num)
    expected = [naive_pooled(part, num) for part in parts]
    assert found.lengths == tuple(len(part) for part in expected)
    np.testing.assert_allclose(found.data.numpy(), np.concatenate(expected), atol=1e-6)


def found_by(sides, blocks, num, pool_frames, mode, strip):
    cut = units.cut(PAIR, sides.sizes, blocks)
    tables = [candidates.find(sides, unit, num, pool_frames, mode, strip, "cpu") for unit in cut]
    return candidates.gathered(tables, sides, CANDIDATES, num)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    num=st.integers(1, 5),
    pool_frames=st.integers(1, 5),
    mode=st.sampled_from(MODES),
    strip=st.integers(1, 4),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
@example(0, (7, 5), 2, 3, "recall", 2, (4, 4))
def test_candidates_are_the_best_by_pooled_frames_however_it_is_cut(seed, sizes, num, pool_frames, mode, strip, blocks):
    frames = random_frames(seed, sizes)
    with tempfile.TemporaryDirectory() as root:
        keys = found_by(sides_of(root, frames), blocks, num, pool_frames, mode, strip)
    pooled = {code: [naive_pooled(part, pool_frames) for part in frames[code]] for code in PAIR}
    matrix = whole_matrix.matrix(whole_matrix.MODES[mode], pooled["en"], pooled["fr"])
    wanted = np.zeros(sizes, dtype=bool)
    for side, scores in enumerate((matrix, matrix.T)):
        places, values = top.read(keys[side])
        k = min(num, scores.shape[1])
        assert (places[:, k:] == -1).all()
        np.testing.assert_allclose(values[:, :k], -np.sort(-scores, axis=1)[:, :k], atol=1e-5)
        np.testing.assert_allclose(np.take_along_axis(scores, places[:, :k], axis=1), values[:, :k], atol=1e-5)
        for query in range(len(scores)):
            wanted[(query, places[query, :k]) if side == 0 else (places[query, :k], query)] = True
    made = Candidates.make(keys)
    for rows in units.ranges(0, sizes[0], strip):
        for columns in units.ranges(0, sizes[1], strip):
            tile = wanted[rows.start : rows.stop, columns.start : columns.stop]
            np.testing.assert_array_equal(made.wanted(rows, columns), tile)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.sampled_from(MODES), st.data())
def test_only_wanted_pairs_are_scored_and_exactly(seed, sizes, mode, data):
    frames = random_frames(seed, sizes)
    x, y = (Frames.of([torch.from_numpy(part) for part in frames[code]]) for code in PAIR)
    flags = data.draw(st.lists(st.booleans(), min_size=sizes[0] * sizes[1], max_size=sizes[0] * sizes[1]))
    wanted = np.array(flags).reshape(sizes)
    found = candidates.scored(x, y, wanted, mode).numpy()
    expected = whole_matrix.matrix(whole_matrix.MODES[mode], frames["en"], frames["fr"])
    np.testing.assert_array_equal(np.isnan(found), ~wanted)
    np.testing.assert_allclose(found[wanted], expected[wanted], atol=1e-6)


def test_candidates_of_all_recordings_are_scored_as_all_pairs_are():
    """Not one bit is different: the candidates are no other way where they hold everything."""
    frames = random_frames(0, (6, 5))
    x, y = (Frames.of([torch.from_numpy(part) for part in frames[code]]) for code in PAIR)
    with tempfile.TemporaryDirectory() as root:
        keys = found_by(sides_of(root, frames), (4, 4), 5, 3, "f1", 2)
    every = Candidates.make(keys).wanted(range(6), range(5))
    assert every.all()
    whole = candidates.scored(x, y, np.ones((6, 5), dtype=bool), "f1")
    assert torch.equal(candidates.scored(x, y, every, "f1"), whole)
    assert not torch.isnan(whole).any()
    assert whole.numpy() == pytest.approx(whole_matrix.matrix(whole_matrix.f1, *frames.values()), abs=1e-6)


def test_recall_counts_the_nearest_that_are_among_the_candidates():
    """Keys 1 to 9 stand for neighbours; of the second query, which is sampled too, only one is there."""
    found = np.array([[1, 2], [3, top.NONE], [7, 8], [9, 9]])
    exact = np.array([[1, 4], [5, 3], [top.NONE, top.NONE], [9, 9]])
    recall = candidates.recall(found, exact, np.array([0, 1]))
    assert recall == {"first": 0.5, "nearest": 0.5, "num_sampled": 2}
    assert candidates.recall(found, exact, np.array([], int)) is None
