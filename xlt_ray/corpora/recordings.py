"""Reads the content of recordings: sound files, rows of Parquet and Arrow files, members of archives."""

from __future__ import annotations

import collections
import io
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_ray.corpora import places
from xlt_ray.corpora.decoding import MAX_BYTES, TOO_LONG, Native
from xlt_ray.corpora.segments import Segment, read_segments
from xlt_ray.errors import RejectedRow, Unreachable
from xlt_ray.store import storage

Recording = bytes | Native | RejectedRow
"""The bytes of a sound file; the samples, if only a segment was requested; or why there is neither."""


class Place(NamedTuple):
    """The location of a recording, from the columns of a corpus row."""

    audio: str
    member: str = ""
    start: float | None = None
    duration: float | None = None

    @property
    def name(self) -> str:
        """The name of the sound file."""
        return self.member or self.audio

    @property
    def segment(self) -> Segment:
        """The segment of the recording."""
        return Segment(self.start, self.duration)


def places_of(rows: pa.Table) -> list[Place]:
    """The places of the recordings of some rows (UTTERANCE)."""
    return [Place(*values) for values in zip(*(rows[name].to_pylist() for name in Place._fields), strict=True)]


def read_recordings(wanted: Sequence[Place]) -> Iterator[Recording]:
    """The content of recordings, in the given order. A file is opened once and read only as far as needed.

    Recordings wait in memory only if the order differs from that of their file, so rows of one Parquet file, members of
    one archive and segments of one recording cost least in the order in which they are stored.

    Args:
        wanted: the places of the recordings.

    Yields:
        The content; or, as a value, a RejectedRow if it is missing in its container, empty, or ends before the segment.

    Raises:
        Unreachable: if a file does not exist or cannot be read from here; this says nothing about the recording.
    """
    for recording in try_recordings(wanted):
        if isinstance(recording, Unreachable):
            raise recording
        yield recording


_Key = tuple[str, Segment]
"""Member of a container, and its segment."""

_Found = tuple[_Key, Recording | Unreachable]


def try_recordings(wanted: Sequence[Place]) -> Iterator[Recording | Unreachable]:
    """Like `read_recordings`, but Unreachable is a value too."""
    uses_left = collections.Counter(wanted)
    keys: dict[str, set[_Key]] = collections.defaultdict(set)
    for place in wanted:
        keys[place.audio].add((place.member, place.segment))
    containers: dict[str, Iterator[_Found]] = {}
    found: dict[Place, Recording | Unreachable] = {}

    def take(audio: str) -> bool:
        item = next(containers[audio], None)
        if item:
            (member, segment), recording = item
            found.setdefault(Place(audio, member, *segment), recording or RejectedRow("empty: 0 bytes"))
        return item is not None

    last = ""
    for place in wanted:
        audio = place.audio
        if audio not in containers:
            containers[audio] = _read_container(audio, keys[audio])
        if last not in ("", audio) and all(not member for member, _ in keys[last]):
            while take(last):  # so that at most one sound file is open, and each is decoded once
                pass
        last = audio
        while place not in found:
            if not take(audio):
                found[place] = RejectedRow("missing: not in its container")
        yield found[place]
        uses_left[place] -= 1
        if not uses_left[place]:
            del found[place]


def _read_container(audio: str, keys: set[_Key]) -> Iterator[_Found]:
    """Members in the order of the container, without missing ones; if the container is cut short, all again."""
    try:
        path = places.find(audio)
        if all(not member for member, _ in keys):
            yield from _read_sound(path, {segment for _, segment in keys})
        elif path.endswith((".parquet", ".arrow")):
            yield from _read_rows(path, keys)
        else:
            yield from _cut_members(_read_tar(path, {member for member, _ in keys}), keys)
    except (RejectedRow, Unreachable) as reason:
        yield from ((key, reason) for key in sorted(keys, key=repr))
    except Exception as error:
        why = _why(audio, error)
        yield from ((key, why) for key in sorted(keys, key=repr))


_DAMAGED = (tarfile.TarError, zlib.error, EOFError, pa.ArrowException, KeyError, ValueError)


def _why(audio: str, error: Exception) -> RejectedRow | Unreachable:
    """Translate an error in the middle of a container; an error of neither container nor store is a fault."""
    if isinstance(error, MemoryError):
        return RejectedRow(TOO_LONG)
    # pyarrow reports damaged pages as an OSError without errno; with one it is mostly the machine that failed.
    is_damage = isinstance(error, OSError) and error.errno is None and not storage.is_remote(audio)
    if is_damage or (isinstance(error, _DAMAGED) and not isinstance(error, OSError)):
        return RejectedRow("missing: its file cannot be read that far")
    if isinstance(error, OSError):
        return places.unreadable(audio, error)
    if storage.is_remote(audio):  # clients of stores raise any error of their dependencies
        return Unreachable(audio, f"{type(error).__name__}: {error}")
    raise error


def _read_sound(path: str, segments: set[Segment]) -> Iterator[_Found]:
    """A whole sound file, or segments of it."""
    cuts = segments - {Segment()}
    filesystem, inner = storage.locate(path)
    with filesystem.open_input_file(inner) as file:
        if Segment() in segments:
            # Only the size that is reported: some files in /proc never end.
            yield ("", Segment()), file.read() if file.size() <= MAX_BYTES else RejectedRow(TOO_LONG)
        if not cuts:
            return
        if not file.size():
            raise RejectedRow("empty: 0 bytes")
        file.seek(0)
        # libsndfile asks for some kilobytes at a time; an object store would answer each with a request.
        stream = io.BufferedReader(file, 2**20 if storage.is_remote(path) else 2**16)
        for segment, recording in read_segments(stream, path, cuts):
            yield ("", segment), recording


def _cut_members(members: Iterator[tuple[str, Recording | Unreachable]], keys: set[_Key]) -> Iterator[_Found]:
    segments: dict[str, set[Segment]] = collections.defaultdict(set)
    for member, segment in keys:
        segments[member].add(segment)
    for member, content in members:
        whole = segments[member] & {Segment()}
        if not isinstance(content, bytes) or not content:
            whole = segments[member]
        yield from (((member, segment), content) for segment in whole)
        if (cuts := segments[member] - whole) and isinstance(content, bytes):
            yield from (((member, cut), part) for cut, part in read_segments(io.BytesIO(content), member, cuts))


def _read_rows(path: str, keys: set[_Key]) -> Iterator[_Found]:
    """Rows of a Parquet or Arrow file; a member is the row number, with the column if that is not `audio`."""
    read = _read_parquet if path.endswith(".parquet") else _read_arrow
    rows: dict[str, list[int]] = collections.defaultdict(list)
    for member in {member for member, _ in keys}:
        number, _, column = member.partition(":")
        if number.isdecimal():
            rows[column].append(int(number))
    for column, numbers in rows.items():
        found = read(path, column or "audio", sorted(numbers))
        named = ((f"{number}:{column}" if column else str(number), _content(path, cell)) for number, cell in found)
        yield from _cut_members(named, keys)


def _read_parquet(path: str, column: str, numbers: Sequence[int]) -> Iterator[tuple[int, pa.Scalar]]:
    filesystem, inner = storage.locate(path)
    with filesystem.open_input_file(inner) as source, pq.ParquetFile(source) as file:
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            rows = [number - first for number in numbers if first <= number < end]
            if rows:
                cells = file.read_row_group(group, columns=[column]).column(column)
                yield from ((first + row, cells[row]) for row in rows)
            first = end


def _read_arrow(path: str, column: str, numbers: Sequence[int]) -> Iterator[tuple[int, pa.Scalar]]:
    """Rows of an Arrow stream of `save_to_disk`; from a local disk only the pages of these rows are read."""
    filesystem, inner = storage.locate(path)
    source = filesystem.open_input_stream(inner, compression=None) if storage.is_remote(path) else pa.memory_map(inner)
    with source, pa.ipc.open_stream(source) as batches:
        first = 0
        for batch in batches:
            end = first + batch.num_rows
            if rows := [row for row in numbers if first <= row < end]:
                cells = batch.column(column)
                cells.validate(full=True)  # Arrow believes what a file says, and reads beyond its end
                yield from ((row, cells[row - first]) for row in rows)
            first = end
            if end > numbers[-1]:
                return


def _content(path: str, cell: pa.Scalar) -> Recording | Unreachable:
    """The audio in a cell: binary, or the struct {bytes, path} of Hugging Face datasets, which may only name a file."""
    value = cell.as_py()
    if not isinstance(value, dict):
        return value or RejectedRow("empty: no sound in its row")
    if value["bytes"] is not None or not value.get("path"):
        return value["bytes"] or RejectedRow("empty: no sound in its row")
    linked = places.resolve(posixpath.dirname(path), value["path"])
    return next(recording for _, recording in _read_container(linked, {("", Segment())})) or RejectedRow(
        "empty: 0 bytes"
    )


def _read_tar(path: str, members: set[str]) -> Iterator[tuple[str, Recording]]:
    """Members of an archive; `./a.wav`, as tar lists members of a folder, is `a.wav`."""
    spelled: dict[str, list[str]] = collections.defaultdict(list)
    for member in members:
        spelled[member.removeprefix("./")].append(member)
    filesystem, inner = storage.locate(path)
    with (
        filesystem.open_input_stream(inner, compression=None) as stream,
        _opened_tar(stream) as archive,
    ):
        for info in archive:
            names = spelled.get(info.name.removeprefix("./"), [])
            content = archive.extractfile(info) if names else None
            if content is not None:
                found = content.read() if info.size <= MAX_BYTES else RejectedRow(TOO_LONG)
                yield from ((name, found) for name in names)


def _opened_tar(stream: BinaryIO) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=stream, mode="r|*")
    except TypeError as error:  # what tarfile makes of a gzip header that breaks off
        raise tarfile.ReadError("not a whole gzip header") from error
