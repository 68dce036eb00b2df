"""`make chaos` must see what is lost, doubled or changed, and must not see what the clock alone decides."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import worlds

from benchmarks.chaos import clock, content, faults, trials
from benchmarks.chaos.trials import Result
from benchmarks.chaos.world import STAGES, World
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS


@pytest.mark.parametrize("stage", STAGES)
def test_the_commands_are_those_of_jobs(tmp_path, stage):
    """Every flag is one of the job's, and the settings agree with each other."""
    words = World(tmp_path).words(stage, str(tmp_path / "runs"))
    job = cli.parse(worlds.JOBS[stage], words[2:], PRESETS)
    assert (words[1], job.name, job.languages) == (f"jobs/{stage}.py", "chaos", ("en", "fr"))


def test_every_fault_is_tried_in_each_of_its_stages_in_an_order_of_the_seed():
    orders = [trials.plan(seed, list(STAGES), list(trials.FAULTS)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted((fault, stage) for fault, stages in trials.FAULTS.items() for stage in stages)
    assert trials.plan(0, ["embed"], ["head", "clock"]) == [("clock", "embed")]


@pytest.fixture
def root(tmp_path):
    data = tmp_path / "embed" / "a" / "data"
    data.mkdir(parents=True)
    write(data, [{"utterance_id": name, "frames": name.encode(), "seconds": 1.0} for name in "uvw"])
    (tmp_path / "embed" / "a" / "config.json").write_text("{}")
    (tmp_path / "embed" / "a" / "metrics.json").write_text(json.dumps({"r1": 0.5, "took": {"train_s": 3, "bleu": 2}}))
    return tmp_path


def write(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / "u.parquet")


def test_a_row_that_is_gone_doubled_or_changed_is_seen(root):
    calm = content.rows(root)
    assert calm.total() == 5
    data = root / "embed" / "a" / "data"
    for names, num_lost, num_more in (("uv", 1, 0), ("uvww", 0, 1), ("uvx", 1, 1)):
        write(data, [{"utterance_id": name, "frames": name.encode(), "seconds": 2.0} for name in names])
        now = content.rows(root)
        assert ((calm - now).total(), (now - calm).total()) == (num_lost, num_more)
    write(data, [{"utterance_id": name, "frames": b"other", "seconds": 1.0} for name in "uvw"])
    assert (calm - content.rows(root)).total() == 3


def test_where_a_root_is_makes_no_difference(root):
    found = []
    for place in ("/a/calm/x", "s3://chaos/lost", "/a/chaos/roots/007-x"):
        write(root / "embed" / "a" / "data", [{"shard": f"{place}/embed/chaos/data/u.parquet", "row": 1}])
        found.append(content.rows(root))
    assert found[0] == found[1] == found[2]
    write(root / "embed" / "a" / "data", [{"shard": "/a/calm/x/embed/chaos/data/v.parquet", "row": 1}])
    assert content.rows(root) != found[0]


def test_another_figure_is_seen_and_another_time_is_not(root):
    calm = content.rows(root)
    file = root / "embed" / "a" / "metrics.json"
    file.write_text(json.dumps({"r1": 0.5, "took": {"train_s": 99, "bleu": 2}}))
    assert content.rows(root) == calm
    file.write_text(json.dumps({"r1": 0.6, "took": {"train_s": 3, "bleu": 2}}))
    assert (calm - content.rows(root)).total() == 1


def test_an_artifact_without_its_manifest_is_unfinished(root):
    result = Result("driver", "embed")
    assert not result.is_equal  # no job was struck
    result.meet("driver")
    assert result.is_equal
    result.unfinished += content.unfinished(root)
    assert result.unfinished == ["embed/a"]
    assert not result.is_equal
    (root / "embed" / "a" / "manifest.json").write_text("{}")
    assert content.unfinished(root) == []


def test_only_processes_of_ray_that_work_are_killed():
    title = "import time; print(flush=True); time.sleep(60)"
    driver = f"import subprocess, sys; subprocess.run(['ray::{{}}', '-c', {title!r}], executable=sys.executable)"
    for name, met in (("IDLE", ""), ("Encode(Unit)", "Encode")):
        with subprocess.Popen([sys.executable, "-c", driver.format(name)], stdout=subprocess.PIPE) as job:
            job.stdout.readline()
            assert faults.kill_worker(job.pid, faults.random.Random(0)) == met
            job.kill() if not met else job.wait(10)
            for child, _ in [] if met else list(faults.descendants(faults.psutil.Process())):
                child.kill()


def test_the_clock_jumps_and_can_be_pickled():
    code = "import pickle, time; began = time.monotonic(); first = time.time(); time.monotonic = lambda: began + {0}; "
    code += "print(round(time.time() - first), pickle.loads(pickle.dumps(time.time)) is time.time)"
    environment = {**os.environ, "PYTHONPATH": str(Path(clock.__path__[0]))}
    for after, jump in ((0, 0), (7, -86_400), (13, 86_400), (20, 0)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(after)], env=environment, capture_output=True, text=True, check=True
        )
        wrong, is_same = done.stdout.split()
        assert (abs(int(wrong) - jump) <= 1, is_same) == (True, "True")
    assert time.time.__module__ == "time"
