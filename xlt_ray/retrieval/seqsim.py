"""SeqSim: similarity of two utterances by their frames. Pure torch on a CPU; the kernel of `fused` on a GPU.

For frame sequences X (m x d) and Y (n x d) with rows of length 1:

    R = mean_i max_j x_i . y_j        recall: how well the frames of X match those of Y
    P = mean_j max_i x_i . y_j        precision: how well the frames of Y match those of X
    F1 = 2 P R / (P + R), defined as 0 where P + R <= 0, since cosines can be negative

This is BERTScore (Zhang et al., 2020) on speech frames without idf weights, as in arXiv 2407.01130.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch

_CHUNK_FRAMES = 1024  # 4 MiB of products: they stay in the caches of a CPU core; measured in benchmarks/seqsim.py
_ALIGNED = 16  # fp32 numbers in 64 bytes: torch.mm writes rows that start there up to 1.4 times as fast as others


@dataclasses.dataclass(frozen=True, slots=True)
class Frames:
    """The concatenated frames of several utterances.

    Attributes:
        data: (sum of lengths, dim), rows of length 1; a row of zeros stays zero. fp32 on a CPU; fp16 on a GPU, which
            multiplies it 15 times as fast and adds in fp32: a score moves by 1e-5 at most (benchmarks/gpu.py).
        lengths: frames of each utterance.
    """

    data: torch.Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, utterances: Sequence[torch.Tensor]) -> Frames:
        """From (frames, dim) tensors of any float type, one per utterance.

        Raises:
            ValueError: if an utterance has no frame.
        """
        return cls.joined(torch.cat(list(utterances)), [len(frames) for frames in utterances])

    @classmethod
    def joined(cls, data: torch.Tensor, lengths: Sequence[int]) -> Frames:
        """From the concatenated frames of all utterances: (sum of lengths, dim), any float type.

        Raises:
            ValueError: if an utterance has no frame.
        """
        if not lengths or 0 in lengths:
            raise ValueError(f"every utterance needs a frame, lengths are {lengths}")
        unit = torch.nn.functional.normalize(data.float(), dim=1)
        return cls(unit.half() if unit.is_cuda else unit, tuple(lengths))

    @property
    def offsets(self) -> list[int]:
        """The first frame of each utterance, then the total number of frames."""
        return [0, *itertools.accumulate(self.lengths)]

    def part(self, first: int, last: int) -> Frames:
        """Utterances `first` to `last` (exclusive), without a copy."""
        offsets = self.offsets
        return Frames(self.data[offsets[first] : offsets[last]], self.lengths[first:last])

    def take(self, utterances: Sequence[int]) -> Frames:
        """Some utterances, in the order given."""
        parts = self.data.split(self.lengths)
        return Frames(torch.cat([parts[place] for place in utterances]), tuple(self.lengths[u] for u in utterances))

    def chunks(self, num_frames: int) -> list[tuple[int, int, Frames]]:
        """Consecutive utterances of at most `num_frames` frames, or one longer: first, last (exclusive), part."""
        starts, total = [0], 0
        for utterance, length in enumerate(self.lengths):
            if total and total + length > num_frames:
                starts.append(utterance)
                total = 0
            total += length
        return [(*ends, self.part(*ends)) for ends in itertools.pairwise([*starts, len(self.lengths)])]


def seqsim(x: Frames, y: Frames, chunk_frames: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Recall and precision of every utterance of `x` with every utterance of `y`.

    One matrix product gives both: maxima along rows give recall, maxima along columns give precision. Frames are not
    padded. The products of a chunk of utterances stay in the cache between the two reductions.

    Args:
        x: N utterances.
        y: M utterances.
        chunk_frames: approximate number of frames of each side that a CPU multiplies at a time.

    Returns:
        recall (N, M) and precision (N, M), fp32.
    """
    if x.data.is_cuda:
        return _fused(x, y)
    chunk = chunk_frames or _CHUNK_FRAMES
    recall, precision = (x.data.new_empty(len(x.lengths), len(y.lengths)) for _ in range(2))
    rows, columns = x.chunks(chunk), y.chunks(chunk)
    buffer = _buffer([part for *_, part in rows], [part for *_, part in columns])
    for top, bottom, left in rows:
        for first, last, right in columns:
            products = torch.mm(left.data, right.data.T, out=buffer[: len(left.data), : len(right.data)])
            best_y = torch.stack([block.amax(dim=1) for block in products.split(right.lengths, dim=1)])
            best_x = torch.stack([block.amax(dim=0) for block in products.split(left.lengths, dim=0)])
            recall[top:bottom, first:last] = _means(best_y, left.lengths)
            precision[top:bottom, first:last] = _means(best_x, right.lengths).T
    return recall, precision


def seqsim_of(x: Frames, y: Frames, rows: Sequence[int], columns: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Recall and precision of selected pairs, one matrix product each, without copies.

    Args:
        x: N utterances.
        y: M utterances.
        rows: the utterance of `x` of each pair; at least one pair.
        columns: the utterance of `y` of each pair.

    Returns:
        recall (num_pairs,) and precision (num_pairs,), fp32.
    """
    left, right = x.data.split(x.lengths), y.data.split(y.lengths)
    if x.data.is_cuda:
        # By the same kernel as whole blocks: a hit must not score less alone than among others.
        sides = [[Frames(part, (len(part),)) for part in side] for side in (left, right)]
        alone = [_fused(sides[0][row], sides[1][column]) for row, column in zip(rows, columns, strict=True)]
        return torch.cat([recall[0] for recall, _ in alone]), torch.cat([precision[0] for _, precision in alone])
    products = (left[row] @ right[column].T for row, column in zip(rows, columns, strict=True))
    found = torch.stack([torch.stack([p.amax(dim=1).mean(), p.amax(dim=0).mean()]) for p in products])
    return found[:, 0], found[:, 1]


def _fused(x: Frames, y: Frames) -> tuple[torch.Tensor, torch.Tensor]:
    # Imported here: Triton comes with PyTorch for GPUs alone.
    from xlt_ray.retrieval import fused

    return fused.seqsim(x.data, x.lengths, y.data, y.lengths)


def _buffer(rows: Sequence[Frames], columns: Sequence[Frames]) -> torch.Tensor:
    """Room for the products of any two chunks, each row of it on a boundary of 64 bytes."""
    height, width = (max(len(part.data) for part in parts) for parts in (rows, columns))
    return rows[0].data.new_empty(height, -(-width // _ALIGNED) * _ALIGNED)


def _means(best: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Means over the frames of each utterance: (K, sum of lengths) to (utterances, K)."""
    return torch.stack([part.mean(dim=1) for part in best.split(lengths, dim=1)])


def combine(recall: torch.Tensor, precision: torch.Tensor, mode: str) -> torch.Tensor:
    """Combine both into one score, element by element: `f1`, `mean`, `recall` or `precision`. NaN stays NaN.

    Raises:
        ValueError: if the mode is unknown.
    """
    if mode == "f1":
        total = recall + precision
        return torch.where(total <= 0, torch.zeros_like(total), 2 * recall * precision / total)
    if mode == "mean":
        return (recall + precision) * 0.5
    if mode in ("recall", "precision"):
        return recall if mode == "recall" else precision
    raise ValueError(f"mode {mode!r} is none of f1, mean, recall, precision")


def match_map(x: Frames, y: Frames) -> torch.Tensor:
    """Cosine of every frame of one utterance with every frame of another: (T_x, T_y)."""
    return x.data.float() @ y.data.float().T
