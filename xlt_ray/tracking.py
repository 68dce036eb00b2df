"""Runs in MLflow, opened and closed by the driver.

Without MLFLOW_TRACKING_URI the store is `{root}/mlflow.db`, with its files beside it. A root in an object store can hold
no SQLite file, so there a server is needed; without one the run is not tracked, and a line says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from xlt_ray import artifacts, storage

_PARAM_LIMIT = 6000  # characters of one value that MLflow 3 stores


class Tracker(Protocol):
    """Where a run's figures go beside its artifact."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Numbers, keyed so that two runs line up: `retrieval/r1/en-fr`."""

    def figure(self, figure: Any, file: str) -> None:
        """A matplotlib figure."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """A table, given by its columns."""


class NullTracker:
    """Tracks nothing."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Drop the numbers."""

    def figure(self, figure: Any, file: str) -> None:
        """Drop the figure."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Drop the table."""


class MlflowTracker:
    """Writes to the run that is active in the driver."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log all numbers in one request."""
        import mlflow

        mlflow.log_metrics({key: float(value) for key, value in values.items()})

    def figure(self, figure: Any, file: str) -> None:
        """Log a figure as an image file."""
        import mlflow

        mlflow.log_figure(figure, file)

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Log a table that the UI can show and compare."""
        import mlflow

        mlflow.log_table(dict(columns), file)


@contextlib.contextmanager
def track(root: str, stage: str, name: str, identity: Mapping[str, Any]) -> Iterator[Tracker]:
    """One MLflow run named `name` in the experiment `stage`; FAILED if the body raises, FINISHED otherwise."""
    uri = _store(root)
    if uri is None:
        print(f"not tracked: {root} can't hold MLflow's SQLite file; set MLFLOW_TRACKING_URI to a server")
        yield NullTracker()
        return
    import mlflow

    _quiet()
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name(stage) is None:
        mlflow.create_experiment(stage, artifact_location=_artifact_location(root))
    mlflow.set_experiment(stage)
    with mlflow.start_run(run_name=name):
        mlflow.log_params(flatten(identity))
        mlflow.set_tags(_tags(identity))
        yield MlflowTracker()


def ui_command(root: str) -> str:
    """What to type to look at the runs."""
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return f"open {server}" if server.startswith("http") else f"mlflow ui --backend-store-uri {server}"
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
    made_by = artifacts.provenance()
    versions = {f"version.{package}": version for package, version in made_by["versions"].items()}
    return {
        "fingerprint": artifacts.fingerprint(identity),
        "git.sha": str(made_by["git"]["sha"]),
        "git.dirty": str(made_by["git"]["dirty"]),
        "hardware.cpu": str(made_by["hardware"]["cpu"]),
        "hardware.gpus": ", ".join(made_by["hardware"]["gpus"]) or "none",
        **versions,
    }


def _quiet() -> None:
    """Keep the database migration of a new store (about 50 lines) out of the job's output."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
