"""Reads the frames of a training run ahead with Ray Data. Light to import, because each reading task is a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.data

from xlt_ray.job import pools
from xlt_ray.store import shards

_READ_AHEAD = 4  # micro-batches of one reading task


def in_order(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the frames of every item, in order.

    Args:
        items: one micro-batch each: `shards` and `rows` give the location of its recordings, `examples` their rows.
    """
    if not items:
        return iter(())
    settings = ray.data.DataContext.get_current()
    settings.execution_options.preserve_order = True
    settings.enable_progress_bars = False
    blocks = -(-len(items) // _READ_AHEAD)
    read = ray.data.from_items(items, override_num_blocks=blocks).map(
        _read,
        num_cpus=pools.FEED_CPUS,
        compute=ray.data.TaskPoolStrategy(size=2),  # one reads while the other's result is taken
    )
    return iter(read.iter_rows())


def _read(item: dict[str, Any]) -> dict[str, Any]:
    frames = shards.read_frames(list(zip(item["shards"], (int(row) for row in item["rows"]), strict=True)))
    return {
        "examples": item["examples"],
        "num_frames": [len(recording) for recording in frames],
        "frames": np.concatenate(frames).tobytes(),
    }


def frames_of(row: dict[str, Any]) -> list[npt.NDArray[np.float16]]:
    """The frames (num_frames, dim) of each recording of a micro-batch."""
    joined = np.frombuffer(row["frames"], np.float16).reshape(sum(row["num_frames"]), -1)
    return np.split(joined, np.cumsum(row["num_frames"])[:-1])
