"""The examples of each training step, and their tensors.

The plan of a run depends only on its settings: it is the same for any number of workers, and after a crash.
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
"""Batches within which examples are sorted by length. More batches pad less, but shuffle less."""

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Examples as tensors. B examples, L tokens and T frames in the longest, N target tokens in all.

    Attributes:
        tokens: int64 (B, L), prompt and target without its last token, padded at the end.
        predicts: bool (B, L), the positions whose next token belongs to a target.
        targets: int64 (N,), those next tokens, row by row.
        frames: fp32 (B, T, dim), shorter recordings padded with zeros.
        num_frames: int64 (B,), or None if all have the same length.
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
    """Collate examples into a batch.

    Args:
        prompts: prompt tokens of each example.
        targets: target tokens of each example, including the end token.
        frames: fp16 (num_frames, dim) of each example.
        device: device of the batch.
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

    Every example to learn is seen once per epoch, in a new random order. A step has examples of similar length. Its
    replay examples are sampled without replacement from the examples to keep, until all have been used.
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

    A worker without an example computes one of another worker with weight 0, because DDP waits for its gradient.
    """
    own = step[rank::world_size]
    return (own, 1.0) if len(own) else (step[:1], 0.0)


def micro_batches(own: Indices, size: int | None) -> list[Indices]:
    """A worker's share, divided into micro-batches."""
    return [own[i : i + (size or len(own))] for i in range(0, len(own), size or len(own))]
