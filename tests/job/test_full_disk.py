"""A disk without space, and one that can't be written any more: a real one, small, mounted for the test."""

import shutil
import subprocess
import sys

import pytest

JOB = """
import os, sys
import pyarrow as pa
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.store import artifacts

def main(job: RetrievalJob) -> None:
    artifact = artifacts.plan(job.root, "embed", job.name, {}, {})
    artifact.begin()
    units = [f"u{n}" for n in range(4)]
    for unit in units:
        if unit not in artifact.done():
            artifact.write_table(f"data/{unit}.parquet", pa.table({"x": [os.urandom(60_000)]}))
    artifact.merge_rejected()
    artifact.commit(units=dict.fromkeys(units, 1), num_rows_in=4, inputs={}, seconds=0)
    print("done", len(list(artifact.tables())))

main.__module__ = "__main__"
cli.run(main, PRESETS, ["--root", sys.argv[1] + "/runs", "--name", "mine"])
"""


def in_namespace(script):
    """Run a shell script where it may mount."""
    return subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def mounts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    if not shutil.which("unshare") or in_namespace(f"mount -t tmpfs -o size=200k tmpfs {folder}").returncode:
        pytest.skip("this system lets nobody mount a small disk")
    return folder


def run(folder, script):
    job = folder.parent / "job.py"
    job.write_text(JOB)
    words = f"{sys.executable} {job} {folder}"
    return in_namespace(f"mount -t tmpfs -o size=200k tmpfs {folder}; run() {{ {words}; echo code $?; }}; {script}")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_a_run_with_room_goes_on(mounts):
    files = f"find {mounts}/runs/embed/mine -type f | sort"
    said = run(mounts, f"run; {files}; mount -o remount,size=2m {mounts}; run")
    file = said.stderr.split(": ")[1].removeprefix("cannot write ")
    assert said.stderr == (
        f"error: cannot write {file}: No space left on device; make room, then run the same command again: "
        "finished work is kept\n"
    )
    first, second = said.stdout.split("code 1\n")[1], said.stdout.splitlines()[-2:]
    assert f"{mounts}/runs/embed/mine/data/u0.parquet" in first
    assert file.startswith(f"{mounts}/runs/embed/mine/")
    assert file not in first
    assert "/." not in first.replace("/./", "")  # nothing half-written takes the room that is needed
    assert second == ["done 4", "code 0"]


def test_a_disk_that_is_full_from_the_start_is_no_fault_of_ours(mounts):
    said = run(mounts, f"head -c 300k /dev/zero > {mounts}/ballast 2>/dev/null; run")
    assert said.stdout == "code 2\n"
    assert said.stderr.startswith(f"error: {mounts}/runs/embed/mine can't be written (")
    assert said.stderr.endswith("; choose another --root\n")


@pytest.mark.slow
@pytest.mark.parametrize("root", ["empty", "begun"])
def test_a_disk_that_is_read_only_is_told_before_the_work(mounts, root):
    begun = "run 2>/dev/null;" if root == "begun" else ""
    said = run(mounts, f"{begun} mount -o remount,ro {mounts}; run")
    assert said.stdout.endswith("code 2\n")
    assert said.stderr.count("\n") == 1
    assert "can't be written" in said.stderr
