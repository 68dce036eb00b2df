"""SeqSim: how alike two utterances are, frame by frame. Pure torch, on any device.

For frame sequences X (m x d) and Y (n x d) with rows of length 1:

    R = mean_i max_j x_i . y_j        recall: how well the frames of X are found in Y
    P = mean_j max_i x_i . y_j        precision: how well the frames of Y are found in X
    F1 = 2 P R / (P + R), defined as 0 where P + R <= 0, since cosines can be negative

This is BERTScore (Zhang et al., 2020) on speech frames without idf weights, as in arXiv 2407.01130.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Scores = npt.NDArray[np.float32]

_CHUNK_BYTES = 4 << 20  # products of a chunk: stay in the caches of a CPU core; measured in benchmarks/seqsim.py
_CHUNK_BYTES_GPU = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Frames:
    """The frames of several utterances, one after the other.

    Attributes:
        data: (sum of lengths, dim) fp32, rows of length 1; a row of zeros stays zero.
        lengths: frames of each utterance.
    """

    data: torch.Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, utterances: Sequence[torch.Tensor]) -> Frames:
        """From (frames, dim) tensors of any float type, one an utterance.

        Raises:
            ValueError: if an utterance has no frame.
        """
        lengths = tuple(len(frames) for frames in utterances)
        if not lengths or 0 in lengths:
            raise ValueError(f"every utterance needs a frame, lengths are {lengths}")
        return cls(torch.nn.functional.normalize(torch.cat(list(utterances)).float(), dim=1), lengths)

    @property
    def offsets(self) -> list[int]:
        """Where each utterance starts, and at last the number of all frames."""
        return [0, *itertools.accumulate(self.lengths)]

    def part(self, first: int, last: int) -> Frames:
        """Utterances `first` to `last` (exclusive), without a copy."""
        offsets = self.offsets
        return Frames(self.data[offsets[first] : offsets[last]], self.lengths[first:last])


def seqsim(x: Frames, y: Frames, chunk_frames: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Recall and precision of every utterance of `x` with every utterance of `y`.

    One product of each pair of frames serves both: its maxima along rows give recall, those along columns precision. No
    frame is padded. The products of a chunk of utterances stay in the cache between the two.

    Args:
        x: N utterances.
        y: M utterances.
        chunk_frames: about how many frames of each side are multiplied at a time.

    Returns:
        recall (N, M) and precision (N, M), fp32.
    """
    chunk = chunk_frames or int(((_CHUNK_BYTES_GPU if x.data.is_cuda else _CHUNK_BYTES) / 4) ** 0.5)
    recall, precision = (x.data.new_empty(len(x.lengths), len(y.lengths)) for _ in range(2))
    columns = [(first, last, y.part(first, last)) for first, last in _chunks(y.lengths, chunk)]
    for top, bottom in _chunks(x.lengths, chunk):
        rows = x.part(top, bottom)
        average_x = _averages(rows)
        for first, last, part in columns:
            products = rows.data @ part.data.T
            best_y = torch.stack([block.amax(dim=1) for block in products.split(part.lengths, dim=1)], dim=1)
            best_x = torch.stack([block.amax(dim=0) for block in products.split(rows.lengths, dim=0)], dim=0)
            recall[top:bottom, first:last] = average_x @ best_y
            precision[top:bottom, first:last] = best_x @ _averages(part).T
    return recall, precision


def _chunks(lengths: Sequence[int], chunk_frames: int) -> list[tuple[int, int]]:
    """Consecutive utterances (first, last) of about `chunk_frames` frames together, at least one of them."""
    chunks, first, total = [], 0, 0
    for utterance, length in enumerate(lengths):
        if total and total + length > chunk_frames:
            chunks.append((first, utterance))
            first, total = utterance, 0
        total += length
    return [*chunks, (first, len(lengths))]


def _averages(frames: Frames) -> torch.Tensor:
    """The matrix (utterances, frames) that takes the mean over the frames of each utterance."""
    lengths = torch.tensor(frames.lengths, device=frames.data.device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    weights = frames.data.new_zeros(len(lengths), len(owner))
    weights[owner, torch.arange(len(owner), device=lengths.device)] = 1 / lengths[owner].float()
    return weights


def combine(recall: Scores, precision: Scores, mode: str) -> Scores:
    """One score from the two: `f1`, `mean`, `recall` or `precision`; element by element.

    Raises:
        ValueError: on another mode.
    """
    if mode == "f1":
        total = recall + precision
        f1: Scores = np.divide(2 * recall * precision, total, out=np.zeros_like(total), where=total > 0)
        return f1
    if mode == "mean":
        return (recall + precision) * np.float32(0.5)
    if mode in ("recall", "precision"):
        return recall if mode == "recall" else precision
    raise ValueError(f"mode {mode!r} is none of f1, mean, recall, precision")


def match_map(x: Frames, y: Frames) -> torch.Tensor:
    """Cosine of every frame of one utterance with every frame of another: (T_x, T_y)."""
    return x.data @ y.data.T
