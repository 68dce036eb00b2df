"""Simpler scores of two utterances, as baselines for SeqSim. Pure torch, except `random`.

All take the unit frames of N and of M utterances and return a matrix (N, M), higher for more similar utterances.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize, pad
from torch.nn.utils.rnn import pad_sequence

from xlt_ray.retrieval.seqsim import Frames

_DTW_FRAMES = 4096  # of candidates at a time, padded: 49 MB of distances to an utterance of 30 s (1500 frames)


def mean_pool(x: Frames, y: Frames) -> torch.Tensor:
    """Cosine of the means of the unit frames."""
    return _cosine(x, y, lambda frames: frames.mean(dim=0))


def max_pool(x: Frames, y: Frames) -> torch.Tensor:
    """Cosine of the element-wise maxima of the unit frames."""
    return _cosine(x, y, lambda frames: frames.amax(dim=0))


def _cosine(x: Frames, y: Frames, pool: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    pooled = [torch.stack([pool(part) for part in frames.data.float().split(frames.lengths)]) for frames in (x, y)]
    return normalize(pooled[0], dim=1) @ normalize(pooled[1], dim=1).T


def dtw(x: Frames, y: Frames) -> torch.Tensor:
    """Minus the cost of the best monotone alignment of frames, on cosine distance.

    The symmetric form of Sakoe and Chiba (1978): a diagonal step counts its distance twice, so that every path has the
    weight m + n, and the cost is divided by m + n. 0 for an utterance with itself, -2 at worst.
    """
    order = sorted(range(len(y.lengths)), key=lambda place: y.lengths[place])
    parts = _padded_parts(y.take(order))
    rows = x.data.float().split(x.lengths)
    found = torch.stack([torch.cat([_dtw_row(frames, part) for part in parts]) for frames in rows])
    return found[:, torch.tensor(order, device=found.device).argsort()]


def _padded_parts(y: Frames) -> list[Frames]:
    """Parts of at most _DTW_FRAMES frames once all are as long as the longest; utterances are sorted by length.

    One long utterance among short ones would take a hundred times as much memory and time.
    """
    starts = [0]
    for place, length in enumerate(y.lengths):
        if place > starts[-1] and (place + 1 - starts[-1]) * length > _DTW_FRAMES:
            starts.append(place)
    return [y.part(*ends) for ends in itertools.pairwise([*starts, len(y.lengths)])]


def _dtw_row(x: torch.Tensor, y: Frames) -> torch.Tensor:
    """One utterance (m, dim) against M: (M,).

    Within a row of the cost matrix, D_j = min(A_j, D_{j-1} + d_j), where A_j comes from the row before. With the
    running sum S_j of d this is S_j + min_{k <= j} (A_k - S_k), so a row is one cumulative minimum for all M at once.
    """
    distances = (1 - x @ y.data.float().T).double()
    padded = pad_sequence([block.T for block in distances.split(y.lengths, dim=1)], batch_first=True)
    first = torch.full_like(padded[:, :, 0], torch.inf)
    first[:, 0] = 2 * padded[:, 0, 0]
    costs = _along(first, padded[:, :, 0])
    for step in padded.unbind(dim=2)[1:]:
        diagonal = pad(costs[:, :-1], (1, 0), value=torch.inf)
        costs = _along(torch.minimum(costs + step, diagonal + 2 * step), step)
    last = torch.tensor(y.lengths, device=costs.device)
    return -(costs[torch.arange(len(last)), last - 1] / (len(x) + last)).float()


def _along(entry: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    total = step.cumsum(dim=1)
    return total + (entry - total).cummin(dim=1).values


def random(
    rows: Iterable[int], columns: range, num_columns: int, seed: int, pair: tuple[str, str]
) -> npt.NDArray[np.float32]:
    """Part of a random matrix, which depends only on the seed and the pair of languages.

    The draws of a row start where those of the rows before it end, so a part is drawn without the rest of the matrix.

    Args:
        rows: rows of the part.
        columns: columns of the part.
        num_columns: columns of the whole matrix.
        seed: seed of the draws.
        pair: the two languages, query language first.
    """
    bits = np.random.PCG64([seed, *map(ord, "-".join(pair))])
    start, generator = bits.state, np.random.Generator(bits)
    drawn = []
    for row in rows:
        first = row * num_columns + columns.start
        bits.state = start
        bits.advance(first // 2)  # a draw of 64 bits makes two numbers
        drawn.append(generator.random(first % 2 + len(columns), dtype=np.float32)[first % 2 :])
    return np.stack(drawn)
