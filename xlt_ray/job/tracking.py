"""Runs in MLflow, opened and closed by the driver.

Without MLFLOW_TRACKING_URI the store is `{root}/mlflow.db`, with its files beside it. A root in an object store can
hold no SQLite file, so there a server is needed. Whatever fails here, the work of the job goes on; a line says that a
run is not tracked, and `jobs/report.py --log` logs it later.

A run that is opened while another one is open is nested under it, in its experiment: a search holds its trials.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from xlt_ray.job import runs, stopping
from xlt_ray.job.secrets import redacted
from xlt_ray.store import artifacts
from xlt_ray.store.artifacts import Artifact
from xlt_ray.store.provenance import provenance

if TYPE_CHECKING:  # see xlt_ray.job.runs
    from mlflow import MlflowClient

_PARENT = "mlflow.parentRunId"
_NOTE = "mlflow.note.content"
_PARAM_LIMIT = 6000  # characters of one value that MLflow 3 stores
_WITHOUT_ARTIFACT = "trial"  # a row of its search
_METRICS_LIMIT = 1000  # numbers in one request

_OPEN: ContextVar[tuple[str, str] | None] = ContextVar("open run", default=None)
"""Experiment and run that a further one is nested under; of a run that is not tracked ("", "")."""
_NOT_TRACKED = ("", "")


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
    """Writes to one run, through a client of its own: MLflow's global state would leak into the environment.

    What can't be written is lost to the run and not to the artifact: the first failure is told, and `problem` keeps it.
    """

    def __init__(self, client: MlflowClient, run_id: str, root: str) -> None:
        self.problem: str | None = None
        self._client, self._run_id, self._root, self._is_gone = client, run_id, root, False

    def _try(self, write: Callable[..., object], *values: Any) -> None:
        """Write to the run, unless its place is gone: a call to a server that does not answer takes 20 s."""
        if self._is_gone:
            return
        try:
            write(self._run_id, *values)
        except Exception as error:  # those of MLflow, of its database, of HTTP, of a store of files
            self._is_gone = not runs.answers(self._client)
            if not self.problem:
                self.problem = runs.reason(error)
                runs.lose(self._root, f"a run can't be written ({self.problem})")

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log nested settings."""
        from mlflow.entities import Param

        self._try(self._client.log_batch, (), [Param(*item) for item in flatten(values).items()])

    def end(self, status: str, time_ms: int) -> None:
        """Close the run; a place that is gone is asked once more, and not for long."""
        with contextlib.suppress(Exception), runs.impatient() if self._is_gone else contextlib.nullcontext():
            self._client.set_terminated(self._run_id, status, time_ms)

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows on top of the run."""
        self._try(self._client.set_tag, _NOTE, redacted(markdown))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log all numbers in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._try(self._client.log_batch, [Metric(key, float(value), now, 0) for key, value in values.items()])

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Log all points, as many in a request as MLflow takes."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, int(step)) for step, value in points]
        for first in range(0, len(rows), _METRICS_LIMIT):
            self._try(self._client.log_batch, rows[first : first + _METRICS_LIMIT])

    def figure(self, figure: Any, file: str) -> None:
        """Log a figure as an image file."""
        self._try(self._client.log_figure, figure, file)

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Log a table that the UI can show and compare."""
        self._try(self._client.log_table, dict(columns), file)

    def checkpoint(self, uri: str) -> None:
        """Set the tag `checkpoint`."""
        self._try(self._client.set_tag, "checkpoint", redacted(uri))

    def register(self, model: str, uri: str) -> str | None:
        """Make the model where it is missing, and a version that points to `uri` and to this run."""
        if self._is_gone:
            return self.problem
        try:
            if not self._client.search_registered_models(f"name = '{model}'"):
                self._client.create_registered_model(model)
            self._client.create_model_version(model, uri, self._run_id)
        except Exception as error:  # as above
            return runs.reason(error)
        return None


@contextlib.contextmanager
def track(
    root: str,
    stage: str,
    name: str,
    identity: Mapping[str, Any],
    inputs: Mapping[str, Any],
    seconds_ago: float = 0.0,
    ended_ago: float = 0.0,
) -> Iterator[Tracker]:
    """One MLflow run named `name` in the experiment `stage`; FINISHED where the body comes to its end.

    It is FAILED if the body raises, and KILLED if a signal ends the job. Inside another one it is a child of that, and
    its name begins with its stage. Its parameters are the identity and `inputs`, what it reads in words. A run of the
    same identity that a killed driver left open is marked KILLED. A run that lost something on the way is FAILED too;
    where none can be opened the work goes on with a `NullTracker`.

    Args:
        root: directory or URI that holds all artifacts.
        stage: name of the stage.
        name: of the artifact.
        identity: of the artifact.
        inputs: names of what is read.
        seconds_ago: when the work began, where it was done before the run is opened.
        ended_ago: when it ended, where it was over before the run is opened.
    """
    tracker, key = _begin(root, stage, name, identity, inputs, seconds_ago)
    status, token = "FAILED", _OPEN.set(key)
    try:
        with stopping.last_word(lambda: _end(tracker, "KILLED", 0.0) if tracker else None):
            yield tracker or NullTracker()
        status = "FINISHED"
    finally:
        _OPEN.reset(token)
        if tracker:
            _end(tracker, status, ended_ago)


def _begin(
    root: str, stage: str, name: str, identity: Mapping[str, Any], inputs: Mapping[str, Any], seconds_ago: float
) -> tuple[MlflowTracker | None, tuple[str, str]]:
    """Open a run, under the one that is open; None where that can't be, which is told once for all inside it."""
    parent = _OPEN.get()
    if parent == _NOT_TRACKED:
        return None, _NOT_TRACKED
    try:
        client = runs.connect(root)
        tags = _tags(root, stage, name, identity)
        if parent:
            (experiment, tags[_PARENT]), name = parent, f"{stage} {name}"
        else:
            experiment = runs.experiment(client, stage, root)
        _close_killed(client, experiment, identity)
        started = int(1000 * (time.time() - seconds_ago))
        run_id = client.create_run(experiment, start_time=started, tags=tags, run_name=name).info.run_id
    except runs.NotTracked as why:
        runs.lose(root, str(why))
        return None, _NOT_TRACKED
    except Exception as error:  # those of MLflow, of its database, of HTTP
        runs.lose(root, f"no run can be opened ({runs.reason(error)})")
        return None, _NOT_TRACKED
    tracker = MlflowTracker(client, run_id, root)
    tracker.parameters({**identity, **{f"{key}.name" if key in identity else key: of for key, of in inputs.items()}})
    return tracker, (experiment, run_id)


def _end(tracker: MlflowTracker, status: str, ended_ago: float) -> None:
    """Close a run. One that lost something is no whole record, so it counts as failed and can be logged again."""
    tracker.end("FAILED" if tracker.problem else status, int(1000 * (time.time() - ended_ago)))


def _close_killed(client: MlflowClient, experiment: str, identity: Mapping[str, Any]) -> None:
    same = f"attributes.status = 'RUNNING' AND tags.fingerprint = '{artifacts.fingerprint(identity)}'"
    for run in client.search_runs([experiment], filter_string=same):
        client.set_terminated(run.info.run_id, "KILLED")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, each value cut to what MLflow stores, and without passwords."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            flat[prefix + key] = redacted(str(text))[:_PARAM_LIMIT]
    return flat


def _tags(root: str, stage: str, name: str, identity: Mapping[str, Any]) -> dict[str, str]:
    made_by = provenance()
    versions = {f"version.{package}": version for package, version in made_by["versions"].items()}
    return {
        "stage": stage,
        "fingerprint": artifacts.fingerprint(identity),
        **({} if stage == _WITHOUT_ARTIFACT else {"artifact": redacted(Artifact.at(root, stage, name).uri)}),
        "mlflow.source.name": os.path.basename(sys.argv[0]),
        "mlflow.source.git.commit": made_by["git"]["sha"] or "unknown",
        "git.dirty": {True: "yes", False: "no", None: "unknown"}[made_by["git"]["dirty"]],
        "hardware.cpu": str(made_by["hardware"]["cpu"]),
        "hardware.gpus": ", ".join(made_by["hardware"]["gpus"]) or "none",
        **versions,
    }
