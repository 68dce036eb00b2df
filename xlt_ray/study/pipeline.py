"""The study stage: one fine-tuning run per source language, each tested on all of them.

    for each source: Fisher of its task -> fine-tune -> translate (ordinary artifacts) -> the transfer matrix

Finished stages are reused, so a killed study resumes.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
import torch

from xlt_ray import metrics
from xlt_ray.charts.style import to_png
from xlt_ray.finetune import fisher
from xlt_ray.finetune import pipeline as finetune
from xlt_ray.job import cluster, pools
from xlt_ray.job.tracking import Tracker, track
from xlt_ray.languages import Direction
from xlt_ray.models.size import model_size
from xlt_ray.retrieval.pipeline import retrieve
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import CELL
from xlt_ray.study import cost, matrix, plots, results
from xlt_ray.study import plan as plans
from xlt_ray.study.matrix import Cell, Texts
from xlt_ray.study.plan import StudyPlan
from xlt_ray.translate import pipeline as translate
from xlt_ray.translate.scores import by_direction

_Figures = dict[str, Any]


def study(plan: StudyPlan) -> Artifact:
    """Run missing stages, compare, and commit. Needs a running Ray and finished embeddings."""
    artifact, job = plan.artifact, plan.job
    if artifact.is_complete:
        print(f"study: {artifact.uri} is complete, nothing to compare")
        runs = [run.artifact for run in plan.runs.values()]
        finetune.export_finished(runs, job.finetune.export, job.model)
        return artifact
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    # Before the first source trains: what the encoder rejected may have been all that the last one has.
    learned = [Direction(source, job.study.target) for source in job.sources]
    for split in plan.embeddings.splits:
        plan.embeddings.require_left(learned, split)
    inputs = {"corpus": artifact.settings["corpus"], "model": job.model, "embed": plan.embeddings.name}
    read = plan.embeddings.artifact
    with track(job.root, "study", artifact.name, artifact.identity, inputs, read=read) as tracker:
        started = time.monotonic()
        retrieval = _retrieval(plan)
        before = translate.translate(plan.before)
        translated = {source: _run(plan, source) for source in job.sources}
        figures = _compare(plan, before, translated, _predictors(plan, retrieval))
        figures |= {"baseline": before.name, "retrieval": retrieval.name if retrieval else None}
        _finish(plan, figures, tracker, time.monotonic() - started)
    return artifact


def _run(plan: StudyPlan, source: str) -> Artifact:
    """Run all stages of one source. Returns its translations."""
    print(f"study: {plans.run_name(plan.job, source)}", flush=True)
    run = plan.runs[source]
    fisher.estimate(run.job, plan.embeddings, plan.fishers[source])
    finetune.finetune(run)
    return translate.translate(plans.translation(plan, source))


def _retrieval(plan: StudyPlan) -> Artifact | None:
    """The finished retrieval artifact whose R@1 is compared with the transfer; None if retrieval is not possible."""
    found = plan.retrieval
    return retrieve(found) if isinstance(found, RetrievalPlan) else found


def _predictors(plan: StudyPlan, retrieval: Artifact | None) -> dict[str, dict[Cell, float]]:
    """The predictors of each ordered pair of languages, known before training.

    R@1 is for queries in the test language and candidates in the training language. This matches what the decoder does:
    it maps speech that is new to it to speech that it knows.
    """
    pairs = retrieval.read_json("metrics.json")["pairs"] if retrieval else {}
    ordered = list(itertools.permutations(plan.job.sources, 2)) if retrieval else []
    return {
        "r1": {(trained, tested): pairs[f"{tested}-{trained}"]["r1"] for trained, tested in ordered},
        "fisher_distance": _distances(plan),
    }


def _distances(plan: StudyPlan) -> dict[Cell, float]:
    """Fisher distances between the tasks of every two sources; symmetric."""
    pairs = list(itertools.combinations(plan.job.sources, 2))
    needed = cost.distance_memory(model_size(plan.job.model), plan.job.finetune)
    pool = pools.pool("fisher distances", 0, None, len(pairs), lambda _: needed)
    task, names = pool.task(_distance), _changed(plan)
    waiting = [task.remote(plan.fishers[a], plan.fishers[b], names) for a, b in pairs]
    found = dict(zip(pairs, ray.get(waiting), strict=True))
    return found | {(b, a): value for (a, b), value in found.items()}


def _changed(plan: StudyPlan) -> list[str]:
    """The names of the weights that a run changes. Found here, because another node may not have the model."""
    from xlt_ray.finetune.learner import Learner
    from xlt_ray.models import decoder

    model_dir = next(iter(plan.runs.values())).model_dir
    # Adapters have no Fisher: they act on the weights that would train without them.
    config = dataclasses.replace(plan.job.finetune, lora_rank=None)
    return list(Learner(decoder.empty_decoder(model_dir), config).trained)


def _distance(first: Artifact, second: Artifact, names: Sequence[str]) -> float:
    return fisher.distance(*(fisher.read(artifact, names, torch.float32) for artifact in (first, second)))


def _compare(
    plan: StudyPlan,
    before: Artifact,
    translated: Mapping[str, Artifact],
    predictors: Mapping[str, Mapping[Cell, float]],
) -> _Figures:
    """The content of metrics.json except the names of its inputs."""
    job = plan.job
    untouched = by_direction(before.tables())
    cells = {
        (trained, tested): _texts(after[f"{tested}-{job.study.target}"], untouched[f"{tested}-{job.study.target}"], job)
        for trained, artifact in translated.items()
        for after in [by_direction(artifact.tables())]
        for tested in job.sources
    }
    found, draws = matrix.gains(cells), matrix.resampled(cells, job.study.seed)
    scores = {trained: artifact.read_json("metrics.json") for trained, artifact in translated.items()}
    base = before.read_json("metrics.json")["directions"]
    return {
        "target": job.study.target,
        "sources": list(job.sources),
        "split": before.settings["translate"]["split"],
        "prompt": job.finetune.prompt,
        "before": {
            tested: {key: base[f"{tested}-{job.study.target}"][key] for key in ("bleu", "bleu_ci95")}
            for tested in job.sources
        },
        "transfer": results.transfer(scores, job.sources, job.study.target),
        "ranking": matrix.ranking(found, draws),
        "predictors": {name: results.nested(values) for name, values in predictors.items()},
        "correlations": {
            name: matrix.correlation(values, found, draws, job.study.seed) for name, values in predictors.items()
        },
        "runs": {
            source: dict.fromkeys(("finetune", "translate", "fisher"), artifact.name)
            for source, artifact in translated.items()
        },
    }


def _texts(after: pa.Table, before: pa.Table, job: Any) -> Texts:
    earlier = dict(zip(before["utterance_id"].to_pylist(), before["hypothesis"].to_pylist(), strict=True))
    wanted = after["reference"].to_pylist()
    hypotheses_before = [earlier[name] for name in after["utterance_id"].to_pylist()]
    return Texts(
        after["sentence_id"].to_pylist(),
        metrics.sentence_counts(after["hypothesis"].to_pylist(), wanted, job.study.target),
        metrics.sentence_counts(hypotheses_before, wanted, job.study.target),
    )


def _finish(plan: StudyPlan, figures: _Figures, tracker: Tracker, seconds: float) -> None:
    """Write the figures, log them, and commit the artifact."""
    artifact = plan.artifact
    rows = results.rows(figures)
    artifact.write_table("data/cells.parquet", pa.Table.from_pylist(rows, schema=CELL))
    artifact.write_json("metrics.json", figures)
    drawn = {"transfer": plots.transfer(figures), "predictors": plots.predictors(figures)}
    for name, figure in drawn.items():
        artifact.write_bytes(f"plots/{name}.png", to_png(figure))
        tracker.figure(figure, f"{name}.png")
    results.log(tracker, figures, artifact.uri)
    artifact.merge_rejected()
    artifact.commit(
        units={"cells": len(rows)},
        num_rows_in=len(plan.job.sources) ** 2,
        inputs={"embed": plan.embeddings.artifact.named},
        seconds=seconds,
        others=[f"plots/{name}.png" for name in drawn],
    )
