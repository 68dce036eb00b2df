"""What retrieval costs by the number of recordings: seconds, memory, bytes read and written, of each kind of work.

    python benchmarks/retrieval_size.py                            # 2,000 and 8,000 recordings a language, minutes
    python benchmarks/retrieval_size.py --num 500 --frames 30 --dim 64

Two languages of random frames, so that nothing but the work of retrieval is measured; one process a kind of work, one
thread, no Ray. Peak memory is that of the process, with Python and torch; `declared` is what cost.py asks of Ray.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import tempfile
import time
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
from xlt_ray.retrieval import cost, units, work  # noqa: E402
from xlt_ray.retrieval.bitext import COLUMNS  # noqa: E402
from xlt_ray.retrieval.config import RetrievalConfig  # noqa: E402
from xlt_ray.retrieval.work import Scoring  # noqa: E402
from xlt_ray.store.artifact import Artifact  # noqa: E402
from xlt_ray.store.schema import Utterance  # noqa: E402

PAIR = ("en", "fr")


def main() -> None:
    """Measure every size and print a table."""
    options = _options()
    found = {num: measure(num, options.frames, options.dim, options.strip) for num in options.num}
    _show(found, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, nargs="+", default=[2000, 8000], help="recordings a language (2000 8000)")
    parser.add_argument("--frames", type=int, default=30, help="mean frames of speech of a recording (30)")
    parser.add_argument("--dim", type=int, default=64, help="numbers in a frame (64)")
    parser.add_argument("--strip", type=int, default=256, help="recordings of a strip (256)")
    return parser.parse_args()


def scoring_of(root: str, num: int, frames: int, dim: int, config: RetrievalConfig) -> Scoring:
    """Write random frames of two languages, a row a sentence, and say what is to be scored."""
    rows = [
        Utterance(
            utterance_id=f"{code}{n}", sentence_id=f"s{n}", language=code, audio="/x.wav", text=f"{code} text {n}"
        )
        for code in PAIR
        for n in range(num)
    ]
    generator = np.random.default_rng(0)

    def frames_of(_: Utterance) -> dict[int | None, Any]:
        length = int(generator.integers(frames // 2, frames * 3 // 2 + 1))
        return {None: generator.normal(size=(length, dim)).astype(np.float16)}

    embeddings = embedded.write(root, "x", rows, frames_of, rows_per_unit=256)
    index = committed.read_index(embeddings).select(COLUMNS)
    recordings = {code: index.filter(pc.equal(index["language"], code)) for code in PAIR}
    extents = {
        code: units.extent(table.num_rows, config.strip_utterances, units.bytes_each(embeddings.uri, table))
        for code, table in recordings.items()
    }
    artifact = Artifact.at(root, "retrieval", "x")
    artifact.begin()
    return Scoring(artifact, embeddings.uri, recordings, extents, config)


def measure(num: int, frames: int, dim: int, strip: int) -> dict[str, dict[str, float]]:
    """Figures by kind of work, over recordings of two languages."""
    with tempfile.TemporaryDirectory() as root:
        scoring = scoring_of(root, num, frames, dim, RetrievalConfig(strip_utterances=strip))
        steps = {name: peak_of(step, scoring) for name, step in STEPS.items()}
        extents = scoring.extents.values()
        declared = {"score": cost.scoring_memory(scoring.config, extents)}
        declared |= dict.fromkeys(("merge", "summarise"), cost.merging_memory(scoring.config, extents))
        for name, figures in steps.items():
            figures["declared"] = declared.get(name, declared["score"])
        kept = sum(path.stat().st_size for path in Path(scoring.artifact.uri, "data").iterdir())
    return {**steps, "kept": {"written": kept}}


def score_hits(scoring: Scoring) -> int:
    """The best hits of all queries; how many pieces of work it was."""
    strips = scoring.strips_of_hits(PAIR)
    for unit in strips:
        work.score_hits(scoring, unit)
    return len(strips)


def count(scoring: Scoring) -> int:
    """All units, one after the other, as one actor does them."""
    counter, blocks = work.CountUnit(scoring), scoring.units(PAIR)
    for unit in blocks:
        for _ in counter(pa.Table.from_pylist([dataclasses.asdict(unit)])):
            pass
    return len(blocks)


def merge(scoring: Scoring) -> int:
    """The rankings of both directions."""
    work.merge_pair(scoring, PAIR)
    return 1


def summarise(scoring: Scoring) -> int:
    """The figures of both directions."""
    for direction in ("en-fr", "fr-en"):
        work.summarise(scoring, direction, scoring.config)
    return 2


STEPS = {"hits": score_hits, "score": count, "merge": merge, "summarise": summarise}


def peak_of(step: Any, scoring: Scoring) -> dict[str, float]:
    """What a step costs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, step, scoring))
    process.start()
    sender.close()
    figures: dict[str, float] = receiver.recv()
    process.join()
    return figures


def _peak() -> int:
    """Most memory of this process so far. Not ru_maxrss: a child begins with that of its parent."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def _measured(sender: Any, step: Any, scoring: Scoring) -> None:
    torch.set_num_threads(1)
    before, started = _bytes(), time.monotonic()
    base = _peak()
    num = step(scoring)
    after = _bytes()
    sender.send(
        {
            "pieces": num,
            "seconds": time.monotonic() - started,
            "cpu_seconds": time.process_time(),
            "base": base,
            "peak": _peak(),
            "read": after["rchar"] - before["rchar"],
            "written": after["wchar"] - before["wchar"],
        }
    )


def _bytes() -> dict[str, int]:
    """Bytes that this process has read and written, by Linux's count."""
    pairs = (line.split(":") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def _show(found: dict[int, dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    head = f"{options.frames} frames, dim {options.dim}, strips of {options.strip}"
    table = Table(title=f"retrieval by size: {head}, {origin()}")
    columns = ("pieces", "seconds", "CPU s", "peak MB", "declared MB", "read MB", "written MB")
    for column in ("recordings", "work", *columns):
        table.add_column(column, justify="right")
    for num, steps in found.items():
        for name, figures in steps.items():
            megabytes = [figures.get(key, 0) / 1e6 for key in ("peak", "declared", "read", "written")]
            seconds = [figures.get(key, 0) for key in ("pieces", "seconds", "cpu_seconds")]
            table.add_row(f"{num:,}", name, *(f"{value:,.1f}" for value in (*seconds, *megabytes)))
    Console(width=140).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
