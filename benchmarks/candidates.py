"""Retrieval in two stages: what candidates by pooled frames find of the exact nearest, and what they save.

    python benchmarks/candidates.py --root runs --name demo          # the embeddings of jobs/embed.py or retrieval.py
    python benchmarks/candidates.py                                  # random frames, seconds: only a trial

The recordings of some languages are searched for among those of others. Where there are too few, they are repeated with
noise of a tenth of the frames' own deviation, up to --num on each side. The exact nearest are those of --queries
recordings of each side, among all of the other; exact seconds are theirs, scaled to all pairs. One thread.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import embedded  # noqa: E402

from benchmarks._origin import origin  # noqa: E402
from xlt_ray.embed import committed  # noqa: E402
from xlt_ray.retrieval import candidates, top, units  # noqa: E402
from xlt_ray.retrieval.candidates import Candidates, Keys  # noqa: E402
from xlt_ray.retrieval.seqsim import Frames, combine, seqsim  # noqa: E402
from xlt_ray.retrieval.units import Stored  # noqa: E402
from xlt_ray.store import artifacts  # noqa: E402
from xlt_ray.store.schema import Utterance  # noqa: E402

Row = dict[str, float]

NEAREST = 10
NOISE = 0.1
STRIP = 250


def main() -> None:
    """Find both ways and print a table, a row for each size of pooled frame and number of candidates."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, name = (options.root, options.name) if options.root else (folder, _random(folder))
        sides = tuple(_side(root, name, codes.split(","), options.num) for codes in options.sides)
    frames = [side.frames for side in sides]
    asked = [np.sort(np.random.default_rng(0).permutation(len(side.lengths))[: options.queries]) for side in sides]
    started = time.monotonic()
    exact = [_exact(frames[own], frames[1 - own], queries) for own, queries in enumerate(asked)]
    num_pairs = math.prod(len(side.lengths) for side in sides)
    scored = sum(len(queries) * len(sides[1 - own].lengths) for own, queries in enumerate(asked))
    exact_s = (time.monotonic() - started) * num_pairs / scored
    ways = (_rows(sides, frames, asked, exact, pooled, options.candidates) for pooled in options.pool_frames)
    rows = list(itertools.chain.from_iterable(ways))
    _show(rows, exact_s, sides, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="root of the embed artifact; none: random frames")
    parser.add_argument("--name", default="demo", help="its name (demo)")
    parser.add_argument("--sides", nargs=2, default=["en,es", "fr,it"], help="codes of either side (en,es fr,it)")
    parser.add_argument("--num", type=int, default=0, help="recordings of a side, by repeating them (those there are)")
    parser.add_argument("--queries", type=int, default=200, help="of each side whose exact nearest are found (200)")
    parser.add_argument("--candidates", type=int, nargs="+", default=[10, 20, 40], help="of each recording (10 20 40)")
    parser.add_argument("--pool-frames", type=int, nargs="+", default=[5], help="frames that become one (5)")
    return parser.parse_args()


def _side(root: str, name: str, codes: list[str], num: int) -> Stored:
    """The recordings of some languages, repeated with noise up to `num`."""
    artifact = artifacts.find(root, "embed", name)
    index = committed.read_index(artifact)
    index = index.filter(pc.and_(pc.is_valid(index["row"]), pc.is_in(index["language"], pa.array(codes))))
    there = units.read_strip(artifact.uri, index, None)
    parts, lengths, generator = [there.frames.data], list(there.lengths), torch.Generator().manual_seed(0)
    while num > len(lengths):
        first = there.frames.data.float()
        noise = NOISE * first.std(dim=0) * torch.randn(first.shape, generator=generator)
        parts.append((first + noise).to(there.frames.data.dtype))
        lengths += there.lengths
    lengths = lengths[: num or None]
    return Stored(torch.cat(parts)[: sum(lengths)], tuple(lengths))


def _strips(frames: Frames) -> list[tuple[range, Frames]]:
    ranges = units.ranges(0, len(frames.lengths), STRIP)
    return [(part, frames.part(part.start, part.stop)) for part in ranges]


def _exact(own: Frames, other: Frames, queries: Any) -> Keys:
    """Keys (num_queries, NEAREST) of the nearest among all of the other side."""
    best = torch.full((len(queries), NEAREST), top.NONE)
    parts = own.data.split(own.lengths)
    x = Frames.of([parts[query] for query in queries])
    for columns, y in _strips(other):
        best = top.best(best, top.keys(combine(*seqsim(x, y), "f1"), columns))
    return best.numpy()


def _first_stage(sides: Any, pool_frames: int, num: int) -> tuple[list[Keys], float]:
    """Keys of the `num` best by pooled frames of each recording of either side, best first; seconds."""
    started = time.monotonic()
    coarse = [candidates.pooled(side, pool_frames).frames for side in sides]
    return _nearest(coarse, num, lambda x, y, *_: combine(*seqsim(x, y), "f1")), time.monotonic() - started


def _second_stage(frames: Any, coarse: list[Keys]) -> tuple[list[Keys], int, float]:
    """Keys of the nearest among the candidates of either side; pairs scored; seconds."""
    started = time.monotonic()
    chosen, num_scored = Candidates.make((coarse[0], coarse[1])), 0

    def exact(x: Frames, y: Frames, rows: range, columns: range) -> torch.Tensor:
        nonlocal num_scored
        wanted = chosen.wanted(rows, columns)
        num_scored += int(wanted.sum())
        return candidates.scored(x, y, wanted, "f1")

    return _nearest(frames, NEAREST, exact), num_scored, time.monotonic() - started


def _nearest(frames: Any, num: int, score: Callable[[Frames, Frames, range, range], torch.Tensor]) -> list[Keys]:
    """Keys of the `num` nearest of each recording of either side, tile by tile."""
    found = [candidates.Nearest(np.arange(len(side.lengths)), num, "cpu") for side in frames]
    for (rows, x), (columns, y) in itertools.product(*map(_strips, frames)):
        matrix = score(x, y, rows, columns)
        found[0].add(rows, top.keys(matrix, columns))
        found[1].add(columns, top.keys(matrix.T.contiguous(), rows))
    return [side.keys for side in found]


def _rows(sides: Any, frames: Any, asked: Any, exact: Any, pool_frames: int, nums: list[int]) -> Iterator[Row]:
    """What each number of candidates finds and takes. The first stage is the same for all."""
    coarse, pooled_s = _first_stage(sides, pool_frames, max(nums))
    num_pairs = math.prod(len(side.lengths) for side in sides)
    for num in nums:
        found, num_scored, seconds = _second_stage(frames, [keys[:, :num] for keys in coarse])
        shares = np.mean(
            [_recall(keys[queries], best) for keys, queries, best in zip(found, asked, exact, strict=True)], axis=0
        )
        times = {"pooled_s": pooled_s, "seconds": pooled_s + seconds, "first": shares[0], "nearest": shares[1]}
        yield {"pool": pool_frames, "num": num, "share": num_scored / num_pairs, **times}


def _recall(found: Keys, exact: Keys) -> tuple[float, float]:
    """Shares of the queries whose nearest is found, and of all NEAREST, by place.

    Not by key: the score of a pair alone differs in the last bit from that within a block.
    """
    there, wanted = top.read(found)[0], top.read(exact)[0]
    is_found = (wanted[:, :, None] == there[:, None, :]).any(axis=2)
    return float(is_found[:, 0].mean()), float(is_found.mean())


def _show(rows: list[Row], exact_s: float, sides: Any, options: argparse.Namespace) -> None:
    sizes = " x ".join(f"{len(side.lengths):,}" for side in sides)
    frames = np.mean([np.mean(side.lengths) for side in sides])
    title = f"two stages: {sizes} recordings of {frames:.0f} frames, exact {exact_s:.0f} s, {origin()}"
    table = Table(title=title, title_justify="left")
    names = (
        "pooled frames",
        "candidates",
        "pairs scored, %",
        "recall@1, %",
        "recall@10, %",
        "pooled s",
        "seconds",
        "exact / two stages",
    )
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        shares = [f"{100 * row[key]:.2f}" for key in ("share", "first", "nearest")]
        times = [f"{row['pooled_s']:.1f}", f"{row['seconds']:.1f}", f"{exact_s / row['seconds']:.1f}"]
        table.add_row(f"{row['pool']}", f"{row['num']}", *shares, *times)
    Console(width=130).print(table)


def _random(root: str, num: int = 60, dim: int = 16) -> str:
    """An embed artifact of four languages, of random frames."""
    generator = np.random.default_rng(0)
    codes = ("en", "es", "fr", "it")
    rows = [
        Utterance(utterance_id=f"{code}{n}", sentence_id=f"s{n}", language=code, audio="/x.wav")
        for code in codes
        for n in range(num)
    ]

    def frames_of(_: Utterance) -> dict[int | None, Any]:
        return {None: generator.normal(size=(generator.integers(25, 41), dim)).astype(np.float16)}

    return embedded.write(root, "random", rows, frames_of).name


if __name__ == "__main__":
    main()
