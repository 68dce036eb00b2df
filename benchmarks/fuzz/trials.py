"""Tries inputs one after another in a forked process, which is replaced where an input ends or stops it."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.fuzz.mutations import SECRET, mutated
from benchmarks.fuzz.watch import Audit, Canaries
from xlt_ray.errors import RejectedRow, Unreachable, UserError
from xlt_ray.job.secrets import redacted

SECONDS = 10.0
"""More is a hang."""

MEMORY = 1 << 30
"""Bytes that one input may take beyond what the process had."""

_ADDRESSES = 12 << 30
_START_S = 300.0

_SHOWN = re.compile(rb"://\w+:" + SECRET.encode())  # in a URI: elsewhere nobody can know what it is

_NOTES = b"Ignored unknown kwarg option"
"""How `tokenizers` begins a line with a key of tokenizer.json, where nobody has a password."""

ACCEPTED, USER_ERROR, REJECTED, FINDING = "accepted", "UserError", "row rejected", "finding"


class Target(NamedTuple):
    """Something of the package that reads what others write.

    Attributes:
        write: writes valid files into a folder.
        attempt: gives one of them, by its name in a folder, to the package; how many rows it rejects.
        fuzzed: patterns of the names of files that are changed.
        foreign: whether it is there to name files and addresses elsewhere, as a manifest does.
    """

    write: Callable[[Path], None]
    attempt: Callable[[Path, str], int]
    fuzzed: tuple[str, ...] = ("**/*",)
    foreign: bool = False


class Result(NamedTuple):
    """What came of an input: one of the four outcomes; of a finding its kind, the same for the same fault, and more."""

    outcome: str
    kind: str = ""
    details: str = ""


class Trials:
    """Folders of one target, and the process that tries its inputs.

    seeds/     valid files
    root/      those with one changed; what is tried may write here, in cache/ and in tmp/
    outside/   `secret.wav`, which nothing may touch
    here/      the working directory, where nothing may come into being
    """

    def __init__(self, target: Target, folder: Path, seconds: float = SECONDS) -> None:
        self._target, self._folder, self._seconds = target, folder, seconds
        for name in ("seeds", "outside", "here", "cache", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "outside" / "secret.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
        self.canaries = Canaries(folder / "outside", [folder / "here"])
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: multiprocessing.connection.Connection
        self._run(lambda: target.write(folder / "seeds"))
        found = (path for pattern in target.fuzzed for path in sorted((folder / "seeds").glob(pattern)))
        self.seeds = {str(path.relative_to(folder / "seeds")): path.read_bytes() for path in found if path.is_file()}

    def _run(self, function: Callable[[], None]) -> None:
        """In a process of its own, so that nothing heavy is imported before the fork."""
        child = multiprocessing.get_context("fork").Process(target=function)
        child.start()
        child.join()
        if child.exitcode:
            raise RuntimeError(f"the valid files could not be written (exit code {child.exitcode})")

    def input(self, seed: str) -> tuple[str, bytes]:
        """A changed file: the same for the same seed."""
        rng = random.Random(seed)
        name, other = rng.choice(list(self.seeds)), rng.choice(list(self.seeds))
        data = mutated(rng, name, self.seeds[name], self.seeds[other])
        data = data.replace(b"OUTSIDE", os.fsencode(self.canaries.folder))
        return name, data.replace(b"TRAP", self.canaries.address.encode())

    def attempt(self, name: str, data: bytes) -> Result:
        """What comes of one input; what ends or stops the process is tried again in a new one."""
        first = self._attempt(name, data)
        return self._attempt(name, data) if first.kind.startswith(("hang", "ended")) else first

    def _attempt(self, name: str, data: bytes) -> Result:
        self.start()
        self.canaries.touched()
        self._connection.send((name, data))
        return self._answer(self._seconds)

    def start(self) -> None:
        """Start the process where none runs, and see that it accepts valid files."""
        if self._process is not None:
            return
        self._connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_try_all, args=(self._target, self._folder, theirs))
        self._process.start()
        theirs.close()
        for name in {path.rpartition(".")[2]: path for path in self.seeds}.values():  # imports take seconds
            self._connection.send((name, self.seeds[name]))
            if (result := self._answer(_START_S)).outcome == FINDING:
                self.end()
                raise RuntimeError(f"the valid {name} is a finding: {result.details}")

    def _answer(self, seconds: float) -> Result:
        deadline = time.monotonic() + seconds
        touched: list[str] = []
        while (left := deadline - time.monotonic()) > 0:
            multiprocessing.connection.wait([self._connection, self.canaries.listener], left)
            if self._connection.poll():
                break
            touched += self.canaries.touched()
        touched += self.canaries.touched()
        try:
            result: Result = self._connection.recv() if left > 0 else Result(FINDING, f"hang: over {seconds:g} s")
        except (EOFError, ConnectionError):
            assert self._process
            self._process.join()
            result = Result(FINDING, f"ended: exit code {self._process.exitcode}")
        if result.kind.startswith(("hang", "ended")):
            self.end()
        touched = [what for what in touched if what.startswith("changed") or not self._target.foreign]
        return Result(FINDING, touched[0], "\n".join(touched)) if touched and result.outcome != FINDING else result

    def end(self) -> None:
        """End the process and all that it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid or 0, signal.SIGKILL)
            self._process.join()
            self._connection.close()
            self._process = None


def _try_all(target: Target, folder: Path, connection: multiprocessing.connection.Connection) -> None:
    """The forked process: a result for each input."""
    os.setpgid(0, 0)
    output = os.open(folder / "output", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(os.dup(output), "w", buffering=1)
    os.chdir(folder / "here")
    tempfile.tempdir = str(folder / "tmp")
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own = [folder / name for name in ("root", "cache", "tmp")]
    audit = Audit(own, foreign=target.foreign)
    while True:
        try:
            name, data = connection.recv()
        except EOFError:
            return
        _renew(folder, name, data)
        os.ftruncate(output, 0)
        connection.send(_one(target, folder, name, audit, output))


def _renew(folder: Path, name: str, data: bytes) -> None:
    """Valid files, one of them changed; nothing of the last input."""
    for place in ("root", "cache", "tmp"):
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir(exist_ok=True)
    shutil.copytree(folder / "seeds", folder / "root", dirs_exist_ok=True)
    (folder / "root" / name).write_bytes(data)


def _one(target: Target, folder: Path, name: str, audit: Audit, output: int) -> Result:
    before = _memory(is_reset=True)
    audit.found = []
    result = _outcome(target, folder / "root", name)
    found, audit.found = audit.found, None
    sys.stdout.flush()
    if result.outcome == FINDING:
        return result
    if found:
        return Result(FINDING, found[0].replace(str(folder), ""), "\n".join(found))
    if (taken := _memory(is_reset=False) - before) > MEMORY:
        return Result(FINDING, "memory", f"{taken / 1e9:.1f} GB")
    lines = os.pread(output, 1 << 22, 0).splitlines()
    said = [line for line in lines if not line.startswith(_NOTES)]
    shown = b"\n".join([*said, result.details.encode(errors="replace")])
    return Result(FINDING, "shows a secret", shown.decode(errors="replace")) if _SHOWN.search(shown) else result


def _outcome(target: Target, root: Path, name: str) -> Result:
    try:
        return Result(REJECTED if target.attempt(root, name) else ACCEPTED)
    except UserError as error:
        return Result(USER_ERROR, details=redacted(str(error)))  # as a job prints it
    except (RejectedRow, Unreachable):
        return Result(REJECTED)
    except BaseException as error:
        frames = [f"{Path(f.filename).stem}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "xlt_ray/" in f.filename]
        where = f"{Path(own[-1].filename).stem}.{own[-1].name}" if own else frames[-1]
        return Result(FINDING, f"{type(error).__name__} in {where}", "".join(traceback.format_exception(error)))


def _memory(*, is_reset: bool) -> int:
    """The most bytes that this process has held since the last reset; on a reset, what it holds."""
    if is_reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
