"""The search: concurrent trials under Ray Tune, each a Ray Train run, then the test scores of the best.

    settings of every trial -> Ray Tune (halving) -> data/{trial}.parquet -> the best: a model, its test scores

Every finished trial is a file, so a killed search resumes with the trials that have no file, each from its last
checkpoint. Tune's own snapshot is not needed, and never unpickled.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import ray.tune

from xlt_ray.charts.style import to_png
from xlt_ray.finetune import fisher
from xlt_ray.finetune import pipeline as finetune
from xlt_ray.finetune.plan import FinetunePlan
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.settings import identity
from xlt_ray.job.tracking import Tracker, register, track
from xlt_ray.store import reading, storage
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import by_name
from xlt_ray.translate import pipeline as translate
from xlt_ray.translate import scores
from xlt_ray.tune import plan as plans
from xlt_ray.tune import plots, results, watch
from xlt_ray.tune.halving import Halving, front
from xlt_ray.tune.plan import TunePlan
from xlt_ray.tune.results import Figures
from xlt_ray.tune.scheduler import HalvingScheduler
from xlt_ray.tune.trial import run_trial

_SEARCH = "search"  # folder of Ray Tune inside the artifact, for the time of the search


def search(plan: TunePlan) -> Artifact:
    """Run missing trials, score the best on the test split, and commit. Needs a running Ray."""
    artifact, job = plan.artifact, plan.job
    if artifact.is_complete:
        print(f"tune: {artifact.uri} is complete, nothing to search")
        figures = artifact.read_json("metrics.json")
        _remove_others(plan, figures["trials"])
        finetune.export_finished(_chosen(plan, figures), job.finetune.export, job.model)
        _register(plan, figures, functools.partial(register, job.root, artifact))
        return artifact
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    resume.drop_damaged(artifact)
    # Before the trials, which are scored on the test split only in the end.
    for before in plan.before.values():
        plan.embeddings.require_left(before.directions, before.job.translate.split)
    inputs = {"corpus": artifact.settings["corpus"], "model": job.model, "embed": plan.embeddings.name}
    read = plan.embeddings.artifact
    with track(job.root, "tune", artifact.name, artifact.identity, inputs, read=read) as tracker:
        started = time.monotonic()
        if plan.fisher:
            fisher.estimate(plan.fisher[0], plan.embeddings, plan.fisher[1])
        dev = _scores(plan, translate.translate(plan.before["dev"]))
        _run_missing(plan, dev)
        figures = _figures(plan, dev)
        _score_chosen(plan, figures)
        _finish(plan, figures, tracker, time.monotonic() - started)
    _remove_others(plan, figures["trials"])
    return artifact


def _scores(plan: TunePlan, translated: Artifact) -> Figures:
    """Means of new and old BLEU of a translate artifact, and its name."""
    bleu = scores.bleu(scores.by_direction(translated.tables()))
    return {"name": translated.name, **results.scores_of(bleu, plan.job.finetune.directions, plan.job.kept)}


def _run_missing(plan: TunePlan, before: Figures) -> None:
    """Run every trial without a file, under Ray Tune."""
    artifact, job = plan.artifact, plan.job
    for folder in ("rejected", _SEARCH):  # of a run that was killed: what failed then is tried again
        artifact.remove(folder)
    done = [_read(plan, number) for number in range(len(plan.trials)) if f"{number:03d}" in artifact.done()]
    missing = sorted(set(range(len(plan.trials))) - {row["trial"] for row in done})
    if done:
        print(f"tune: {len(done)} of {len(plan.trials)} trials are done, resuming")
        for row in done:
            watch.log(plan, row, before)
    if not missing:
        return
    cluster.require_shared_model(job.model)
    halving = Halving(job.tune.grace, job.tune.reduction)
    for row in done:
        halving.record(row["trial"], [results.point(measured, job.tune) for measured in row["curve"]])
    trials = [plans.trial_plan(plan, number) for number in range(len(plan.trials))]
    needed = _memory_needed([trials[number] for number in missing])
    workers = pools.workers("finetune", job.finetune.num_workers, job.finetune.num_gpus, needed)
    at_once = int(min(job.tune.max_concurrent or pools.most_groups(workers), len(missing)))
    collected = finetune.Collected()  # trials share their examples
    works = [finetune.begin(trial, collected)[0] for trial in trials]
    num_steps = [work.num_steps for work in works]
    scheduler = HalvingScheduler(halving, lambda measured: _point(plan, measured), num_steps)
    print(f"tune: {len(missing)} trials, {at_once} at a time", flush=True)
    filesystem, path = storage.locate(artifact.uri)
    trainable = ray.tune.with_parameters(run_trial, works=works, workers=workers)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the other output can't be silenced
    with progress.Bar("tune trials", len(plan.trials), len(done)) as bar:
        ray.tune.Tuner(
            ray.tune.with_resources(trainable, {"CPU": pools.TRIAL_CPUS}),
            param_space={"trial": ray.tune.grid_search(missing)},
            tune_config=ray.tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=at_once),
            run_config=ray.tune.RunConfig(
                name=_SEARCH,
                storage_path=path,
                storage_filesystem=filesystem,
                # A trial that is lost with its node goes on from its last checkpoint, as its workers do. One whose
                # training fails does not raise.
                failure_config=ray.tune.FailureConfig(max_failures=job.finetune.max_failures),
                callbacks=[watch.Watch(plan, before, scheduler, bar)],
                verbose=0,
            ),
        ).fit()
    artifact.remove(_SEARCH)


def _memory_needed(trials: Sequence[FinetunePlan]) -> pools.Needed:
    """The memory of the largest trial, because only some have a Fisher."""
    num_frames = finetune.longest(trials[0])
    each = [finetune.memory_needed(trial, num_frames) for trial in trials]
    return lambda device: max(needed(device) for needed in each)


def _point(plan: TunePlan, measured: Sequence[Mapping[str, float]]) -> tuple[float, ...]:
    return results.point(results.outcome(measured, plan.job.kept), plan.job.tune)


def _read(plan: TunePlan, number: int) -> dict[str, Any]:
    row: dict[str, Any] = reading.table_of(plan.artifact.path("data", f"{number:03d}.parquet")).to_pylist()[0]
    return {**row, "settings": by_name(row["settings"]), "bleu": by_name(row["bleu"])}


def _figures(plan: TunePlan, before: Figures) -> Figures:
    """The content of metrics.json from the dev split."""
    job, done = plan.job, plan.artifact.done()
    trials = [
        _judged(_read(plan, number), before) if f"{number:03d}" in done else _failed(plan, number)
        for number in range(len(plan.trials))
    ]
    finished = {
        trial["trial"]: (trial["new_bleu"], trial["old_bleu"]) for trial in trials if trial["status"] == "finished"
    }
    if not finished:
        reasons = sorted({str(trial["reason"]) for trial in trials if trial["reason"]})
        raise RuntimeError(f"no trial of {plan.artifact.uri} finished: {'; '.join(reasons)}")
    best, chosen = front(finished), results.choose(trials, job.tune)
    for trial in trials:
        trial |= {"on_front": trial["trial"] in best, "chosen": trial["trial"] in chosen, "test": None}
    return {
        "objective": job.tune.objective,
        "gain_weight": job.tune.gain_weight if job.tune.objective == "mix" else None,
        "split": job.finetune.dev_split,
        "gain_directions": list(job.finetune.directions),
        "kept_directions": list(job.kept),
        "space": results.described(job.tune.space),
        "baseline": {"dev": before},
        "trials": trials,
        "best": plans.trial_name(job, chosen[0]),
        "importance": results.importance(trials),
    }


def _judged(row: dict[str, Any], before: Figures) -> Figures:
    return {**row, **results.against(row, before), "reason": None}


def _failed(plan: TunePlan, number: int) -> Figures:
    reasons = reading.table_of(plan.artifact.path("rejected", f"{number:03d}.parquet"))["reason"].to_pylist()
    nothing = dict.fromkeys(("num_steps", "seconds", "new_bleu", "old_bleu", "gain", "kept"))
    return {
        "trial": number,
        "name": plans.trial_name(plan.job, number),
        "status": "failed",
        "reason": reasons[0],
        "settings": plan.trials[number],
        **nothing,
        "bleu": {},
        "curve": [],
    }


def _score_chosen(plan: TunePlan, figures: Figures) -> None:
    """Make models of the chosen trials, and score them on the test split, once, after the search."""
    before = _scores(plan, translate.translate(plan.before["test"]))
    figures["baseline"]["test"] = before
    for trial in figures["trials"]:
        if trial["chosen"]:
            print(f"tune: {trial['name']} is among the best: making its model and scoring it on test")
            finetune.finetune(plans.trial_plan(plan, trial["trial"]))
            translated = translate.translate(plans.test_plan(plan, trial["trial"]))
            tested = _scores(plan, translated)
            trial["test"] = {"translate": tested.pop("name"), **tested, **results.against(tested, before)}


def _finish(plan: TunePlan, figures: Figures, tracker: Tracker, seconds: float) -> None:
    """Write the figures, log them, and commit the artifact."""
    artifact = plan.artifact
    artifact.write_json("metrics.json", figures)
    pareto = plots.pareto(figures)
    artifact.write_bytes("plots/pareto.png", to_png(pareto))
    results.log(tracker, figures, artifact.uri)
    tracker.figure(pareto, "pareto.png")
    tracker.checkpoint(_best_model(plan, figures))
    _register(plan, figures, tracker.register)
    artifact.merge_rejected()
    artifact.commit(
        units={f"{row['trial']:03d}": 1 for row in figures["trials"] if row["status"] != "failed"},
        num_rows_in=len(plan.trials),
        inputs={"embed": plan.embeddings.artifact.named},
        seconds=seconds,
        others=["plots/pareto.png"],
    )


def _chosen(plan: TunePlan, figures: Figures) -> list[Artifact]:
    chosen = [trial["name"] for trial in figures["trials"] if trial["chosen"]]
    return [Artifact.at(plan.job.root, "finetune", name) for name in chosen]


def _best_model(plan: TunePlan, figures: Figures) -> str:
    return Artifact.at(plan.job.root, "finetune", figures["best"]).path("model")


def _register(plan: TunePlan, figures: Figures, enter: Callable[[str, str], str | None]) -> None:
    """Enter the best model in the registry where that is asked for, and say what came of it."""
    if name := plan.job.tune.register:
        problem = enter(name, _best_model(plan, figures))
        print(f"tune: {figures['best']} is " + (f"not registered: {problem}" if problem else name))


def _remove_others(plan: TunePlan, trials: Sequence[Mapping[str, Any]]) -> None:
    """Delete the checkpoints of trials that were not chosen; the artifact has their scores.

    A finished artifact of such a name is a run of the user, and is kept; so is an unfinished one with other settings.
    """
    for trial in trials:
        left = Artifact.at(plan.job.root, "finetune", trial["name"])
        if trial["chosen"] or not left.is_begun or left.is_complete:
            continue
        config = plans.config_of(plan.job, plan.trials[trial["trial"]])
        if left.identity["finetune"] == json.loads(json.dumps(identity(config))):
            left.remove("")
