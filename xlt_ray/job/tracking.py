"""Runs in MLflow, opened and closed by the driver.

Without MLFLOW_TRACKING_URI the store is `{root}/mlflow.db`, with its files beside it. A root in an object store can
hold no SQLite file, so there a server is needed; without one the run is not tracked, and a line says so.

A run that is opened while another one is open is nested under it, in its experiment: a search holds its trials.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
)

from xlt_ray.store import artifacts, storage
from xlt_ray.store.provenance import provenance

_KIND = {"mlflow.experimentKind": "custom_model_development"}
_PARAM_LIMIT = 6000  # characters of one value that MLflow 3 stores
_METRICS_LIMIT = 1000  # numbers in one request

_OPEN: ContextVar[tuple[str, str] | None] = ContextVar("open run", default=None)
"""Experiment and run that a further one is nested under."""


class Tracker(Protocol):
    """Where a run's figures go beside its artifact."""

    def describe(self, markdown: str) -> None:
        """What a reader of the run should see first."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Numbers, keyed so that two runs line up: `retrieval/r1/en-fr`."""

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """One number at many steps: (step, value)."""

    def figure(self, figure: Any, file: str) -> None:
        """A matplotlib figure."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """A table, given by its columns."""

    def checkpoint(self, uri: str) -> None:
        """Where the weights of the run are: a reference, no copy."""

    def register(self, model: str, uri: str) -> str | None:
        """Enter weights in the model registry as the next version of `model`; why not, where that can't be."""


class NullTracker:
    """Tracks nothing."""

    def describe(self, markdown: str) -> None:
        """Drop the text."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Drop the numbers."""

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Drop the numbers."""

    def figure(self, figure: Any, file: str) -> None:
        """Drop the figure."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Drop the table."""

    def checkpoint(self, uri: str) -> None:
        """Drop the reference."""

    def register(self, model: str, uri: str) -> str | None:
        """There is no registry."""
        return "runs are not tracked, so there is no registry"


class MlflowTracker:
    """Writes to one run, through a client of its own: MLflow's global state would leak into the environment."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows on top of the run."""
        self._client.set_tag(self._run_id, MLFLOW_RUN_NOTE, markdown)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log all numbers in one request."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[Metric(key, float(of), now, 0) for key, of in values.items()])

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Log all points, as many in a request as MLflow takes."""
        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, int(step)) for step, value in points]
        for first in range(0, len(rows), _METRICS_LIMIT):
            self._client.log_batch(self._run_id, metrics=rows[first : first + _METRICS_LIMIT])

    def figure(self, figure: Any, file: str) -> None:
        """Log a figure as an image file."""
        self._client.log_figure(self._run_id, figure, file)

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Log a table that the UI can show and compare."""
        self._client.log_table(self._run_id, dict(columns), file)

    def checkpoint(self, uri: str) -> None:
        """Set the tag `checkpoint`."""
        self._client.set_tag(self._run_id, "checkpoint", uri)

    def register(self, model: str, uri: str) -> str | None:
        """Make the model where it is missing, and a version that points to `uri` and to this run."""
        try:
            if not self._client.search_registered_models(f"name = '{model}'"):
                self._client.create_registered_model(model)
            self._client.create_model_version(model, uri, self._run_id)
        except MlflowException as error:
            return str(error).splitlines()[0]
        return None


@contextlib.contextmanager
def track(
    root: str,
    stage: str,
    name: str,
    identity: Mapping[str, Any],
    inputs: Mapping[str, Any],
    seconds_ago: float = 0.0,
) -> Iterator[Tracker]:
    """One MLflow run named `name` in the experiment `stage`; FAILED if the body raises, FINISHED otherwise.

    Inside another one it is a child of that, and its name begins with its stage. Its parameters are the identity and
    `inputs`, what it reads in words. A run of the same identity that a killed driver left open is marked KILLED.

    Args:
        root: directory or URI that holds all artifacts.
        stage: name of the stage.
        name: of the artifact.
        identity: of the artifact.
        inputs: names of what is read.
        seconds_ago: when the work began, where it was done before the run is opened.
    """
    uri = _store(root)
    if uri is None:
        print(f"not tracked: {root} can't hold MLflow's SQLite file; set MLFLOW_TRACKING_URI to a server")
        yield NullTracker()
        return
    _quiet()
    client = MlflowClient(uri)
    tags, parent = _tags(identity) | {"stage": stage}, _OPEN.get()
    if parent:
        (experiment, parent_run), name = parent, f"{stage} {name}"
        tags[MLFLOW_PARENT_RUN_ID] = parent_run
    else:
        experiment = _experiment(client, stage, root)
    _close_killed(client, experiment, identity)
    started = int(1000 * (time.time() - seconds_ago))
    run_id = client.create_run(experiment, start_time=started, tags=tags, run_name=name).info.run_id
    parameters = {f"{key}.name" if key in identity else key: value for key, value in inputs.items()}
    client.log_batch(run_id, params=[Param(*item) for item in flatten({**identity, **parameters}).items()])
    status, token = "FAILED", _OPEN.set((experiment, run_id))
    try:
        yield MlflowTracker(client, run_id)
        status = "FINISHED"
    finally:
        _OPEN.reset(token)
        client.set_terminated(run_id, status)


def _close_killed(client: MlflowClient, experiment: str, identity: Mapping[str, Any]) -> None:
    same = f"attributes.status = 'RUNNING' AND tags.fingerprint = '{artifacts.fingerprint(identity)}'"
    for run in client.search_runs([experiment], filter_string=same):
        client.set_terminated(run.info.run_id, "KILLED")


def _experiment(client: MlflowClient, stage: str, root: str) -> str:
    if experiment := client.get_experiment_by_name(stage):
        return str(experiment.experiment_id)
    # Without the kind, MLflow 3 opens an experiment as a place for prompts and traces, not for metrics to compare.
    return str(client.create_experiment(stage, _artifact_location(root), _KIND))


def ui_command(root: str) -> str:
    """What to type to look at the runs."""
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        parts = urlsplit(server)
        if parts.scheme in ("http", "https"):
            return f"open {parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}"
        return 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'  # a database's URI can hold a password
    return f"mlflow ui --backend-store-uri {_store(root)}" if _store(root) else "set MLFLOW_TRACKING_URI to track runs"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, each value cut to what MLflow stores."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            flat[prefix + key] = str(text)[:_PARAM_LIMIT]
    return flat


def _store(root: str) -> str | None:
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return server
    return None if storage.is_remote(root) else f"sqlite:///{storage.absolute(root)}/mlflow.db"


def _artifact_location(root: str) -> str | None:
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return None  # the server decides
    return Path(storage.absolute(root), "mlflow").as_uri()


def _tags(identity: Mapping[str, Any]) -> dict[str, str]:
    made_by = provenance()
    versions = {f"version.{package}": version for package, version in made_by["versions"].items()}
    return {
        "fingerprint": artifacts.fingerprint(identity),
        MLFLOW_SOURCE_NAME: os.path.basename(sys.argv[0]),
        MLFLOW_GIT_COMMIT: made_by["git"]["sha"] or "unknown",
        "git.dirty": {True: "yes", False: "no", None: "unknown"}[made_by["git"]["dirty"]],
        "hardware.cpu": str(made_by["hardware"]["cpu"]),
        "hardware.gpus": ", ".join(made_by["hardware"]["gpus"]) or "none",
        **versions,
    }


def _quiet() -> None:
    """Keep the database migration of a new store (about 50 lines) out of the job's output."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
