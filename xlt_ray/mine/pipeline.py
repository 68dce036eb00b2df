"""The mining stage: from shards of frames to pairs of recordings that translate each other.

    Worker "found" (actors):   the candidates of each recording, by pooled frames, block by block
    Worker "scored" (actors):  the nearest candidates by exact scores, and those of a sample among all recordings
    merge_pair (tasks):        nearest neighbours, with margins
    choose (tasks):            the selected pairs, by margin and threshold

No score matrix is stored: the data written and gathered grows with recordings x candidates.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.errors import UserError
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.tracking import track
from xlt_ray.mine import cost, results, work
from xlt_ray.mine.config import MineConfig
from xlt_ray.mine.plan import MinePlan
from xlt_ray.mine.work import Mining, Pair
from xlt_ray.retrieval import units
from xlt_ray.retrieval.units import Unit
from xlt_ray.store.artifact import Artifact

_TITLES = {"found": "find candidates", "scored": "score candidates"}


def mine(plan: MinePlan) -> Artifact:
    """Mine and commit; finished work is not repeated. Needs a running Ray and finished embeddings."""
    artifact, job = plan.artifact, plan.job
    if artifact.is_complete and results.shows(artifact, job.mine):
        print(f"mine: {artifact.uri} is complete, nothing to mine")
        return artifact
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    resume.drop_damaged(artifact)
    rows = plan.embeddings.recordings(job.mine.split)
    recordings = {code: rows.filter(pc.equal(rows["language"], code)) for code in job.languages}
    _require_speech(plan.embeddings.artifact, recordings)
    read = plan.embeddings.artifact
    with track(job.root, "mine", job.name, artifact.identity, _inputs(plan), read=read) as tracker:
        started = time.monotonic()
        mining = _mining(plan, recordings)
        _mine(mining, work.unmerged(mining, job.pairs))
        results.finish(plan, mining, rows, tracker, started)
    return artifact


def _inputs(plan: MinePlan) -> dict[str, Any]:
    settings, config = plan.embeddings.settings, plan.job.mine
    shown = {f"mine.{name}": getattr(config, name) for name in MineConfig.SHOWN}
    named = {"corpus": settings["corpus"], "model": settings["model"]}
    return {**named, "embed": plan.embeddings.identity["encoding"], **shown}


def _require_speech(embeddings: Artifact, recordings: dict[str, pa.Table]) -> None:
    if empty := [code for code, rows in recordings.items() if not rows.num_rows]:
        rejected = embeddings.path("rejected.parquet")
        raise UserError(f"no recording in {empty[0]} could be encoded; {rejected} says what was rejected and why")


def _mining(plan: MinePlan, recordings: dict[str, pa.Table]) -> Mining:
    """The input of the workers, with the settings of the run that began the artifact."""
    artifact, uri = plan.artifact, plan.embeddings.artifact.uri
    config = dataclasses.replace(plan.job.mine, strip_utterances=artifact.settings["mine"]["strip_utterances"])
    extents = {
        code: units.extent(rows.num_rows, config.strip_utterances, units.bytes_each(uri, rows))
        for code, rows in recordings.items()
    }
    slim = {code: rows.select(work.COLUMNS) for code, rows in recordings.items()}
    return Mining(artifact, uri, slim, extents, config)


def _mine(mining: Mining, pairs: Sequence[Pair]) -> None:
    """Write the nearest neighbours of these pairs of languages."""
    if not pairs:
        return
    scored = work.missing(mining, "scored", pairs)
    todo = {unit.pair for unit in scored}
    found = work.missing(mining, "found", [pair for pair in pairs if pair in todo and not mining.covers(pair)])
    if scored:
        config, needed = mining.config, cost.scoring_memory(mining.config, mining.extents.values())
        pool = pools.pool("mine", config.num_gpus, config.max_actors, max(len(found), len(scored)), lambda _: needed)
        for folder, missing in (("found", found), ("scored", scored)):
            _work(dataclasses.replace(mining, device=pool.device), folder, missing, pool)
    _merge(mining, pairs)


def _work(mining: Mining, folder: str, missing: list[Unit], pool: pools.Pool) -> None:
    if not missing:
        return
    rows = pools.one_by_one(map(dataclasses.asdict, missing))
    worked = pools.stream(rows, work.Worker, {"mining": mining, "folder": folder}, pool.options)
    with progress.Bar(_TITLES[folder], sum(unit.num_pairs for unit in missing), 0) as bar:
        for row in worked.iter_rows():
            bar.advance(row["num_pairs"])


def _merge(mining: Mining, pairs: Sequence[Pair]) -> None:
    merged = pools.one_by_one({"pair": list(pair)} for pair in pairs).map(
        _merge_one,
        fn_kwargs={"mining": mining},
        num_cpus=1,
        memory=pools.memory(cost.merging_memory(mining.config, mining.extents.values())) or None,
    )
    with progress.Bar("join pairs", len(pairs), 0) as bar:
        for _ in merged.iter_rows():
            bar.advance(1)


def _merge_one(row: dict[str, Any], mining: Mining) -> dict[str, Any]:
    work.merge_pair(mining, (row["pair"][0], row["pair"][1]))
    return row
