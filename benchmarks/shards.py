"""How fast frames go to Parquet and come back on one core, beside the other ways to store them.

    python benchmarks/shards.py        # about a minute

Every layout writes the same 64 recordings of 5 s (250 x 512 frames, fp16) with pyarrow to memory and reads them back to
numpy. Rounds take turns; rates count the bytes of the frames in fp16, so that a layout gains nothing by being wide.
"""

from __future__ import annotations

import io
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

NUM_ROWS, NUM_FRAMES, DIM, ROUNDS = 64, 250, 512, 7
RAW = {"compression": "none", "use_dictionary": False, "write_statistics": False}

Layout = tuple[Callable[[np.ndarray], pa.Table], dict[str, object], Callable[[pa.Table], np.ndarray]]


def binary(frames: np.ndarray) -> pa.Table:
    return pa.table({"frames": pa.array([row.tobytes() for row in frames], pa.large_binary())})


def from_binary(table: pa.Table) -> np.ndarray:
    rows = [np.frombuffer(value.as_buffer(), np.float16).reshape(-1, DIM) for value in table["frames"]]
    return np.stack(rows)


def fixed_lists(frames: np.ndarray) -> pa.Table:
    inner = pa.FixedSizeListArray.from_arrays(pa.array(frames.ravel()), DIM)
    offsets = pa.array(np.arange(NUM_ROWS + 1) * NUM_FRAMES, pa.int32())
    return pa.table({"frames": pa.ListArray.from_arrays(offsets, inner)})


def nested_lists(frames: np.ndarray) -> pa.Table:
    return pa.table({"frames": pa.array(frames.astype(np.float64).tolist())})


def from_lists(table: pa.Table) -> np.ndarray:
    values = table["frames"].combine_chunks().flatten().flatten()
    return values.to_numpy(zero_copy_only=False).reshape(-1, NUM_FRAMES, DIM).astype(np.float16)


LAYOUTS: dict[str, Layout] = {
    "ours: one fp16 binary a recording": (binary, RAW, from_binary),
    "the same, pyarrow's defaults": (binary, {}, from_binary),
    "the same, zstd-1": (binary, RAW | {"compression": "zstd", "compression_level": 1}, from_binary),
    "list of fixed-size fp16 lists": (fixed_lists, RAW, from_lists),
    "list of lists of doubles (.tolist())": (nested_lists, {}, from_lists),
}


def main() -> None:
    """Measure and print."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    frames = np.random.default_rng(0).standard_normal((NUM_ROWS, NUM_FRAMES, DIM)).astype(np.float16)
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LAYOUTS}
    for _ in range(ROUNDS):
        for name, layout in LAYOUTS.items():
            figures[name].append(measure(frames, layout))
    show(frames.nbytes, figures)


def measure(frames: np.ndarray, layout: Layout) -> tuple[float, float, float]:
    """Seconds to write, seconds to read, bytes of the file."""
    encode, options, decode = layout
    start = time.perf_counter()
    sink = io.BytesIO()
    pq.write_table(encode(frames), sink, **options)
    written = time.perf_counter()
    back = decode(pq.read_table(pa.BufferReader(sink.getbuffer()), use_threads=False))
    read = time.perf_counter()
    assert np.array_equal(back, frames)
    return written - start, read - written, float(sink.tell())


def show(num_bytes: int, figures: dict[str, list[tuple[float, float, float]]]) -> None:
    middle = {
        name: [statistics.median(values) for values in zip(*rounds, strict=True)] for name, rounds in figures.items()
    }
    ours = middle[next(iter(middle))]
    table = Table(title=f"frames to Parquet and back, {platform.processor() or platform.machine()}, 1 core, medians")
    for column in ("layout", "write MB/s", "read MB/s", "size", "ours writes", "ours reads"):
        table.add_column(column, justify="left" if column == "layout" else "right")
    for name, (write, read, size) in middle.items():
        rates = [f"{num_bytes / 1e6 / seconds:.0f}" for seconds in (write, read)]
        ratios = [f"{write / ours[0]:.1f}x", f"{read / ours[1]:.1f}x"]
        table.add_row(name, *rates, f"{size / num_bytes:.2f}x", *ratios)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
