"""Decodes recordings in another process, so that a recording that crashes or hangs a decoder costs one row.

libsndfile, FFmpeg and their libraries parse files of unknown origin in C, and each has had crashes. So decoding runs in
a child process (`decoder`), which is kept for the next recordings; if it ends, another one is started. A recording is
rejected for a crash only if it crashes a fresh process that has decoded nothing else.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from xlt_ray.corpora import decoder
from xlt_ray.corpora.decoder import Answer
from xlt_ray.corpora.recordings import Place
from xlt_ray.errors import RejectedRow, Unreachable

SLOW = f"slow: decoding took more than {decoder.CPU_SECONDS} s"

_SILENCE_S = 600.0
"""A decoder that does not answer for this long is given up: it waits for something that never comes."""

_MOST_ENDS = 3
"""How often a decoder may be killed from outside at the same recording."""

_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}


class Sound(NamedTuple):
    """A decoded recording, or why it can't be used.

    Attributes:
        problem: None if it can be used.
        pcm: float32 samples, mono, 16 kHz; empty if there is a problem, or if they were not requested.
        num_samples: number of samples.
        rate: as recorded, in Hz; 0 if it can't be decoded.
        num_channels: as recorded; 0 if it can't be decoded.
        content: hash of its bytes; empty if it was not requested, or if there are no bytes.
    """

    problem: RejectedRow | Unreachable | None = None
    pcm: bytes = b""
    num_samples: int = 0
    rate: int = 0
    num_channels: int = 0
    content: bytes = b""


class DecoderEnded(RuntimeError):  # noqa: N818 - what happened
    """The decoding process was killed from outside again and again. This says nothing about the recording."""


def sounds(wanted: Sequence[Place], *, examine: bool = False) -> Iterator[Sound]:
    """The decoded recordings, in the given order.

    Args:
        wanted: the places of the recordings; cheapest in the order in which they are stored (`read_recordings`).
        examine: whether to hash the content and leave `pcm` empty.

    Raises:
        DecoderEnded: if the decoding process is killed again and again.
    """
    num_done, num_ends = 0, 0
    while num_done < len(wanted):
        try:
            with _borrowed(is_fresh=num_ends > 0) as process:
                # After an end the next one alone: was it this recording, or what an earlier one had left behind?
                part = wanted[num_done : num_done + 1] if num_ends else wanted[num_done:]
                for sound in process.sounds(part, examine):
                    num_done, num_ends = num_done + 1, 0
                    yield sound
        except _Ended as end:
            num_ends += 1
            if reason := end.reason(wanted[num_done], num_ends):
                num_done, num_ends = num_done + 1, 0
                yield Sound(problem=reason)


class _Ended(Exception):  # noqa: N818 - not an error yet
    """A decoder that ended or was given up.

    Attributes:
        status: as `Popen.returncode`; None if it did not answer.
        is_decoding: whether it had read the recording.
    """

    def __init__(self, status: int | None, is_decoding: bool) -> None:
        super().__init__(status)
        self.status = status
        self.is_decoding = is_decoding

    def reason(self, place: Place, num_ends: int) -> RejectedRow | Unreachable | None:
        """Why the recording is rejected; None if it should be tried again.

        Raises:
            DecoderEnded: if it was tried too often.
        """
        if self.status is None and not self.is_decoding:
            return Unreachable(place.audio, f"nothing was read for {_SILENCE_S:.0f} s")
        if self.status is None or -self.status == signal.SIGPROF:
            return RejectedRow(SLOW)
        if -self.status in _CRASHES:
            return RejectedRow(f"crashes: the decoder crashes on it (signal {-self.status})") if num_ends > 1 else None
        if num_ends < _MOST_ENDS:
            return None
        how = f"with status {self.status}" if self.status >= 0 else f"by signal {-self.status}"
        raise DecoderEnded(
            f"the process that decodes {place.audio} {place.member} was ended {how}, {num_ends} times; signal 9 "
            "usually means that the machine is out of memory"
        )


class _Process:
    """A running decoder."""

    def __init__(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        # As a script the child would look for modules in its working directory, where this process may not.
        self.environment = dict(os.environ)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", decoder.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=self.environment | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def sounds(self, places: Sequence[Place], examine: bool) -> Iterator[Sound]:
        """The decoded recording at each place, in order.

        Raises:
            _Ended: if the child ends, or does not answer.
        """
        is_decoding = False
        try:
            self._connection.send_bytes(json.dumps([places, examine]).encode())
            for _ in places:
                is_decoding = False
                while not (message := self._receive()):
                    is_decoding = True
                answer = Answer(*json.loads(message))
                yield _sound(answer, self._receive() if answer.has_samples else b"")
        except (EOFError, ConnectionError, TimeoutError) as error:
            self.end(is_killed=isinstance(error, TimeoutError))
            raise _Ended(None if isinstance(error, TimeoutError) else self._child.returncode, is_decoding) from error

    def _receive(self) -> bytes:
        if not self._connection.poll(_SILENCE_S):
            raise TimeoutError
        return self._connection.recv_bytes()

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def end(self, *, is_killed: bool = True) -> None:
        """Close the connection, and wait until the child has ended."""
        self._connection.close()
        if is_killed:
            self._child.kill()
        self._child.wait()


def _sound(answer: Answer, pcm: bytes) -> Sound:
    if answer.fault:
        raise RuntimeError(f"a recording could not be decoded:\n{answer.fault}")
    if answer.unreachable:
        return Sound(problem=Unreachable(*answer.unreachable))
    problem = RejectedRow(answer.rejected) if answer.rejected else None
    content = bytes.fromhex(answer.content)
    return Sound(problem, pcm, answer.num_samples, answer.rate, answer.num_channels, content)


_idle: list[_Process] = []
"""Decoders that wait for the next recordings."""


@contextlib.contextmanager
def _borrowed(*, is_fresh: bool) -> Iterator[_Process]:
    """A decoder for exclusive use. It is kept for later if it has answered every request."""
    process = _idle.pop() if _idle and not is_fresh else _Process()
    if process.environment != os.environ or not process.is_running:  # credentials of a store may be new
        process.end()
        process = _Process()
    try:
        yield process
    except BaseException:
        process.end()
        raise
    _idle.append(process)
