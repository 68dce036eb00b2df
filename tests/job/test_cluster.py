"""How a Ray of this machine is started."""

import pytest
import ray

from xlt_ray.job import cluster


@pytest.fixture
def starts(monkeypatch):
    """What each start of Ray raises, one after another; the list is what is left."""
    outcomes = []

    def init(**options):
        assert options == {"address": "local", "include_dashboard": False}
        if problem := outcomes.pop(0):
            raise problem

    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return outcomes


def slow():
    return Exception("The current node timed out during startup. This could happen because ...")


def test_a_busy_machine_gets_more_than_one_chance(starts, capsys):
    starts += [slow(), slow(), None]
    cluster._start_here(False)
    assert starts == []
    assert capsys.readouterr().out.count("not started in 30 s") == 2


def test_the_last_one_is_told(starts):
    starts += [slow() for _ in range(cluster._STARTS)]
    with pytest.raises(Exception, match="timed out during startup"):
        cluster._start_here(False)
    assert starts == []


def test_another_problem_is_told_at_once(starts):
    starts += [ValueError("no such address"), None]
    with pytest.raises(ValueError, match="no such address"):
        cluster._start_here(False)
    assert starts == [None]
