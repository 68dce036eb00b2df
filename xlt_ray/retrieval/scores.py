"""The scores that a run stores, by name, and how to compute them from frames. Pure torch.

A run stores more than it shows: `seqsim-MODE` of the encoder's output and `layer-K-MODE` of a hidden layer, in every
mode, and the baselines. A reader chooses the mode, and sees a layer as `layer-K`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from xlt_ray.retrieval import baselines
from xlt_ray.retrieval.config import MODES, RetrievalConfig
from xlt_ray.retrieval.seqsim import Frames, combine, seqsim

TOLERANCE = 1e-6
"""A wrong candidate reaches a hit even if its score is lower by at most this.

The score of the same two utterances, alone and among others, differs by up to 4.8e-7 (pooled frames) and 4.2e-7
(SeqSim) with PyTorch 2.13 on a CPU, for dim 64 to 1280 and 1 to 11 frames. Longer utterances differ less, 1.5e-8 at 3
to 300 frames. Scores closer than this are a tie, and ties count against the system. Storing frames in fp16 changes a
score by 5e-6.
"""


_FLIPPED = {"recall": "precision", "precision": "recall"}


def kept(config: RetrievalConfig) -> list[str]:
    """Names of the scores that a run stores; first those of the encoder's output, in the order of MODES."""
    layers = [f"layer-{layer}-{mode}" for layer in config.layers for mode in MODES]
    return [*(f"seqsim-{mode}" for mode in MODES), *config.baselines, *layers]


def shown(config: RetrievalConfig) -> dict[str, str]:
    """The scores that a reader shows, each with its stored name; the leading score is first."""
    modes = [config.mode, *(mode for mode in MODES if mode != config.mode)]
    names = [*(f"seqsim-{mode}" for mode in modes), *config.baselines]
    return {name: name for name in names} | {f"layer-{k}": f"layer-{k}-{config.mode}" for k in config.layers}


def flipped(name: str) -> str:
    """The score that equals this one when queries and candidates are swapped: recall becomes precision."""
    kind, _, mode = name.rpartition("-")
    return f"{kind}-{_FLIPPED.get(mode, mode)}" if kind else name


def measured(x: Frames, y: Frames, layer: int | None, config: RetrievalConfig) -> dict[str, torch.Tensor]:
    """The matrices (N, M) computed from the frames of N and M utterances, by name: recall, precision, baselines.

    The baselines are of the encoder's output (layer None), without `random`, which needs no frames.
    """
    recall, precision = seqsim(x, y)
    return {"recall": recall, "precision": precision} | _baselines(x, y, layer, config)


def _baselines(x: Frames, y: Frames, layer: int | None, config: RetrievalConfig) -> dict[str, torch.Tensor]:
    names = [name for name in config.baselines if name != "random"] if layer is None else []
    return {name: getattr(baselines, name)(x, y) for name in names}


def measured_of(
    x: Frames, y: Frames, wanted: npt.NDArray[np.bool_], layer: int | None, config: RetrievalConfig
) -> dict[str, torch.Tensor]:
    """The same, with recall and precision only for wanted pairs (N, M); NaN elsewhere."""
    if wanted.all():
        return measured(x, y, layer, config)
    recall, precision = (torch.full(wanted.shape, torch.nan, device=x.data.device) for _ in range(2))
    for row in np.flatnonzero(wanted.any(axis=1)).tolist():
        near = np.flatnonzero(wanted[row]).tolist()
        found = seqsim(x.part(row, row + 1), y.take(near))
        recall[row, near], precision[row, near] = found[0][0], found[1][0]
    return {"recall": recall, "precision": precision} | _baselines(x, y, layer, config)


def named(values: dict[str, torch.Tensor], layer: int | None) -> Iterator[tuple[str, torch.Tensor]]:
    """All stored scores by name, from the measured ones; of any shape."""
    kind = "seqsim" if layer is None else f"layer-{layer}"
    for mode in MODES:
        yield f"{kind}-{mode}", combine(values["recall"], values["precision"], mode)
    yield from ((name, matrix) for name, matrix in values.items() if name not in ("recall", "precision"))
