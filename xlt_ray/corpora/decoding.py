"""Decode the bytes of a sound file to its samples as recorded, with libsndfile or FFmpeg."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import soundfile as sf

from xlt_ray.errors import RejectedRow

Samples = npt.NDArray[np.float32]


class Native(NamedTuple):
    """Audio as recorded: float32 of shape (num_samples, num_channels), and samples per second."""

    samples: Samples
    rate: int


TOLERANCE_S = 0.1
"""How much may be missing at the end: some writers count the header as data, and MP3 headers count encoder padding."""

TRUNCATED = "truncated: the data ends or breaks before the end that its header promises"
UNDECODABLE = "undecodable: neither libsndfile nor FFmpeg reads it"
NO_SAMPLES = "no samples: nothing after the header"
TOO_LONG = "too long: more than fits in memory"

MAX_BYTES = 2**30
"""Size of the largest file that is decoded as a whole. Audio that is not too long is smaller, even as 64-bit floats."""

UNKNOWN_LENGTH = 2**62
"""libsndfile reports at least this number of frames if a FLAC or AU stream does not give its length."""

_MAX_VALUES = 2**27
"""Maximum samples times channels of a decoded recording: 0.5 GiB, 46 minutes of 48 kHz mono."""

_MAX_CHANNELS = 64
"""libswresample's own limit."""

_HEADERLESS = {".g722": "g722", ".gsm": "gsm"}
"""Formats without a header, known only by their suffix."""

_DEMUXERS = "aac,aiff,amr,asf,au,flac,g722,gsm,matroska,webm,mov,mp4,m4a,3gp,mp3,ogg,wav,wv"
"""Formats that FFmpeg may read. No playlists, because they make FFmpeg open files or addresses that a recording names.
All protocols are disabled too, so FFmpeg can open nothing but the bytes of the recording."""

_EXACT_DURATION = ("flac", "matroska", "mov", "wv")
"""Demuxers that read the duration from the file; the others guess it from the bit rate."""

_CHUNK_SIZES = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
"""libsndfile's note that a WAV, AIFF or AU header promises more bytes than the file has; it reads those that exist."""

_STREAMED_SIZE = 0x7FFF_0000
"""Programs that write to a pipe do not know the size, and write the largest possible size instead."""


def decode_native(data: bytes, name: str) -> Native:
    """The samples of a sound file as recorded.

    Args:
        data: the content of the file.
        name: its name; only the suffix is used, and only for formats without a header (`.g722`, `.gsm`).

    Raises:
        RejectedRow: empty, undecodable, truncated or too long.
    """
    if not data:
        raise RejectedRow("empty: 0 bytes")
    demuxer = headerless(name)
    if demuxer:
        return _decode_ffmpeg(data, demuxer)
    if _is_cut_ogg(data):
        raise RejectedRow(TRUNCATED)
    try:
        sound = _decode_libsndfile(data)
    except sf.SoundFileError:
        return _decode_ffmpeg(data, None)
    # A program that writes a WAV to a pipe may leave 0 for the size of its data: FFmpeg then reads to the end.
    return _decode_ffmpeg(data, None) if data.startswith(b"RIFF") and not len(sound.samples) else sound


def headerless(name: str) -> str | None:
    """FFmpeg's name of a format that is known only by its suffix."""
    return _HEADERLESS.get(PurePosixPath(name).suffix.lower())


def check_size(num_values: float) -> None:
    """Refuse a recording that would not fit in memory.

    Args:
        num_values: samples times channels.

    Raises:
        RejectedRow: too long.
    """
    if num_values > _MAX_VALUES:
        raise RejectedRow(TOO_LONG)


def _check_complete(num_samples: float, num_promised: float, rate: float) -> None:
    if num_samples < num_promised - TOLERANCE_S * rate:
        raise RejectedRow(TRUNCATED)


def _is_cut_ogg(data: bytes) -> bool:
    """Whether the last Ogg page is incomplete, or ends inside a packet.

    The end-of-stream flag of RFC 3533 does not help, because phones and live streams end without it.
    """
    if not data.startswith(b"OggS"):
        return False
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    sizes = page[27 : 27 + page[26]]
    # A packet ends with a segment of less than 255 bytes.
    return len(page) < 27 + len(sizes) + sum(sizes) or sizes.endswith(b"\xff")


def _decode_libsndfile(data: bytes) -> Native:
    with sf.SoundFile(io.BytesIO(data)) as file:
        if file.frames >= UNKNOWN_LENGTH:  # and libsndfile cannot seek in it
            raise sf.SoundFileError("unknown length")
        check_size(file.frames * file.channels)
        samples: Samples = file.read(file.frames, dtype="float32", always_2d=True)
        _check_complete(len(samples), file.frames, file.samplerate)
        sizes = _CHUNK_SIZES.search(file.extra_info)
        if sizes and int(sizes[1]) < _STREAMED_SIZE:
            _check_complete(len(samples), len(samples) * int(sizes[1]) / max(int(sizes[2]), 1), file.samplerate)
        return Native(samples, file.samplerate)


def _decode_ffmpeg(data: bytes, demuxer: str | None) -> Native:
    blocks = ffmpeg_blocks(io.BytesIO(data), demuxer)
    num_values = 0
    found = []
    for block in blocks:
        num_values += block.samples.size
        check_size(num_values)
        found.append(block)
    return Native(np.concatenate([block.samples for block in found]), found[0].rate)


def ffmpeg_blocks(stream: BinaryIO, demuxer: str | None) -> Iterator[Native]:
    """Audio as FFmpeg decodes it, block by block; at least one block.

    Raises:
        RejectedRow: undecodable, truncated or no samples; truncated can be raised after good blocks.
    """
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
    first: Native | None = None
    try:
        with av.open(stream, format=demuxer, options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise RejectedRow(UNDECODABLE)
            for block in _blocks(container):
                first = first or block
                if (block.rate, block.samples.shape[1]) != (first.rate, first.samples.shape[1]):
                    raise RejectedRow("undecodable: the rate or the number of channels changes within the file")
                yield block
    except (av.FFmpegError, ValueError) as error:  # ValueError: PyAV's own checks of what a header says
        # An error behind the first block means that the rest is damaged.
        raise RejectedRow(TRUNCATED if first else UNDECODABLE) from error
    if first is None:
        raise RejectedRow(NO_SAMPLES)


def _blocks(container: av.container.InputContainer) -> Iterator[Native]:
    """The frames of the first audio stream.

    The container can be longer than its audio: the recorder was paused, the audio starts late, or a picture lasts
    longer. So the promised length is compared with the last packet of any stream.
    """
    read = _frame_reader()
    sound, end_s = container.streams.audio[0], 0.0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == sound.index:
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base:  # packets of some codecs do not say how long they are
                    end_s = max(end_s, float(frame.pts * frame.time_base) + frame.samples / frame.sample_rate)
                yield Native(read(frame), frame.sample_rate)
    if container.format.name.startswith(_EXACT_DURATION):
        _check_complete(end_s, (container.duration or 0) / av.time_base, 1)


def _frame_reader() -> Callable[[av.AudioFrame], Samples]:
    """A function from frames of one stream to their samples, (num_samples, num_channels)."""
    packers: list[av.AudioResampler] = []

    def read(frame: av.AudioFrame) -> Samples:
        num_channels = frame.layout.nb_channels
        if not frame.format.is_planar:
            return _to_float(frame.to_ndarray().reshape(-1, num_channels))
        # PyAV 18 reads the pointers of planes behind the eighth from beyond the end of their array, and crashes.
        if num_channels <= 8:
            return _to_float(frame.to_ndarray().T)
        if num_channels > _MAX_CHANNELS:
            raise RejectedRow(f"undecodable: more than {_MAX_CHANNELS} channels")
        if not packers:
            packers.append(av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate))
        packed = [part.to_ndarray().reshape(-1, num_channels) for part in packers[0].resample(frame)]
        return _to_float(np.concatenate(packed))

    return read


def _to_float(samples: npt.NDArray[np.generic]) -> Samples:
    """Scale integer samples to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
            return samples.astype(np.float32, copy=False)
    full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    centred = samples.astype(np.float32) - (full_scale if samples.dtype.kind == "u" else 0.0)
    return (centred / full_scale).astype(np.float32, copy=False)
