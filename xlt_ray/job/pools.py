"""The resources that the actors and workers of a stage take, and how many of them there may be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray
import ray.data

from xlt_ray.job import address, room

FEED_CPUS = 0.1
"""CPUs of a task that reads what an actor or a worker on a CPU works on next."""
TRIAL_CPUS = 0.001
"""CPUs of a trial of a search, which only waits for its workers."""
_WORKER_CPUS = 0.89
"""CPUs of a worker that trains without a GPU: a node's only CPU also holds the task that feeds it and ten trials.

With 0.9, and 0.01 for a trial, a search on nodes of one CPU waits forever for what feeds its workers.
"""
_UNKNOWN_CPUS = 0.5
"""CPUs of what computes on a GPU, where no node is there yet whose CPUs could be shared out.

With 1, a node of one CPU has no room for the tasks that feed it.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """What one actor of a stage takes, how many there may be, and what the tasks that feed them take.

    On CPUs an actor books 0.9 of one and a feeding task 0.1: with whole CPUs booked, a pool as large as the machine
    waits for its input forever. `num_cpus`, `num_gpus` and `memory` (bytes, 0 if not set) are an actor's,
    `feed_cpus` a task's.
    """

    num_cpus: float
    num_gpus: float
    feed_cpus: float
    initial_size: int
    max_size: int
    memory: int = 0

    @property
    def device(self) -> str:
        """Where an actor computes, by what it booked, because Ray shows the GPUs of a node to every process there."""
        return "cuda" if self.num_gpus else "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """The same as arguments of `map_batches`."""
        return self._options()

    def task(self, function: Callable[..., Any]) -> Any:
        """The function as a task of Ray that takes what an actor takes."""
        return ray.remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus, memory=self.memory or None)(function)

    @property
    def overlapping(self) -> dict[str, Any]:
        """The same for actors that, on a GPU, read or write a second unit, in another thread, while they compute."""
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
"""Bytes of a node's memory that an actor takes, by the device that it computes on: `cpu` or `cuda`."""


def _unknown(device: str) -> int:
    return 0


def one_by_one(rows: Iterable[dict[str, Any]]) -> ray.data.Dataset:
    """A dataset of rows that are worked on one at a time: each is a block, and so a task, of its own."""
    blocks = list(rows)
    return ray.data.from_items(blocks, override_num_blocks=len(blocks))


def stream(
    units: ray.data.Dataset, actor: type, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> ray.data.Dataset:
    """The rows that actors yield, each passed on as it is yielded, so that a bar can count within a unit.

    Args:
        units: from `one_by_one`.
        actor: takes a table of one unit.
        settings: what an actor is made with.
        options: of a `Pool`.
    """
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1
    with ray.data.DataContext.current(context):
        return units.map_batches(
            actor, fn_constructor_kwargs=dict(settings), batch_size=1, batch_format="pyarrow", **options
        )


def memory(needed: int) -> int:
    """Bytes to ask for; 0 on a cluster whose nodes do not report their memory, where a request would wait forever."""
    return needed if room.tells_memory() else 0


def pool(stage: str, num_gpus: float | None, max_actors: int | None, num_units: int, needed: Needed = _unknown) -> Pool:
    """One actor per GPU, or one per CPU if there is no GPU; on a cluster more as nodes come. Prints the choice.

    Returns when there is room for an actor and for what feeds it. Until then a line every 30 s says what is missing.

    Args:
        stage: what the actors do, for the line that is printed.
        num_gpus: GPUs an actor takes; None: 1 if the cluster has a GPU now, else 0.
        max_actors: most actors at a time; None: as many as there are units, or as this machine can hold.
        num_units: units of work; there are never more actors than these.
        needed: memory that an actor takes, as far as that is known.

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
    print(f"{stage}: on {device}, {initial_size} actors now, {max_size} at most", flush=True)
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
    """What one actor or worker takes."""
    more = {"GPU": asked.num_gpus, "memory": asked.memory}
    return {"CPU": asked.num_cpus, **{kind: amount for kind, amount in more.items() if amount}}


def require(job: Any) -> None:
    """Refuse GPUs and workers, of any stage of a job, that the cluster can never provide; called before any work.

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
    """How many processes train together, and what each of them takes."""

    count: int
    num_cpus: float
    num_gpus: float
    memory: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """What one of them takes."""
        return dict(_bundle(self))


def workers(stage: str, count: int | None, num_gpus: int | None, needed: Needed = _unknown) -> Workers:
    """One training process per GPU, or one if there is no GPU. Prints the choice, and returns when there is room.

    Args:
        stage: what the workers do, for the line that is printed.
        count: how many; None: one per GPU that the cluster has now, else one.
        num_gpus: GPUs a worker takes; None: 1 if the cluster has a GPU now, else 0.
        needed: memory that a worker takes, as far as that is known.

    Raises:
        NoResources: if there can never be room for so many; Ray would wait forever.
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
    """How many groups of such workers the cluster can hold once grown: at least 1; infinity if nothing bounds it."""
    held = room.most(_bundle(workers)) / workers.count
    return max(1, held if math.isinf(held) else int(held))
