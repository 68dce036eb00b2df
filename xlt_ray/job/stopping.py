"""Ends a job on SIGTERM, SIGHUP and Ctrl-C within seconds: with one line, and with no process left running.

A job ends as in a crash, which costs only the units in progress; the line says so. A separate thread writes the line.
Python wakes this thread from the signal handler itself, so it is not delayed by a long call in the main thread or by a
library that replaces our handler (Ray and Ray Train do).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from xlt_ray.job import orphans
from xlt_ray.job.secrets import redacted
from xlt_ray.store import lease

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_WORDS_S = 4.0
_MOST_PLACES = 3
_OVER = 0  # no signal has this number

_stopping = threading.Event()
_last_words: list[Callable[[], object]] = []
_counts: list[Callable[[], str]] = []
_session: list[str] = []


@contextlib.contextmanager
def armed() -> Iterator[None]:
    """While inside, a signal ends this process as described in this module. Only for the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    read, write = os.pipe()
    os.set_blocking(write, False)
    stderr = os.dup(2)  # Ray's start hides what is written to 2
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    thread = threading.Thread(target=_wait, args=(read, stderr), daemon=True)
    thread.start()
    rearm()
    try:
        yield
    finally:
        if _stopping.is_set():
            _wait_for_the_end()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(write, bytes([_OVER]))
        thread.join()
        for file in (read, write, stderr):
            os.close(file)


def rearm() -> None:
    """Restore our handlers if a library has replaced them: that of Ray's core writes a stack to standard error.

    A signal that is ignored stays ignored, as needed for `nohup`.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _noted)


def _noted(number: int, frame: object) -> None:
    """Do nothing: the thread has already been woken."""


@contextlib.contextmanager
def _among(entries: list[Any], entry: Any) -> Iterator[None]:
    """Keep an entry in a list while inside, also if a library's own handler of the same signal exits."""
    entries.append(entry)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        entries.remove(entry)
        raise
    entries.remove(entry)


@contextlib.contextmanager
def last_word(say: Callable[[], object]) -> Iterator[None]:
    """While inside, a signal calls `say` before it ends the process; the call has a few seconds and may fail."""
    with _among(_last_words, say):
        yield


@contextlib.contextmanager
def ends_with(session: str) -> Iterator[None]:
    """While inside, a signal also ends the processes of a session (`orphans`)."""
    with _among(_session, session):
        yield


@contextlib.contextmanager
def counted(count: Callable[[], str]) -> Iterator[None]:
    """While inside, a signal prints the progress from `count`, such as `embed at 12/60`."""
    with _among(_counts, count):
        yield


def _wait(read: int, stderr: int) -> None:
    while True:
        for number in os.read(read, 1):
            if number == _OVER:
                return
            if number in _SIGNALS:
                _end(signal.Signals(number), stderr)


def _end(number: signal.Signals, stderr: int) -> NoReturn:
    """Print one line, call the last words, then end this process and its Ray."""
    _stopping.set()
    _within(1.0, [sys.stdout.flush])  # a reader that has stopped reading would hold us up
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(stderr, (_line(number) + "\n").encode())
    _mute()
    _within(_LAST_WORDS_S, [*reversed(_last_words), lease.give_all_back])
    for session in _session:
        orphans.end(session, spare_children_of=os.getpid())
    os._exit(128 + number)


def _line(number: signal.Signals) -> str:
    """The line that says what was stopped, what is kept, and how to resume."""
    places = lease.held()
    if not places:
        return f"stopped by {number.name}: no work had begun; run the same command again"
    done = f" with {_counts[-1]()}" if _counts else ""
    kept = ", ".join(redacted(place) for place in places[-_MOST_PLACES:])
    more = f" and {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return (
        f"stopped by {number.name}{done}; finished work is kept in {kept}{more}: run the same command again to resume"
    )


def _mute() -> None:
    """Silence the main thread and native code, whose further output would be noise."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _within(seconds: float, calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls at the same time, and wait no longer than this: a store may not answer."""
    threads = [threading.Thread(target=_quietly, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _quietly(call: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        call()


def _wait_for_the_end() -> NoReturn:
    """Keep the main thread, which a library's handler may have stopped, from ending the process first."""
    while True:
        time.sleep(1)
