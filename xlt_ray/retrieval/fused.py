"""SeqSim on a GPU in one kernel, which reduces products of frames to maxima at once and never writes the products.

The kernel is a matrix product over all frames of both sides. Its tiles may span utterances, so no frame is padded.
After a tile's product, the kernel computes maxima: along rows for each utterance of `y` in the tile, along columns for
each of `x`. It writes them with atomic maxima, whose result does not depend on their order.

For 64 x 64 utterances of 250 frames the products would be 1 GB in fp32; the maxima are 8 MB. The kernel is tested
against `xlt_ray.retrieval.seqsim` on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

# Of seven shapes the fastest on an H100, at 512 and at 1280 dimensions: four warps leave room for a second program on
# each multiprocessor, which multiplies while the first one looks for its maxima (benchmarks/gpu.py).
_TILE = {"BLOCK_X": 128, "BLOCK_Y": 128, "BLOCK_D": 64, "GROUP": 8}
_LAUNCH = {"num_warps": 4, "num_stages": 3}
_SUMMED = 256  # maxima that are added at a time


@triton.jit  # type: ignore[untyped-decorator]
def _maxima(  # type: ignore[no-untyped-def]
    x,  # tensor descriptor of (num_x, DIM), read in blocks (BLOCK_X, BLOCK_D)
    y,  # the same of (num_y, DIM)
    x_owner,  # (num_x,) int32, the utterance of each frame
    y_owner,
    best_y,  # (utterances of y, num_x) fp32, -inf at first: the best of each utterance for each frame of x
    best_x,  # (utterances of x, num_y)
    num_x,
    num_y,
    DIM: tl.constexpr,  # noqa: N803
    BLOCK_X: tl.constexpr,  # noqa: N803
    BLOCK_Y: tl.constexpr,  # noqa: N803
    BLOCK_D: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
):
    # Tiles of GROUP rows go together, column by column, so that what they share stays in the L2 cache.
    tile = tl.program_id(0)
    tiles_x, tiles_y = tl.cdiv(num_x, BLOCK_X), tl.cdiv(num_y, BLOCK_Y)
    first = tile // (GROUP * tiles_y) * GROUP
    height = tl.minimum(tiles_x - first, GROUP)
    inside = tile % (GROUP * tiles_y)
    start_x, start_y = (first + inside % height) * BLOCK_X, inside // height * BLOCK_Y

    products = tl.zeros((BLOCK_X, BLOCK_Y), dtype=tl.float32)
    for done in range(0, DIM, BLOCK_D):
        products = tl.dot(x.load([start_x, done]), y.load([start_y, done]).T, products)

    # What lies beyond the end belongs to nobody.
    rows, columns = start_x + tl.arange(0, BLOCK_X), start_y + tl.arange(0, BLOCK_Y)
    own_x = tl.load(x_owner + rows, mask=rows < num_x, other=-1)
    own_y = tl.load(y_owner + columns, mask=columns < num_y, other=-1)
    last_x = tl.load(x_owner + tl.minimum(start_x + BLOCK_X, num_x) - 1)
    last_y = tl.load(y_owner + tl.minimum(start_y + BLOCK_Y, num_y) - 1)
    utterance = tl.load(y_owner + start_y)
    while utterance <= last_y:
        best = tl.max(tl.where((own_y == utterance)[None, :], products, float("-inf")), axis=1)
        tl.atomic_max(best_y + utterance.to(tl.int64) * num_x + rows, best, mask=rows < num_x, sem="relaxed")
        utterance += 1
    utterance = tl.load(x_owner + start_x)
    while utterance <= last_x:
        best = tl.max(tl.where((own_x == utterance)[:, None], products, float("-inf")), axis=0)
        tl.atomic_max(best_x + utterance.to(tl.int64) * num_y + columns, best, mask=columns < num_y, sem="relaxed")
        utterance += 1


@triton.jit  # type: ignore[untyped-decorator]
def _mean(best, offsets, means, num_frames, SUMMED: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """The mean over the frames of one utterance (axis 0) of their best match in one of the others (axis 1)."""
    utterance, other = tl.program_id(0), tl.program_id(1)
    start, end = tl.load(offsets + utterance), tl.load(offsets + utterance + 1)
    total = tl.zeros((SUMMED,), dtype=tl.float32)
    place = start
    while place < end:
        frames = place + tl.arange(0, SUMMED)
        total += tl.load(best + other.to(tl.int64) * num_frames + frames, mask=frames < end, other=0.0)
        place += SUMMED
    tl.store(means + utterance * tl.num_programs(1) + other, tl.sum(total, axis=0) / (end - start))


def seqsim(
    x: torch.Tensor, x_lengths: Sequence[int], y: torch.Tensor, y_lengths: Sequence[int], **tuning: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Recall and precision of every utterance of `x` with every utterance of `y`.

    Products are summed in fp32, whatever the type of the frames. A pair has bitwise the same scores alone and among
    others. A pair with NaN in a frame gets NaN.

    Args:
        x: (sum of lengths, dim) fp16, bf16 or fp8 on a GPU, rows of length 1, contiguous; dim is a multiple of 16.
        x_lengths: frames of each of N utterances.
        y: the same for the other side.
        y_lengths: frames of each of M utterances.
        tuning: tile and launch shape, instead of the one that was measured to be fastest.

    Returns:
        recall (N, M) and precision (N, M), fp32.
    """
    launch: dict[str, Any] = _TILE | _LAUNCH | tuning
    (x_offsets, x_owner), (y_offsets, y_owner) = (_places(tuple(each), x.device) for each in (x_lengths, y_lengths))
    best_y = torch.full((len(y_lengths), len(x)), -torch.inf, device=x.device)
    best_x = torch.full((len(x_lengths), len(y)), -torch.inf, device=x.device)
    num_tiles = triton.cdiv(len(x), launch["BLOCK_X"]) * triton.cdiv(len(y), launch["BLOCK_Y"])
    blocks = (
        TensorDescriptor.from_tensor(frames, [launch[height], launch["BLOCK_D"]])
        for frames, height in ((x, "BLOCK_X"), (y, "BLOCK_Y"))
    )
    _maxima[(num_tiles,)](*blocks, x_owner, y_owner, best_y, best_x, len(x), len(y), DIM=x.shape[1], **launch)
    recall, precision = _means(best_y, x_offsets), _means(best_x, y_offsets).T
    # The best of a frame with NaN is -inf or NaN, and it spoils the mean in one of the two directions.
    spoilt = ~(recall.isfinite() & precision.isfinite())
    return recall.masked_fill(spoilt, torch.nan), precision.masked_fill(spoilt, torch.nan)


@functools.lru_cache(maxsize=64)  # a strip is multiplied with many others, and waiting for a copy costs as much as that
def _places(lengths: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The first frame of each utterance and the end of the last one, and the utterance of each frame; int32."""
    sizes = torch.tensor([0, *lengths])
    owners = torch.repeat_interleave(torch.arange(-1, len(lengths), dtype=torch.int32), sizes)
    return sizes.cumsum(0).int().to(device), owners.to(device)


def _means(best: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Means over the frames of each utterance: (K, num_frames) to (utterances, K)."""
    means = best.new_empty(len(offsets) - 1, len(best))
    _mean[means.shape](best, offsets, means, best.shape[1], SUMMED=_SUMMED, num_warps=1)
    return means
