"""Reads segments of a longer recording: opens it once, reads it from front to back, and decodes only as far as needed.

A segment has exactly the samples of the whole recording. If libsndfile can seek to the exact sample and decodes the
same samples from there (PCM, FLAC, ALAC), it seeks. MP3, Vorbis and Opus differ in the last bits after a seek, and
FFmpeg's positions are not exact: these recordings are decoded once, from the beginning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import soundfile as sf

from xlt_ray.corpora.decoding import (
    NO_SAMPLES,
    TOLERANCE_S,
    TRUNCATED,
    UNKNOWN_LENGTH,
    Native,
    Samples,
    check_size,
    ffmpeg_blocks,
    headerless,
)
from xlt_ray.errors import RejectedRow

_EXACT_SEEK = ("PCM_", "ALAC_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Subtypes that give the same samples after a seek as when read from the beginning (FLAC's are `PCM_*`)."""

_BLOCK = 2**16
"""Samples to decode at a time if libsndfile reads from the beginning."""

OVERREACH_S = 0.5
"""How far a segment may reach past the end of its recording: lists of MP3 segments are often wrong by this much, and
the readers of Lhotse allow the same."""

BEYOND = f"beyond the end: the segment reaches more than {OVERREACH_S} s behind the end of its recording"


class Segment(NamedTuple):
    """A part of a recording in seconds; both None: all of it."""

    start: float | None = None
    duration: float | None = None


def read_segments(
    stream: BinaryIO, name: str, segments: Iterable[Segment]
) -> Iterator[tuple[Segment, Native | RejectedRow]]:
    """Segments of one recording, each with its samples as recorded, sorted by start.

    Args:
        stream: the content of a sound file; it must be able to seek.
        name: its name, for formats without a header.
        segments: any, in any order; they may overlap.
    """
    ordered = sorted(segments, key=lambda segment: (segment.start or 0.0, segment.duration or 0.0))
    try:
        with _opened(stream, name) as sound:
            for segment in ordered:
                yield segment, _cut(sound, segment)
                ordered = ordered[1:]
    except RejectedRow as reason:
        yield from ((segment, reason) for segment in ordered)


def _cut(sound: _Sound, segment: Segment) -> Native | RejectedRow:
    start, rate = segment.start or 0.0, sound.rate
    if not (start + (segment.duration or 0.0)) * rate < UNKNOWN_LENGTH:
        return RejectedRow(BEYOND)
    first = round(start * rate)
    end = None if segment.duration is None else round((start + segment.duration) * rate)
    try:
        samples = sound.read(first, end)
    except RejectedRow as reason:
        return reason
    missing = 0 if end is None else end - first - len(samples)
    was_promised = (end or first + 1) <= sound.num_promised
    if not len(samples) or missing > (TOLERANCE_S if was_promised else OVERREACH_S) * rate:
        return RejectedRow(TRUNCATED if was_promised else BEYOND)
    return Native(samples, rate)


class _Sound(Protocol):
    """An open recording.

    Attributes:
        rate: samples per second.
        num_promised: number of samples according to the header; 0 if it is not given.
    """

    rate: int
    num_promised: int

    def read(self, first: int, end: int | None) -> Samples:
        """Samples from `first` to `end`, fewer at the end of the recording; `first` never decreases between calls."""


@contextlib.contextmanager
def _opened(stream: BinaryIO, name: str) -> Iterator[_Sound]:
    demuxer = headerless(name)
    if demuxer:
        yield _Streamed(ffmpeg_blocks(stream, demuxer), 0)
        return
    try:
        file = _File(stream)
    except sf.SoundFileError:
        stream.seek(0)
        yield _Streamed(ffmpeg_blocks(stream, None), 0)
        return
    with file:
        if file.frames >= UNKNOWN_LENGTH:
            stream.seek(0)
            yield _Streamed(ffmpeg_blocks(stream, None), 0)
        elif file.seekable() and file.subtype.startswith(_EXACT_SEEK):
            yield _Seekable(file)
        else:
            file.is_streamed = True
            yield _Streamed(_libsndfile_blocks(file), file.frames)


class _File(sf.SoundFile):  # type: ignore[misc]
    """An open file that seeks only on request: soundfile itself seeks to its position after every read."""

    is_streamed = False

    def seekable(self) -> bool:
        return not self.is_streamed and bool(super().seekable())


class _Seekable:
    def __init__(self, file: sf.SoundFile) -> None:
        self._file = file
        self.rate: int = file.samplerate
        self.num_promised: int = file.frames

    def read(self, first: int, end: int | None) -> Samples:
        end = self.num_promised if end is None else min(end, self.num_promised)
        num_samples = max(end - first, 0)
        check_size(num_samples * self._file.channels)
        try:
            self._file.seek(min(first, self.num_promised))
            samples: Samples = self._file.read(num_samples, dtype="float32", always_2d=True)
        except sf.SoundFileError as error:
            raise RejectedRow(TRUNCATED) from error
        return samples


class _Streamed:
    """Decodes from the beginning, and keeps the samples from the start of the last segment on."""

    def __init__(self, blocks: Iterator[Native], num_promised: int) -> None:
        self._blocks = blocks
        first = next(blocks, None)
        if first is None:
            raise RejectedRow(NO_SAMPLES)
        self.rate = first.rate
        self.num_promised = num_promised
        self._held = [first.samples]
        self._held_from = 0
        self._held_to = len(first.samples)
        self._broken: RejectedRow | None = None

    def read(self, first: int, end: int | None) -> Samples:
        while end is None or self._held_to < end:
            self._forget(first)
            block = self._next()
            if block is None:
                break
            self._held.append(block.samples)
            self._held_to += len(block.samples)
            check_size((min(self._held_to, end or self._held_to) - first) * block.samples.shape[1])
        self._forget(first)
        place = first - self._held_from
        return np.concatenate(self._held)[place : None if end is None else place + end - first]

    def _next(self) -> Native | None:
        """The next block; if the recording is cut short, every segment that needs more is told so."""
        try:
            if self._broken is None:
                return next(self._blocks, None)
        except RejectedRow as reason:
            self._broken = reason
        raise self._broken

    def _forget(self, first: int) -> None:
        while len(self._held) > 1 and self._held_from + len(self._held[0]) <= first:
            self._held_from += len(self._held.pop(0))


def _libsndfile_blocks(file: sf.SoundFile) -> Iterator[Native]:
    try:
        while len(samples := file.read(_BLOCK, dtype="float32", always_2d=True)):
            yield Native(samples, file.samplerate)
    except sf.SoundFileError as error:
        raise RejectedRow(TRUNCATED) from error
