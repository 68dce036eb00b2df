"""The retrieval stage: shards of frames in, rankings and R@k for every ordered pair of languages out.

    strips of shards -> ScoreTile (actors): a file for each tile of scores -> rank_pair (tasks): a file each direction

Frames stay in the actors, score matrices in files and tasks; the driver sees names, ranks and counts, and the frame
matches of the one pair of utterances that is plotted.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence

import ray.data

from xlt_ray.errors import UserError
from xlt_ray.job import cluster, pools, progress
from xlt_ray.job.settings import identity
from xlt_ray.job.tracking import track
from xlt_ray.retrieval import pairs, results, tiles
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.tiles import Tile
from xlt_ray.store import artifacts
from xlt_ray.store.artifacts import Artifact


def retrieve(job: RetrievalJob, embeddings: Artifact) -> Artifact:
    """Score, rank and commit; what is done is not done again. Needs a running Ray.

    Args:
        job: languages and settings.
        embeddings: a finished embed artifact that holds the languages.
    """
    what = {
        "languages": sorted(job.languages),
        "embeddings": embeddings.fingerprint,
        "retrieval": identity(job.retrieval),
    }
    made_with = embeddings.settings
    # What is recorded of the embeddings is how they were made, not what flags of this job would make.
    settings = dataclasses.asdict(job) | {key: made_with[key] for key in ("corpus", "model", "embed")}
    artifact = artifacts.start(job.root, "retrieval", job.name, what, settings)
    if artifact.is_complete:
        print(f"retrieval: {artifact.uri} is complete, nothing to score")
        artifact.remove("tiles")  # a run that was killed right after its manifest left them
        return artifact
    cluster.require_shared(artifact.path("config.json"))
    _require_pairs(embeddings, job.languages)
    inputs = {"corpus": made_with["corpus"], "model": made_with["model"], "embed": embeddings.identity["embed"]}
    with track(job.root, "retrieval", job.name, artifact.identity, inputs) as tracker:
        started = time.monotonic()
        pairs_left = [pair for pair in language_pairs(job) if not directions(pair) <= artifact.done()]
        plan = tiles.cut(embeddings, pairs_left, artifact.settings["retrieval"]["strip_utterances"])
        _score(artifact, plan, job.retrieval)
        _rank(artifact, embeddings, pairs_left, plan, job.retrieval)
        results.finish(artifact, embeddings, job, tracker, time.monotonic() - started)
    return artifact


def require_layers(job: RetrievalJob, embeddings: Artifact) -> None:
    """Refuse layers that finished embeddings do not keep.

    Raises:
        UserError: naming both.
    """
    kept = embeddings.identity["embed"]["layers"]
    if missing := sorted(set(job.retrieval.layers) - set(kept)):
        raise UserError(f"embed artifact {embeddings.name!r} keeps layers {kept}, not {missing}")


def _require_pairs(embeddings: Artifact, languages: Sequence[str]) -> None:
    """Rejected recordings may leave two languages without a sentence in common, which no score can mend."""
    kept = {code: set(pairs.utterances(embeddings, code)["sentence_id"].to_pylist()) for code in languages}
    for first, second in itertools.combinations(languages, 2):
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


def _score(artifact: Artifact, plan: list[Tile], config: RetrievalConfig) -> None:
    """Write every tile that has no file yet."""
    done = artifact.done("tiles")
    missing = [tile for tile in plan if tile.name not in done]
    if not missing:
        return
    pool = pools.pool("score", config.num_gpus, config.max_actors, len(missing))
    blocks = [{"name": t.name, "rows": t.rows, "columns": t.columns, "num_pairs": t.num_pairs} for t in missing]
    scored = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        tiles.ScoreTile,
        fn_constructor_kwargs={"artifact": artifact, "config": config},
        batch_size=1,
        batch_format="pyarrow",
        **pool.options,
    )
    total = sum(tile.num_pairs for tile in plan)
    with progress.Bar("score pairs", total, total - sum(tile.num_pairs for tile in missing)) as bar:
        for row in scored.iter_rows():
            bar.advance(row["num_pairs"])


def _rank(
    artifact: Artifact,
    embeddings: Artifact,
    missing: Sequence[tuple[str, str]],
    plan: list[Tile],
    config: RetrievalConfig,
) -> None:
    """Write the rankings of both directions of every pair."""
    if not missing:
        return
    blocks = [{"pair": list(pair), "tiles": [t.name for t in plan if t.pair == pair]} for pair in missing]
    ranked = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        _rank_one, fn_kwargs={"artifact": artifact, "embeddings": embeddings, "config": config}, num_cpus=1
    )
    with progress.Bar("rank pairs", len(missing), 0) as bar:
        for _ in ranked.iter_rows():
            bar.advance(1)


def _rank_one(
    row: dict[str, list[str]], artifact: Artifact, embeddings: Artifact, config: RetrievalConfig
) -> dict[str, list[str]]:
    pairs.rank_pair(artifact, embeddings, row["tiles"], (row["pair"][0], row["pair"][1]), config)
    return {"pair": row["pair"]}
