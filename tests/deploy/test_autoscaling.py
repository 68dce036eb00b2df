"""Which nodes Ray's autoscaler asks for, with the pools of the cluster files, and what it does when there are none."""

from __future__ import annotations

from collections import Counter

import pytest
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.instance_manager import InstanceManager
from ray.autoscaler.v2.instance_manager.instance_storage import InstanceStorage
from ray.autoscaler.v2.instance_manager.node_provider import CloudInstance, ICloudInstanceProvider, LaunchNodeError
from ray.autoscaler.v2.instance_manager.reconciler import Reconciler
from ray.autoscaler.v2.instance_manager.storage import InMemoryStorage
from ray.autoscaler.v2.instance_manager.subscribers.cloud_instance_updater import CloudInstanceUpdater
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler
from ray.core.generated.autoscaler_pb2 import (
    ClusterResourceState,
    NodeState,
    NodeStatus,
    ResourceRequest,
    ResourceRequestByCount,
)
from ray.core.generated.instance_manager_pb2 import NodeKind


def node(name, kind, node_kind, request_id=None):
    return CloudInstance(
        cloud_instance_id=name,
        node_type=kind,
        node_kind=node_kind,
        is_running=node_kind == NodeKind.HEAD,
        request_id=request_id,
    )


HEAD = {"i-head": node("i-head", "head", NodeKind.HEAD)}


class Cloud(ICloudInstanceProvider):
    """A cloud that notes what it is asked for, and refuses types that it has no capacity for, as EC2 does: at once."""

    def __init__(self, without=()):
        self.without, self.asked, self.errors, self.nodes = without, [], [], {}

    def get_non_terminated(self):
        return HEAD | self.nodes

    def terminate(self, ids, request_id):
        for cloud_id in ids:
            self.nodes.pop(cloud_id)

    def launch(self, shape, request_id):
        for kind, count in shape.items():
            self.asked += [kind] * count
            if kind in self.without:
                self.errors.append(LaunchNodeError(kind, count, request_id, timestamp_ns=1))
            for _ in range(0 if kind in self.without else count):
                name = f"i-{len(self.nodes)}"
                self.nodes[name] = node(name, kind, NodeKind.WORKER, request_id)

    def poll_errors(self):
        errors, self.errors = self.errors, []
        return errors


def settle(cloud, config, bundle, count, rounds=8):
    """What the cloud was asked for in some rounds of the autoscaler, for `count` requests of `bundle`."""
    monitor = CloudResourceMonitor()
    manager = InstanceManager(InstanceStorage("c", InMemoryStorage()), [CloudInstanceUpdater(cloud), monitor])
    head = NodeState(
        node_id=b"h" * 28,
        instance_id="i-head",
        ray_node_type_name="head",
        status=NodeStatus.RUNNING,
        total_resources={"node:__internal_head__": 1},
    )
    request = ResourceRequestByCount(request=ResourceRequest(resources_bundle=bundle), count=count)
    state = ClusterResourceState(pending_resource_requests=[request], node_states=[head])
    scheduler = ResourceDemandScheduler()
    autoscaling = AutoscalingConfig(prepare_config(config), skip_content_hash=True)
    for _ in range(rounds):
        nodes, errors = cloud.get_non_terminated(), cloud.poll_errors()
        Reconciler.reconcile(manager, scheduler, cloud, monitor, state, nodes, autoscaling, errors)
    return Counter(cloud.asked)


def of_pool(pools, name):
    """The node types of a pool, the one of the highest priority first."""
    types = {kind: pool for kind, pool in pools.items() if pool["labels"]["pool"] == name}
    return sorted(types, key=lambda kind: -types[kind]["priority"])


ENCODE, DECODE = {"GPU": 1, "CPU": 1}, {"CPU": 16}


@pytest.mark.parametrize(("pool", "bundle"), [("gpu", ENCODE), ("cpu", DECODE)])
def test_spot_is_asked_for_first(config, pools, pool, bundle):
    assert settle(Cloud(), config, bundle, 1) == {of_pool(pools, pool)[0]: 1}


def test_what_a_type_may_not_hold_goes_to_the_next(config, pools):
    types = of_pool(pools, "gpu")
    first, last = types[0], types[-1]
    asked = settle(Cloud(), config, ENCODE, pools[first]["max_workers"] + 1)
    assert asked == {first: pools[first]["max_workers"], types[1]: 1}
    assert settle(Cloud(), config, ENCODE, 9) == {kind: pools[kind]["max_workers"] for kind in types}
    assert pools[last]["labels"]["market"] == "on-demand"


def test_work_for_cpus_goes_to_gpu_nodes_when_all_others_are_taken(config, pools):
    """No virtue either, but no waste while a CPU node may still come; the guide says so."""
    full = {kind: pools[kind]["max_workers"] for kind in of_pool(pools, "cpu")}
    num_cpu_nodes = sum(full.values())
    assert settle(Cloud(), config, DECODE, num_cpu_nodes) == full
    assert settle(Cloud(), config, DECODE, num_cpu_nodes + 1) == full | {of_pool(pools, "gpu")[0]: 1}


def test_memory_is_what_a_stage_can_ask_for(config, pools):
    """A pool whose memory is not known is never started for a stage that asks for memory."""
    types = of_pool(pools, "cpu")
    memory = pools[types[0]]["resources"]["memory"]
    assert settle(Cloud(), config, {"CPU": 1, "memory": memory}, 1) == {types[0]: 1}
    assert set(settle(Cloud(), config, {"CPU": 1, "memory": 10 * memory}, 1)) == set()


def test_a_pool_without_spot_types_is_on_demand(config, pools):
    """What the header and the guide tell to do where spot capacity is short."""
    for pool in pools.values():
        if pool["labels"]["market"] == "spot":
            pool["max_workers"] = 0
    assert settle(Cloud(), config, ENCODE, 1) == {"gpu-on-demand": 1}


def test_a_type_that_the_cloud_refuses_is_asked_for_again(config, pools):
    """What Ray 2.60 does. Where this fails, a newer Ray does better, and header and guide must say so."""
    first = of_pool(pools, "gpu")[0]
    asked = settle(Cloud(without={first}), config, ENCODE, 1)
    assert set(asked) == {first}
    assert asked[first] > 3
