"""How something is lost: processes are killed, a disk is full, a store answers with errors."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import psutil
from ray.cluster_utils import Cluster

STORE_BYTES = 100_000_000
_OTHERS = (
    "ray::(IDLE|DashboardAgent|RuntimeEnvAgent|_StatsActor|_AutoscalingCoordinatorActor|ActorLocationTracker"
    "|PlacementGroupCleaner|PreemptionWatcher|SynchronizationActor|DatasetManager|_UsageCollectionActor)"
)
"""Processes of Ray that do none of a job's work."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def descendants(process: psutil.Process) -> Iterator[tuple[psutil.Process, str]]:
    """All that a process has started, and what it has started, with their titles."""
    with contextlib.suppress(psutil.Error):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                yield child, " ".join(child.cmdline())


def kill_driver(job: subprocess.Popen[bytes], _: random.Random) -> str:
    """SIGKILL for the process of the job."""
    job.kill()
    job.wait()
    return "driver"


def kill_worker(started_by: int, rng: random.Random) -> str:
    """SIGKILL for one process of Ray that holds an actor or a task; its title, or nothing where none works."""
    busy = [
        (process, title)
        for process, title in descendants(psutil.Process(started_by))
        if title.startswith("ray::") and not re.match(_OTHERS, title)
    ]
    if not busy:
        return ""
    process, title = rng.choice(busy)
    with contextlib.suppress(psutil.Error):
        process.kill()
    return re.split(r"\W", title.removeprefix("ray::"))[0]


class Nodes:
    """A cluster on this machine: a head without CPUs and two nodes of one CPU, each a raylet with its workers."""

    def __init__(self, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        os.environ.update(environment)  # its workers have that of the process that starts it
        # Two clusters may run at a time, and both would take Ray's own port for their dashboard.
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_port()}
        head |= {"object_store_memory": STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._add(), self._add()]

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> dict[str, str]:
        """What a job must know to run here."""
        return {"RAY_ADDRESS": self._cluster.address}

    def lose_one(self, rng: random.Random) -> str:
        """Kill a node with all that runs on it; another one comes."""
        node = self._nodes.pop(rng.randrange(2))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())
        return "node"

    def lose_head(self) -> str:
        """Kill the process that knows the cluster."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)
        return "head"

    def _add(self) -> object:
        return self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
