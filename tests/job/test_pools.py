"""What actors and workers book, on clusters that are described and not started."""

import pyarrow as pa
import pytest

from xlt_ray.errors import Unreachable, Unwritable, UserError
from xlt_ray.job import pools


@pytest.fixture
def cluster(monkeypatch):
    """Sets what the cluster has now; there is always room."""
    monkeypatch.setattr(pools, "_take", lambda *_: None)
    monkeypatch.setattr(pools.room, "tells_memory", lambda: False)

    def has(**resources):
        monkeypatch.setattr(pools.ray, "cluster_resources", lambda: resources)

    return has


@pytest.mark.parametrize("resources", [{}, {"CPU": 0.0}, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 4.0}])
def test_a_node_of_one_cpu_and_a_gpu_holds_what_computes_and_what_feeds_it(cluster, resources):
    """Also where there is no node yet."""
    cluster(**resources)
    pool, workers = pools.pool("embed", 1, None, 8), pools.workers("finetune", 4, 1)
    assert pool.num_cpus + pool.feed_cpus <= 1
    assert workers.num_cpus + pools.FEED_CPUS + 10 * pools.TRIAL_CPUS <= 1


@pytest.mark.parametrize("num_cpus", [1, 2, 16])
def test_a_machine_without_a_gpu_holds_an_actor_and_what_feeds_it_on_each_cpu(cluster, num_cpus):
    cluster(CPU=float(num_cpus))
    pool = pools.pool("embed", None, None, 100)
    assert pool.initial_size == num_cpus
    assert pool.initial_size * (pool.num_cpus + pool.feed_cpus) <= num_cpus
    workers = pools.workers("finetune", None, None)
    assert workers.count == 1
    assert workers.num_cpus + pools.FEED_CPUS + 10 * pools.TRIAL_CPUS <= 1


class Units:
    """A dataset that shows what it is mapped with."""

    def map_batches(self, actor, **options):
        return actor, options["fn_constructor_kwargs"]


class Opener:
    """An actor that starts only where a file of its node says so."""

    def __init__(self, problem):
        if problem:
            raise problem

    def __call__(self, units):
        yield units


UNIT = pa.table({"unit": ["a"]})


@pytest.mark.parametrize(
    "problem", [Unwritable("/x", "No space left on device"), UserError("no"), Unreachable("/y", "z")]
)
def test_why_an_actor_cannot_start_is_an_error_of_its_first_unit(problem):
    """Ray prints an error of a constructor as a traceback, and starts the actor again."""
    actor, settings = pools.stream(Units(), Opener, {"problem": problem}, {})
    assert actor.__name__ == "Opener"
    started = actor(**settings)
    with pytest.raises(type(problem)) as raised:
        started(UNIT)
    assert raised.value is problem


def test_an_actor_that_starts_gives_what_its_class_gives():
    actor, settings = pools.stream(Units(), Opener, {"problem": None}, {})
    assert list(actor(**settings)(UNIT)) == [UNIT]


def test_a_fault_of_the_program_ends_the_actor_where_it_happens():
    actor, settings = pools.stream(Units(), Opener, {"problem": KeyError("x")}, {})
    with pytest.raises(KeyError):
        actor(**settings)
