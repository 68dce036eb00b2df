"""Decode a recording to 16 kHz mono samples.

A recording that cannot be used raises `RejectedRow`. The message starts with the kind of problem and a colon:

    missing         no such row or member, its container cannot be read, or its path cannot be that of a file
    empty           0 bytes
    undecodable     not sound, or a format that neither libsndfile nor FFmpeg reads
    truncated       the data ends or breaks before the length that its header promises; formats without such a promise
                    (G.722, GSM, Ogg, AAC and MP3 streams) can be cut without a trace
    beyond the end  a segment that ends more than 0.5 s after the end of its recording
    no samples      a header without audio after it
    not finite      NaN or infinite samples
    out of range    floating-point samples that were never scaled to [-1, 1]
    silent          nothing louder than the noise of an idle codec
    too long        more than fits in memory
    crashes         the decoder crashes on it, even in a fresh process
    slow            decoding takes more than a minute of CPU time

The last two come from `guarded`, which decodes in another process. The messages are constant, so that
`rejected.parquet` can be grouped by them. A file that does not exist or cannot be read from here raises `Unreachable`,
because that is not a property of the recording.
"""

from __future__ import annotations

import numpy as np
import soxr

from xlt_ray.corpora.decoding import NO_SAMPLES, Native, Samples, check_size
from xlt_ray.corpora.decoding import decode_native as decode_native
from xlt_ray.corpora.recordings import Place as Place
from xlt_ray.corpora.recordings import Recording as Recording
from xlt_ray.corpora.recordings import places_of as places_of
from xlt_ray.corpora.recordings import read_recordings as read_recordings
from xlt_ray.corpora.recordings import try_recordings as try_recordings
from xlt_ray.errors import RejectedRow

SAMPLE_RATE = 16_000
"""Sample rate of Whisper's input, in Hz."""

MAX_SAMPLES = 30 * SAMPLE_RATE
"""Longest recording that enters the encoder: Whisper's window of 30 s."""

_SILENT_PEAK = 5e-4
"""-66 dBFS. Measured on the Asterisk prompts: recorded silence peaks at 4.3e-4 or less, the softest speech at 0.1."""

_MIN_RATE, _MAX_RATE = 100, 1_000_000
"""A header with a lower or higher rate is damaged, and resampling from it would take seconds."""

_MAX_PEAK = 8.0
"""Resampling and lossy codecs overshoot 1.0 by a few percent; int16 values stored as floats are in the thousands."""

_CANCELLED = 0.1
"""The average of n uncorrelated channels keeps 1/n of their mean power. A tenth of that (for two channels of the same
level, a correlation below -0.9) means that one of them has the same signal with the opposite sign."""


def decode(recording: bytes | Native, name: str) -> Samples:
    """Samples of one recording as Whisper's input.

    Args:
        recording: the content of a sound file, or its samples as recorded.
        name: its name; only the suffix is used, and only for formats without a header (`.g722`, `.gsm`).

    Returns:
        float32 of shape (num_samples,), at least one, mono, 16 kHz, in [-1, 1].

    Raises:
        RejectedRow: if the recording cannot be used; the docstring of this module lists the kinds.
    """
    return to_speech(*(recording if isinstance(recording, Native) else decode_native(recording, name)))


def to_speech(native: Samples, rate: int) -> Samples:
    """Average the channels, resample to 16 kHz, and refuse audio that cannot be speech.

    Channels are averaged first, so that only one channel is resampled; averaging is linear. If the channels cancel one
    another (a balanced cable in a stereo input), the loudest is used instead.

    Args:
        native: shape (num_samples, num_channels).
        rate: samples per second.

    Returns:
        shape (num_samples,), in [-1, 1].

    Raises:
        RejectedRow: undecodable, no samples, not finite, out of range, silent or too long.
    """
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise RejectedRow(f"undecodable: its rate is not between {_MIN_RATE} and {_MAX_RATE} samples a second")
    check_size(len(native) * SAMPLE_RATE / rate)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        mono = _mix(native)
    _check_peak(mono)
    pcm: Samples = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    if _check_peak(pcm) < _SILENT_PEAK:
        raise RejectedRow("silent: nothing above -66 dBFS")
    return np.clip(pcm, -1.0, 1.0)


def _mix(native: Samples) -> Samples:
    num_channels = native.shape[1]
    if num_channels == 1:
        return native[:, 0]
    # A product with a vector takes 0.05 ms for 5 s of 48 kHz stereo, `mean(axis=1)` 3.5 ms.
    average: Samples = native @ np.full(num_channels, 1 / num_channels, np.float32)
    powers = np.einsum("tc,tc->c", native, native)
    if average @ average < _CANCELLED / num_channels * powers.mean():
        return np.ascontiguousarray(native[:, powers.argmax()])
    return average


def _check_peak(mono: Samples) -> float:
    if not mono.size:
        raise RejectedRow(NO_SAMPLES)
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak):
        raise RejectedRow("not finite: NaN or infinite samples")
    if peak > _MAX_PEAK:
        raise RejectedRow("out of range: samples not scaled to [-1, 1]")
    return peak


def split_long(pcm: Samples, max_samples: int = MAX_SAMPLES) -> list[Samples]:
    """Cut a recording at its quietest points, so that each piece fits the encoder.

    A cut is before the quietest 20 ms among the last 5 s (at most the last half) before the limit, and a whole number
    of encoder frames from the start, so that no frame spans two pieces.

    Args:
        pcm: shape (num_samples,).
        max_samples: longest piece, at least 1.

    Returns:
        Views of `pcm` with 1 to max_samples samples each; joined they are `pcm`. One piece if it is short enough.
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
