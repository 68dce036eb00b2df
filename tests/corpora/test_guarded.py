"""Decoding in another process: the same sound, and what crashes or hangs it costs one row."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fragile import CRASHES_ON_NINE_CHANNELS, make_fragile  # noqa: F401 - a fixture
from test_audio import SPEECH_FILES, encoded, speech, write_tar
from test_decoding import many_channels

from xlt_ray.corpora import guarded
from xlt_ray.corpora.audio import Place, decode, read_recordings
from xlt_ray.corpora.guarded import sounds
from xlt_ray.errors import RejectedRow, Unreachable

WAV = SPEECH_FILES["a.wav"]
CRASH = "crashes: the decoder crashes on it (signal 11)"


@pytest.fixture
def put(tmp_path):
    """A function that writes files and says where they are."""

    def write(*contents, name="a.wav"):
        places = [tmp_path / f"{number}{name}" for number in range(len(contents))]
        for place, content in zip(places, contents, strict=True):
            place.write_bytes(content)
        return [Place(str(place)) for place in places]

    return write


def in_this_process(places):
    return [decode(found, place.name).tobytes() for place, found in zip(places, read_recordings(places), strict=True)]


def pcm(places):
    return [sound.pcm for sound in sounds(places)]


def problems(places):
    return [str(sound.problem) if sound.problem else None for sound in sounds(places)]


def test_the_sound_is_that_of_this_process(tmp_path):
    for name, content in SPEECH_FILES.items():
        (tmp_path / name).write_bytes(content)
    write_tar(tmp_path / "a.tar.gz", {"1.wav": WAV, "2.flac": SPEECH_FILES["a.flac"]})
    pq.write_table(pa.table({"audio": [WAV, SPEECH_FILES["a.mp3"]]}), tmp_path / "a.parquet")
    wanted = [(name,) for name in SPEECH_FILES] + [("a.tar.gz", "2.flac"), ("a.tar.gz", "1.wav"), ("a.parquet", "1")]
    wanted += [(name, "", 0.25, 1.0) for name in SPEECH_FILES] + [("a.parquet", "0", 0.5, 0.5)]
    places = [Place(str(tmp_path / name), *rest) for name, *rest in wanted]
    found = list(sounds(places))
    assert [sound.pcm for sound in found] == in_this_process(places)
    assert [4 * sound.num_samples for sound in found] == [len(sound.pcm) for sound in found]
    assert not any(sound.problem or sound.content for sound in found)


def test_what_is_examined_is_hashed_and_stays_there(put):
    stereo = encoded(np.stack([speech(), speech()], axis=1), 48_000)
    silent = encoded(np.zeros(16_000, np.float32))
    first, again, other, none = sounds(put(stereo, stereo, WAV, silent), examine=True)
    assert (first.pcm, first.num_samples, first.rate, first.num_channels) == (b"", 10_667, 48_000, 2)
    assert first == again
    assert len({first.content, other.content, none.content}) == 3
    assert (none.num_samples, none.rate, str(none.problem)) == (0, 16_000, "silent: nothing above -66 dBFS")


def test_a_problem_is_that_of_this_process(put, tmp_path):
    places = [*put(b"", b"no sound", WAV[:5000]), Place(str(tmp_path / "nowhere.wav"))]
    assert [str(found).partition(":")[0] for found in problems(places)[:3]] == ["empty", "undecodable", "truncated"]
    *_, last = sounds(places)
    assert isinstance(last.problem, Unreachable)
    assert (last.problem.path, last.problem.reason) == (str(tmp_path / "nowhere.wav"), "No such file or directory")


def test_a_process_stays_for_the_next_recordings(put):
    places = put(WAV, WAV)
    pcm(places)
    process = guarded._idle[-1]
    assert pcm(places) == in_this_process(places)
    assert guarded._idle[-1] is process
    left = sounds(places)
    next(left)
    left.close()  # its second answer is on the way, and must not be taken for another recording's
    assert not process.is_running
    assert pcm(places) == in_this_process(places)


def test_a_store_is_asked_with_the_credentials_of_now(put, monkeypatch):
    pcm(put(WAV))
    process = guarded._idle[-1]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "new")
    pcm(put(WAV))
    assert not process.is_running
    assert "AWS_SECRET_ACCESS_KEY=new" in Path(f"/proc/{guarded._idle[-1]._child.pid}/environ").read_text()


@pytest.mark.usefixtures("make_fragile")
def test_no_process_is_left_when_its_parent_is_gone(put):
    pcm(put(WAV))
    process = guarded._idle.pop()
    process._connection.close()
    assert process._child.wait(20) == 0


@pytest.mark.slow
def test_a_recording_that_crashes_the_decoder_costs_one_row(put, make_fragile):  # noqa: F811
    make_fragile(CRASHES_ON_NINE_CHANNELS)
    ten = many_channels("webm", "libopus", 10, {"mapping_family": "255"})[1]
    twelve = many_channels("matroska", "wavpack", 12, {})[1]
    places = put(WAV, ten, WAV, twelve, ten, SPEECH_FILES["a.webm"])
    found = list(sounds(places))
    assert [str(sound.problem) if sound.problem else None for sound in found] == [None, CRASH, None, CRASH, CRASH, None]
    assert found[0].pcm == found[2].pcm == decode(WAV, "a.wav").tobytes()
    assert found[5].pcm == decode(SPEECH_FILES["a.webm"], "a.webm").tobytes()


def test_what_an_earlier_recording_has_left_behind_costs_no_row(put, make_fragile):  # noqa: F811
    make_fragile(
        """
        import os, signal
        from xlt_ray.corpora import decoding
        num, decode = [], decoding.decode_native
        def twice(*args):
            num.append(1)
            return decode(*args) if len(num) == 1 else os.kill(os.getpid(), signal.SIGABRT)
        decoding.decode_native = twice
        """
    )
    places = put(WAV, SPEECH_FILES["a.flac"], WAV)
    assert pcm(places) == in_this_process(places)


@pytest.mark.slow
def test_decoding_that_never_ends_is_ended(put, make_fragile):  # noqa: F811
    make_fragile(
        """
        import signal
        from xlt_ray.corpora import decoding
        limit = signal.setitimer
        signal.setitimer = lambda which, seconds: limit(which, min(seconds, 1))
        decode = decoding.decode_native
        def endless(data, name):
            while name.startswith("/") and b"endless" in data: pass
            return decode(data, name)
        decoding.decode_native = endless
        """
    )
    started = time.monotonic()
    assert problems(put(WAV, b"endless", WAV)) == [None, "slow: decoding took more than 60 s", None]
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_waiting_is_the_fault_of_the_recording_only_while_it_is_decoded(put, make_fragile, monkeypatch):  # noqa: F811
    make_fragile(
        """
        import time
        from xlt_ray.corpora import decoding, recordings
        def wait(*_):
            time.sleep(600)
        decode, find = decoding.decode_native, recordings.places.find
        decoding.decode_native = lambda data, name: wait() if b"waits" in data else decode(data, name)
        recordings.places.find = lambda audio: wait() if "hangs" in audio else find(audio)
        """
    )
    pcm(put(WAV))
    monkeypatch.setattr(guarded, "_SILENCE_S", 6.0)
    first, _, last = sounds([*put(b"waits", WAV), Place("/hangs.wav")])
    assert str(first.problem) == "slow: decoding took more than 60 s"
    assert isinstance(last.problem, Unreachable)


KILLS = """
import os, pathlib, signal
from xlt_ray.corpora import decoding
decode = decoding.decode_native
def kill(data, name):
    if b"killer" in data and pathlib.Path(name).with_suffix(".kill").exists():
        if data.startswith(b"once"):
            pathlib.Path(name).with_suffix(".kill").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data, name)
decoding.decode_native = kill
"""


def test_an_end_from_outside_is_no_fault_of_the_recording(put, make_fragile):  # noqa: F811
    make_fragile(KILLS)
    places = put(WAV, b"once killer", WAV)
    Path(places[1].audio).with_suffix(".kill").touch()
    assert problems(places) == [None, "undecodable: neither libsndfile nor FFmpeg reads it", None]


def test_ends_from_outside_are_not_repeated_for_ever(put, make_fragile):  # noqa: F811
    make_fragile(KILLS)
    places = put(WAV, b"always killer")
    Path(places[1].audio).with_suffix(".kill").touch()
    found = sounds(places)
    assert next(found).problem is None
    with pytest.raises(guarded.DecoderEnded, match=rf"{places[1].audio} .*by signal 9, 3 times"):
        next(found)


def test_a_fault_of_the_program_is_told_with_its_traceback(put, make_fragile):  # noqa: F811
    make_fragile(
        """
        from xlt_ray.corpora import decoding
        decoding.decode_native = None
        """
    )
    with pytest.raises(RuntimeError, match="'NoneType' object is not callable"):
        pcm(put(WAV))


def test_a_crash_is_what_the_system_says(tmp_path):
    """The witness that PyAV does crash, so that the test above is not of an error of its own making."""
    (tmp_path / "a.webm").write_bytes(many_channels("webm", "libopus", 10, {"mapping_family": "255"})[1])
    code = "import av, sys; [frame.to_ndarray() for frame in av.open(sys.argv[1]).decode(audio=0)]"
    done = subprocess.run([os.sys.executable, "-c", code, str(tmp_path / "a.webm")], capture_output=True)
    assert -done.returncode == signal.SIGSEGV


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(fifo := tmp_path / "a.wav")
    os.symlink(fifo, tmp_path / "link.wav")
    (tmp_path / "folder.wav").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.wav"))
        names = ["a.wav", "link.wav", "folder.wav", "socket.wav", "/dev/zero", "/dev/stdin"]
        for segment in ((None, None), (0.5, 1.0)):
            found = problems([Place(str(tmp_path / name), "", *segment) for name in names])
            not_a_file = "missing: a pipe, a socket or a device, not a file"
            assert found == [*[not_a_file] * 2, "missing: a folder, not a file", *[not_a_file] * 3]
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads it
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def test_a_file_that_grows_while_it_is_read_ends():
    """Files in /proc say that they are empty, and some of them never end."""
    assert problems([Place("/proc/self/maps")]) == ["empty: 0 bytes"]


def test_problems_are_exceptions_of_their_kind(put):
    [sound] = sounds(put(b"no sound"))
    assert type(sound.problem) is RejectedRow
