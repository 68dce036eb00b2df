"""What can never be had is refused, what may come is waited for aloud."""

import dataclasses
import math
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.core.generated.autoscaler_pb2 import ClusterConfig
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put
from ray.util.placement_group import placement_group, remove_placement_group

from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.errors import NoResources
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job import pools, room
from xlt_ray.job.pools import Workers
from xlt_ray.job.room import NodeType
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.translate.config import TranslateConfig, TranslateJob

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def two_cpus(several_cpus):
    """A Ray of 2 CPUs and no GPU."""
    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def autoscaling(monkeypatch):
    """Let the same Ray be a cluster that tells which nodes can come: 2 of 4 CPUs and 1 GPU each."""
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    config = ClusterConfig()
    gpu_nodes = config.node_group_configs.add(name="gpu", max_count=2)
    gpu_nodes.resources.update({"CPU": 4, "GPU": 1})
    place = ray._raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode()
    namespace = ray._raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    _internal_kv_put(place, config.SerializeToString(), namespace=namespace)
    yield
    _internal_kv_del(place, namespace=namespace)


@pytest.mark.parametrize(
    ("job", "flag"),
    [
        (EmbedJob(embed=EmbedConfig(num_gpus=1)), "--embed.num-gpus 1"),
        (RetrievalJob(embed=EmbedConfig(num_gpus=1)), "--embed.num-gpus 1"),
        (RetrievalJob(retrieval=RetrievalConfig(num_gpus=0.5)), "--retrieval.num-gpus 0.5"),
        (TranslateJob(translate=TranslateConfig(num_gpus=1)), "--translate.num-gpus 1"),
        (FinetuneJob(finetune=FinetuneConfig(num_gpus=1)), "--finetune.num-gpus 1"),
        (FinetuneJob(finetune=FinetuneConfig(num_workers=8)), "--finetune.num-workers 8"),
    ],
)
def test_what_this_machine_will_never_have_is_refused_by_its_flag(job, flag):
    with pytest.raises(NoResources, match=f"^{flag} needs .* this machine has no more than 2 CPU and 0 GPU"):
        pools.require(job)


def test_what_fits_is_not_refused():
    pools.require(RetrievalJob(embed=EmbedConfig(num_gpus=0)))
    pools.require(FinetuneJob(finetune=FinetuneConfig(num_workers=2)))
    assert pools.workers("finetune", 2, None).count == 2
    assert pools.pool("embed", None, None, 9).max_size == 2


def test_pools_and_workers_refuse_too():
    with pytest.raises(NoResources, match=r"embed needs .* 1 GPU"):
        pools.pool("embed", 1, None, 9)
    with pytest.raises(NoResources, match=r"finetune needs 7.12 CPU"):
        pools.workers("finetune", 8, None)


def test_what_no_node_that_can_come_has_is_refused(autoscaling):
    pools.require(EmbedJob(embed=EmbedConfig(num_gpus=1)))
    with pytest.raises(NoResources, match=r"this cluster has no more than 10 CPU and 2 GPU, at most 4 CPU and 1 GPU"):
        pools.require(EmbedJob(embed=EmbedConfig(num_gpus=2)))
    job = FinetuneJob(finetune=FinetuneConfig(num_gpus=1, num_workers=2))
    pools.require(job)
    with pytest.raises(NoResources, match=r"--finetune.num-workers 3 needs 3 GPU"):
        pools.require(dataclasses.replace(job, finetune=FinetuneConfig(num_gpus=1, num_workers=3)))


def test_nothing_is_refused_where_it_is_not_known_what_can_come(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    pools.require(FinetuneJob(embed=EmbedConfig(num_gpus=8), finetune=FinetuneConfig(num_workers=99)))


@pytest.mark.parametrize(("gpus", "workers", "fits"), [(1, 1, True), (1, 1000, False), (64, 1, False)])
def test_the_file_of_the_cluster_tells_what_can_come(monkeypatch, gpus, workers, fits):
    monkeypatch.setattr(room, "_HEAD_CONFIG", str(Path(__file__).parents[2] / "cluster.yaml"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    job = SimpleNamespace(num_gpus=gpus, num_workers=workers)
    asked = dataclasses.make_dataclass("Asked", ["embed"])(job)
    if fits:
        pools.require(asked)
    else:
        with pytest.raises(NoResources, match="this cluster has no more than"):
            pools.require(asked)


def test_a_search_is_as_wide_as_the_cluster_can_become(autoscaling):
    """The head has 2 CPUs; two nodes of 4 CPUs and 1 GPU can come, of which there is none yet."""
    assert pools.most_groups(Workers(1, 0.89, 0)) == 2 + 2 * 4
    assert pools.most_groups(Workers(2, 0.89, 0)) == (2 + 2 * 4) // 2
    assert pools.most_groups(Workers(1, 0.89, 1)) == 2
    assert pools.most_groups(Workers(4, 1.0, 1)) == 1  # a group that can't be is refused elsewhere


def test_one_cpu_holds_a_worker_what_feeds_it_and_ten_trials():
    """Else a search on nodes of one CPU waits forever: its workers hold what their readers need."""
    taken = pools.workers("finetune", 1, 0).num_cpus + pools.FEED_CPUS + 10 * pools.TRIAL_CPUS
    assert taken == pytest.approx(1.0)


def test_nodes_without_a_bound_are_none_for_a_search(monkeypatch):
    unbounded = [NodeType({"CPU": 2}, 1), NodeType({"CPU": 4, "GPU": 1}, math.inf)]
    monkeypatch.setattr(room, "_node_types", lambda: unbounded)
    assert pools.most_groups(Workers(2, 1.0, 1)) == math.inf


def test_of_this_machine_a_search_takes_what_is_there(monkeypatch):
    assert pools.most_groups(Workers(1, 0.89, 0)) == 2
    monkeypatch.setattr(room, "_node_types", lambda: [])
    assert pools.most_groups(Workers(1, 0.89, 0)) == 2


def test_a_file_that_leaves_resources_to_the_cloud_tells_nothing(monkeypatch, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("available_node_types: {gpu: {node_config: {}}, cpu: {resources: {CPU: 1}}}")
    assert list(room._of_file(file)) == []


def test_what_is_taken_is_waited_for_with_a_line(capsys):
    taken = placement_group([{"CPU": 1.5}])  # as another job would
    assert taken.wait(60)
    waiting = threading.Thread(target=room.wait, args=("embed", [{"CPU": 0.9}, {"CPU": 0.1}], 0.5))
    waiting.start()
    waiting.join(timeout=3)
    assert waiting.is_alive()
    remove_placement_group(taken)
    waiting.join(timeout=60)
    assert not waiting.is_alive()
    line = capsys.readouterr().out.splitlines()[0]
    assert line == "embed: waiting for 1 CPU; the cluster has 2 CPU (0.5 free), 0 GPU (0 free) on 1 node"
    room.wait("embed", [{"CPU": 2}])  # what was waited for is free again
