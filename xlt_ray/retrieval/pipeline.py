"""The retrieval stage: from shards of frames to rankings and R@k for every ordered pair of languages.

    find_candidates (tasks): the pairs to score, with --retrieval.candidates; then measure_recall
    score_hits (tasks):   the best hit of each query
    CountUnit (actors):   how many wrong candidates reach it, and the best candidates, block by block
    merge_pair (tasks):   ranks, one file per direction
    summarise (tasks):    R@k in the requested mode and protocol

No score matrix is stored: the data written and gathered grows with queries x stored candidates. The driver sees only
names and figures, and the frame matches of the pair of utterances that is plotted.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.errors import UserError
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.pools import Pool
from xlt_ray.job.tracking import track
from xlt_ray.retrieval import cost, matrices, results, units, work
from xlt_ray.retrieval.bitext import COLUMNS
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.retrieval.units import Unit
from xlt_ray.retrieval.work import Left, Pair, Scoring
from xlt_ray.store.artifact import Artifact


def retrieve(plan: RetrievalPlan) -> Artifact:
    """Score, rank and commit; finished work is not repeated. Needs a running Ray and finished embeddings."""
    artifact, job = plan.artifact, plan.job
    if artifact.is_complete and results.shows(artifact, job.retrieval):
        print(f"retrieval: {artifact.uri} is complete, nothing to score")
        return artifact
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    resume.drop_damaged(artifact)
    recordings = by_language(plan.embeddings.recordings(job.retrieval.split), job.languages)
    _require_pairs(plan.embeddings.artifact, recordings)
    read = plan.embeddings.artifact
    with track(job.root, "retrieval", job.name, artifact.identity, _inputs(plan), read=read) as tracker:
        started = time.monotonic()
        scoring = _scoring(plan, recordings)
        _rank(scoring, work.left(scoring, language_pairs(job)))
        results.finish(plan, scoring, tracker, started)
    return artifact


def _inputs(plan: RetrievalPlan) -> dict[str, Any]:
    settings, config = plan.embeddings.settings, plan.job.retrieval
    shown = {f"retrieval.{name}": getattr(config, name) for name in RetrievalConfig.SHOWN}
    named = {"corpus": settings["corpus"], "model": settings["model"]}
    return {**named, "embed": plan.embeddings.identity["encoding"], **shown}


def by_language(recordings: pa.Table, languages: Sequence[str]) -> dict[str, pa.Table]:
    """The rows of INDEX of each language, with the columns that retrieval needs."""
    slim = recordings.select(COLUMNS)
    return {code: slim.filter(pc.equal(slim["language"], code)) for code in languages}


def _require_pairs(embeddings: Artifact, recordings: dict[str, pa.Table]) -> None:
    """Refuse two languages that have no sentence in common after rejections."""
    kept = {code: set(rows["sentence_id"].to_pylist()) for code, rows in recordings.items()}
    for first, second in itertools.combinations(recordings, 2):
        if not kept[first] & kept[second]:
            rejected = embeddings.path("rejected.parquet")
            raise UserError(
                f"no sentence is left in both {first} and {second}; {rejected} says what was rejected and why"
            )


def language_pairs(job: RetrievalJob) -> list[Pair]:
    """Every unordered pair of the job's languages, sorted, so that file names do not depend on their order."""
    return list(itertools.combinations(sorted(job.languages), 2))


def _scoring(plan: RetrievalPlan, recordings: dict[str, pa.Table]) -> Scoring:
    """The input of the workers, with the settings of the run that began the artifact."""
    artifact, uri = plan.artifact, plan.embeddings.artifact.uri
    begun = artifact.settings["retrieval"]
    kept = {name: begun[name] for name in ("strip_utterances", "top_k", "keep_scores")}
    config = dataclasses.replace(plan.job.retrieval, **kept)
    extents = {
        code: units.extent(rows.num_rows, config.strip_utterances, units.bytes_each(uri, rows))
        for code, rows in recordings.items()
    }
    return Scoring(artifact, uri, recordings, extents, config)


def _rank(scoring: Scoring, left: Left) -> None:
    """Write the rankings of both directions of pairs of languages, and the recall of their candidates."""
    if left.hits or left.counts or left.recalls:
        config, needed = scoring.config, cost.scoring_memory(scoring.config, scoring.extents.values())
        pool = pools.pool("score", config.num_gpus, config.max_actors, len(left.counts) or 1, lambda _: needed)
        scoring = dataclasses.replace(scoring, device=pool.device)
        _map("find candidates", _find_candidates_of, scoring, map(dataclasses.asdict, left.found), pool)
        _map("measure recall", _measure_recall_of, scoring, ({"pair": list(pair)} for pair in left.recalls), pool)
        _score_hits(scoring, left.hits, pool)
        _count(scoring, left.counts, pool, sum(unit.num_pairs for pair in left.ranks for unit in scoring.units(pair)))
    if left.ranks:
        _merge(scoring, left.ranks)


def _map(title: str, work_on: Callable[..., dict[str, Any]], scoring: Scoring, rows: Iterable[Any], pool: Pool) -> None:
    """Run tasks with the resources of an actor."""
    blocks = list(rows)
    if not blocks:
        return
    done = pools.one_by_one(blocks).map(
        work_on,
        fn_kwargs={"scoring": scoring},
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus or None,
        memory=pool.memory or None,
    )
    with progress.Bar(title, len(blocks), 0) as bar:
        for _ in done.iter_rows():
            bar.advance(1)


def _find_candidates_of(row: dict[str, Any], scoring: Scoring) -> dict[str, Any]:
    work.find_candidates(scoring, Unit.from_row(row))
    return row


def _measure_recall_of(row: dict[str, Any], scoring: Scoring) -> dict[str, Any]:
    work.measure_recall(scoring, (row["pair"][0], row["pair"][1]))
    return row


def _score_hits(scoring: Scoring, missing: list[Unit], pool: Pool) -> None:
    if not missing:
        return
    if scoring.config.keep_scores:
        matrices.write_recordings(scoring.artifact, scoring.recordings)
    scored = pools.one_by_one(map(dataclasses.asdict, missing)).map(
        _score_hits_of,
        fn_kwargs={"scoring": scoring},
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus or None,
        memory=pool.memory or None,
    )
    with progress.Bar("score hits of queries", sum(len(range(*unit.rows)) for unit in missing), 0) as bar:
        for row in scored.iter_rows():
            bar.advance(row["num_queries"])


def _score_hits_of(row: dict[str, Any], scoring: Scoring) -> dict[str, int]:
    unit = Unit.from_row(row)
    work.score_hits(scoring, unit)
    return {"num_queries": len(range(*unit.rows))}


def _count(scoring: Scoring, missing: list[Unit], pool: Pool, num_pairs: int) -> None:
    if not missing:
        return
    rows = pools.one_by_one(map(dataclasses.asdict, missing))
    counted = pools.stream(rows, work.CountUnit, {"scoring": scoring}, pool.options)
    num_layers = 1 + len(scoring.config.layers)
    total, left = num_layers * num_pairs, num_layers * sum(unit.num_pairs for unit in missing)
    with progress.Bar("score pairs", total, total - left) as bar:
        for row in counted.iter_rows():
            bar.advance(row["num_pairs"])


def _merge(scoring: Scoring, pairs: Sequence[Pair]) -> None:
    merged = pools.one_by_one({"pair": list(pair)} for pair in pairs).map(
        _merge_one,
        fn_kwargs={"scoring": scoring},
        num_cpus=1,
        memory=pools.memory(cost.merging_memory(scoring.config, scoring.extents.values())) or None,
    )
    with progress.Bar("rank pairs", len(pairs), 0) as bar:
        for _ in merged.iter_rows():
            bar.advance(1)


def _merge_one(row: dict[str, Any], scoring: Scoring) -> dict[str, Any]:
    work.merge_pair(scoring, (row["pair"][0], row["pair"][1]))
    return row
