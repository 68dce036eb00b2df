"""The retrieval stage: shards of frames in, rankings and R@k for every ordered pair of languages out.

    strips of shards -> ScoreTile (actors): a file for each tile of scores -> rank_pair (tasks): a file each direction

Frames stay in the actors, score matrices in files and tasks; the driver sees names, ranks and counts, and the frame
matches of the one pair of utterances that is plotted.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from xlt_ray.errors import UserError
from xlt_ray.job import cluster, pools, progress
from xlt_ray.job.tracking import track
from xlt_ray.retrieval import pairs, results, tiles
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.retrieval.tiles import Tile
from xlt_ray.store.artifacts import Artifact


def retrieve(plan: RetrievalPlan) -> Artifact:
    """Score, rank and commit; what is done is not done again. Needs a running Ray, and embeddings that are made."""
    artifact, job = plan.artifact, plan.job
    _forget_other_ranking(plan)
    if artifact.is_complete:
        print(f"retrieval: {artifact.uri} is complete, nothing to score")
        return artifact
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    recordings = by_language(plan.embeddings.recordings(job.retrieval.split), job.languages)
    _require_pairs(plan.embeddings.artifact, recordings)
    settings = plan.embeddings.settings
    inputs = {"corpus": settings["corpus"], "model": settings["model"], "embed": plan.embeddings.identity["encoding"]}
    with track(job.root, "retrieval", job.name, artifact.identity, inputs) as tracker:
        started = time.monotonic()
        pairs_left = [pair for pair in language_pairs(job) if not directions(pair) <= artifact.done()]
        uri, strip = plan.embeddings.artifact.uri, artifact.settings["retrieval"]["strip_utterances"]
        cut = tiles.cut(uri, recordings, pairs_left, strip)
        _score(artifact, cut, job.retrieval)
        _rank(artifact, recordings, pairs_left, cut, job.retrieval)
        results.finish(plan, recordings, tracker, time.monotonic() - started)
    return artifact


def _forget_other_ranking(plan: RetrievalPlan) -> None:
    """Where scores were ranked in another mode, protocol or depth, remove the rankings; the scores stay."""
    artifact = plan.artifact
    if not artifact.is_begun:
        return
    there = artifact.settings
    asked = {name: getattr(plan.job.retrieval, name) for name in RetrievalConfig.SHOWN}
    if all(there["retrieval"][name] == value for name, value in asked.items()):
        return
    print(f"retrieval: {artifact.uri} is ranked anew: {', '.join(f'{key} {value}' for key, value in asked.items())}")
    artifact.remove_file("manifest.json")  # first: rankings of two kinds must never be read as one
    artifact.remove("data")
    artifact.remove("rejected")
    settings = there | {"retrieval": there["retrieval"] | asked}
    artifact.write_json("config.json", {"identity": artifact.identity, "settings": settings})


def by_language(recordings: pa.Table, languages: Sequence[str]) -> dict[str, pa.Table]:
    """The rows of INDEX of each language."""
    return {code: recordings.filter(pc.equal(recordings["language"], code)) for code in languages}


def _require_pairs(embeddings: Artifact, recordings: dict[str, pa.Table]) -> None:
    """Rejected recordings may leave two languages without a sentence in common, which no score can mend."""
    kept = {code: set(rows["sentence_id"].to_pylist()) for code, rows in recordings.items()}
    for first, second in itertools.combinations(recordings, 2):
        if not kept[first] & kept[second]:
            rejected = embeddings.path("rejected.parquet")
            raise UserError(
                f"no sentence is left in both {first} and {second}; {rejected} says what was rejected and why"
            )


def language_pairs(job: RetrievalJob) -> list[tuple[str, str]]:
    """Every unordered pair of the job's languages; sorted, so that the order on the command line changes no file."""
    return list(itertools.combinations(sorted(job.languages), 2))


def directions(pair: tuple[str, str]) -> set[str]:
    """Names of the two directions of a pair, query language first."""
    return {"-".join(pair), "-".join(reversed(pair))}


def _score(artifact: Artifact, cut: list[Tile], config: RetrievalConfig) -> None:
    """Write every tile that has no file yet."""
    done = artifact.done("tiles")
    missing = [tile for tile in cut if tile.name not in done]
    if not missing:
        return
    pool = pools.pool("score", config.num_gpus, config.max_actors, len(missing))
    blocks = [tile.plain() for tile in missing]
    scored = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        tiles.ScoreTile,
        fn_constructor_kwargs={"artifact": artifact, "config": config},
        batch_size=1,
        batch_format="pyarrow",
        **pool.options,
    )
    total = sum(tile.num_pairs for tile in cut)
    with progress.Bar("score pairs", total, total - sum(tile.num_pairs for tile in missing)) as bar:
        for row in scored.iter_rows():
            bar.advance(row["num_pairs"])


def _rank(
    artifact: Artifact,
    recordings: dict[str, pa.Table],
    missing: Sequence[tuple[str, str]],
    cut: list[Tile],
    config: RetrievalConfig,
) -> None:
    """Write the rankings of both directions of every pair."""
    if not missing:
        return
    blocks = [{"pair": list(pair), "tiles": [t.name for t in cut if t.pair == pair]} for pair in missing]
    ranked = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        _rank_one, fn_kwargs={"artifact": artifact, "recordings": recordings, "config": config}, num_cpus=1
    )
    with progress.Bar("rank pairs", len(missing), 0) as bar:
        for _ in ranked.iter_rows():
            bar.advance(1)


def _rank_one(
    row: dict[str, list[str]], artifact: Artifact, recordings: dict[str, pa.Table], config: RetrievalConfig
) -> dict[str, list[str]]:
    first, second = row["pair"]
    pairs.rank_pair(artifact, row["tiles"], (recordings[first], recordings[second]), config)
    return {"pair": row["pair"]}
