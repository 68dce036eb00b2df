import hashlib
import os

import pyarrow as pa
import pytest
import s3_server

from xlt_ray.errors import UserError
from xlt_ray.store import artifacts, reading, storage
from xlt_ray.store.artifact import Artifact


@pytest.fixture(scope="module")
def bucket():
    with s3_server.bucket() as uri:
        yield uri
    storage._remote_filesystem.cache_clear()


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


def test_bytes_come_back(root):
    artifact = Artifact.at(root, "embed", "a")
    data = hashlib.sha256(root.encode()).digest() * 1000
    artifact.write_bytes("plots/x.bin", data)
    assert storage.read_bytes(artifact.path("plots/x.bin")) == data
    assert list(storage.list_files(artifact.path("plots"))) == [artifact.path("plots/x.bin")]
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(artifact.path("plots/absent.bin"))


def test_an_artifact_lives_through_its_whole_life(root):
    artifact = artifacts.plan(root, "embed", "a", {"x": 1}, {})
    assert not artifact.is_begun
    artifact.begin()
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1, 2]}))
    assert artifact.done() == {"en-00000"}
    artifact.merge_rejected()
    artifact.commit(units={"en-00000": None}, num_rows_in=2, inputs={}, seconds=0)
    found = artifacts.find(root, "embed", "a")
    assert found.is_complete
    assert reading.table_of(found.files()[0]).to_pydict() == {"x": [1, 2]}
    with pytest.raises(UserError, match="x: 1 stored, 2 given"):
        artifacts.plan(root, "embed", "a", {"x": 2}, {})
    found.remove("data")
    assert artifact.done() == set()


def test_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("runs") == str(tmp_path / "runs")
    assert storage.absolute("s3://bucket/runs/") == "s3://bucket/runs"
    assert storage.absolute(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert storage.absolute("~/x").endswith("/x")
    assert "~" not in storage.absolute("~/x")


def test_a_place_has_one_path_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "below/deeper").mkdir(parents=True)
    (tmp_path / "link").symlink_to("below/deeper")
    monkeypatch.chdir(tmp_path / "below")
    assert storage.absolute("../m.jsonl") == str(tmp_path / "m.jsonl")
    assert storage.absolute("../none/../m.jsonl") == str(tmp_path / "m.jsonl")
    assert os.path.realpath(storage.absolute("../link/../m.jsonl")) == str(tmp_path / "below/m.jsonl")
    assert storage.absolute("s3://bucket//a/../runs/") == "s3://bucket/runs"


def test_an_unknown_scheme_is_named():
    with pytest.raises(UserError, match=r"'ftp://x/y' has an unknown scheme; use a local path or one of s3://"):
        storage.absolute("ftp://x/y")


def test_join_lets_absolute_parts_win():
    assert storage.join("/a/b", "c.wav") == "/a/b/c.wav"
    assert storage.join("/a/b", "/d/c.wav") == "/d/c.wav"
    assert storage.join("/a/b", "s3://d/c.wav") == "s3://d/c.wav"
    assert storage.join("s3://a/b", "file:///d/c.wav") == "/d/c.wav"
    assert storage.join("s3://a/b", "c.wav") == "s3://a/b/c.wav"


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    class Unreachable:
        def get_file_info(self, selector):
            raise TimeoutError("no answer\nfor a minute")

    monkeypatch.setattr(storage, "locate", lambda uri: (Unreachable(), "datasets/x"))
    with pytest.raises(UserError, match=r"hf://datasets/x can't be read \(TimeoutError\); check that the Hub") as error:
        list(storage.list_files("hf://datasets/x"))
    assert "\n" not in str(error.value)
    with pytest.raises(TimeoutError):
        list(storage.list_files("s3://bucket/x"))


@pytest.mark.parametrize("uri", ["~nobody-of-that-name/x", "a\0b", "file:///a\0b", "\udcff"])
def test_what_can_be_no_path_is_a_mistake(uri):
    with pytest.raises(UserError, match=r"is no path|names a user"):
        storage.absolute(uri)


def test_a_home_whose_name_has_a_nul_is_refused():
    """Python's own look-up of a user fails on it in a way of its own."""
    with pytest.raises(UserError, match="NUL"):
        storage.local("~a\0/b")
