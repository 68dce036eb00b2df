"""The lines of a bar in a log."""

import pytest
import ray
import ray.util.metrics

from xlt_ray.job import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def rates(lines):
    return [float(line.split(", ")[1].removesuffix("/s")) if "/s" in line else None for line in lines]


def test_the_rate_is_that_of_the_last_minute(clock, capsys):
    with progress.Bar("embed", 10_000, 0) as bar:
        clock[0] += 30  # workers start
        for _ in range(120):
            bar.advance(2)
            clock[0] += 1
        for _ in range(120):
            bar.advance(10)
            clock[0] += 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "embed: 0/10000"
    found = rates(lines)
    assert found[5] == pytest.approx(2.0, abs=0.05)
    assert found[-1] == pytest.approx(10.0, abs=0.05)  # and not 6, as since the start
    left = float(lines[-1].split(", ")[2].split()[0])
    done = int(lines[-1].split("/")[0].split()[1])
    assert left == pytest.approx((10_000 - done) / 10, rel=0.01)


def test_one_result_has_no_rate(clock, capsys):
    with progress.Bar("translate", 125, 0) as bar:
        clock[0] += 300
        bar.advance(64)
    assert capsys.readouterr().out.splitlines() == ["translate: 0/125", "translate: 64/125"]


def test_ray_is_told_the_same(clock, monkeypatch):
    told = {}

    class Gauge:
        def __init__(self, name, description, tag_keys):
            self.name, self.tags = name, dict.fromkeys(tag_keys)

        def set_default_tags(self, tags):
            assert tags.keys() == self.tags.keys()
            self.tags = tags

        def set(self, value):
            told[self.name, self.tags["stage"]] = value

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    with progress.Bar("embed", 100, 10) as bar:
        for _ in range(3):
            bar.advance(5)
            clock[0] += 2
    assert told == {
        ("xlt_ray_rows_done", "embed"): 25,
        ("xlt_ray_rows_total", "embed"): 100,
        ("xlt_ray_rows_per_second", "embed"): 2.5,
    }
