"""What Ray costs the encoder: recordings to shards by the pool of jobs/embed.py, and by bare processes (C9).

    python benchmarks/pool.py                     # real speech of the demo, Whisper base, some minutes
    python benchmarks/pool.py --sentences 20

Both call the same functions on the same units, with one encoder and with two, in rounds that take turns. The clock runs
from the first shards (one an encoder) to the last, by the time of each file, so that starting up is in neither.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from xlt_ray.embed import pipeline, plan
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.embed.unit import EncodeUnit, decode_unit
from xlt_ray.job import cluster
from xlt_ray.store.schema import to_ipc

UNIT = 8  # recordings


def main() -> None:
    """Run both ways by turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=64, help="sentences, in English and French (64)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="wheels:whisper-base")
    options = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - else every other process of the machine goes before the pool
    for actors in (1, 2):
        ratios = []
        for _ in range(options.rounds):
            rates = {name: _rate(way, actors, options) for name, way in (("bare", _bare), ("pool", _pool))}
            ratios.append(rates["pool"] / rates["bare"])
            print(
                f"{actors} encoders: " + ", ".join(f"{name} {rate:.2f}/s" for name, rate in rates.items()), flush=True
            )
        middle = statistics.median(ratios)
        print(f"C9 {actors} encoders, pool against bare processes: {middle:.2f}, goal 0.90", flush=True)


def _rate(way: Any, actors: int, options: argparse.Namespace) -> float:
    """Recordings a second between the first shards and the last one."""
    with tempfile.TemporaryDirectory() as root:
        job = EmbedJob(
            root=root,
            corpus="asterisk",
            languages=("en", "fr"),
            model=options.model,
            embed=EmbedConfig(
                num_sentences=options.sentences, encoding="trimmed", rows_per_shard=UNIT, max_actors=actors, num_gpus=0
            ),
        )
        way(job, actors)
        written = sorted(path.stat().st_mtime for path in Path(root).glob("embed/*/data/*.parquet"))
    return (len(written) - actors) * UNIT / (written[-1] - written[actors - 1])


def _pool(job: EmbedJob, _: int) -> None:
    with cluster.cluster():
        pipeline.embed(plan.prepare(job, job.embed, ()))


def _bare(job: EmbedJob, actors: int) -> None:
    spawning = multiprocessing.get_context("spawn")
    processes = [spawning.Process(target=_encode, args=(job, first, actors)) for first in range(actors)]
    embeddings = plan.prepare(job, job.embed, ())
    embeddings.artifact.begin()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit("a bare process failed")


def _encode(job: EmbedJob, first: int, every: int) -> None:
    """Every so many of the units, from this one on."""
    embeddings = plan.prepare(job, job.embed, ())
    work = embeddings.work
    assert work is not None
    encoder = EncodeUnit(embeddings.artifact, work.model, work.config, "cpu")
    units = list(pipeline._cut(embeddings.artifact, work).units.items())
    for name, rows in units[first::every]:
        decoded = decode_unit({"unit": name, "table": to_ipc(rows)}, work.corpus, work.config.split_long)
        for _ in encoder(pa.table({"unit": [name], "table": pa.array([decoded["table"]], pa.large_binary())})):
            pass


if __name__ == "__main__":
    main()
