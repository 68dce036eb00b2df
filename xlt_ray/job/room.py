"""Refuses resource requests that the cluster can never satisfy, and waits for others, with a line every 30 s.

Ray itself waits for both without a message.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.state import state
from ray.util.placement_group import placement_group, remove_placement_group

from xlt_ray.errors import NoResources
from xlt_ray.job import address

Bundle = Mapping[str, float]
"""Resources that must be free on one node: amounts by kind, `CPU`, `GPU` and `memory` (bytes)."""

_KINDS = ("CPU", "GPU", "memory")

_TELL_S = 30
_HEAD = "node:__internal_head__"  # what Ray gives the head to have
_HEAD_CONFIG = "~/ray_bootstrap_config.yaml"  # where `ray up` leaves its file on the head, on which submitted jobs run


@dataclasses.dataclass(frozen=True, slots=True)
class NodeType:
    """A type of nodes that exist or can be added: the resources of one, and the maximum number."""

    resources: Bundle
    most: float


def require(what: str, bundles: Sequence[Bundle], advice: str) -> None:
    """Refuse a request that fits neither existing nodes nor nodes that can be added.

    If a cluster does not report which nodes can be added, nothing is refused.

    Args:
        what: who makes the request, for the message.
        bundles: all of them are needed at the same time.
        advice: what the user should do.

    Raises:
        NoResources: naming the request, the maximum that the cluster can have, and the advice.
    """
    types = list(_node_types())
    if not types or _fit(bundles, types):
        return
    place = "this cluster" if address.is_given() else "this machine"
    kinds = [kind for kind in _KINDS if kind != "memory" or any(kind in bundle for bundle in bundles)]
    largest = {kind: max(node.resources.get(kind, 0) for node in types) for kind in kinds}
    total = {kind: sum(node.most * node.resources.get(kind, 0) for node in types if node.most) for kind in kinds}
    nodes = f", at most {_words(largest)} on one node" if total != largest else ""
    raise NoResources(f"{what} needs {_needed(bundles)}, and {place} has no more than {_words(total)}{nodes}; {advice}")


def most(bundle: Bundle) -> float:
    """How many equal bundles fit on all nodes, including those that can be added; infinity if unbounded.

    If it is not known which nodes can be added, only existing nodes count.
    """
    types = list(_node_types()) or [NodeType(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    held = [(min(node.resources.get(kind, 0) // need for kind, need in bundle.items() if need), node) for node in types]
    return sum(num * node.most for num, node in held if num)


def tells_memory() -> bool:
    """Whether every node that can be added reports its memory; if these are unknown, every existing node."""
    types = list(_node_types()) or [NodeType(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    return all(found.resources.get("memory") for found in types if found.most)


def wait(what: str, bundles: Sequence[Bundle], tell_s: float = _TELL_S) -> None:
    """Return once the cluster has room for all bundles at the same time. An autoscaling cluster is asked to grow.

    Args:
        what: who makes the request, for the printed lines.
        bundles: all of them are needed at the same time.
        tell_s: seconds between two lines.
    """
    group = placement_group([dict(bundle) for bundle in bundles], strategy="PACK")
    try:
        waited = 0.0
        while not group.wait(timeout_seconds=tell_s if waited else min(2.0, tell_s)):
            waited += tell_s
            print(f"{what}: waiting for {_needed(bundles)}; the cluster has {there()}", flush=True)
    finally:
        remove_placement_group(group)


def _node_types() -> Iterator[NodeType]:
    """This machine, or every node type of a cluster; none if it is not known which nodes can be added."""
    alive = [NodeType(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    if not address.is_given():
        yield from alive
        return
    can_come = [*_reported()] or [*_of_file(Path(_HEAD_CONFIG).expanduser())]
    if can_come:  # of these are the nodes that are there, but for the head
        yield from (*(node for node in alive if _HEAD in node.resources), *can_come)


def _reported() -> Iterator[NodeType]:
    """Types that the cluster itself reports, as managed clusters do."""
    config = state.get_cluster_config()
    for group in config.node_group_configs if config else ():
        yield NodeType(dict(group.resources), math.inf if group.max_count == -1 else group.max_count)


def _of_file(path: Path) -> Iterator[NodeType]:
    """Types from the cluster file on the head."""
    if not path.is_file():
        return
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    types = config.get("available_node_types", {})
    if not all(node.get("resources") for node in types.values()):
        return  # the cloud knows what its machines have, and the file does not
    for name, node in types.items():
        most = 0 if name == config.get("head_node_type") else config.get("max_workers", math.inf)
        yield NodeType(node["resources"], node.get("max_workers", most))


def _fit(bundles: Sequence[Bundle], types: Sequence[NodeType]) -> bool:
    """Whether every bundle fits on a node, and all bundles fit on all nodes together."""
    each = all(any(node.most and _is_within(bundle, node.resources) for node in types) for bundle in bundles)
    return each and all(
        amount <= sum(node.most * node.resources.get(kind, 0) for node in types if node.resources.get(kind)) + 1e-9
        for kind, amount in _sum(bundles).items()
    )


def _is_within(bundle: Bundle, node: Bundle) -> bool:
    return all(amount <= node.get(kind, 0) for kind, amount in bundle.items())


def _sum(bundles: Sequence[Bundle]) -> Bundle:
    return {kind: sum(bundle.get(kind, 0) for bundle in bundles) for kind in _KINDS}


def _needed(bundles: Sequence[Bundle]) -> str:
    return _words({kind: amount for kind, amount in _sum(bundles).items() if amount})


def _words(amounts: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{amount / 1e9:.2g} GB of memory" if kind == "memory" else f"{amount:g} {kind}"
        for kind, amount in amounts.items()
    )


def there() -> str:
    """The resources of the cluster, total and free."""
    total, free = ray.cluster_resources(), ray.available_resources()
    kinds = (f"{total.get(kind, 0):g} {kind} ({free.get(kind, 0):g} free)" for kind in ("CPU", "GPU"))
    num_nodes = sum(node["Alive"] for node in ray.nodes())
    return f"{', '.join(kinds)} on {num_nodes} {'node' if num_nodes == 1 else 'nodes'}"
