"""Decoding against closed-form tones and scipy; containers against bytes that the test put there."""

import io
import itertools
import pickle
import struct
import tarfile
import tempfile
import types
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import scipy.signal
import soundfile as sf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xlt_ray.corpora import audio, decoding, recordings
from xlt_ray.corpora.audio import MAX_SAMPLES, SAMPLE_RATE, Place, decode, decode_native, read_recordings, split_long
from xlt_ray.errors import RejectedRow, Unreachable
from xlt_ray.store import storage


def tone(seconds=1.0, rate=SAMPLE_RATE, hz=440.0, amplitude=0.5):
    """A sine in closed form, float32."""
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def speech(seconds=2.0, rate=SAMPLE_RATE):
    """A sine under noise: unlike a pure tone it does not compress to almost nothing."""
    noise = np.random.default_rng(0).normal(scale=0.05, size=round(seconds * rate))
    return (tone(seconds, rate) + noise).astype(np.float32)


def encoded(pcm, rate=SAMPLE_RATE, container="WAV", subtype="PCM_16"):
    buffer = io.BytesIO()
    sf.write(buffer, pcm, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def encoded_by_ffmpeg(pcm, rate, container, codec, options=None):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        _write_by_ffmpeg(path, pcm, rate, container, codec, options or {})
        return path.read_bytes()


def _write_by_ffmpeg(path, pcm, rate, container, codec, options):
    with av.open(str(path), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((pcm * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(piece))


FILES = {
    "a.wav": lambda pcm: encoded(pcm),
    "a.flac": lambda pcm: encoded(pcm, container="FLAC"),
    "a.ogg": lambda pcm: encoded(pcm, container="OGG", subtype="VORBIS"),
    "a.opus": lambda pcm: encoded(pcm, container="OGG", subtype="OPUS"),
    "a.mp3": lambda pcm: encoded(pcm, container="MP3", subtype="MPEG_LAYER_III"),
    "a.m4a": lambda pcm: encoded_by_ffmpeg(pcm, SAMPLE_RATE, "ipod", "aac", {"movflags": "faststart"}),
    "a.aac": lambda pcm: encoded_by_ffmpeg(pcm, SAMPLE_RATE, "adts", "aac"),
    "a.webm": lambda pcm: encoded_by_ffmpeg(pcm, 16_000, "webm", "libopus"),
    "a.g722": lambda pcm: encoded_by_ffmpeg(pcm, SAMPLE_RATE, "g722", "g722"),
}
SPEECH_FILES = {name: encode(speech()) for name, encode in FILES.items()}
HEADER_KNOWS_LENGTH = sorted(SPEECH_FILES.keys() - {"a.g722", "a.aac"})


def tone_error(pcm, hz=440.0, amplitude=0.5):
    """Largest deviation of the middle half from the best-fitting sine; codecs may shift the phase, not the tone."""
    middle = pcm[len(pcm) // 4 : 3 * len(pcm) // 4]
    angles = 2 * np.pi * hz * np.arange(len(middle)) / SAMPLE_RATE
    basis = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    weights = np.linalg.lstsq(basis, middle, rcond=None)[0]
    return max(np.abs(middle - basis @ weights).max(), abs(np.hypot(*weights) - amplitude))


@pytest.mark.parametrize(
    ("subtype", "error"), [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0), ("DOUBLE", 0)]
)
def test_wav_at_16_khz_is_read_to_the_last_bit_of_its_format(subtype, error):
    decoded = decode(encoded(tone(), subtype=subtype), "a.wav")
    assert decoded.dtype == np.float32
    assert decoded.shape == (SAMPLE_RATE,)
    assert np.abs(decoded - tone()).max() <= error


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_back_the_tone(name):
    decoded = decode(FILES[name](tone(2.0)), name)
    assert decoded.dtype == np.float32
    assert 0 <= len(decoded) - 2 * SAMPLE_RATE < 2048  # AAC pads to frames of 1024, with one in front
    assert tone_error(decoded) < 0.03


def test_gsm_without_header_is_known_by_its_suffix():
    decoded = decode(encoded(tone(2.0, rate=8000), 8000, "RAW", "GSM610"), "clips/A.GSM")
    assert abs(len(decoded) - 2 * SAMPLE_RATE) <= 320
    assert tone_error(decoded) < 0.1


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_agrees_with_scipy_and_the_closed_form(rate):
    data = encoded(tone(1.0, rate), rate, subtype="FLOAT")
    decoded = decode(data, "a.wav")
    divisor = np.gcd(rate, SAMPLE_RATE)
    witness = scipy.signal.resample_poly(tone(1.0, rate), SAMPLE_RATE // divisor, rate // divisor)
    middle = slice(2000, 14_000)  # filters differ at the edges
    assert decoded.shape == (SAMPLE_RATE,)
    assert np.abs(decoded - witness)[middle].max() < 5e-3
    assert np.abs(decoded - tone())[middle].max() < 1e-4


def test_what_16_khz_cannot_hold_is_filtered_out_and_not_folded_back():
    mixed = tone(1.0, 48_000) + tone(1.0, 48_000, hz=11_000.0)  # would fold to 5 kHz
    decoded = decode(encoded(mixed / 2, 48_000, subtype="FLOAT"), "a.wav")
    assert tone_error(decoded, amplitude=0.25) < 1e-4


def test_channels_are_averaged():
    left, right, centre = tone(), tone(hz=700.0), tone(hz=1000.0)
    stereo = decode(encoded(np.stack([left, right], axis=1), subtype="FLOAT"), "a.wav")
    assert np.array_equal(stereo, (left + right) / 2)
    three = decode(encoded(np.stack([left, right, centre], axis=1), subtype="FLOAT"), "a.wav")
    assert np.abs(three - (left + right + centre) / 3).max() < 1e-6
    assert decode_native(encoded(np.stack([left, right], axis=1), 8000), "a.wav")[0].shape == (SAMPLE_RATE, 2)


@pytest.mark.parametrize("gain", [-1.0, -0.98, -0.7])
def test_channels_that_cancel_are_not_averaged(gain):
    """A balanced cable in a stereo input: the average is silence, or next to it."""
    one = speech()
    decoded = decode(encoded(np.stack([one * gain, one], axis=1), subtype="FLOAT"), "a.wav")
    assert np.array_equal(np.abs(decoded), np.abs(one))


@pytest.mark.parametrize(("right", "loudest"), [(0.0, 0.5), (-0.3, 0.35)])
def test_a_dead_or_weak_channel_is_averaged(right, loudest):
    one = speech()
    decoded = decode(encoded(np.stack([one, one * right], axis=1), subtype="FLOAT"), "a.wav")
    assert np.abs(decoded - loudest * one).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_unrelated_channels_are_averaged(num_channels, seed):
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(4000, num_channels)).astype(np.float32)
    assert np.abs(audio.to_speech(noise, SAMPLE_RATE) - noise.mean(axis=1)).max() < 1e-6


def test_ffmpeg_keeps_channels_apart_and_integers_scaled(monkeypatch):
    both = np.stack([tone(), tone(hz=700.0)], axis=1)

    def unavailable(_data):
        raise sf.SoundFileError("not this time")

    monkeypatch.setattr(decoding, "_decode_libsndfile", unavailable)
    for subtype, error in [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0), ("DOUBLE", 0)]:
        native, rate = decode_native(encoded(both, 22_050, subtype=subtype), "a.wav")
        assert rate == 22_050
        assert native.shape == both.shape
        assert np.abs(native - both).max() <= error


def test_suffixes_may_be_in_capitals():
    assert np.array_equal(decode(SPEECH_FILES["a.g722"], "A.G722"), decode(SPEECH_FILES["a.g722"], "a.g722"))


def test_a_stream_that_changes_its_rate_is_rejected():
    fast = encoded_by_ffmpeg(speech(1.0, 32_000), 32_000, "adts", "aac")
    with pytest.raises(RejectedRow, match=r"^undecodable: the rate"):
        decode(SPEECH_FILES["a.aac"] + fast, "a.aac")


def test_broken_tags_do_not_matter():
    tagged = SPEECH_FILES["a.m4a"].replace(b"Lavf", b"\xff\xfe\xff\xfe")
    assert tagged != SPEECH_FILES["a.m4a"]
    assert np.array_equal(decode(tagged, "a.m4a"), decode(SPEECH_FILES["a.m4a"], "a.m4a"))


def test_overshoot_is_clipped():
    decoded = decode(encoded(tone(amplitude=1.4), subtype="FLOAT"), "a.wav")
    assert np.array_equal(decoded, np.clip(tone(amplitude=1.4), -1, 1))


def with_sample(value):
    pcm = tone()
    pcm[100] = value
    return encoded(pcm, subtype="FLOAT")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2000), "undecodable"),
        ("这里没有声音。\n".encode() * 50, "undecodable"),
        (encoded(np.zeros(0, np.float32)), "no samples"),
        (with_sample(np.nan), "not finite"),
        (with_sample(-np.inf), "not finite"),
        (encoded(np.full(800, 1e300), subtype="DOUBLE"), "not finite"),
        (encoded(tone() * 32768, subtype="FLOAT"), "out of range"),
        (encoded(np.zeros(SAMPLE_RATE, np.float32)), "silent"),
        (encoded(tone(amplitude=4e-4), subtype="FLOAT"), "silent"),
        (encoded(tone(1.0, 48_000, hz=20_000.0) * np.hanning(48_000), 48_000), "silent"),
    ],
)
def test_unusable_recordings_are_rejected_by_kind(data, kind):
    with pytest.raises(RejectedRow, match=f"^{kind}: "):
        decode(data, "a.wav")


def test_a_recording_cannot_name_another_file_to_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.wav").write_bytes(SPEECH_FILES["a.wav"])
    playlist = b"ffconcat version 1.0\nfile other.wav\n"
    with av.open(io.BytesIO(playlist)) as container:  # FFmpeg left to itself does read it
        assert sum(frame.samples for frame in container.decode(audio=0)) == 2 * SAMPLE_RATE
    with pytest.raises(RejectedRow, match=r"^undecodable: "):
        decode(playlist, "a.wav")


def test_soft_speech_is_no_silence():
    assert len(decode(encoded(tone(amplitude=1e-3)), "a.wav")) == SAMPLE_RATE


def test_a_recording_that_would_fill_the_memory_is_rejected(monkeypatch):
    endless = bytearray(SPEECH_FILES["a.flac"])
    endless[21:26] = b"\xff" * 5  # promises 2 ** 36 - 1 samples: 256 GiB
    with pytest.raises(RejectedRow, match=r"^too long: "):
        decode_native(bytes(endless), "a.flac")
    monkeypatch.setattr(decoding, "_MAX_VALUES", 2 * SAMPLE_RATE - 1)
    for name in ("a.webm", "a.g722"):
        with pytest.raises(RejectedRow, match=r"^too long: "):
            decode_native(SPEECH_FILES[name], name)
    slow = encoded(tone(1.0, 1000, hz=10.0), 1000)  # 1000 samples, that become 16,000
    monkeypatch.setattr(decoding, "_MAX_VALUES", SAMPLE_RATE - 1)
    with pytest.raises(RejectedRow, match=r"^too long: "):
        decode(slow, "a.wav")


@pytest.mark.parametrize("name", HEADER_KNOWS_LENGTH)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_files_are_rejected(name, part):
    with pytest.raises(RejectedRow, match=r"^truncated: "):
        decode(SPEECH_FILES[name][: int(len(SPEECH_FILES[name]) * part)], name)


@pytest.mark.parametrize("container", ["AIFF", "AU"])
def test_other_cut_pcm_files_are_rejected(container):
    data = encoded(speech(), container=container)
    assert len(decode(data, "a")) == 2 * SAMPLE_RATE
    with pytest.raises(RejectedRow, match=r"^truncated: "):
        decode(data[: len(data) // 2], "a")


def test_flac_cut_between_frames_is_rejected():
    data = SPEECH_FILES["a.flac"]
    starts = [i for i in range(100, len(data)) if data[i : i + 2] == b"\xff\xf8"]
    assert len(starts) >= 5
    for start in starts:
        with pytest.raises(RejectedRow, match=r"^(truncated|no samples): "):
            decode(data[:start], "a.flac")


@pytest.mark.parametrize("name", ["a.m4a", "a.webm"])
def test_files_cut_between_packets_are_rejected(name):
    data = SPEECH_FILES[name]
    with av.open(io.BytesIO(data)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(audio=0) if packet.pos]
    for end in ends[2:-4:5]:
        with pytest.raises(RejectedRow, match=r"^truncated: "):
            decode(data[:end], name)


def pages(data):
    starts = [i for i in range(len(data)) if data.startswith(b"OggS", i)]
    return [data[start:end] for start, end in itertools.pairwise([*starts, len(data)])]


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_ogg_that_stops_inside_a_packet_is_rejected(name):
    *before, last = pages(SPEECH_FILES[name])
    sizes = bytes([*last[27 : 27 + last[26]][:-1], 255])  # the last packet goes on where nothing follows
    open_end = last[:27] + sizes + last[27 + len(sizes) :] + bytes(255 - last[26 + len(sizes)])
    for end in (open_end, last[:-1], last[:20], last[:27]):
        with pytest.raises(RejectedRow, match=r"^truncated: "):
            decode(b"".join([*before, end]), name)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_ogg_without_the_mark_of_its_end_is_whole(name):
    """As phones and live streams write it: flag 4 of the last page is not set, and its checksum is right."""
    *before, last = pages(SPEECH_FILES[name])
    unmarked = bytearray(last)
    unmarked[5] &= ~4
    unmarked[22:26] = bytes(4)
    unmarked[22:26] = ogg_checksum(unmarked).to_bytes(4, "little")
    decoded = decode(b"".join([*before, bytes(unmarked)]), name)
    whole = decode(SPEECH_FILES[name], name)
    # Without the mark the last page does not say how much of its last block is padding.
    assert 0 <= len(decoded) - len(whole) < 1024
    assert np.corrcoef(decoded[: len(whole)], whole)[0, 1] > 0.99


def ogg_checksum(page):
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def test_a_header_that_counts_itself_as_data_is_no_truncation():
    data = bytearray(SPEECH_FILES["a.wav"])
    data[40:44] = struct.pack("<I", len(data))
    assert len(decode(bytes(data), "a.wav")) == 2 * SAMPLE_RATE


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000])
def test_wav_from_a_pipe_has_no_length_and_is_read_whole(size):
    data = bytearray(SPEECH_FILES["a.wav"])
    data[4:8] = data[40:44] = struct.pack("<I", size)
    assert np.array_equal(decode(bytes(data), "a.wav"), decode(SPEECH_FILES["a.wav"], "a.wav"))


def test_flac_from_a_pipe_has_no_length_and_is_read_whole():
    data = bytearray(SPEECH_FILES["a.flac"])
    data[21] &= 0xF0  # the 36 bits of the number of samples in STREAMINFO
    data[22:26] = bytes(4)
    assert np.array_equal(decode(bytes(data), "a.flac"), decode(SPEECH_FILES["a.flac"], "a.flac"))


def decodes_or_is_rejected(data, name):
    rejected = ""
    try:
        decoded = decode(data, name)
    except RejectedRow as reason:
        rejected = str(reason)
    if rejected:
        assert f"    {rejected.partition(':')[0]}  " in audio.__doc__
        return
    assert decoded.dtype == np.float32
    assert decoded.ndim == 1
    assert decoded.size > 0
    assert np.abs(decoded).max() <= 1  # and so finite


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=600),
    st.sampled_from([b"", *(data[:64] for data in SPEECH_FILES.values())]),
    st.sampled_from(sorted(FILES)),
)
def test_random_bytes_decode_or_are_rejected(data, header, name):
    decodes_or_is_rejected(header + data, name)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(SPEECH_FILES)),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.booleans(),
)
@example("a.wav", 1.0, [(24 / 64044, 1), (25 / 64044, 0)], False)
def test_damaged_files_decode_or_are_rejected(name, keep, changes, in_header):
    data = bytearray(SPEECH_FILES[name][: round(len(SPEECH_FILES[name]) * keep)])
    reach = min(len(data), 128) if in_header else len(data)
    for place, value in changes if data else []:
        data[int(place * reach)] = value
    decodes_or_is_rejected(bytes(data), name)


def test_plain_files_come_in_the_order_asked_for(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "empty").touch()
    names = ["c", "empty", "a", "b", "a"]
    read = list(read_recordings([Place(str(tmp_path / name)) for name in names]))
    assert [read[i] for i in (0, 2, 3, 4)] == [b"c", b"a", b"b", b"a"]
    assert isinstance(read[1], RejectedRow)
    assert str(read[1]).startswith("empty: ")


def test_a_folder_is_not_a_recording(tmp_path):
    [read] = read_recordings([Place(str(tmp_path))])
    assert str(read).startswith("missing: ")


def write_parquet(path, column, row_group_size=4):
    table = pa.table({"id": range(len(column)), "audio": column, "other": ["x" * 1000] * len(column)})
    pq.write_table(table, path, row_group_size=row_group_size)


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_rows(tmp_path, as_struct):
    sounds = [bytes([i]) * (i + 1) for i in range(10)] + [b"", None]
    column = (
        [{"bytes": sound, "path": sound and "x.wav"} for sound in sounds]
        if as_struct
        else pa.array(sounds, pa.binary())
    )
    path = str(tmp_path / "a.parquet")
    write_parquet(path, column)
    members = ["9", "0", "3", "4", "0", "12", "-1", "x", "10", "11"]
    read = list(read_recordings([Place(path, member) for member in members]))
    assert read[:5] == [sounds[9], sounds[0], sounds[3], sounds[4], sounds[0]]
    assert [str(value).partition(":")[0] for value in read[5:]] == ["missing"] * 3 + ["empty"] * 2


def test_parquet_is_opened_once_and_only_the_needed_part_of_it_is_read(tmp_path, monkeypatch):
    path = str(tmp_path / "a.parquet")
    write_parquet(path, [{"bytes": bytes([i]) * 10, "path": "x.wav"} for i in range(40)])
    opened, asked = [], []

    class Recorded(pq.ParquetFile):
        def __init__(self, *args, **kwargs):
            opened.append(args)
            super().__init__(*args, **kwargs)

        def read_row_group(self, i, columns):
            asked.append((i, columns))
            return super().read_row_group(i, columns=columns)

    monkeypatch.setattr(recordings.pq, "ParquetFile", Recorded)
    read = list(read_recordings([Place(path, str(row)) for row in (8, 9, 10, 20, 21)]))
    assert [sound[0] for sound in read] == [8, 9, 10, 20, 21]
    assert len(opened) == 1
    assert asked == [(2, ["audio"]), (5, ["audio"])]


def test_parquet_without_sound_or_damaged_is_missing(tmp_path):
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense PAR1")
    write_parquet(tmp_path / "whole.parquet", [{"bytes": speech().tobytes(), "path": ""}] * 3)
    damaged = bytearray((tmp_path / "whole.parquet").read_bytes())
    damaged[4 : len(damaged) // 2] = b"\xff" * (len(damaged) // 2 - 4)
    (tmp_path / "c.parquet").write_bytes(damaged)
    for name in ("a", "b", "c"):
        [read] = read_recordings([Place(str(tmp_path / f"{name}.parquet"), "0")])
        assert str(read).startswith("missing: ")


def write_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(("suffix", "mode"), [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar", "w")])
def test_tar_members(tmp_path, suffix, mode):
    path = str(tmp_path / f"a.{suffix}")
    write_tar(path, {"test/1.wav": b"one", "./test/2.wav": b"two", "test/3.wav": b"", "test/4.wav": b"four"}, mode)
    members = ["test/4.wav", "test/1.wav", "test/5.wav", "test/2.wav", "test/3.wav", "test/1.wav"]
    read = list(read_recordings([Place(path, member) for member in members]))
    assert [read[i] for i in (0, 1, 3, 5)] == [b"four", b"one", b"two", b"one"]
    assert str(read[2]).startswith("missing: ")
    assert str(read[4]).startswith("empty: ")


def test_members_may_be_named_as_tar_lists_them(tmp_path):
    path = str(tmp_path / "a.tar")
    write_tar(path, {"./1.wav": b"one", "2.wav": b"two"}, "w")
    places = [Place(path, member) for member in ("./1.wav", "./2.wav", "1.wav")]
    assert list(read_recordings(places)) == [b"one", b"two", b"one"]


def test_tar_is_read_in_one_pass_and_no_further_than_needed(tmp_path, monkeypatch):
    path = str(tmp_path / "a.tar.gz")
    write_tar(path, {f"{i}.wav": bytes([i]) for i in range(50)})
    passes, seen = [], []
    real_open, real_next = tarfile.open, tarfile.TarFile.next
    monkeypatch.setattr(recordings.tarfile, "open", lambda **kwargs: passes.append(1) or real_open(**kwargs))
    monkeypatch.setattr(tarfile.TarFile, "next", lambda self: seen.append(1) or real_next(self))
    read = list(read_recordings([Place(path, f"{i}.wav") for i in (7, 3, 9, 5)]))
    assert read == [bytes([7]), bytes([3]), bytes([9]), bytes([5])]
    assert len(passes) == 1
    assert len(seen) <= 12


def test_a_cut_archive_gives_what_is_before_the_cut(tmp_path):
    path = tmp_path / "a.tar.gz"
    noise = np.random.default_rng(0).bytes(100_000)
    write_tar(path, {"1.wav": noise, "2.wav": noise, "3.wav": noise})
    path.write_bytes(path.read_bytes()[:150_000])
    for order in ([1, 2, 3], [3, 2, 1], [2, 1, 3]):
        read = dict(zip(order, read_recordings([Place(str(path), f"{i}.wav") for i in order]), strict=True))
        assert read[1] == noise
        assert str(read[2]).startswith("missing: ")
        assert str(read[3]).startswith("missing: ")


@pytest.mark.parametrize("place", [0, 300, 100_000])
def test_a_damaged_archive_is_no_crash(tmp_path, place):
    noise = np.random.default_rng(0).bytes(100_000)
    write_tar(tmp_path / "a.tar.gz", {"1.wav": noise, "2.wav": noise})
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    content[place : place + 300] = bytes(300)
    (tmp_path / "a.tar.gz").write_bytes(content)
    [read] = read_recordings([Place(str(tmp_path / "a.tar.gz"), "2.wav")])
    assert isinstance(read, bytes) or str(read).startswith("missing: ")


def test_an_archive_that_breaks_off_in_its_first_bytes_is_no_fault(tmp_path):
    for header in (b"", b"\x1f", b"\x1f\x8b\x08\x04" + bytes(6), b"\x1f\x8b\x08\x08" + bytes(6) + b"name"):
        (tmp_path / "a.tar.gz").write_bytes(header)
        [read] = read_recordings([Place(str(tmp_path / "a.tar.gz"), "1.wav")])
        assert str(read).startswith("missing: ")


def test_containers_may_alternate(tmp_path):
    write_tar(tmp_path / "a.tar", {"1": b"a1", "2": b"a2"}, "w")
    write_parquet(tmp_path / "b.parquet", pa.array([b"b0", b"b1"], pa.binary()))
    (tmp_path / "c").write_bytes(b"c")
    a, b, c = (str(tmp_path / name) for name in ("a.tar", "b.parquet", "c"))
    read = list(read_recordings([Place(a, "2"), Place(b, "1"), Place(c), Place(b, "0"), Place(a, "1")]))
    assert read == [b"a2", b"b1", b"c", b"b0", b"a1"]


def test_object_stores_are_read_like_folders(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar.gz", {"1": b"a1"})
    write_parquet(tmp_path / "b.parquet", pa.array([b"b0"], pa.binary()))
    (tmp_path / "c.wav").write_bytes(b"c")
    bucket = pafs.SubTreeFileSystem(str(tmp_path.parent), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda _scheme, _authority: bucket)
    root = f"s3://{tmp_path.name}"
    locators = [("a.tar.gz", "1"), ("b.parquet", "0"), ("c.wav", "")]
    read = list(read_recordings([Place(f"{root}/{name}", member) for name, member in locators]))
    assert read == [b"a1", b"b0", b"c"]
    with pytest.raises(Unreachable, match=r"nowhere\.wav"):
        list(read_recordings([Place(f"{root}/nowhere.wav")]))


@pytest.mark.parametrize("name", ["a.wav", "a.parquet", "a.tar"])
@pytest.mark.parametrize("member", ["", "0"])
def test_trouble_of_the_machine_is_no_fault_of_the_recording(tmp_path, monkeypatch, name, member):
    with pytest.raises(Unreachable) as error:
        list(read_recordings([Place(str(tmp_path / name), member)]))
    assert error.value.path == str(tmp_path / name)
    assert error.value.reason == "No such file or directory"
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)

    def fails(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / name).write_bytes(SPEECH_FILES["a.wav"])
    no_access = types.SimpleNamespace(open_input_stream=fails, open_input_file=fails)
    monkeypatch.setattr(storage, "locate", lambda path: (no_access, path))
    for segment in ((None, None), (0.5, 1.0)):
        with pytest.raises(Unreachable, match="Permission denied"):
            list(read_recordings([Place(str(tmp_path / name), member, *segment)]))


def test_long_recordings_are_cut_in_their_pauses():
    pcm = speech(70.0)
    pauses = [27.3, 29.1, 55.7]  # the second is the louder one of the first two
    for second, level in zip(pauses, [0.0, 0.05, 0.0], strict=True):
        pcm[round(second * SAMPLE_RATE) : round((second + 0.2) * SAMPLE_RATE)] *= level
    pieces = split_long(pcm)
    ends = np.cumsum([len(piece) for piece in pieces]) / SAMPLE_RATE
    assert len(pieces) == 3
    assert 27.3 < ends[0] < 27.5
    assert 55.7 < ends[1] < 55.9
    assert np.array_equal(np.concatenate(pieces), pcm)


def test_short_recordings_stay_whole():
    pcm = speech(30.0)
    assert len(pcm) == MAX_SAMPLES
    [piece] = split_long(pcm)
    assert piece is pcm


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_pieces_are_short_enough_and_join_to_the_whole(num_samples, max_samples, seed):
    pcm = np.random.default_rng(seed).normal(size=num_samples).astype(np.float32)
    pieces = split_long(pcm, max_samples)
    assert np.array_equal(np.concatenate(pieces), pcm)
    assert all(1 <= len(piece) <= max_samples for piece in pieces) or num_samples == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(700, 9000), st.integers(0, 2**32 - 1))
def test_a_cut_is_the_quietest_window_there_is(max_samples, seed):
    pcm = np.random.default_rng(seed).normal(size=max_samples + 1).astype(np.float32)
    first = split_long(pcm, max_samples)[0]
    ends = range(max_samples, max_samples - max_samples // 2 + 319, -320)
    energies = {end - 320: float(np.sum(pcm[end - 320 : end].astype(np.float64) ** 2)) for end in ends}
    assert len(first) == min(energies, key=energies.get)


def test_no_encoder_frame_spans_two_pieces():
    pieces = split_long(np.random.default_rng(0).normal(size=100 * SAMPLE_RATE).astype(np.float32))
    assert len(pieces) >= 4
    assert all(len(piece) % 320 == 0 for piece in pieces[:-1])


def test_a_piece_has_at_least_one_sample():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        split_long(tone(), 0)


@pytest.mark.parametrize("path", ["/" + 300 * "x" + ".wav", "/etc/hostname/x.wav", "/etc"])
def test_a_path_that_cannot_be_is_the_fault_of_its_row(path):
    (recording,) = read_recordings([Place(path)])
    assert str(recording).startswith("missing")
