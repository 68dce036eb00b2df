"""Files that promise too much, that name others, and that are damaged anywhere: sound or a rejected row, soon."""

import contextlib
import gzip
import http.server
import io
import os
import struct
import tarfile
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audio import SPEECH_FILES, encoded, encoded_by_ffmpeg, ogg_checksum, pages, speech
from test_decoding import many_channels

from xlt_ray.corpora import audio, decoder, guarded
from xlt_ray.corpora.audio import Place
from xlt_ray.corpora.guarded import sounds

SHORT = speech(0.3)
HOUR_OF_SILENCE = 2**27 + 2**20


def kinds(*places):
    return [str(sound.problem).partition(":")[0] if sound.problem else None for sound in sounds(places)]


def with_rate(data, rate):
    return data[:24] + struct.pack("<I", rate) + data[28:]


def rf64(num_bytes):
    """A WAV for large files, whose header promises so many bytes of 16-bit samples."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, num_bytes + 80, num_bytes, num_bytes // 2, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + form + b"data\xff\xff\xff\xff" + bytes(range(256)) * 40


def bomb():
    """FLAC of silence that does not say how long it is; 1 MB unfolds to 0.5 GiB."""
    file = io.BytesIO()
    with sf.SoundFile(file, "w", 48_000, 1, format="FLAC", subtype="PCM_16") as sound:
        block = np.zeros(2**20, np.int16)
        for _ in range(HOUR_OF_SILENCE // len(block)):
            sound.write(block)
    data = bytearray(file.getvalue())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


ABSURD = {
    "2 ** 40 samples": (lambda: rf64(2**41), {None}),  # as a writer to a pipe says that it does not know
    "4 GHz": (lambda: with_rate(encoded(SHORT), 4_000_000_000), {"undecodable"}),
    "2 GHz": (lambda: with_rate(encoded(SHORT), 2**31 - 1), {"undecodable"}),
    "1 Hz": (lambda: with_rate(encoded(SHORT), 1), {"undecodable"}),
    "0 Hz": (lambda: with_rate(encoded(SHORT), 0), {"undecodable"}),
    "65,535 channels": (lambda: encoded(SHORT)[:22] + b"\xff\xff" + encoded(SHORT)[24:], {"undecodable"}),
    "a FLAC bomb": (bomb, {"too long"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ABSURD)
def test_absurd_headers_are_rejected_in_bounded_memory_and_time(tmp_path, monkeypatch, name):
    make, expected = ABSURD[name]
    (tmp_path / "a.wav").write_bytes(make())
    monkeypatch.setattr(guarded, "_idle", [])
    [found] = kinds(Place(str(tmp_path / "a.wav")))
    assert found in expected
    [process] = guarded._idle
    status = Path(f"/proc/{process._child.pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    spent = Path(f"/proc/{process._child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    process.end()
    assert peak_kib < 1.5 * 2**20
    assert sum(map(int, spent)) / os.sysconf("SC_CLK_TCK") < 20


def test_files_larger_than_sound_is_are_not_read(tmp_path):
    with open(tmp_path / "a.wav", "wb") as file:
        file.write(encoded(SHORT))
        file.truncate(2**41)  # takes no space
    member = tarfile.TarInfo("a.wav")
    member.size = 2**41
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(member.tobuf() + bytes(10_000)))
    started = time.monotonic()
    found = kinds(Place(str(tmp_path / "a.wav")), Place(str(tmp_path / "a.tar.gz"), "a.wav"))
    assert found == ["too long", "too long"]
    assert time.monotonic() - started < 30


def reference_movie(address):
    """A QuickTime film whose only content is the address of another one."""

    def atom(name, content):
        return struct.pack(">I4s", 8 + len(content), name) + content

    reference = struct.pack(">I4sI", 0, b"url ", len(address) + 1) + address.encode() + b"\0"
    return atom(b"moov", atom(b"rmra", atom(b"rmda", atom(b"rdrf", reference))))


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
    "key": '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:2,\na.wav\n#EXT-X-ENDLIST\n',
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\na=control:{}\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="0" bandwidth="1"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "pls": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
    "rtsp": "rtsptext\n{}\n",
    "cue": 'FILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "ffmetadata": ";FFMETADATA1\ntitle={}\n",
}


@pytest.fixture
def server(tmp_path):
    """Address of a sound file on loopback, and the requests that came."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SPEECH_FILES["a.wav"])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/a.wav", asked
        running.shutdown()


@pytest.mark.parametrize("suffix", ["own", "wav", "m4a"])
def test_what_a_recording_names_is_not_opened(tmp_path, server, suffix):
    address, asked = server
    other = tmp_path / "other.wav"
    other.write_bytes(SPEECH_FILES["a.wav"])
    named = [
        str(other),
        "other.wav",
        f"file://{other}",
        address,
        f"concat:{other}",
        f"subfile,,start,0,end,0,,:{other}",
    ]
    named.append("data:audio/wav;base64,UklGRg==")
    contents = {
        f"{kind}{number}.{kind if suffix == 'own' else suffix}": text.format(target).encode()
        for kind, text in PLAYLISTS.items()
        for number, target in enumerate(named)
    }
    contents |= {f"film{number}.mov": reference_movie(target) for number, target in enumerate(named)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    places = [Place(str(tmp_path / name)) for name in contents]
    segments = [Place(place.audio, "", 0.1, 0.2) for place in places[:10]]
    assert set(kinds(*places, *segments)) <= {"undecodable", "no samples"}
    assert asked == []


def test_ffmpeg_left_to_itself_does_open_what_a_recording_names(tmp_path, server):
    """So that the test above is of something."""
    address, asked = server
    (tmp_path / "a.m3u8").write_text(PLAYLISTS["m3u8"].format(address))
    options = {"protocol_whitelist": "file,http,tcp", "allowed_extensions": "ALL", "extension_picky": "0"}
    with contextlib.suppress(av.FFmpegError), av.open(str(tmp_path / "a.m3u8"), options=options) as container:
        next(container.decode(audio=0))
    assert asked != []


def test_no_protocol_is_left_where_a_format_is_let_through(tmp_path, server, monkeypatch):
    from xlt_ray.corpora import decoding

    monkeypatch.setattr(decoding, "_DEMUXERS", "hls,concat,wav,mov,mp4")
    address, asked = server
    (tmp_path / "other.wav").write_bytes(SPEECH_FILES["a.wav"])
    for kind in ("m3u8", "ffconcat"):
        for target in (address, str(tmp_path / "other.wav"), "data:audio/wav;base64,UklGRg=="):
            with pytest.raises(audio.RejectedRow):
                audio.decode(PLAYLISTS[kind].format(target).encode(), f"a.{kind}")
    assert asked == []


SEEDS = {
    "wav": [encoded(SHORT), encoded(SHORT, subtype="FLOAT"), encoded(SHORT, subtype="MS_ADPCM")],
    "flac": [encoded(SHORT, container="FLAC")],
    "ogg": [encoded(SHORT, container="OGG", subtype=subtype) for subtype in ("VORBIS", "OPUS")],
    "mp3": [encoded(SHORT, container="MP3", subtype="MPEG_LAYER_III")],
    "webm": [
        encoded_by_ffmpeg(SHORT, 16_000, "webm", "libopus"),
        many_channels("webm", "libopus", 10, {"mapping_family": "255"})[1][:20_000],
    ],
    "m4a": [
        encoded_by_ffmpeg(SHORT, 16_000, "ipod", "aac", {"movflags": "faststart"}),
        encoded_by_ffmpeg(SHORT, 16_000, "ipod", "alac"),
    ],
    "mkv": [encoded_by_ffmpeg(SHORT, 16_000, "matroska", codec) for codec in ("wavpack", "pcm_s24le", "aac")],
}
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1]


def overwritten(data, place, value, width, is_big):
    number = (value % 256**width).to_bytes(width, "big" if is_big else "little")
    return data[:place] + number + data[place + width :]


def with_checksums(data):
    """Ogg whose pages are right about themselves, so that damage gets past them."""
    if not data.startswith(b"OggS"):
        return data
    found = [bytearray(page) for page in pages(data)]
    for page in found:
        if len(page) >= 27:
            page[22:26] = bytes(4)
            page[22:26] = ogg_checksum(page).to_bytes(4, "little")
    return b"".join(found)


@st.composite
def damaged(draw, suffix):
    data = draw(st.sampled_from(SEEDS[suffix]))
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, max(min(len(data), draw(st.sampled_from([64, 600, 10**6]))) - 1, 0)))
        kind = draw(st.sampled_from(["number", "byte", "cut", "repeat", "end"]))
        length = draw(st.sampled_from([1, 2, 4, 16, 100, 1000]))
        if kind == "number":
            value = draw(st.sampled_from(EXTREMES))
            data = overwritten(data, place, value, draw(st.sampled_from([1, 2, 3, 4, 8])), draw(st.booleans()))
        elif kind == "byte":
            data = overwritten(data, place, draw(st.integers(0, 255)), 1, True)
        else:
            after = {"cut": data[place + length :], "repeat": data[place : place + length] + data[place:], "end": b""}
            data = data[:place] + after[kind]
    return with_checksums(data)


@st.composite
def segment(draw):
    times = st.sampled_from([None, 0.0, 0.1, 0.29, 1e3, 1e9])
    return draw(times), draw(st.sampled_from([None, 1e-6, 0.1, 1e5]))


@pytest.mark.parametrize("suffix", SEEDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_damaged_files_are_sound_or_rejected(tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("damaged")
    contents = {
        folder / f"{number}.{suffix}": data.draw(damaged(suffix)) for number in range(data.draw(st.integers(1, 12)))
    }
    for path, content in contents.items():
        path.write_bytes(content)
    places = [Place(str(path), "", *data.draw(segment())) for path in contents]
    found = list(sounds(places))
    assert len(found) == len(places)
    for sound in found:
        if sound.problem is None:
            pcm = np.frombuffer(sound.pcm, np.float32)
            assert len(pcm) == sound.num_samples > 0
            assert np.abs(pcm).max() <= 1
        else:
            assert isinstance(sound.problem, audio.RejectedRow)
            kind = str(sound.problem).partition(":")[0]
            assert f"    {kind}  " in audio.__doc__
            assert kind != "slow"
    assert {path: path.read_bytes() for path in folder.iterdir()} == contents


@pytest.mark.slow
def test_an_archive_whose_headers_unfold_is_read_in_bounded_memory(tmp_path, monkeypatch):
    """4 MB of gzip that tarfile would read into 1 GiB of memory, to learn the name of a member."""
    monkeypatch.setattr(decoder, "_MEMORY", 2**28)
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(2**10):
            file.write(bytes(2**20))
    place = Place(str(tmp_path / "a.tar.gz"), "a.wav")
    [_, (answer, _)] = decoder._answers(decoder.Request([place], False))
    assert answer.rejected.startswith("too long")
