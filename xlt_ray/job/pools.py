"""The resources of the actors and workers of a stage, and the maximum number of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data

from xlt_ray.errors import Unreachable, Unwritable, UserError
from xlt_ray.job import address, room

FEED_CPUS = 0.1
"""CPUs of a task that reads the next input of an actor or worker on a CPU."""
TRIAL_CPUS = 0.001
"""CPUs of a trial of a search, which only waits for its workers."""
_WORKER_CPUS = 0.89
"""CPUs of a worker that trains without a GPU. A node with one CPU must also have room for its feeding task and ten
trials: with 0.9 for the worker and 0.01 for a trial, a search on such nodes waits forever for the feeding tasks.
"""
_UNKNOWN_CPUS = 0.5
"""CPUs of an actor or worker on a GPU, if no node is running yet whose CPUs could be divided.

With 1, a node with one CPU has no room for the feeding tasks.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """The resources of one actor of a stage, the maximum number of actors, and the resources of their feeding tasks.

    On CPUs an actor requests 0.9 of a CPU and a feeding task 0.1: if actors requested whole CPUs, a pool as large as
    the machine would wait for its input forever. `num_cpus`, `num_gpus` and `memory` (bytes, 0 if not set) are for an
    actor, `feed_cpus` for a task.
    """

    num_cpus: float
    num_gpus: float
    feed_cpus: float
    initial_size: int
    max_size: int
    memory: int = 0

    @property
    def device(self) -> str:
        """The device of an actor, from its request, because Ray shows the GPUs of a node to every process there."""
        return "cuda" if self.num_gpus else "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """The same as arguments of `map_batches`."""
        return self._options()

    def task(self, function: Callable[..., Any]) -> Any:
        """The function as a Ray task with the resources of an actor."""
        return ray.remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus, memory=self.memory or None)(function)

    @property
    def overlapping(self) -> dict[str, Any]:
        """The same for actors that, on a GPU, read or write a second unit in another thread while they compute."""
        return self._options(max_concurrent_calls_per_actor=2, enable_true_multi_threading=True)

    def _options(self, **on_gpu: Any) -> dict[str, Any]:
        sizes = {"min_size": 1, "initial_size": self.initial_size, "max_size": self.max_size}
        return {
            "compute": ray.data.ActorPoolStrategy(**sizes, **(on_gpu if self.num_gpus else {})),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "memory": self.memory or None,
            # Ray's default is to retry forever, so one unit that kills its actor would never let the job end.
            "max_restarts": 4,
            "max_task_retries": 2,
        }


Needed = Callable[[str], int]
"""Bytes of a node's memory that an actor needs, by its device: `cpu` or `cuda`."""


def _unknown(device: str) -> int:
    return 0


def one_by_one(rows: Iterable[dict[str, Any]]) -> ray.data.Dataset:
    """A dataset of rows that are processed one at a time: each row is its own block, and so its own task."""
    blocks = list(rows)
    return ray.data.from_items(blocks, override_num_blocks=len(blocks))


def stream(
    units: ray.data.Dataset, actor: type, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> ray.data.Dataset:
    """The rows that actors yield, passed on one at a time, so that a progress bar can count within a unit.

    Args:
        units: from `one_by_one`.
        actor: class that takes a table of one unit.
        settings: arguments to create an actor.
        options: of a `Pool`.
    """
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1
    named = type(actor.__name__, (_Started,), {"actor": actor})  # Ray shows the name
    with ray.data.DataContext.current(context):
        return units.map_batches(
            named, fn_constructor_kwargs=dict(settings), batch_size=1, batch_format="pyarrow", **options
        )


class _Started:
    """An actor that reports at its first unit why it could not start, if the reason is a file, a store or a setting.

    Ray prints an error of a constructor as 150 lines of traceback and creates the actor again; an error of a unit ends
    the job, which prints one line.
    """

    actor: type

    def __init__(self, **settings: Any) -> None:
        self._problem: Exception | None = None
        try:
            self._work = self.actor(**settings)
        except (UserError, Unreachable, Unwritable) as problem:
            self._problem = problem

    def __call__(self, units: pa.Table) -> Any:
        if self._problem:
            raise self._problem
        return self._work(units)


def memory(needed: int) -> int:
    """Bytes to request; 0 if the nodes of a cluster do not report memory, because a request would wait forever."""
    return needed if room.tells_memory() else 0


def pool(stage: str, num_gpus: float | None, max_actors: int | None, num_units: int, needed: Needed = _unknown) -> Pool:
    """One actor per GPU, or one per CPU if there is no GPU; on a cluster, more as nodes are added. Prints the choice.

    Returns when there is room for an actor and its feeding task. Until then it prints every 30 s what is missing.

    Args:
        stage: name of the work, for the printed line.
        num_gpus: GPUs per actor; None: 1 if the cluster has a GPU now, else 0.
        max_actors: maximum number of actors; None: as many as there are units, or as this machine can hold.
        num_units: units of work, an upper limit on the number of actors.
        needed: memory that an actor needs, if known.

    Raises:
        NoResources: if there can never be room.
    """
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    gpus_each = num_gpus if num_gpus is not None else float(gpus > 0)
    asked_memory = memory(needed("cuda" if gpus_each else "cpu"))
    fit = int(gpus / gpus_each if gpus_each else cpus)
    if asked_memory:
        fit = min(fit, int(resources.get("memory", 0) / asked_memory))
    most = max_actors or (num_units if address.is_given() else max(1, fit))
    max_size = max(1, min(most, num_units))
    initial_size = max(1, min(fit, max_size))
    device = f"{gpus_each:g} GPU each" if gpus_each else "CPUs"
    now = f"{initial_size} actor" + "s" * (initial_size != 1)
    print(f"{stage}: on {device}, {now} now, {max_size} at most", flush=True)
    if gpus_each:
        # Actors on GPUs need little of a CPU: half of what the cluster has stays for the tasks that feed them.
        each = min(1.0, round(0.5 * cpus / initial_size, 2)) if cpus else _UNKNOWN_CPUS
        chosen = Pool(each, gpus_each, each, initial_size, max_size, asked_memory)
    else:
        chosen = Pool(0.9, 0.0, FEED_CPUS, initial_size, max_size, asked_memory)
    _take(stage, [_bundle(chosen), {"CPU": chosen.feed_cpus}])
    return chosen


def _take(stage: str, bundles: Sequence[room.Bundle]) -> None:
    room.require(stage, bundles, "ask for fewer, or for a cluster that has them")
    room.wait(stage, bundles)


def _bundle(asked: Pool | Workers) -> room.Bundle:
    """The resources of one actor or worker."""
    more = {"GPU": asked.num_gpus, "memory": asked.memory}
    return {"CPU": asked.num_cpus, **{kind: amount for kind, amount in more.items() if amount}}


def require(job: Any) -> None:
    """Refuse GPUs and workers, of any stage of a job, that the cluster can never provide. Called before any work.

    Raises:
        NoResources: naming the flag.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    for field in dataclasses.fields(job):
        config, stage = getattr(job, field.name), field.name
        asked = getattr(config, "num_gpus", None)
        if asked:
            advice = "omit it to use the available ones"
            room.require(f"--{stage}.num-gpus {asked:g}", [{"GPU": float(asked)}], advice)
        if count := getattr(config, "num_workers", None):
            gpus_each = asked if asked is not None else float(gpus > 0)
            each = {"GPU": gpus_each} if gpus_each else {"CPU": _WORKER_CPUS}
            room.require(f"--{stage}.num-workers {count}", [each] * count, "give fewer")


@dataclasses.dataclass(frozen=True, slots=True)
class Workers:
    """The number of training processes, and the resources of each."""

    count: int
    num_cpus: float
    num_gpus: float
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """The resources of one process."""
        return dict(_bundle(self))


def workers(stage: str, count: int | None, num_gpus: int | None, needed: Needed = _unknown) -> Workers:
    """One training process per GPU, or one if there is no GPU. Prints the choice, and returns when there is room.

    Args:
        stage: name of the work, for the printed line.
        count: number of workers; None: one per GPU that the cluster has now, else one.
        num_gpus: GPUs per worker; None: 1 if the cluster has a GPU now, else 0.
        needed: memory that a worker needs, if known.

    Raises:
        NoResources: if there can never be room for this many; Ray would wait forever.
    """
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    gpus_each = num_gpus if num_gpus is not None else float(gpus > 0)
    fit = int(gpus / gpus_each if gpus_each else cpus)
    chosen = count or (max(1, fit) if gpus_each else 1)
    device = f"{gpus_each:g} GPU each" if gpus_each else "CPUs"
    print(f"{stage}: {chosen} {'worker' if chosen == 1 else 'workers'} on {device}", flush=True)
    num_cpus = _WORKER_CPUS if not gpus_each else min(1.0, round(0.5 * cpus / chosen, 2)) or _UNKNOWN_CPUS
    found = Workers(chosen, num_cpus, gpus_each, memory(needed("cuda" if gpus_each else "cpu")))
    _take(stage, [_bundle(found)] * chosen)
    return found


def most_groups(workers: Workers) -> float:
    """How many groups of such workers the cluster can hold at its maximum size: at least 1; infinity if unbounded."""
    held = room.most(_bundle(workers)) / workers.count
    return max(1, held if math.isinf(held) else int(held))
