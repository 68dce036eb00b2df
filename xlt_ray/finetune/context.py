"""The interface between the training loop and its processes: one process here, many under Ray Train (`trainer.py`)."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Context(Protocol):
    """A worker and its exchange with the other workers."""

    @property
    def rank(self) -> int:
        """Number of this worker, from 0."""

    @property
    def world_size(self) -> int:
        """Number of workers."""

    @property
    def device(self) -> torch.device:
        """The device of this worker."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over workers if there are several."""

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over all workers."""

    def gather(self, value: Any) -> list[Any]:
        """The value of every worker, by rank."""

    def resume(self) -> contextlib.AbstractContextManager[Path | None]:
        """The folder of the last checkpoint, or None at the start."""

    def checkpoint(self, folder: Path | None, measured: list[dict[str, float]]) -> None:
        """Keep the folder of rank 0 as a checkpoint. Every worker calls this, all others with None.

        Args:
            folder: of the checkpoint.
            measured: the rows of the log so far that have dev BLEU.
        """

    def progress(self, figures: dict[str, float]) -> None:
        """Report progress."""


class LocalContext:
    """One process without Ray, with checkpoints in a folder: for debugging and testing the loop.

    Args:
        folder: where checkpoints are kept, numbered in order.
    """

    rank = 0
    world_size = 1
    device = torch.device("cpu")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself."""
        return module

    def total(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """The one value."""
        return [value]

    @contextlib.contextmanager
    def resume(self) -> Iterator[Path | None]:
        """The newest checkpoint."""
        kept = sorted(self._folder.glob("*"), key=lambda path: int(path.name))
        yield kept[-1] if kept else None

    def checkpoint(self, folder: Path | None, measured: list[dict[str, float]]) -> None:
        """Move the folder to the other checkpoints."""
        assert folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, self._folder / str(sum(1 for _ in self._folder.iterdir())))

    def progress(self, figures: dict[str, float]) -> None:
        """Do nothing."""
