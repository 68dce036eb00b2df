"""The process that reads and decodes recordings for `guarded`: a recording that crashes or hangs it costs one row.

It is started as `python -m xlt_ray.corpora.decoder FD`, with a connection at the file descriptor FD, and ends when the
connection is closed. For each place in a request it answers, in order:

    b""         the content of the recording has been read, and decoding begins
    Answer      as JSON
    samples     float32; only if the answer says so

The connection carries JSON and samples, never pickles, so a decoder that a hostile file has taken over can't make its
parent run anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

from xlt_ray.corpora.audio import to_speech
from xlt_ray.corpora.decoding import TOO_LONG, Native, Samples, decode_native
from xlt_ray.corpora.recordings import Place, Recording, try_recordings
from xlt_ray.corpora.segments import Segment
from xlt_ray.errors import RejectedRow, Unreachable

CPU_SECONDS = 60
"""CPU time that the decoding of one recording may take."""

_MEMORY = 4 * 2**30
"""Bytes of memory that decoding one recording may take. The longest accepted recording decodes to 0.5 GiB. Memory holds
this twice while blocks are joined, and more than once again while channels are averaged and the rate is changed."""


class Answer(NamedTuple):
    """The result of decoding one recording.

    Attributes:
        rejected: why it can't be used; empty if it can.
        unreachable: path and reason, if it can't be read from here.
        fault: the traceback, if the program has a fault.
        num_samples: length at 16 kHz; 0 if it is rejected.
        rate: as recorded, in Hz; 0 if it can't be decoded.
        num_channels: as recorded; 0 if it can't be decoded.
        content: hash of its bytes in hexadecimal, or of the samples of a segment; empty if not requested.
        has_samples: whether the samples follow.
    """

    rejected: str = ""
    unreachable: tuple[str, str] | None = None
    fault: str = ""
    num_samples: int = 0
    rate: int = 0
    num_channels: int = 0
    content: str = ""
    has_samples: bool = False


class Request(NamedTuple):
    """Recordings to decode.

    Attributes:
        places: the values of one `Place` each.
        examine: whether to hash the content instead of sending the samples.
    """

    places: list[Place]
    examine: bool


def main() -> None:
    """Answer requests until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the connection
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(int(sys.argv[1]))
    while request := _next(connection):
        for message in _messages(request):
            connection.send_bytes(message)


def _next(connection: Connection) -> Request | None:
    try:
        places, examine = json.loads(connection.recv_bytes())
    except (EOFError, ConnectionError):
        return None
    return Request([Place(*values) for values in places], examine)


def _messages(request: Request) -> Iterator[bytes | memoryview]:
    try:
        for answer, samples in _answers(request):
            if answer is None:
                yield b""
                continue
            yield json.dumps(answer).encode()
            if samples is not None:
                yield samples.data.cast("B") if samples.size else b""
    except Exception:
        yield json.dumps(Answer(fault=traceback.format_exc())).encode()


def _answers(request: Request) -> Iterator[tuple[Answer | None, Samples | None]]:
    """For each place None, then its answer."""
    recordings = try_recordings(request.places)
    for place in request.places:
        # A segment is decoded while it is read. The reading of others may take its time: an archive may be long.
        with _limits(of_time=place.segment != Segment()):
            recording = next(recordings)
        yield None, None
        with _limits():
            answer = _answer(recording, place.name, request.examine)
        yield answer


@contextlib.contextmanager
def _limits(*, of_time: bool = True) -> Iterator[None]:
    """Limit memory and CPU time: an allocation above the limit fails, and too much CPU time raises SIGPROF."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if (most := _memory_of_its_own() + _MEMORY) < (soft if soft != resource.RLIM_INFINITY else sys.maxsize):
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS if of_time else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _memory_of_its_own() -> int:
    """Bytes that count towards RLIMIT_DATA. Only Linux reports and limits them."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[5]) * resource.getpagesize()
    except OSError:
        return sys.maxsize - _MEMORY


def _answer(recording: Recording | Unreachable, name: str, examine: bool) -> tuple[Answer, Samples | None]:
    if isinstance(recording, Unreachable):
        return Answer(unreachable=(recording.path, recording.reason)), None
    if isinstance(recording, RejectedRow):
        return Answer(rejected=str(recording)), None
    answer = Answer(content=_hash(recording) if examine else "")
    try:
        native = recording if isinstance(recording, Native) else decode_native(recording, name)
        answer = answer._replace(rate=native.rate, num_channels=native.samples.shape[1])
        samples = to_speech(*native)
    except MemoryError:
        return answer._replace(rejected=TOO_LONG), None
    except RejectedRow as reason:
        return answer._replace(rejected=str(reason)), None
    return answer._replace(num_samples=len(samples), has_samples=not examine), None if examine else samples


def _hash(recording: bytes | Native) -> str:
    content = recording.samples.tobytes() if isinstance(recording, Native) else recording
    return hashlib.blake2b(content, digest_size=16).hexdigest()


if __name__ == "__main__":
    main()
