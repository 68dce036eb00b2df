"""Logs finished artifacts without an MLflow run, for example because the server was down or the store was deleted.

The artifact has everything that is needed: the parameters are in config.json, the figures in metrics.json.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xlt_ray.embed import results as embed
from xlt_ray.errors import Unreachable
from xlt_ray.finetune import results as finetune
from xlt_ray.job import runs
from xlt_ray.job.tracking import Model, Tracker, track
from xlt_ray.mine import keys as mine
from xlt_ray.report.collect import STAGES, not_shown
from xlt_ray.retrieval import keys as retrieval
from xlt_ray.store import artifacts, storage
from xlt_ray.store.artifact import Artifact
from xlt_ray.study import results as study
from xlt_ray.translate import results as translate
from xlt_ray.translate import scores
from xlt_ray.tune import results as tune

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NAMES = ("corpus", "model")
"""Settings that runs show in addition to their identity: the inputs, in words."""


def log_missing(root: str) -> None:
    """Log every finished artifact under a root without a finished run, and print how many.

    An artifact with unknown figures is reported, and the others are logged.

    Raises:
        Unreachable: if MLflow's store or server can't be used.
    """
    try:
        client = runs.connect(root)
    except runs.NotTracked as why:
        raise Unreachable("the store of MLflow", str(why)) from why
    root = storage.absolute(root)
    there = [artifact for stage in STAGES for artifact in artifacts.all_of(root, stage)]
    finished = [artifact for artifact in there if artifact.is_complete]
    # In the order in which they were made: of what several say of one model, the last counts.
    finished.sort(key=lambda artifact: str(artifact.read_json("manifest.json")["created"]))
    missing = [artifact for artifact in finished if not _has_run(client, artifact)]
    num_logged = 0
    for artifact in missing:
        try:
            _log(root, artifact)
            num_logged += 1
        except Exception as error:  # whole files may still hold anything
            if storage.is_at_fault(error):
                raise
            print(f"runs: not logged: {not_shown(root, artifact.label, error)}")
        if problem := runs.lost(root):
            raise Unreachable("the store of MLflow", problem)
    print(f"runs: {num_logged} artifacts logged, {len(finished) - len(missing)} had a run")


def _has_run(client: MlflowClient, artifact: Artifact) -> bool:
    """Whether MLflow has a finished run with its identity and name, at the top or inside another run."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    same = f"attributes.status = 'FINISHED' AND tags.fingerprint = '{artifact.fingerprint}'"
    names = {artifact.name, f"{artifact.stage} {artifact.name}"}
    return any(run.info.run_name in names for run in client.search_runs(experiments, filter_string=same))


def _log(root: str, artifact: Artifact) -> None:
    manifest = artifact.read_json("manifest.json")
    ended_ago = time.time() - datetime.datetime.fromisoformat(manifest["created"]).timestamp()
    seconds = manifest["wall_time_s"]
    names = {name: artifact.settings[name] for name in _NAMES if name in artifact.settings}
    metrics, identity = artifact.read_json("metrics.json"), artifact.identity
    model = _model(root, artifact, metrics)
    embedded = manifest["inputs"].get("embed")
    read = Artifact.at(root, "embed", embedded["name"]) if embedded else None
    started_ago = ended_ago + seconds
    with track(
        root, artifact.stage, artifact.name, identity, names, started_ago, ended_ago, read=read, model=model
    ) as tracker:
        _figures(tracker, artifact, metrics, seconds, model)


def _model(root: str, artifact: Artifact, metrics: Mapping[str, Any]) -> Model | None:
    """The tuned model to which an artifact belongs; None if there is none, or if its checkpoint was replaced."""
    if artifact.stage == "finetune":
        return Model(artifact=artifact)
    found = metrics["checkpoint"] if artifact.stage == "translate" else None
    if not found:
        return None
    checkpoint = Artifact.at(root, "finetune", found["name"])
    if not checkpoint.is_committed or checkpoint.fingerprint != found["fingerprint"]:
        return None
    return Model(artifact=checkpoint, alpha=metrics["alpha"])


def _figures(
    tracker: Tracker, artifact: Artifact, metrics: Mapping[str, Any], seconds: float, model: Model | None
) -> None:
    """The figures of an artifact, with the keys of its stage."""
    match artifact.stage:
        case "embed":
            embed.log(tracker, dict(metrics), artifact, seconds)
        case "retrieval":
            retrieval.log(tracker, metrics)
        case "mine":
            mine.log(tracker, metrics)
        case "fisher":
            tracker.metrics({f"fisher/{key}": value for key, value in metrics.items()})
        case "finetune":
            finetune.log(tracker, artifact, dict(metrics), artifact.read_json("log.json"), seconds)
        case "translate":
            split = artifact.settings["translate"]["split"]
            hypotheses = scores.by_direction(artifact.tables())
            translate.log(tracker, dict(metrics), hypotheses, split, model.learned if model else ())
            tracker.describe(f"{translate.sentence(dict(metrics))}\n\nArtifact: `{artifact.uri}`")
        case "tune":
            tune.log(tracker, dict(metrics), artifact.uri)
        case "study":
            study.log(tracker, dict(metrics), artifact.uri)
