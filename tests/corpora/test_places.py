"""What stands in the audio cells of manifests in the field, and what it leads to."""

import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import sound_bytes

from xlt_ray.corpora import places
from xlt_ray.corpora.audio import Place, read_recordings
from xlt_ray.errors import RejectedRow, Unreachable

SOUND = sound_bytes(0.2)
COMPOSED = "évé.wav"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    nfd = unicodedata.normalize("NFD", "données")
    (tmp_path / nfd).mkdir()
    for name in ("a good.wav", unicodedata.normalize("NFD", COMPOSED), "home/h.wav", f"{nfd}/x.wav", "C:\\odd.wav"):
        (tmp_path / name).write_bytes(SOUND)
    os.symlink("a good.wav", tmp_path / "link.wav")
    os.symlink("gone.wav", tmp_path / "dead.wav")
    return tmp_path


def read(folder, cell):
    [recording] = read_recordings([Place(places.resolve(str(folder), cell))])
    return recording


@pytest.mark.parametrize(
    "cell",
    [
        "a good.wav",
        "./a good.wav",
        "{folder}/a good.wav",
        "file://{folder}/a%20good.wav",
        "file://localhost{folder}/a%20good.wav",
        "file:{folder}/a%20good.wav",
        COMPOSED,
        unicodedata.normalize("NFD", COMPOSED),
        "données/x.wav",
        "a good.wav ",
        "link.wav",
        "~/h.wav",
    ],
)
def test_what_can_be_found_is_read(folder, cell):
    assert read(folder, cell.format(folder=folder)) == SOUND


@pytest.mark.parametrize("cell", ["../wav/1.wav", "../wav//1.wav", "s3://bucket/wav//1.wav", "s3://bucket/./wav/1.wav"])
def test_a_store_has_no_folders_to_go_up_to(cell):
    assert places.resolve("s3://bucket/tables", cell) == "s3://bucket/wav/1.wav"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("https://example.org/audio/1.wav", "missing: a web address"),
        ("ftp://example.org/1.wav", "missing: a web address"),
        ("C:\\corpus\\en\\1.wav", "missing: a Windows path"),
        ("D:/corpus/1.wav", "missing: a Windows path"),
        ("\\\\server\\share\\1.wav", "missing: a Windows path"),
        ("x" * 300 + ".wav", "missing: not the path of a file: File name too long"),
        ("a good.wav/x.wav", "missing: not the path of a file: Not a directory"),
        ("a\0b.wav", "missing: not the path of a file"),
        ("~a\0b.wav", "missing: not the path of a file"),
        ("home", "missing: a folder"),
        ("", "missing: a folder"),
        ("/dev/zero", "missing: a pipe, a socket or a device"),
    ],
)
def test_what_cannot_be_a_file_is_rejected_for_what_it_is(folder, cell, reason):
    assert str(read(folder, cell)).startswith(reason)


@pytest.mark.parametrize("cell", ["nowhere.wav", "dead.wav", "~/nowhere.wav", "évé/x.wav", "s.wav "])
def test_what_is_not_there_is_out_of_reach(folder, cell):
    with pytest.raises(Unreachable, match="No such file or directory"):
        read(folder, cell)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_at_once(folder):
    os.mkfifo(folder / "pipe.wav")
    for segment in ((None, None), (1.0, 1.0)):
        [recording] = read_recordings([Place(str(folder / "pipe.wav"), "", *segment)])
        assert str(recording).startswith("missing: a pipe")


@pytest.mark.parametrize("relative", [True, False])
def test_a_row_without_bytes_follows_its_path(folder, relative):
    """As `datasets` writes Parquet before sound is embedded."""
    names = ["a good.wav", "link.wav", "https://example.org/1.wav", None]
    paths = [name if relative or not name or "://" in name else str(folder / name) for name in names]
    cells = [{"bytes": None, "path": path} for path in paths] + [{"bytes": b"own", "path": "nowhere"}]
    type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"audio": pa.array(cells, type_)}), folder / "m.parquet")
    found = list(read_recordings([Place(str(folder / "m.parquet"), str(row)) for row in range(5)]))
    assert [found[i] for i in (0, 1, 4)] == [SOUND, SOUND, b"own"]
    assert [str(found[i]).partition(":")[0] for i in (2, 3)] == ["missing", "empty"]
    assert isinstance(found[2], RejectedRow)
    pq.write_table(pa.table({"audio": pa.array([{"bytes": None, "path": "gone.wav"}], type_)}), folder / "n.parquet")
    with pytest.raises(Unreachable) as error:
        list(read_recordings([Place(str(folder / "n.parquet"), "0")]))
    assert error.value.path == f"{folder}/gone.wav"
