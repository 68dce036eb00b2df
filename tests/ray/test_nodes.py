"""A cluster of two nodes, both on this machine."""

import pytest
import ray
from ray.cluster_utils import Cluster

from xlt_ray.errors import UserError
from xlt_ray.job import cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_a_root_that_a_node_does_not_see_is_refused(several_cpus, tmp_path, monkeypatch):
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        node = nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False)
        cluster.require_shared(str(tmp_path))
        cluster.require_shared("s3://bucket/runs")
        with pytest.raises(
            UserError, match=r"2 of 2 nodes do not see /nowhere/config.json; give a --root that all nodes"
        ):
            cluster.require_shared("/nowhere/config.json")
        there = ray.nodes()
        nodes.remove_node(node, allow_graceful=False)
        monkeypatch.setattr(ray, "nodes", lambda: there)  # as they were before one was lost
        cluster.require_shared(str(tmp_path))
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_a_search_is_refused_where_no_dashboard_tells_what_runs(several_cpus, monkeypatch):
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        with cluster.cluster():
            pass
        with pytest.raises(UserError, match="no dashboard"), cluster.cluster(with_state_api=True):
            raise AssertionError("work has begun")
    finally:
        nodes.shutdown()
