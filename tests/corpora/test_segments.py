"""Segments against the same samples of the whole recording, decoded by other means or cut by the test."""

import io
import tarfile
import time

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audio import encoded_by_ffmpeg

from xlt_ray.corpora import audio, recordings
from xlt_ray.corpora.audio import Place, decode, decode_native, read_recordings
from xlt_ray.errors import RejectedRow, Unreachable

RATE = 22_050
SECONDS = 20.0


def noise(seconds=SECONDS, rate=RATE, num_channels=2, seed=0):
    values = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * rate), num_channels))
    return (values + 0.3 * np.sin(np.arange(len(values)) / 9)[:, None]).astype(np.float32)


def write(path, container, subtype, rate=RATE, **kwargs):
    sf.write(path, noise(rate=rate, **kwargs), rate, format=container, subtype=subtype)
    return path


FORMATS = {
    "a.wav": ("WAV", "PCM_16", RATE),
    "b.wav": ("WAV", "FLOAT", RATE),
    "a.flac": ("FLAC", "PCM_16", RATE),
    "a.mp3": ("MP3", "MPEG_LAYER_III", RATE),
    "mono.mp3": ("MP3", "MPEG_LAYER_III", 16_000),
    "a.ogg": ("OGG", "VORBIS", RATE),
    "a.opus": ("OGG", "OPUS", 48_000),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, (container, subtype, rate) in FORMATS.items():
        write(folder / name, container, subtype, rate, num_channels=1 if name == "mono.mp3" else 2)
    for name, container, codec in [("a.m4a", "ipod", "aac"), ("a.webm", "webm", "libopus"), ("a.g722", "g722", "g722")]:
        rate = 48_000 if name == "a.webm" else 16_000
        data = encoded_by_ffmpeg(noise(rate=rate, num_channels=1)[:, 0], rate, container, codec)
        (folder / name).write_bytes(data)
    return folder


TIMES = [(0.0, 1.0), (0.5, None), (19.5, 0.5), (3.3333, 2.7182), (3.0, 5.0), (12.00001, 0.02), (None, 4.2), (7.0, 3.0)]


@pytest.mark.parametrize("name", [*FORMATS, "a.m4a", "a.webm", "a.g722"])
def test_a_segment_is_what_the_whole_recording_has_there(files, name):
    whole, rate = decode_native((files / name).read_bytes(), name)
    places = [Place(str(files / name), "", start, duration) for start, duration in TIMES]
    for place, found in zip(places, read_recordings(places), strict=True):
        first = round((place.start or 0) * rate)
        end = None if place.duration is None else round(((place.start or 0) + place.duration) * rate)
        assert found.rate == rate
        assert np.array_equal(found.samples, whole[first:end])


@pytest.mark.parametrize("name", ["a.wav", "b.wav", "a.flac", "a.mp3", "mono.mp3", "a.ogg"])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 19.5), st.floats(0.01, 20)), min_size=1, max_size=6))
def test_a_segment_is_the_same_cut_to_a_file_of_its_own(files, name, times):
    """The witness is libsndfile and a float WAV file, which holds the samples as they are."""
    with sf.SoundFile(files / name) as file:
        whole, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    times = [(start, min(duration, len(whole) / rate - start)) for start, duration in times]
    places = [Place(str(files / name), "", start, duration) for start, duration in times]
    for (start, duration), found in zip(times, read_recordings(places), strict=True):
        own = io.BytesIO()
        cut = whole[round(start * rate) : round((start + duration) * rate)]
        sf.write(own, cut, rate, format="WAV", subtype="FLOAT")
        if len(cut):
            assert np.array_equal(decode(found, name), decode(own.getvalue(), "own.wav"))


def test_segments_of_members_and_rows(files, tmp_path):
    contents = {name: (files / name).read_bytes() for name in ("a.wav", "a.mp3")}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in contents:
            archive.add(files / name, name)
    pq.write_table(pa.table({"audio": list(contents.values())}), tmp_path / "a.parquet")
    for container, members in [("a.tar", list(contents)), ("a.parquet", ["0", "1"])]:
        places = [
            Place(str(tmp_path / container), member, *segment)
            for segment in [(5.0, 1.0), (None, None), (2.0, 4.0)]
            for member in members
        ]
        for place, found in zip(places, read_recordings(places), strict=True):
            content = list(contents.values())[members.index(place.member)]
            whole, rate = decode_native(content, "")
            if place.duration is None:
                assert found == content
            else:
                end = round((place.start + place.duration) * rate)
                assert np.array_equal(found.samples, whole[round(place.start * rate) : end])


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.opus"])
def test_a_segment_beyond_the_end_is_rejected(files, name):
    length = (
        len(decode_native((files / name).read_bytes(), name).samples)
        / decode_native((files / name).read_bytes(), name).rate
    )
    times = [(length - 1, 1.49), (length - 1, 1.51), (length - 1, 5.0), (length + 0.001, 0.05), (length + 9, 1), (1, 1)]
    read = list(read_recordings([Place(str(files / name), "", *segment) for segment in times]))
    assert [isinstance(found, RejectedRow) for found in read] == [False, True, True, True, True, False]
    assert {str(found) for found in read[1:5]} == {
        "beyond the end: the segment reaches more than 0.5 s behind the end of its recording"
    }
    assert len(read[0].samples) == pytest.approx(read[0].rate, abs=1)


def test_a_segment_of_what_is_no_sound_or_not_there(files, tmp_path):
    (tmp_path / "text.wav").write_text("no sound" * 100)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "cut.flac").write_bytes((files / "a.flac").read_bytes()[:200_000])
    segments = [Place(str(tmp_path / name), "", 1.0, 1.0) for name in ("text.wav", "empty.wav", "cut.flac")]
    late = Place(str(tmp_path / "cut.flac"), "", 18.0, 1.0)
    read = list(read_recordings([*segments, late]))
    assert [str(found).partition(":")[0] for found in read[:2]] == ["undecodable", "empty"]
    assert np.array_equal(read[2].samples, sf.read(files / "a.flac", dtype="float32")[0][RATE : 2 * RATE])
    assert str(read[3]).startswith("truncated: ")
    with pytest.raises(Unreachable):
        list(read_recordings([Place(str(tmp_path / "nowhere.wav"), "", 1.0, 1.0)]))


def test_one_file_is_open_at_a_time_and_each_once(files, monkeypatch):
    opened, now = [], [0]
    real = recordings.read_segments

    def counted(stream, name, segments):
        opened.append(name)
        now[0] += 1
        assert now[0] == 1
        yield from real(stream, name, segments)
        now[0] -= 1

    monkeypatch.setattr(recordings, "read_segments", counted)
    names = ["a.wav", "a.mp3", "a.opus"] * 5
    places = [Place(str(files / name), "", float(i), 1.0) for i, name in enumerate(names)]
    assert all(not isinstance(found, Exception) for found in read_recordings(places))
    assert len(opened) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("container", "subtype", "suffix"), [("FLAC", "PCM_16", "flac"), ("MP3", "MPEG_LAYER_III", "mp3")]
)
def test_many_segments_take_one_reading_of_their_file(tmp_path, container, subtype, suffix):
    """Ten minutes in 100 segments: decoding from the beginning for each would take 50 readings."""
    path = tmp_path / f"long.{suffix}"
    sf.write(path, noise(600, 16_000, 1), 16_000, format=container, subtype=subtype)
    started = time.perf_counter()
    decode_native(path.read_bytes(), path.name)
    once = time.perf_counter() - started
    places = [Place(str(path), "", 6.0 * i, 5.0) for i in range(100)]
    started = time.perf_counter()
    assert all(len(found.samples) == 80_000 for found in read_recordings(places))
    assert time.perf_counter() - started < 10 * once


def test_the_size_of_a_segment_counts_and_not_that_of_its_file(files, monkeypatch):
    monkeypatch.setattr("xlt_ray.corpora.decoding._MAX_VALUES", 2 * RATE * 3)
    for name in ("a.wav", "a.mp3"):
        short, long = read_recordings(
            [Place(str(files / name), "", 10.0, 2.0), Place(str(files / name), "", 12.0, 4.0)]
        )
        assert len(short.samples) == 2 * RATE
        assert str(long).startswith("too long: ")


def test_av_is_the_witness_of_aac(files):
    """PyAV's own frames, in order."""
    with av.open(str(files / "a.m4a")) as container:
        frames = np.concatenate([frame.to_ndarray().T for frame in container.decode(audio=0)])
    [found] = read_recordings([Place(str(files / "a.m4a"), "", 4.0, 2.0)])
    assert np.array_equal(found.samples, frames[64_000:96_000])
    assert len(audio.decode(found, "a.m4a")) == 32_000


@pytest.mark.parametrize(
    ("start", "duration"), [(1e308, 1.0), (1e308, 1e308), (0.0, 1e308), (float("inf"), None), (0.0, float("nan"))]
)
def test_times_that_no_recording_has(files, start, duration):
    [found] = read_recordings([Place(str(files / "a.wav"), "", start, duration)])
    assert str(found).startswith("beyond the end")
