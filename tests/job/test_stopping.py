"""What a signal does to a job: one line, the code of the signal, and no process left; here without Ray."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

JOB = """
import subprocess, sys, time
from xlt_ray.job import cli, orphans, progress, stopping
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.store import artifacts

def main(job: RetrievalJob) -> None:
    BODY

main.__module__ = "__main__"
cli.run(main, PRESETS, ["--root", sys.argv[1], "--name", "mine"])
"""

WORK = """
    artifact = artifacts.plan(job.root, "embed", job.name, {}, {})
    artifact.begin()
    with progress.Bar("embed", 60, 12), stopping.last_word(lambda: artifact.write_json("told.json", 1)):
        print("working", flush=True)
        WAIT
"""

SLEEP = "time.sleep(60)"
NATIVE = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)"  # no bytecode runs for minutes
REPLACED = "import signal; [signal.signal(n, lambda *_: sys.exit(0)) for n in (1, 2, 15)]; time.sleep(60)"


def heed_signals():
    """A shell lets what it starts in the background ignore Ctrl-C, and that is inherited."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(tmp_path, body, preexec_fn=heed_signals):
    words = [sys.executable, "-c", JOB.replace("BODY", body.strip()), str(tmp_path)]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec_fn)
    while (line := job.stdout.readline()) != "working\n":
        assert line or job.poll() is None, job.stderr.read()
    return job


def stop(job, number):
    began = time.monotonic()
    job.send_signal(number)
    _, said = job.communicate(timeout=30)
    assert time.monotonic() - began < 10
    return said


@pytest.mark.parametrize(
    ("number", "wait"),
    [(signal.SIGHUP, SLEEP), (signal.SIGINT, SLEEP), (signal.SIGTERM, NATIVE), (signal.SIGTERM, REPLACED)],
    ids=["hangup", "interrupt", "native", "replaced"],
)
def test_a_signal_ends_a_job_in_one_line(tmp_path, number, wait):
    job = start(tmp_path, WORK.replace("WAIT", wait))
    said = stop(job, number)
    name = signal.Signals(number).name
    assert said == (
        f"stopped by {name} with embed at 12/60; finished work is kept in {tmp_path}/embed/mine: run the same command "
        "again to resume\n"
    )
    assert job.returncode == 128 + number
    assert (tmp_path / "embed/mine/told.json").exists()
    assert not (tmp_path / "embed/mine/writer").exists()


def test_before_any_work_nothing_is_claimed(tmp_path):
    job = start(tmp_path, 'print("working", flush=True); time.sleep(60)')
    assert stop(job, signal.SIGTERM) == "stopped by SIGTERM: no work had begun; run the same command again\n"


@pytest.mark.slow
def test_last_words_may_hang_and_fail(tmp_path):
    body = """
    with stopping.last_word(lambda: time.sleep(60)), stopping.last_word(lambda: 1 / 0):
        print("working", flush=True)
        time.sleep(60)
"""
    assert stop(start(tmp_path, body), signal.SIGTERM).count("\n") == 1


@pytest.mark.slow
def test_what_nohup_ignores_stays_ignored(tmp_path):
    body = 'print("working", flush=True); time.sleep(2)'
    job = start(tmp_path, body, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    job.send_signal(signal.SIGHUP)
    assert (job.communicate()[1], job.returncode) == ("", 0)


TREE = """
    watcher = orphans.watch("SESSION")
    child = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('up', flush=True); time.sleep(600)"
    out = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True).stdout
    out.readline()
    with stopping.ends_with("SESSION"):
        print("working", flush=True)
        time.sleep(60)
"""


def marked(session):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("XLT_RAY_SESSION") == session:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.skipif(not os.path.exists("/proc"), reason="processes are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_job_started_ends_with_it(tmp_path, number):
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, "XLT_RAY_SESSION": "another"})
    session = tmp_path.name  # not that of another test, whose watcher may still look for its own
    job = start(tmp_path, TREE.replace("SESSION", session))
    deadline = time.monotonic() + 30
    while len(marked(session)) < 2 and time.monotonic() < deadline:  # what is just being started has no environment yet
        time.sleep(0.2)
    assert len(marked(session)) >= 2
    job.send_signal(number)
    assert job.wait() == -9 if number == signal.SIGKILL else 128 + number
    deadline = time.monotonic() + 30
    while marked(session) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked(session) == []
    assert other.poll() is None
    other.kill()
    other.wait()
