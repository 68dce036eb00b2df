"""Ends the processes of a local Ray that outlive their driver. Imports nothing, because it also runs as a program.

When a driver is killed, the raylet ends too, but not the raylet's workers and agents: a busy actor does not notice for
a minute or more. So a job that starts a local Ray also starts this file as a watcher. The watcher's standard input is a
pipe from the driver, which the system closes however the driver ends; then the watcher ends the remaining processes of
the session. It finds them by a variable in their environment, which all children of the driver inherit. Processes of
other jobs have another value, and are left alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_VARIABLE = "XLT_RAY_SESSION"
_LONGEST_S = 20.0
_QUIET_ROUNDS = 4  # rounds without a find, for a raylet that was just starting a worker


def watch(session: str) -> subprocess.Popen[bytes]:
    """Mark this process and all processes that it starts from now on, and start their watcher.

    The watcher has a session of its own, so that neither Ctrl-C nor a closed terminal ends it before the others.
    It starts its work when its standard input is closed, at the latest when this process ends.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, session],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[_VARIABLE] = session
    return watcher


def release(watcher: subprocess.Popen[bytes]) -> None:
    """Remove the mark, and let the watcher end the remaining processes of the session."""
    os.environ.pop(_VARIABLE, None)
    assert watcher.stdin is not None, "it was made with a pipe"
    watcher.stdin.close()


def end(session: str, spare_children_of: int | None = None) -> int:
    """Kill the processes of a session. Returns their number.

    Args:
        session: value of their variable.
        spare_children_of: a process whose own children are not killed, such as the raylet. It ends with its driver, and
            the driver would complain if the raylet died first.
    """
    found = [pid for pid in _marked(session) if spare_children_of is None or _parent(pid) != spare_children_of]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(found)


def _marked(session: str) -> list[int]:
    """Processes of a session other than this one; none on a system without /proc."""
    mark = f"{_VARIABLE}={session}".encode()
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if pid != os.getpid() and mark in _read(pid, "environ").split(b"\0")]


def _parent(pid: int) -> int | None:
    after_name = _read(pid, "stat").rpartition(b")")[2].split()
    return int(after_name[1]) if after_name else None


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty if the process is gone, or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    deadline, quiet = time.monotonic() + _LONGEST_S, 0
    while quiet < _QUIET_ROUNDS and time.monotonic() < deadline:
        quiet = 0 if end(sys.argv[1]) else quiet + 1
        time.sleep(0.25)


if __name__ == "__main__":
    _main()
