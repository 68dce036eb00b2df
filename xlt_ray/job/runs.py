"""The place of MLflow runs: the store under the root, or the server of MLFLOW_TRACKING_URI.

If it can't be used, the job continues, and `connect` reports why.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from xlt_ray.job.commands import log_command, program
from xlt_ray.job.secrets import redacted
from xlt_ray.store import storage

if TYPE_CHECKING:  # MLflow and its database take 3 s to import, which workers and dry runs need not wait for
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from sqlalchemy import Connection

_KIND = {"mlflow.experimentKind": "custom_model_development"}
_FOLDER = "mlflow"  # of the files of runs, under the root
_LOCK_S = 120  # a new database takes 3 to 30 s, and only the first of several jobs makes it
_PROBE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# MLflow's own values are 120 s and 7 retries: 280 s for each call to a server that is gone.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}

_lost: dict[str, str] = {}
"""Why some or all runs of a root are not tracked."""


class NotTracked(Exception):  # noqa: N818 - reads as a state
    """Runs can't be kept; the message says why."""


def connect(root: str) -> MlflowClient:
    """A client of the place of runs. A store under the root is created, or updated if the root was moved.

    Raises:
        NotTracked: if there is no such place, or it does not answer within about 10 s.
    """
    from mlflow import MlflowClient

    place = _place(root)
    if place is None:
        raise NotTracked(f"{root} can't hold MLflow's SQLite file; set MLFLOW_TRACKING_URI to a server")
    _quiet()
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        with _locked(place), impatient():
            client = MlflowClient(place)
            client.search_experiments(max_results=1)  # makes the database, or asks the server
            if _is_own(root):
                _follow(place, root)
    except Exception as error:  # those of MLflow, of its database, of HTTP, of the disk
        raise NotTracked(f"{_named(place)} can't be used ({reason(error)})") from error
    return client


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """While inside, requests to a server fail within about 10 s."""
    before = {name: os.environ.get(name) for name in _PROBE}
    os.environ.update(_PROBE)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def answers(client: MlflowClient) -> bool:
    """Whether the place can still be reached."""
    try:
        with impatient():
            client.search_experiments(max_results=1)
    except Exception:
        return False
    return True


def experiment(client: MlflowClient, stage: str, root: str) -> str:
    """The id of the experiment of a stage, which is created, or restored if somebody has deleted it."""
    name = experiment_name(stage)
    found: Experiment | None = client.get_experiment_by_name(name)
    if found is None:
        # Without the kind, MLflow 3 opens an experiment as a place for prompts and traces, not for metrics to compare.
        return str(client.create_experiment(name, _artifact_location(root), _KIND))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        print(f"runs: the experiment {name!r} had been deleted in MLflow; it is restored, with its runs", flush=True)
    return str(found.experiment_id)


def experiment_name(stage: str) -> str:
    """The experiment of a stage; MLFLOW_EXPERIMENT_NAME replaces the prefix `xlt_ray`."""
    prefix = os.environ.get("MLFLOW_EXPERIMENT_NAME", "").rstrip("/") or "xlt_ray"
    return f"{prefix}/{stage}"


def find(client: MlflowClient, stages: Iterable[str], tags: Mapping[str, str]) -> tuple[str, str] | None:
    """Experiment and id of the newest run with these tags in the experiments of some stages; None if there is none.

    Args:
        client: from `connect`.
        stages: stages whose experiments are searched, except deleted ones.
        tags: the first is used in the query, so it must have no quotation marks; the others are compared.
    """
    there = [client.get_experiment_by_name(experiment_name(stage)) for stage in stages]
    active = [found.experiment_id for found in there if found and found.lifecycle_stage == "active"]
    key, value = next(iter(tags.items()))
    found = client.search_runs(active, filter_string=f"tags.{key} = '{value}'") if active else []
    same = (run.info for run in found if tags.items() <= run.data.tags.items())
    return next(((str(info.experiment_id), str(info.run_id)) for info in same), None)


def lose(root: str, why: str) -> None:
    """Print that runs of a root are not tracked and how to log them later, and remember it for the end of the job."""
    problem = _lost[storage.absolute(root)] = redacted(why)
    print(f"runs: not tracked: {problem}; the job continues; to log it later: {log_command(root)}", flush=True)


def lost(root: str) -> str | None:
    """Why some or all runs of a root are not tracked; None if all are."""
    return _lost.get(storage.absolute(root))


def where(root: str) -> str:
    """The command that shows the runs, or that logs those that are not tracked."""
    return f"not tracked; to log them: {log_command(root)}" if lost(root) else ui_command(root)


def ui_command(root: str) -> str:
    """The command that shows the runs."""
    ui = shlex.join([*program("mlflow"), "ui", "--backend-store-uri"])
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        if urlsplit(server).scheme in ("http", "https"):
            return f"open {shlex.quote(_public(server))}"
        return f'{ui} "$MLFLOW_TRACKING_URI"'  # a database's URI can hold a password
    place = _place(root)
    return f"{ui} {shlex.quote(place)}" if place else "set MLFLOW_TRACKING_URI to track runs"


def reason(error: BaseException) -> str:
    """The first line of an error, or of the system error behind it, shortened and without passwords."""
    inner: BaseException | None = error
    while inner := inner and (inner.__cause__ or inner.__context__):
        if isinstance(inner, OSError) and inner.strerror and type(inner).__module__ == "builtins":
            error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:200]


def _public(server: str) -> str:
    parts = urlsplit(server)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _named(place: str) -> str:
    """The place in words."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return place
    is_server = urlsplit(place).scheme in ("http", "https")
    return f"MLFLOW_TRACKING_URI, {_public(place)}," if is_server else "MLFLOW_TRACKING_URI"


def _is_own(root: str) -> bool:
    """Whether the store is the one under the root, and no other root's."""
    return not os.environ.get("MLFLOW_TRACKING_URI") and not storage.is_remote(root)


def _place(root: str) -> str | None:
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return server
    return None if storage.is_remote(root) else sqlite_uri(Path(storage.absolute(root), "mlflow.db"))


def sqlite_uri(path: Path) -> str:
    """The URI of a database file. SQLAlchemy reads `%20` in it as a space, and the text after a `?` as options."""
    return f"sqlite:///{path}".replace("%", "%25").replace("?", "%3F")


def _artifact_location(root: str) -> str | None:
    """The location of the files of runs; None: the server decides. Without a server, MLflow would use ./mlruns."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if server and "sql" not in urlsplit(server).scheme:
        return None
    folder = storage.join(storage.absolute(root), _FOLDER)
    return folder if storage.is_remote(folder) else Path(folder).as_uri()


def _locked(place: str) -> contextlib.AbstractContextManager[object]:
    """Let one process at a time create a database file: MLflow's migration fails if two processes start it."""
    from sqlalchemy import make_url

    file = make_url(place).database if place.startswith("sqlite:") else None
    if file is None:
        return contextlib.nullcontext()
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock", timeout=_LOCK_S)


def _follow(place: str, root: str) -> None:
    """Update the paths in a store whose root was moved or copied, so that they refer to its own files."""
    import sqlalchemy
    from mlflow.store.tracking.dbmodels.models import SqlExperiment

    new = storage.absolute(root)
    engine = sqlalchemy.create_engine(place)
    try:
        with engine.begin() as transaction:
            locations = transaction.scalars(sqlalchemy.select(SqlExperiment.artifact_location).distinct())
            for old in {_root_of(location) for location in locations} - {None, new}:
                _rename(transaction, str(old), new)
                print(f"runs: {new} was moved or copied from {old}; its runs now name their files there", flush=True)
    finally:
        engine.dispose()


def _root_of(location: str | None) -> str | None:
    """The root whose folder of run files a URI names; None if the experiment is not ours."""
    parts = urlsplit(location or "")
    path = unquote(parts.path)
    return str(Path(path).parent) if parts.scheme == "file" and Path(path).name == _FOLDER else None


def _columns_of_files() -> tuple[Any, ...]:
    """The columns of the store that contain file names."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun, SqlTag

    runs = SqlExperiment.artifact_location, SqlRun.artifact_uri, SqlTag.value
    return (*runs, SqlModelVersion.source, SqlModelVersion.storage_location)


def _rename(transaction: Connection, old: str, new: str) -> None:
    """Replace an old root by a new one wherever the store names a file, as a path or as a URI."""
    import sqlalchemy

    for before, after in ((old, new), (Path(old).as_uri(), Path(new).as_uri())):
        for column in _columns_of_files():
            rest = sqlalchemy.func.substr(column, len(before) + 1)
            is_below = sqlalchemy.func.substr(column, 1, len(before) + 1) == f"{before}/"
            transaction.execute(sqlalchemy.update(column.class_).where(is_below).values({column: after + rest}))


def _quiet() -> None:
    """Hide the migration messages of a new store (about 50 lines) and tracebacks, which `lose` reports."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="mlflow")
