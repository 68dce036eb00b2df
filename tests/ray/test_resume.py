"""What is killed goes on from where it was: only what is missing is done, and the content is that of a calm run."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
from ray_speech import write_manifest
from tiny import tiny_whisper

from benchmarks.chaos.faults import descendants

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NUM_SENTENCES = 30


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Flags of an embed job of 60 recordings, one a shard, and the content of an undisturbed run."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest = write_manifest(folder, ["en", "fr"], NUM_SENTENCES)
    model = tiny_whisper(folder / "model")
    flags = ["--corpus", f"manifest:{manifest}", "--languages", "en,fr", "--model", str(model), "--name", "killed"]
    flags += ["--embed.rows-per-shard", "1"]
    calm = folder / "calm"
    assert start(flags, calm).wait() == 0
    return flags, content(calm)


def start(flags, root):
    command = [sys.executable, "jobs/embed.py", "--root", str(root), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def shards(root):
    folder = root / "embed" / "killed" / "data"
    return sorted(folder.glob("*.parquet")) if folder.exists() else []


def content(root):
    return {path.name: pq.read_table(path).to_pylist() for path in shards(root)}


def stamps(root):
    return {path.name: path.stat().st_mtime_ns for path in shards(root)}


def wait_for(root, count, process):
    while len(shards(root)) < count:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_a_killed_driver_goes_on_from_what_is_there(corpus, tmp_path):
    flags, calm = corpus
    before = {}
    for share in (0.3, 0.7):
        process = start(flags, tmp_path)
        wait_for(tmp_path, int(share * 2 * NUM_SENTENCES), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(3)  # actors without a driver may finish the unit that they hold
        now = stamps(tmp_path)
        assert before.items() <= now.items()
        assert len(now) < 2 * NUM_SENTENCES
        before = now
    process = start(flags, tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert f"{len(before)} of {2 * NUM_SENTENCES} recordings are done" in output
    after = stamps(tmp_path)
    assert before.items() <= after.items()  # nothing that was there was written again
    assert len(after) == 2 * NUM_SENTENCES
    assert content(tmp_path) == calm


def test_a_killed_actor_costs_nothing_but_time(corpus, tmp_path):
    flags, calm = corpus
    process = start(flags, tmp_path)
    wait_for(tmp_path, 10, process)
    workers = descendants(psutil.Process(process.pid))
    actors = [worker for worker, title in workers if "EncodeUnit" in title]
    actors[0].kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert content(tmp_path) == calm


def test_a_finished_run_is_left_alone(corpus, tmp_path):
    flags, _ = corpus
    assert start(flags, tmp_path).wait() == 0
    before = stamps(tmp_path)
    process = start(flags, tmp_path)
    output, _ = process.communicate()
    assert "nothing to encode" in output
    assert stamps(tmp_path) == before
