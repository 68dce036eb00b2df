"""Starts or joins Ray for the duration of a job. The only module that calls `ray.init`."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import warnings
from collections.abc import Iterator
from typing import Any

import ray
import ray.data
import ray.util.annotations
from ray._private import services
from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException, ServerUnavailable

from xlt_ray.errors import NoResources, UserError
from xlt_ray.job import address, orphans, stopping
from xlt_ray.models import whisper
from xlt_ray.store import artifacts, storage

_STARTS = 4
"""How many times to try to start a local Ray."""


@contextlib.contextmanager
def cluster(with_state_api: bool = False) -> Iterator[None]:
    """Ray for the duration of a job: the cluster of RAY_ADDRESS (set by `ray job submit`), else this machine.

    Args:
        with_state_api: whether the job needs a dashboard, like a search: a local Ray then starts one on loopback, and a
            cluster must have one.

    Raises:
        UserError: if another job is making an artifact that this one has planned, or the cluster has no dashboard.
        NoResources: if the cluster can't be joined.
    """
    artifacts.require_free()
    joins = address.is_given()
    print(f"ray: {'joining the cluster of RAY_ADDRESS' if joins else 'starting on this machine'}", flush=True)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.nullcontext() if joins else _session():
        try:
            with _no_stderr():  # Ray's core tells at which level it logs
                os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
                _join(**quiet) if joins else _start_here(with_state_api, **quiet)
                stopping.rearm()
            if joins and with_state_api:
                _require_state_api()
            data = ray.data.DataContext.get_current()
            data.enable_progress_bars = False  # jobs draw their own, in rows of the corpus
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _session() -> Iterator[None]:
    """Make sure that no process of this job's own Ray outlives the job, however the job ends."""
    session = secrets.token_hex(8)
    watcher = orphans.watch(session)
    try:
        with stopping.ends_with(session):
            yield
    finally:
        orphans.release(watcher)


def _join(**options: Any) -> None:
    """Join the cluster of RAY_ADDRESS.

    Raises:
        NoResources: if it does not exist, or can't be joined.
    """
    address.require_answer()
    try:
        if os.environ["RAY_ADDRESS"] == "auto":
            # A cluster that died leaves its address behind, which Ray would wait for.
            address.require_answer(services.canonicalize_bootstrap_address_or_die("auto"))
        ray.init(**options)
    except NoResources:
        raise
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise address.no_answer(error) from error


def _start_here(with_state_api: bool, **options: Any) -> None:
    """Start a Ray of this job's own, with its own token.

    By default, Ray writes a token to the user's home, and a later `ray start --head` requires it from every
    `ray job submit`. Ray gives up a start after 30 s, but a busy machine may need longer; processes that have started
    by then end with the job.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for left in reversed(range(_STARTS)):
        try:
            ray.init(address="local", **_dashboard(with_state_api), **options)
            return
        except Exception as error:  # Ray raises no other kind
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            print("ray: not started in 30 s, so this machine is busy; trying again", flush=True)


def _dashboard(is_wanted: bool) -> dict[str, Any]:
    """Whether Ray starts its dashboard; if so on loopback, at a free port.

    Workers of Ray Train query it, and inherit the variable with its address. Without the variable they search for a
    running Ray, and fail if they also find that of another job.
    """
    if not is_wanted:
        return {"include_dashboard": False}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    return {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop the output of native code to the standard error stream. Exceptions are not affected."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _require_state_api() -> None:
    """Refuse a cluster without a state API.

    To free the workers of a stopped trial, Ray Train asks for the state of its controller. Without an answer the
    workers stay, and the search waits for their resources forever.

    Raises:
        UserError: naming what to install.
    """
    try:
        list_nodes(timeout=10)
    except (ServerUnavailable, RayStateApiException, ConnectionError) as error:
        raise UserError(
            f"this Ray cluster has no dashboard ({type(error).__name__}), and a search needs it to stop trials; start "
            'the head with --include-dashboard=true, and install "ray[default]" there'
        ) from None


def require_shared(path: str, advice: str = "give a --root that all nodes share, such as s3://...") -> None:
    """Refuse a local path that a node does not see, because its workers would write to a disk that nobody reads.

    Args:
        path: a file that the driver sees, such as one that it has written under the root.
        advice: what the user should do.

    Raises:
        UserError: naming the path and the number of nodes that do not see it.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if storage.is_remote(path) or len(nodes) == 1:
        return
    sees = ray.remote(num_cpus=0)(os.path.exists)
    places = [sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)) for node in nodes]
    num_blind = [_answer(asked) for asked in [place.remote(path) for place in places]].count(False)
    if num_blind:
        raise UserError(f"{num_blind} of {len(nodes)} nodes do not see {path}; {advice}")


def require_shared_model(spec: str) -> None:
    """Refuse a local model that some node does not see: each worker reads it from its own disk.

    Args:
        spec: as `--model`.

    Raises:
        UserError: naming a file of it and how many nodes lack it.
    """
    for path in whisper.files_to_see(spec):
        require_shared(path, "copy the model to all nodes, or give one of the Hub")


def _answer(asked: ray.ObjectRef[bool]) -> bool:
    """Whether a node sees the path. A node that is lost before it answers will not write anything."""
    try:
        return bool(ray.get(asked))
    except (TaskUnschedulableError, NodeDiedError, WorkerCrashedError):
        return True
