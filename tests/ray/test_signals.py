"""A job that is stopped or killed leaves no process of its Ray; a second one of its name is told who works."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from ray_speech import row, tone, write_rows
from soundfile import write
from tiny import tiny_whisper

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NUM_SENTENCES = 30


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Flags of a finetune job that encodes its corpus first, one recording a shard."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for sentence in range(NUM_SENTENCES):
        write(folder / f"{sentence}.wav", tone(sentence, 0, 0.5), 16_000)
        rows.append(row("fr", sentence, f"{sentence}.wav") | {"translations": {"en": "a"}, "split": "train"})
    corpus = ["--corpus", f"manifest:{write_rows(folder, rows)}", "--languages", "fr"]
    settings = [
        "--finetune.checkpoint-every",
        "2",
        "--finetune.directions",
        "fr-en",
        "--finetune.epochs",
        "1000",
        "--finetune.batch-size",
        "4",
        "--embed.rows-per-shard",
        "1",
    ]
    return [*corpus, "--model", str(tiny_whisper(folder / "model")), "--name", "mine", *settings]


@pytest.fixture
def start(tmp_path, flags):
    """Start the job; what a failed test leaves of it is killed."""
    jobs = []

    def start():
        words = [sys.executable, "jobs/finetune.py", "--root", str(tmp_path), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        jobs.append(subprocess.Popen(words, text=True, preexec_fn=heed, **pipes))
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


def session_of(job):
    """The mark that all processes of a job's Ray carry."""
    for process in psutil.Process(job.pid).children():
        with contextlib.suppress(psutil.Error):  # one that has ended since
            if mark := process.environ().get("XLT_RAY_SESSION"):
                return mark
    raise AssertionError("the job has started no Ray")


def marked(session):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("XLT_RAY_SESSION") == session:
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def gone_within(seconds, session):
    deadline = time.monotonic() + seconds
    while marked(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    return marked(session) == []


def wait_for(job, is_there):
    while not is_there():
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)


def stop(job, number):
    """End a job by a signal; what it says, and the session of its Ray."""
    session = session_of(job)
    assert len(marked(session)) > 5
    began = time.monotonic()
    job.send_signal(number)
    _, said = job.communicate()
    assert time.monotonic() - began < 10
    assert job.returncode == 128 + number
    assert said.count("\n") == 1, said
    return said, session


def test_a_job_is_alone_until_a_signal_ends_it(start, tmp_path):
    """A second job comes while the first works; the first is stopped in its work, and again in its training."""
    job = start()
    wait_for(job, lambda: len(list(tmp_path.glob("embed/mine/data/*.parquet"))) > 3)
    second = start()
    _, told = second.communicate()
    assert second.returncode == 2, told
    host = re.escape(os.uname().nodename)
    who = rf"\(host {host}, process {job.pid}, since "
    assert re.match(rf"error: {tmp_path}/(embed|finetune)/mine is being written by another job {who}", told)
    said, session = stop(job, signal.SIGTERM)
    assert re.fullmatch(
        rf"stopped by SIGTERM( with .* at \d+/\d+)?; finished work is kept in {tmp_path}/\w+/mine: run the same "
        r"command again to resume\n",
        said,
    )
    assert gone_within(5, session)

    job = start()
    wait_for(job, lambda: any(tmp_path.glob("finetune/mine/train/**/checkpoint*")))
    said, session = stop(job, signal.SIGINT)
    assert said.startswith("stopped by SIGINT with finetune steps at ")
    assert f" kept in {tmp_path}/finetune/mine: run" in said
    assert gone_within(5, session)


def test_nothing_outlives_a_job_that_is_killed(start, tmp_path):
    job = start()
    wait_for(job, lambda: any(tmp_path.glob("embed/mine/data/*.parquet")))
    session = session_of(job)
    job.kill()
    job.communicate()
    assert gone_within(30, session)
