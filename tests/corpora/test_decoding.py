"""Containers that are not as long as their sound, and recordings with more channels than FFmpeg's frames name."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from xlt_ray.corpora.audio import decode
from xlt_ray.corpora.decoding import decode_native
from xlt_ray.errors import RejectedRow

RATE = 48_000
SECONDS = 4.0


def tone():
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * RATE)) / RATE)).astype(np.float32)


def packets(output, codec):
    """The tone, encoded, with the time of each packet."""
    stream = output.add_stream(codec, rate=RATE, layout="mono")
    frame = av.AudioFrame.from_ndarray((tone() * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    resampler = av.AudioResampler(stream.format, "mono", RATE, stream.frame_size or 0)
    for part in [*resampler.resample(frame), *resampler.resample(None), None]:
        yield from stream.encode(part)


def pictures(output, codec, seconds):
    stream = output.add_stream(codec, rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for i in range(round(seconds * 10)):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 10)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def later(packet, seconds):
    shift = round(Fraction(seconds) / packet.time_base)
    packet.pts += shift
    packet.dts += shift
    return packet


def recorded(container, codec, *, late=0.0, pause=0.0, video=""):
    """A recording whose sound starts late, pauses after one second, or stands beside seven seconds of pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        sound = list(packets(output, codec))
        sound = [later(packet, late + (pause if packet.pts * packet.time_base > 1 else 0)) for packet in sound]
        picture = list(pictures(output, video, 7.0)) if video else []
        for packet in sorted([*sound, *picture], key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return file.getvalue()


LONGER = {
    "plain.webm": lambda: recorded("webm", "libopus"),
    "late.webm": lambda: recorded("webm", "libopus", late=1.5),
    "paused.webm": lambda: recorded("webm", "libopus", pause=1.5),
    "video.webm": lambda: recorded("webm", "libopus", video="libvpx"),
    "late.m4a": lambda: recorded("ipod", "aac", late=1.5),
    "paused.m4a": lambda: recorded("ipod", "aac", pause=1.5),
    "video.mp4": lambda: recorded("mp4", "aac", video="libx264"),
}


@pytest.mark.parametrize("name", LONGER)
def test_a_container_may_last_longer_than_its_sound(name):
    data = LONGER[name]()
    samples, rate = decode_native(data, name)
    assert rate == RATE
    assert 0 <= len(samples) - len(tone()) < 3000
    assert np.abs(np.fft.rfft(samples[:RATE, 0])).argmax() == 440


@pytest.mark.parametrize("name", [name for name in LONGER if "." in name and not name.endswith(".mp4")])
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_and_is_still_rejected_where_it_is_cut(name, part):
    data = LONGER[name]()
    with pytest.raises(RejectedRow, match=r"^(truncated|undecodable): "):
        decode(data[: round(len(data) * part)], name)


def many_channels(container, codec, num_channels, options):
    """Noise, another in each channel."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(RATE * 2, num_channels))
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, layout=f"{num_channels}c", options=options)
        pcm = (noise * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout=f"{num_channels}c")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return noise, file.getvalue()


def test_ten_channels_of_opus_do_not_end_the_process():
    noise, data = many_channels("webm", "libopus", 10, {"mapping_family": "255"})
    samples, _ = decode_native(data, "a.webm")
    assert samples.shape[1] == 10
    correlations = [[np.corrcoef(samples[:90_000, i], noise[:90_000, j])[0, 1] for j in range(10)] for i in range(10)]
    assert np.diag(correlations).min() > 0.6
    assert np.abs(correlations - np.diag(np.diag(correlations))).max() < 0.05
    assert len(decode(data, "a.webm")) == round(len(samples) / 3)


def test_twelve_channels_of_wavpack_are_read():
    noise, data = many_channels("wv", "wavpack", 12, {})
    samples, _ = decode_native(data, "a.wv")
    assert samples.shape == noise.shape
    assert np.abs(samples - noise).max() < 2**-6
    with pytest.raises(RejectedRow, match=r"^truncated: "):
        decode(data[: len(data) // 2], "a.wv")
