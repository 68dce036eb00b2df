"""The plan of a run and its tensors, against their definitions."""

from collections import Counter

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_frames import examples, frames

from xlt_ray.finetune.batch import collate, micro_batches, plan, share


def table(num_learn, num_keep, num_dev, seed=0):
    roles = ["learn"] * num_learn + ["keep"] * num_keep + ["dev"] * num_dev
    order = np.random.default_rng(seed).permutation(len(roles))
    lengths = np.random.default_rng(seed + 1).integers(1, 1500, len(roles))
    return pa.table({"role": [roles[i] for i in order], "num_frames": pa.array(lengths, pa.int32())})


@settings(max_examples=60, deadline=None)
@given(
    num_learn=st.integers(1, 70),
    num_keep=st.integers(1, 30),
    batch_size=st.integers(2, 16),
    epochs=st.integers(1, 3),
    replay=st.sampled_from([0.0, 0.25, 0.5]),
    seed=st.integers(0, 3),
)
def test_every_epoch_sees_every_example_once_and_replay_is_even(num_learn, num_keep, batch_size, epochs, replay, seed):
    rows = table(num_learn, num_keep, 3)
    roles = np.array(rows["role"].to_pylist())
    num_replay = round(replay * batch_size)
    if num_replay >= batch_size:
        return
    steps = plan(rows, batch_size=batch_size, epochs=epochs, replay_fraction=replay, seed=seed)
    counts = Counter(int(i) for step in steps for i in step)
    assert all(counts[i] == epochs for i in np.flatnonzero(roles == "learn"))
    assert all(counts[i] == 0 for i in np.flatnonzero(roles == "dev"))
    kept = [counts[i] for i in np.flatnonzero(roles == "keep")]
    assert sum(kept) == num_replay * len(steps)
    assert max(kept) - min(kept) <= 1
    per_epoch = len(steps) // epochs
    for epoch in range(epochs):
        seen = [int(i) for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for i in step]
        assert sorted(i for i in seen if roles[i] == "learn") == np.flatnonzero(roles == "learn").tolist()
    for step in steps:
        assert len(step) <= batch_size
        assert np.all(np.diff(rows["num_frames"].to_numpy()[step]) >= 0)


def test_the_seed_alone_decides_the_order():
    rows = table(50, 10, 0)
    options = {"batch_size": 8, "epochs": 2, "replay_fraction": 0.25}
    again = [plan(rows, seed=seed, **options) for seed in (1, 1, 2)]
    assert all(np.array_equal(x, y) for x, y in zip(again[0], again[1], strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(again[0], again[2], strict=True))


def test_no_epoch_is_like_another():
    steps = plan(table(48, 0, 0), batch_size=8, epochs=2, replay_fraction=0.0, seed=0)
    first, second = ({frozenset(step.tolist()) for step in steps[i : i + 6]} for i in (0, 6))
    assert first != second


def test_similar_lengths_share_a_batch():
    rows = table(640, 0, 0)
    lengths = rows["num_frames"].to_numpy()
    steps = plan(rows, batch_size=8, epochs=1, replay_fraction=0.0, seed=0)
    padded = sum(len(step) * lengths[step].max() for step in steps)
    at_random = np.random.default_rng(0).permutation(640).reshape(-1, 8)
    assert padded / lengths.sum() < 1.15
    assert sum(8 * lengths[step].max() for step in at_random) / lengths.sum() > 1.6


@given(size=st.integers(1, 20), world_size=st.integers(1, 6), micro=st.one_of(st.none(), st.integers(1, 5)))
def test_shares_are_a_partition_and_nobody_waits_for_nothing(size, world_size, micro):
    step = np.arange(100, 100 + size)
    shares = [share(step, rank, world_size) for rank in range(world_size)]
    real = sorted(int(i) for own, weight in shares if weight for i in own)
    assert real == step.tolist()
    for own, weight in shares:
        assert len(own)
        assert weight in (0.0, 1.0)
        pieces = micro_batches(own, micro)
        assert np.concatenate(pieces).tolist() == own.tolist()
        assert all(len(piece) <= (micro or len(own)) for piece in pieces)


def test_a_batch_asks_for_every_target_token_and_no_other():
    prompts, targets, sound = examples()
    got = collate(prompts, targets, sound)
    assert got.targets.tolist() == [token for target in targets for token in target]
    for i, (prompt, target, heard) in enumerate(zip(prompts, targets, sound, strict=True)):
        given_tokens = [*prompt, *target]
        where = got.predicts[i].nonzero()[:, 0].tolist()
        # The token behind each marked place is a target token, and all of them are.
        assert [given_tokens[place + 1] for place in where] == target
        assert got.tokens[i, : len(given_tokens) - 1].tolist() == given_tokens[:-1]
        assert torch.equal(got.frames[i, : len(heard)], torch.from_numpy(heard).float())
        assert not got.frames[i, len(heard) :].any()
        assert int(got.num_frames[i]) == len(heard)


def test_recordings_of_one_length_need_no_mask():
    prompts, targets, _ = examples((5, 5))
    assert collate(prompts, targets, frames((5, 5))).num_frames is None
    assert collate(prompts, targets, frames((5, 6))).num_frames is not None
