"""MLflow runs, opened and closed by the driver.

Without MLFLOW_TRACKING_URI the store is `{root}/mlflow.db`, with its files beside it. A root in an object store can't
hold an SQLite file, so it needs a server. If tracking fails, the job continues and prints that the run is not tracked;
`jobs/report.py --log` logs it later.

A run that is opened while another run is open is nested under it, in the same experiment: a search contains its trials.
The runs of a tuned model, its fine-tuning and its translations, are nested under one run of the model. That run has the
settings of the fine-tuning as parameters and the scores of the translations as metrics, so one plot can show a score
against a setting.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from xlt_ray.job import runs, stopping
from xlt_ray.job.commands import log_command
from xlt_ray.job.mlflow_run import MlflowTracker
from xlt_ray.job.model_run import Model as Model
from xlt_ray.job.secrets import redacted
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.identity import fingerprint
from xlt_ray.store.provenance import provenance

if TYPE_CHECKING:  # see xlt_ray.job.runs
    from mlflow import MlflowClient

_PARENT = "mlflow.parentRunId"
_WITHOUT_ARTIFACT = "trial"  # a row of its search
_MODEL_EXPERIMENTS = ("finetune", "study", "tune")
"""Stages that can contain the run of a model: finetune itself, or the job that made it."""

_OPEN: ContextVar[tuple[str, str] | None] = ContextVar("open run", default=None)
"""Experiment and run under which a new run is nested; ("", "") for a run that is not tracked."""
_NOT_TRACKED = ("", "")


HEADLINES = 8
"""Maximum number of metrics of a run, so that they fit side by side when runs are compared."""


class Tracker(Protocol):
    """Logs the figures of a run, in addition to its artifact."""

    def describe(self, markdown: str) -> None:
        """The text that a reader of the run should see first."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """The few numbers by which runs are compared, with the same keys in each: `retrieval/r1/mean`.

        At most HEADLINES, including curves. Numbers of a pair, a language or a direction go into a `table`.
        """

    def of_model(self, values: Mapping[str, float]) -> None:
        """Numbers for the run of the model to which this run belongs, which has the model's settings."""

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """One number at many steps: (step, value)."""

    def figure(self, figure: Any, file: str) -> None:
        """A matplotlib figure."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """A table, as columns."""

    def datasets(self, corpus: str, rows: Mapping[str, Mapping[str, Any]], index: str) -> None:
        """The data that was read: for each split the number of rows and their hash, and the index that lists them."""

    def checkpoint(self, uri: str) -> None:
        """The location of the weights of the run, which are not copied."""

    def register(self, model: str, uri: str) -> str | None:
        """Enter weights in the model registry as the next version of `model`. Returns the reason if that fails."""


class NullTracker:
    """Tracks nothing."""

    def describe(self, markdown: str) -> None:
        """Drop the text."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Drop the numbers."""

    def of_model(self, values: Mapping[str, float]) -> None:
        """Drop the numbers."""

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Drop the numbers."""

    def figure(self, figure: Any, file: str) -> None:
        """Drop the figure."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Drop the table."""

    def datasets(self, corpus: str, rows: Mapping[str, Mapping[str, Any]], index: str) -> None:
        """Drop the references."""

    def checkpoint(self, uri: str) -> None:
        """Drop the reference."""

    def register(self, model: str, uri: str) -> str | None:
        """There is no registry."""
        return "runs are not tracked, so there is no registry"


@contextlib.contextmanager
def track(
    root: str,
    stage: str,
    name: str,
    identity: Mapping[str, Any],
    inputs: Mapping[str, Any],
    seconds_ago: float = 0.0,
    ended_ago: float = 0.0,
    *,
    read: Artifact | None = None,
    model: Model | None = None,
    shows_identity: bool = True,
) -> Iterator[Tracker]:
    """One MLflow run named `name` in the experiment of the stage; it is FINISHED if the body ends normally.

    It is FAILED if the body raises, and KILLED if a signal ends the job. Inside another run it is a child of that run,
    and its name begins with its stage. Its parameters are the identity and `inputs`, a description of what it reads. A
    run of the same identity that a killed driver left open is marked KILLED. A run with missing data is FAILED too. If
    no run can be opened, the job continues with a `NullTracker`.

    Args:
        root: directory or URI that holds all artifacts.
        stage: name of the stage.
        name: of the artifact.
        identity: of the artifact.
        inputs: names of the inputs.
        seconds_ago: when the work began, if that was before the run is opened.
        ended_ago: when it ended, if that was before the run is opened.
        read: embed artifact whose rows are read; those that the identity names are logged as datasets.
        model: the model to which this run belongs: the run is nested under the model's run, which is created if needed.
        shows_identity: whether the identity is among the parameters.
    """
    parameters = _joined(identity, inputs) if shows_identity else dict(inputs)
    tracker, key = _begin(root, stage, name, identity, parameters, (seconds_ago, ended_ago), model)
    status, token = "FAILED", _OPEN.set(key)
    try:
        with stopping.last_word(lambda: tracker.end("KILLED") if tracker else None):
            if tracker and read:
                rows = identity.get("embeddings", {}).get("rows", {})
                tracker.datasets(str(inputs.get("corpus", read.name)), rows, read.path("index.parquet"))
            yield tracker or NullTracker()
        status = "FINISHED"
    finally:
        _OPEN.reset(token)
        if tracker:
            tracker.end(status)


def register(root: str, artifact: Artifact, model: str, uri: str) -> str | None:
    """Enter weights in the model registry under the run of an artifact that is finished.

    Args:
        root: directory or URI that holds all artifacts.
        artifact: whose run the weights are of.
        model: name in the registry.
        uri: of the weights.

    Returns:
        The reason if that fails.
    """
    try:
        client = runs.connect(root)
        tags = {"fingerprint": artifact.fingerprint, "artifact": redacted(artifact.uri)}
        found = runs.find(client, [artifact.stage], tags)
    except runs.NotTracked as why:
        return str(why)
    except Exception as error:  # those of MLflow, of its database, of HTTP
        return runs.reason(error)
    if found is None:
        return f"it has no run in MLflow; to log it: {log_command(root)}"
    return MlflowTracker(client, found[1], root).register(model, uri)


def _begin(
    root: str,
    stage: str,
    name: str,
    identity: Mapping[str, Any],
    parameters: Mapping[str, Any],
    ago: tuple[float, float],
    model: Model | None,
) -> tuple[MlflowTracker | None, tuple[str, str]]:
    """Open a run under the current one; None if that fails, which is printed once for all runs inside it."""
    parent = _OPEN.get()
    if parent == _NOT_TRACKED:
        return None, _NOT_TRACKED
    try:
        client = runs.connect(root)
        whole = _of_model(client, root, model, ago) if model else None
        tags = _tags(root, stage, name, identity)
        experiment, run_id = _create(client, root, stage, name, tags, ago, whole[1] if whole else parent)
        _close_killed(client, experiment, tags, run_id)
    except runs.NotTracked as why:
        runs.lose(root, str(why))
        return None, _NOT_TRACKED
    except Exception as error:  # those of MLflow, of its database, of HTTP
        runs.lose(root, f"no run can be opened ({runs.reason(error)})")
        return None, _NOT_TRACKED
    tracker = MlflowTracker(client, run_id, root, ago[1])
    tracker.model = whole[0] if whole else None
    tracker.parameters(parameters)
    return tracker, (experiment, run_id)


def _create(
    client: MlflowClient,
    root: str,
    kind: str,
    name: str,
    tags: Mapping[str, str],
    ago: tuple[float, float],
    parent: tuple[str, str] | None,
) -> tuple[str, str]:
    """Create a run, inside another one or in the experiment of its kind. Returns its experiment and its id."""
    if parent:
        experiment, tags, name = parent[0], {**tags, _PARENT: parent[1]}, f"{kind} {name}"
    else:
        experiment = runs.experiment(client, _MODEL_EXPERIMENTS[0] if kind == "model" else kind, root)
    started = int(1000 * (time.time() - ago[0]))
    run = client.create_run(experiment, start_time=started, tags=tags, run_name=name)
    return experiment, run.info.run_id


def _of_model(
    client: MlflowClient, root: str, model: Model, ago: tuple[float, float]
) -> tuple[MlflowTracker, tuple[str, str]]:
    """Find or create the run of a model. Returns its tracker, its experiment and its id."""
    tags = {"model": model.key, "artifact": redacted(model.artifact.uri)}
    if found := runs.find(client, _MODEL_EXPERIMENTS, tags):
        tracker = MlflowTracker(client, found[1], root, ago[1])
        tracker.reopen()
        return tracker, found
    tags = _tags(root, "finetune", model.artifact.name, model.artifact.identity) | tags | {"stage": "model"}
    del tags["fingerprint"]  # that of its fine-tuning, which is a run of its own
    made = _create(client, root, "model", model.name, tags, ago, _OPEN.get())
    tracker = MlflowTracker(client, made[1], root, ago[1])
    tracker.parameters(_joined(model.artifact.identity, model.words))
    return tracker, made


def _close_killed(client: MlflowClient, experiment: str, tags: Mapping[str, str], opened: str) -> None:
    """End the runs that a killed driver left open; those of another root may belong to a running job."""
    same = f"attributes.status = 'RUNNING' AND tags.fingerprint = '{tags['fingerprint']}'"
    for run in client.search_runs([experiment], filter_string=same):
        if run.info.run_id != opened and run.data.tags.get("artifact") == tags.get("artifact"):
            client.set_terminated(run.info.run_id, "KILLED")


def _joined(identity: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters: the identity, and the inputs in words."""
    return {**identity, **{f"{key}.name" if key in identity else key: value for key, value in words.items()}}


def _tags(root: str, stage: str, name: str, identity: Mapping[str, Any]) -> dict[str, str]:
    made_by = provenance()
    versions = {f"version.{package}": version for package, version in made_by["versions"].items()}
    return {
        "stage": stage,
        "fingerprint": fingerprint(identity),
        **({} if stage == _WITHOUT_ARTIFACT else {"artifact": redacted(Artifact.at(root, stage, name).uri)}),
        "mlflow.source.name": os.path.basename(sys.argv[0]),
        "mlflow.source.git.commit": made_by["git"]["sha"] or "unknown",
        "git.dirty": {True: "yes", False: "no", None: "unknown"}[made_by["git"]["dirty"]],
        "hardware.cpu": str(made_by["hardware"]["cpu"]),
        "hardware.gpus": ", ".join(made_by["hardware"]["gpus"]) or "none",
        **versions,
    }
