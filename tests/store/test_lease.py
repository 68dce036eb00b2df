"""One writer an artifact, on disks and in object stores."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest
import s3_server

from xlt_ray.errors import UserError
from xlt_ray.store import artifacts, lease, storage

TAKE = """
import sys, time
from xlt_ray.errors import UserError
from xlt_ray.store import lease
print("ready", flush=True)
sys.stdin.readline()
try:
    lease.take(sys.argv[1])
except UserError as error:
    print("told", error, flush=True)
else:
    print("works", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def bucket():
    with s3_server.bucket() as uri:
        yield uri
    storage._remote_filesystem.cache_clear()


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    root = str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    yield f"{root}/embed/a"
    lease.give_all_back()


@pytest.fixture
def artifact(tmp_path):
    yield artifacts.plan(str(tmp_path), "embed", "a", {"x": 1}, {})
    lease.give_all_back()


class Other:
    """A process that takes an artifact when it is told to."""

    def __init__(self, place):
        words = [sys.executable, "-c", TAKE, place]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def said(self):
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()


def claims(place):
    return list(storage.list_files(f"{place}/writer"))


@pytest.mark.slow
def test_of_those_who_start_together_one_works(place):
    others = [Other(place) for _ in range(3)]
    for other in others:
        other.go()
    said = [other.said() for other in others]
    assert sorted(line.split()[0] for line in said) == ["told", "told", "works"]
    winner = next(other for other, line in zip(others, said, strict=True) if line == "works")
    pid = winner.process.pid
    who = rf"told {place} is being written by another job \(host {os.uname().nodename}, process {pid}, since 20\S+Z\); "
    assert all(line == "works" or re.match(who, line) for line in said)
    assert len(claims(place)) == 1
    winner.process.communicate("\n")
    assert claims(place) == []
    assert all(other.process.wait() == 0 for other in others)


def test_what_a_killed_process_held_is_free_at_once(place):
    other = Other(place)
    other.go()
    assert other.said() == "works"
    for look in (lease.require_free, lease.take):
        with pytest.raises(lease.Taken):
            look(place)
    other.kill()
    lease.require_free(place)
    began = time.monotonic()
    lease.take(place)
    assert time.monotonic() - began < 10
    assert len(claims(place)) == 1
    lease.take(place)  # again is nothing new
    lease.give_back(place)
    assert claims(place) == []


def claim_of_another_host(place, works=True):
    uri = f"{place}/writer/other.json"
    content = {"host": "node7", "pid": 1, "kernel": "another", "started": "1", "since": "2026-01-01T00:00:00Z"}
    storage.write_bytes(uri, json.dumps(content | {"works": works, "renewed": 0}).encode())
    return uri, content


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 3.0)
    monkeypatch.setattr(lease, "_POLL_S", 0.1)


@pytest.mark.slow
def test_who_gives_no_sign_of_life_loses_it(place, quick):
    uri, _ = claim_of_another_host(place)
    began = time.monotonic()
    lease.take(place)
    assert time.monotonic() - began > 1.0
    assert uri not in claims(place)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_file_that_says_nothing_is_waited_for_no_longer(tmp_path, quick, content):
    storage.write_bytes(f"{tmp_path}/writer/x.json", content.encode())
    lease.take(str(tmp_path))
    assert len(claims(tmp_path)) == 1
    lease.give_back(str(tmp_path))


def test_who_gives_signs_of_life_keeps_it(place, quick):
    uri, content = claim_of_another_host(place)
    over = threading.Event()

    def renew():
        for number in range(1, 1000):
            if over.wait(0.2):
                return
            storage.write_bytes(uri, json.dumps(content | {"works": True, "renewed": number}).encode())

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(lease.Taken, match=r"\(host node7, process 1, since 2026-01-01T00:00:00Z\)"):
            lease.take(place)
    finally:
        over.set()
        thread.join()
    assert claims(place) == [uri]


def test_a_writer_renews_its_file(tmp_path):
    script = f"from xlt_ray.store import lease; lease.RENEW_S = 0.1; lease.take({str(tmp_path)!r}); input()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    while not claims(tmp_path) or json.loads(storage.read_bytes(claims(tmp_path)[0])).get("renewed", 0) < 3:
        assert other.poll() is None
        time.sleep(0.05)
    other.communicate(b"\n")
    assert claims(tmp_path) == []


def test_a_committed_artifact_is_free(artifact):
    artifact.begin()
    assert lease.held() == [artifact.uri]
    artifact.merge_rejected()
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    assert lease.held() == []
    assert not artifact.has("writer")


def test_who_lost_it_commits_nothing(artifact):
    artifact.begin()
    artifact.merge_rejected()
    storage.locate(artifact.uri)[0].delete_dir(artifact.path("writer"))
    with pytest.raises(RuntimeError, match="another job has taken over"):
        artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    assert not artifact.is_committed


def test_a_second_job_is_told_before_it_writes(artifact):
    other = Other(artifact.uri)
    other.go()
    assert other.said() == "works"
    with pytest.raises(UserError, match="is being written by another job") as told:
        artifact.begin()
    assert told.value.exit_code == 2
    assert not artifact.is_begun
    other.process.send_signal(signal.SIGKILL)
    other.process.wait()
    artifact.begin()


def test_a_plan_that_another_job_has_overtaken_is_not_worked_on(artifact, tmp_path):
    """Two embeds once did the same work, and met at the commit."""
    finish = (
        "from xlt_ray.store import artifacts\n"
        f"a = artifacts.plan({str(tmp_path)!r}, 'embed', 'a', {{'x': 1}}, {{}}); a.begin(); a.merge_rejected()\n"
        "a.commit(units={}, num_rows_in=0, inputs={}, seconds=0)\n"
    )
    subprocess.run([sys.executable, "-c", finish], check=True)
    with pytest.raises(UserError, match="was finished by another job meanwhile; run the same command again"):
        artifact.begin()
    assert lease.held() == []
    again = artifacts.plan(str(tmp_path), "embed", "a", {"x": 1}, {})
    again.begin()  # it knows what is there
    again.write_table("data/u.parquet", pa.table({"x": [1]}))
    again.merge_rejected()
    again.commit(units={"u": 1}, num_rows_in=1, inputs={}, seconds=0)
    again.begin()  # its own commit is no surprise


@pytest.mark.parametrize("changed", [{"pid": None}, {"pid": "../../x"}, {"started": None}, {"pid": -1}, {"pid": 1.5}])
def test_a_file_that_names_no_process_holds_nobody(tmp_path, quick, changed):
    artifact = f"{tmp_path}/embed/a"
    claim = lease._write(artifact, lease._about_us() | {"works": True} | changed)
    lease.require_free(artifact)
    lease.take(artifact)
    lease.give_back(artifact)
    assert not storage.exists(claim.uri)
