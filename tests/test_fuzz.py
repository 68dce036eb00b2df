"""The fuzzer finds what a target does wrong, and only that; its inputs are the same for the same seed."""

import io
import json
import os
import random
import socket
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.fuzz.mutations import SECRET, mutated, with_tar_checksums
from benchmarks.fuzz.targets import TARGETS
from benchmarks.fuzz.trials import ACCEPTED, FINDING, REJECTED, USER_ERROR, Target, Trials
from xlt_ray.errors import RejectedRow, UserError


def write(folder: Path) -> None:
    (folder / "a.txt").write_text("fine")


def reject(root: Path) -> int:
    raise RejectedRow("silent")


def refuse(root: Path) -> int:
    raise UserError("no")


def show(root: Path) -> int:
    raise UserError(f"no model 's3://me:{SECRET}@bucket/a'")


def hide(root: Path) -> int:
    print(f"cannot read s3://me:{SECRET}@bucket/a", flush=True)
    return 0


def crash(root: Path) -> int:
    os.abort()


def hang(root: Path) -> int:
    time.sleep(60)
    return 0


def take_memory(root: Path) -> int:
    return len(bytearray(3 << 29)) * 0


def write_outside(root: Path) -> int:
    (root.parent / "elsewhere").write_text("x")
    return 0


def write_here(root: Path) -> int:
    Path("x").write_text("x")
    return 0


def delete_outside(root: Path) -> int:
    (root.parent / "outside" / "secret.wav").rename(root.parent / "outside" / "x")
    (root.parent / "outside" / "x").rename(root.parent / "outside" / "secret.wav")
    return 0


def open_outside(root: Path) -> int:
    return len((root.parent / "outside" / "secret.wav").read_bytes()) * 0


def open_outside_in_c(root: Path) -> int:
    import pyarrow.fs as pafs

    pafs.LocalFileSystem().open_input_file(str(root.parent / "outside" / "secret.wav")).close()
    return 0


def open_elsewhere(root: Path) -> int:
    return len((root.parent / "output").read_bytes()) * 0


def call(root: Path) -> int:
    with socket.create_connection(("127.0.0.1", 9), timeout=1):
        return 0


def raise_error(root: Path) -> int:
    return [][1]


DEEDS = {
    "accept": (lambda root: 0, ACCEPTED, ""),
    "reject a row": (lambda root: 2, REJECTED, ""),
    "reject": (reject, REJECTED, ""),
    "refuse": (refuse, USER_ERROR, ""),
    "show a password that a job would strike out": (show, USER_ERROR, ""),
    "print a password": (hide, FINDING, "shows a secret"),
    "raise": (raise_error, FINDING, "IndexError in test_fuzz:"),
    "crash": (crash, FINDING, "ended: exit code -6"),
    "hang": (hang, FINDING, "hang: over 1 s"),
    "take memory": (take_memory, FINDING, "memory"),
    "write outside": (write_outside, FINDING, "wrote /elsewhere"),
    "write where it is": (write_here, FINDING, "wrote /here/x"),
    "delete outside": (delete_outside, FINDING, "wrote /outside/secret.wav"),
    "open outside": (open_outside, FINDING, "opened /outside/secret.wav"),
    "open outside in C": (open_outside_in_c, FINDING, "opened secret.wav outside"),
    "open elsewhere": (open_elsewhere, FINDING, "opened /output"),
    "call": (call, FINDING, ""),
}


def after_the_seed(deed):
    """What a target does with all but its valid file."""
    return lambda root, name: 0 if (root / name).read_text() == "fine" else deed(root)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_told_from_others(tmp_path, name):
    deed, outcome, kind = DEEDS[name]
    trials = Trials(Target(write, after_the_seed(deed)), tmp_path / "work", seconds=1 if name == "hang" else 30)
    try:
        result = trials.attempt("a.txt", b"other")
        assert (result.outcome, result.kind[: len(kind)]) == (outcome, kind), result.details
        assert trials.attempt("a.txt", b"fine").outcome == ACCEPTED  # a new process, where it took one
    finally:
        trials.end()


def test_what_a_foreign_target_names_may_be_opened(tmp_path):
    trials = Trials(Target(write, after_the_seed(open_outside_in_c), foreign=True), tmp_path / "work")
    assert trials.attempt("a.txt", b"other").outcome == ACCEPTED
    trials.end()


def test_an_input_is_the_same_for_the_same_seed(tmp_path):
    trials = Trials(Target(write, after_the_seed(reject)), tmp_path / "work")
    assert [trials.input(f"1/{k}") for k in range(50)] == [trials.input(f"1/{k}") for k in range(50)]
    assert len({trials.input(f"1/{k}") for k in range(50)}) > 25
    trials.end()


def test_changes_of_json_are_mostly_json():
    row = json.dumps({"audio": "a.wav", "start": 0.5, "translations": {"de": "eins"}}).encode()
    changed = [mutated(random.Random(k), "a.json", row, row) for k in range(300)]
    readable = 0
    for data in changed:
        try:
            readable += json.loads(data) != json.loads(row)
        except (ValueError, RecursionError):
            continue
    assert readable > 150


def test_a_changed_tar_has_the_checksums_of_tarfile(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a" * 30))
    data = with_tar_checksums(file.getvalue().replace(b"a" * 30, b"b" * 30))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["b" * 30]


def test_every_target_says_what_is_changed():
    assert all(target.fuzzed and callable(target.attempt) for target in TARGETS.values())
