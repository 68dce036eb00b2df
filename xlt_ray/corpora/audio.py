"""From the place of a recording to 16 kHz mono samples: reads sound files, Parquet rows and tar members, and decodes.

What can be wrong with one recording is a `RejectedRow`, whose message starts with its kind and a colon:

    missing       no such file, row or member, or its container cannot be read
    empty         0 bytes
    undecodable   not sound, or a format that neither libsndfile nor FFmpeg reads
    truncated     the data ends or breaks before the length that its header promises; formats without such a promise
                  (G.722, GSM, AAC and MP3 streams) can be cut without a trace
    no samples    a header, and no sound behind it
    not finite    NaN or infinite samples
    out of range  floating-point samples that were never scaled to [-1, 1]
    silent        nothing louder than the noise of an idle codec
    too long      more than fits in memory

The messages are constant, so that `rejected.parquet` can be grouped by them.
"""

from __future__ import annotations

import collections
import errno
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile as sf
import soxr

from xlt_ray.errors import RejectedRow
from xlt_ray.store import storage

SAMPLE_RATE = 16_000
"""Samples a second that Whisper hears."""

MAX_SAMPLES = 30 * SAMPLE_RATE
"""Longest recording that enters the encoder: Whisper's window of 30 s."""

Recording = bytes | RejectedRow
Samples = npt.NDArray[np.float32]

_SILENT_PEAK = 5e-4
"""-66 dBFS. Measured on the Asterisk prompts: recorded silence peaks at 4.3e-4 or less, the softest speech at 0.1."""

_MAX_PEAK = 8.0
"""Resampling and lossy codecs overshoot 1.0 by some percent; int16 values stored as floats lie in the thousands."""

_MAX_VALUES = 2**27
"""Samples times channels that one recording may unfold to: 0.5 GiB, 46 minutes of 48 kHz mono."""

_BAD_PATH = (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
"""What is wrong with the path of one recording, not with the machine."""

_TOLERANCE_S = 0.1
"""What may lack at the end: some writers count the header as data, and MP3 headers count the padding of the encoder."""

_HEADERLESS = {".g722": "g722", ".gsm": "gsm"}
"""Formats without a header, known by the suffix alone."""

_DEMUXERS = "aac,aiff,amr,asf,au,flac,g722,gsm,matroska,webm,mov,mp4,m4a,3gp,mp3,ogg,wav"
"""What FFmpeg may open. Not playlists: those would make it open other files, or addresses, that a recording names."""

_EXACT_DURATION = ("flac", "matroska", "mov")
"""Demuxers whose duration is written in the file; that of the others is guessed from the bit rate."""

_CHUNK_SIZES = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
"""libsndfile's note that a WAV, AIFF or AU header promises more bytes than there are; it reads what there is."""

_STREAMED_SIZE = 0x7FFF_0000
"""Programs that write to a pipe cannot know the size, and put the largest one there instead."""

_UNDECODABLE = "undecodable: neither libsndfile nor FFmpeg reads it"
_TRUNCATED = "truncated: the data ends or breaks before the end that its header promises"


def read_recordings(locators: Sequence[tuple[str, str]]) -> Iterator[Recording]:
    """The bytes of recordings, in the order asked for; a container is opened once and read only as far as needed.

    Recordings wait in memory only where the order differs from that of their container, so rows of one Parquet file
    and members of one archive cost least in the order in which they lie there.

    Args:
        locators: `Utterance.audio` and `Utterance.member` of each recording.

    Yields:
        The bytes, or a RejectedRow as a value where they are missing or empty.

    Raises:
        OSError: an object store cannot be reached, or a file may not be read; this says nothing about the recording.
    """
    uses_left = collections.Counter(locators)
    wanted: dict[str, set[str]] = collections.defaultdict(set)
    for audio, member in locators:
        wanted[audio].add(member)
    containers: dict[str, Iterator[tuple[str, Recording]]] = {}
    found: dict[tuple[str, str], Recording] = {}
    for audio, member in locators:
        container = containers.setdefault(audio, _read_container(audio, wanted[audio]))
        while (audio, member) not in found:
            name, recording = next(container, (member, RejectedRow("missing: not in its container")))
            found.setdefault((audio, name), recording or RejectedRow("empty: 0 bytes"))
        yield found[audio, member]
        uses_left[audio, member] -= 1
        if not uses_left[audio, member]:
            del found[audio, member]


def _read_container(audio: str, members: set[str]) -> Iterator[tuple[str, Recording]]:
    """Members in the order of the container, without those that it does not hold; where it breaks off, all again."""
    try:
        if members == {""}:
            yield "", storage.read_bytes(audio)
        elif audio.endswith(".parquet"):
            yield from _read_parquet(audio, members)
        else:
            yield from _read_tar(audio, members)
    except FileNotFoundError:
        yield from ((member, RejectedRow("missing: no such file")) for member in sorted(members))
    except (tarfile.TarError, pa.ArrowException, KeyError, ValueError, OSError) as error:
        # pyarrow reports damaged pages as an OSError without errno; with one it is mostly the machine that failed.
        if isinstance(error, OSError) and (storage.is_remote(audio) or error.errno not in (None, *_BAD_PATH)):
            raise
        yield from ((member, RejectedRow("missing: its file cannot be read that far")) for member in sorted(members))


def _read_parquet(audio: str, members: set[str]) -> Iterator[tuple[str, Recording]]:
    filesystem, path = storage.locate(audio)
    numbers = sorted(int(member) for member in members if member.isdecimal())
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        is_struct = pa.types.is_struct(file.schema_arrow.field("audio").type)
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            rows = [number - first for number in numbers if first <= number < end]
            if rows:
                column = file.read_row_group(group, columns=["audio.bytes" if is_struct else "audio"]).column("audio")
                sounds = pc.struct_field(column, "bytes") if is_struct else column
                for row in rows:
                    yield str(first + row), sounds[row].as_py() or RejectedRow("empty: no sound in its row")
            first = end


def _read_tar(audio: str, members: set[str]) -> Iterator[tuple[str, Recording]]:
    filesystem, path = storage.locate(audio)
    with (
        filesystem.open_input_stream(path, compression=None) as stream,
        tarfile.open(fileobj=stream, mode="r|*") as archive,
    ):
        for info in archive:
            name = info.name.removeprefix("./")
            content = archive.extractfile(info) if name in members else None
            if content is not None:
                yield name, content.read()


def decode(data: bytes, name: str) -> Samples:
    """Samples of one recording as Whisper wants them.

    Args:
        data: the content of a sound file.
        name: its name; only the suffix is looked at, and only for formats without a header (`.g722`, `.gsm`).

    Returns:
        float32 of shape (num_samples,), at least one, mono, 16 kHz, in [-1, 1].

    Raises:
        RejectedRow: the recording cannot be used; the kinds are in the docstring of this module.
    """
    return to_speech(*decode_native(data, name))


def decode_native(data: bytes, name: str) -> tuple[Samples, int]:
    """The samples as they were recorded, float32 of shape (num_samples, num_channels), and their rate in Hz.

    Raises:
        RejectedRow: empty, undecodable, truncated or too long.
    """
    if not data:
        raise RejectedRow("empty: 0 bytes")
    headerless = _HEADERLESS.get(PurePosixPath(name).suffix.lower())
    if headerless:
        return _decode_ffmpeg(data, headerless)
    if _is_cut_ogg(data):
        raise RejectedRow(_TRUNCATED)
    try:
        return _decode_libsndfile(data)
    except sf.SoundFileError:
        return _decode_ffmpeg(data, None)


def to_speech(native: Samples, rate: int) -> Samples:
    """Average the channels, resample to 16 kHz, and refuse what is no speech.

    Channels are averaged first: it is linear, and then only one of them is resampled.

    Args:
        native: shape (num_samples, num_channels).
        rate: samples a second.

    Returns:
        shape (num_samples,), in [-1, 1].

    Raises:
        RejectedRow: no samples, not finite, out of range, silent or too long.
    """
    num_samples, num_channels = native.shape
    _check_size(num_samples * SAMPLE_RATE / rate)
    # A product with a vector takes 0.05 ms for 5 s of 48 kHz stereo, `mean(axis=1)` 3.5 ms.
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        mono = native @ np.full(num_channels, 1 / num_channels, np.float32) if num_channels > 1 else native[:, 0]
    _check_peak(mono)
    pcm: Samples = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    if _check_peak(pcm) < _SILENT_PEAK:
        raise RejectedRow("silent: nothing above -66 dBFS")
    return np.clip(pcm, -1.0, 1.0)


def _check_peak(mono: Samples) -> float:
    if not mono.size:
        raise RejectedRow("no samples: nothing behind the header")
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak):
        raise RejectedRow("not finite: NaN or infinite samples")
    if peak > _MAX_PEAK:
        raise RejectedRow("out of range: samples not scaled to [-1, 1]")
    return peak


def _check_size(num_values: float) -> None:
    if num_values > _MAX_VALUES:
        raise RejectedRow("too long: more than fits in memory")


def _check_complete(num_samples: float, num_promised: float, rate: int) -> None:
    if num_samples < num_promised - _TOLERANCE_S * rate:
        raise RejectedRow(_TRUNCATED)


def _is_cut_ogg(data: bytes) -> bool:
    """Whether the last Ogg page is incomplete, or lacks the end-of-stream flag that RFC 3533 (section 6) asks for."""
    if not data.startswith(b"OggS"):
        return False
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    num_segments = page[26]
    is_last = bool(page[5] & 4)
    return not is_last or len(page) < 27 + num_segments + sum(page[27 : 27 + num_segments])


def _decode_libsndfile(data: bytes) -> tuple[Samples, int]:
    with sf.SoundFile(io.BytesIO(data)) as file:
        if file.frames >= 2**62:  # a FLAC or AU stream of unknown length, in which libsndfile cannot seek
            raise sf.SoundFileError("unknown length")
        _check_size(file.frames * file.channels)
        native: Samples = file.read(file.frames, dtype="float32", always_2d=True)
        _check_complete(len(native), file.frames, file.samplerate)
        sizes = _CHUNK_SIZES.search(file.extra_info)
        if sizes and int(sizes[1]) < _STREAMED_SIZE:
            _check_complete(len(native), len(native) * int(sizes[1]) / max(int(sizes[2]), 1), file.samplerate)
        return native, file.samplerate


def _decode_ffmpeg(data: bytes, demuxer: str | None) -> tuple[Samples, int]:
    options = {"format_whitelist": _DEMUXERS}
    try:
        with av.open(io.BytesIO(data), format=demuxer, options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise RejectedRow(_UNDECODABLE)
            native, rate = _collect(container.decode(audio=0))
            if container.format.name.startswith(_EXACT_DURATION):
                _check_complete(len(native), (container.duration or 0) / av.time_base * rate, rate)
            return native, rate
    except (av.FFmpegError, ValueError) as error:  # ValueError: PyAV's own checks of what a header says
        raise RejectedRow(_UNDECODABLE) from error


def _collect(frames: Iterable[av.AudioFrame]) -> tuple[Samples, int]:
    """Join the frames of a stream; an error behind the first frame means that the rest is damaged."""
    blocks: list[npt.NDArray[np.generic]] = []
    formats: set[tuple[int, int]] = set()
    num_values = 0
    try:
        for frame in frames:
            num_channels = len(frame.layout.channels)
            formats.add((frame.sample_rate, num_channels))
            block = frame.to_ndarray()
            blocks.append(block.T if frame.format.is_planar else block.reshape(-1, num_channels))
            num_values += block.size
            _check_size(num_values)
    except av.FFmpegError as error:
        raise RejectedRow(_TRUNCATED if blocks else _UNDECODABLE) from error
    if not blocks:
        raise RejectedRow("no samples: nothing behind the header")
    if len(formats) > 1:
        raise RejectedRow("undecodable: the rate or the number of channels changes on the way")
    return _to_float(np.concatenate(blocks)), formats.pop()[0]


def _to_float(samples: npt.NDArray[np.generic]) -> Samples:
    """Scale integer samples to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
            return samples.astype(np.float32, copy=False)
    full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    centred = samples.astype(np.float32) - (full_scale if samples.dtype.kind == "u" else 0.0)
    return (centred / full_scale).astype(np.float32, copy=False)


def split_long(pcm: Samples, max_samples: int = MAX_SAMPLES) -> list[Samples]:
    """Cut a recording at its quietest points, so that each piece fits the encoder.

    A cut lies before the quietest 20 ms among the last 5 s (at most the last half) before the limit, a whole number of
    encoder frames from the start, so that no frame spans two pieces.

    Args:
        pcm: shape (num_samples,).
        max_samples: longest piece, at least 1.

    Returns:
        Views of `pcm` with 1 to max_samples samples each; joined they are `pcm`. One piece where it is short enough.
    """
    if max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, not {max_samples}")
    pieces = []
    while len(pcm) > max_samples:
        cut = _quietest_point(pcm[:max_samples])
        pieces.append(pcm[:cut])
        pcm = pcm[cut:]
    return [*pieces, pcm]


def _quietest_point(pcm: Samples) -> int:
    window = SAMPLE_RATE // 50
    num_windows = min(5 * SAMPLE_RATE, len(pcm) // 2) // window
    if not num_windows:
        return len(pcm)
    start = len(pcm) - num_windows * window
    windows = pcm[start:].reshape(num_windows, window)
    energies = np.einsum("wt,wt->w", windows, windows)
    latest_quietest = num_windows - 1 - int(energies[::-1].argmin())
    return start + latest_quietest * window
