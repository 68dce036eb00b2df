"""The results of a mining run: metrics.json, mined.tsv, an MLflow run and the table at the end of the job."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import ray
from rich.table import Table

from xlt_ray.job import pools
from xlt_ray.job.commands import command, report_command
from xlt_ray.job.tracking import Tracker
from xlt_ray.mine import cost, keys, work, written
from xlt_ray.mine.config import MineConfig, MineJob
from xlt_ray.mine.plan import MinePlan
from xlt_ray.mine.work import Mining
from xlt_ray.mine.written import Mined
from xlt_ray.store import reading
from xlt_ray.store.artifact import Artifact

Figures = dict[str, Any]

_KEPT = ("mode", "candidates", "pool_frames", "neighbours", "sample", "seed")


def shows(artifact: Artifact, config: MineConfig) -> bool:
    """Whether the pairs of a finished artifact match the requested settings."""
    metrics = artifact.read_json("metrics.json")
    return all(metrics[name] == getattr(config, name) for name in MineConfig.SHOWN)


def finish(plan: MinePlan, mining: Mining, recordings: pa.Table, tracker: Tracker, started: float) -> None:
    """Select the pairs, write them, log, and commit the artifact.

    Args:
        plan: of the run.
        mining: the input of the workers.
        recordings: rows of INDEX of all languages.
        tracker: of the run.
        started: when the run started, by the monotonic clock.
    """
    artifact, job = plan.artifact, plan.job
    if artifact.is_complete:
        shown = (f"{name} {getattr(job.mine, name)}" for name in MineConfig.SHOWN)
        print(f"mine: {artifact.uri} has new pairs for {', '.join(shown)}")
        artifact.reopen()  # first: pairs of two kinds must never be read as one
    metrics = _metrics(mining, job)
    artifact.write_json("metrics.json", metrics)
    names = ["-".join(pair) for pair in job.pairs]
    content = "".join(f"{line}\n" for line in written.lines(_mined(artifact, names), recordings))
    artifact.write_bytes(written.NAME, content.encode())
    keys.log(tracker, metrics)
    tracker.describe(f"{sentence(metrics)}\n\nArtifact: `{artifact.uri}`")
    artifact.merge_rejected()
    artifact.commit(
        units={name: figures["num_found"] for name, figures in metrics["pairs"].items()},
        num_rows_in=sum(figures["num_found"] for figures in metrics["pairs"].values()),
        inputs={"embed": plan.embeddings.artifact.named},
        seconds=time.monotonic() - started,
        others=[written.NAME, *(f"mined/{name}.parquet" for name in names), *(f"recall/{n}.json" for n in names)],
        working=["found", "scored"],
    )


def _metrics(mining: Mining, job: MineJob) -> Figures:
    """The content of metrics.json; a task selects among the pairs of two languages."""
    needed = cost.merging_memory(mining.config, mining.extents.values())
    task = ray.remote(num_cpus=1, memory=pools.memory(needed) or None)(work.choose)
    known = ray.put(mining)
    waiting = {"-".join(pair): task.remote(known, pair, job.mine) for pair in job.pairs}
    return {
        "score": "seqsim",
        **{name: getattr(job.mine, name) for name in (*_KEPT, *MineConfig.SHOWN)},
        "pairs": {name: ray.get(reference) for name, reference in waiting.items()},
    }


def _mined(artifact: Artifact, names: list[str]) -> Iterator[Mined]:
    for name in names:
        table = reading.table_of(artifact.path("mined", f"{name}.parquet"), columns=["first", "second", "margin"])
        yield from zip(*(table[column].to_pylist() for column in ("first", "second", "margin")), strict=True)


def sentence(metrics: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    pairs = metrics["pairs"]
    how = f"{metrics['score']} {metrics['mode']}, margin {metrics['margin']}, {metrics['neighbours']} neighbours"
    known = [figures["against_corpus"] for figures in pairs.values() if figures["against_corpus"]]
    beside = f"; F1 by the corpus {_percent(sum(pair['f1'] for pair in known) / len(known))} %" if known else ""
    return (
        f"{sum(pair['num_mined'] for pair in pairs.values())} pairs of {len(pairs)} pairs of languages{beside}, {how}."
    )


def as_table(metrics: Mapping[str, Any]) -> Table:
    """The results of each pair of languages: mined pairs, recall of the candidates, and F1 if known."""
    title = f"pairs mined by {metrics['score']} {metrics['mode']}, margin {metrics['margin']}"
    table = Table(title=title, title_justify="left")
    table.caption = (
        "candidates hold: percent of the exact nearest neighbours found among the candidates (sampled). precision, "
        "recall, F1: mined pairs evaluated by sentence_id. best F1: at the best threshold (last column)."
    )
    table.caption_justify = "left"
    table.add_column("pair")
    columns = ("recordings", "mined", "margin, median", "candidates hold", "precision", "recall", "F1", "best F1", "at")
    for column in columns:
        table.add_column(column, justify="right")
    for pair, figures in metrics["pairs"].items():
        table.add_row(pair, *_cells(metrics, figures))
    return table


def _cells(metrics: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    sizes = f"{figures['num_first']:,} x {figures['num_second']:,}"
    median = f"{figures['margin']['median']:.4f}" if figures["margin"] else "-"
    held = keys.candidates_hold(metrics, figures)
    known = figures["against_corpus"]
    told = [_percent(known[key]) for key in ("precision", "recall", "f1")] if known else ["-"] * 3
    best = known["best"] if known else None
    told += [_percent(best["f1"]), f"{best['threshold']:.4f}"] if best else ["-", "-"]
    return [sizes, f"{figures['num_mined']:,}", median, held if isinstance(held, str) else f"{_percent(held)} %", *told]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def next_command(job: MineJob, artifact: Artifact) -> str:
    """The next command: fine-tuning on the two languages with most mined pairs; the report if there are none."""
    mined = {pair: figures["num_mined"] for pair, figures in artifact.read_json("metrics.json")["pairs"].items()}
    most = max(mined, key=lambda pair: mined[pair])
    if not mined[most]:
        return report_command(job.root, job.name)
    mined_job = dataclasses.replace(
        job,
        corpus=f"manifest:{artifact.path(written.NAME)}",
        columns="",
        name=f"{job.name}-mined",
        languages=tuple(most.split("-")),
        embed=dataclasses.replace(job.embed, num_sentences=None),
    )
    return command("finetune", mined_job, finetune__directions=most)
