"""Which examples make up each step, and how they become tensors.

The plan of a run is a function of its settings alone: the same on one worker or many, and the same after a crash.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xlt_ray.models.encoder import moved, pad_frames

if TYPE_CHECKING:
    from xlt_ray.finetune.config import FinetuneConfig

_WINDOW = 16
"""Batches among which examples are sorted by length; more of them pad less and mix less."""

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Examples as tensors. B examples, L tokens and T frames in the longest, N target tokens in all.

    Attributes:
        tokens: int64 (B, L), prompt and target without its last token, padded behind.
        predicts: bool (B, L), the positions whose next token belongs to a target.
        targets: int64 (N,), those next tokens, row by row.
        frames: fp32 (B, T, dim), zeros behind the shorter recordings.
        num_frames: int64 (B,), or None where all are equally long.
    """

    tokens: Tensor
    predicts: Tensor
    targets: Tensor
    frames: Tensor
    num_frames: Tensor | None


def collate(
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    frames: Sequence[npt.NDArray[np.float16]],
    device: str | torch.device = "cpu",
) -> Batch:
    """A batch of examples.

    Args:
        prompts: tokens that are given.
        targets: tokens to write, the end token last.
        frames: fp16 (num_frames, dim) each.
        device: where the batch goes.
    """
    inputs = [torch.tensor([*prompt, *target[:-1]]) for prompt, target in zip(prompts, targets, strict=True)]
    places = [torch.arange(len(row)) >= len(prompt) - 1 for row, prompt in zip(inputs, prompts, strict=True)]
    padded, lengths = pad_frames(frames, device)
    return Batch(
        tokens=moved(pad_sequence(inputs, batch_first=True), device),
        predicts=moved(pad_sequence(places, batch_first=True), device),
        targets=moved(torch.tensor(list(itertools.chain.from_iterable(targets))), device),
        frames=padded,
        num_frames=None if len({len(recording) for recording in frames}) == 1 else lengths,
    )


def plan(examples: pa.Table, *, batch_size: int, epochs: int, replay_fraction: float, seed: int) -> list[Indices]:
    """The rows of EXAMPLE that each step trains on, sorted by length inside a step.

    Every example to learn is seen once an epoch, in an order drawn anew; a step holds examples of similar length. Its
    share of replay is drawn from the examples to keep, all of them once before any of them twice.
    """
    lengths = examples["num_frames"].to_numpy()
    roles = np.array(examples["role"].to_pylist())
    learn, keep = (np.flatnonzero(roles == role) for role in ("learn", "keep"))
    num_keep = round(replay_fraction * batch_size)
    replay = _endless(keep, np.random.default_rng([seed, 1]))
    steps = []
    for epoch in range(epochs):
        for batch in _epoch(learn, lengths, batch_size - num_keep, np.random.default_rng([seed, 0, epoch])):
            mixed = np.array([*batch, *itertools.islice(replay, num_keep)])
            steps.append(mixed[np.argsort(lengths[mixed], kind="stable")])
    return steps


def plan_of(examples: pa.Table, config: FinetuneConfig) -> list[Indices]:
    """The plan of a run with these settings."""
    return plan(
        examples,
        batch_size=config.batch_size,
        epochs=config.epochs,
        replay_fraction=config.replay_fraction,
        seed=config.seed,
    )


def _epoch(rows: Indices, lengths: Indices, size: int, rng: np.random.Generator) -> list[Indices]:
    order = rng.permutation(rows)
    # No more than a quarter of an epoch, or a small corpus would make the same batches in every one.
    window = size * max(1, min(_WINDOW, len(rows) // size // 4))
    batches = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _endless(rows: Indices, rng: np.random.Generator) -> Iterator[int]:
    while len(rows):
        yield from rng.permutation(rows).tolist()


def share(step: Indices, rank: int, world_size: int) -> tuple[Indices, float]:
    """The examples of one worker in a step, and the weight of their loss.

    A worker that is left without one computes another's with weight 0, because DDP waits for its gradient.
    """
    own = step[rank::world_size]
    return (own, 1.0) if len(own) else (step[:1], 0.0)


def micro_batches(own: Indices, size: int | None) -> list[Indices]:
    """A worker's share cut to what it computes at a time."""
    return [own[i : i + (size or len(own))] for i in range(0, len(own), size or len(own))]
