"""Stamps against `os.stat`, and of a store that answers lists only."""

import os
import time

import pyarrow.fs as pafs
import pytest

from xlt_ray.corpora.stamps import Stamp, missing_folders, stamps
from xlt_ray.errors import Unreachable
from xlt_ray.store import storage


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 3)
    return tmp_path


def test_a_stamp_is_size_and_time(folder):
    names = ["a/1.wav", "a/2.wav", "b/1.wav", "a/3.wav", "gone/1.wav", "gone/2.wav", "a"]
    uris = [f"{folder}/{name}" for name in names]
    found = stamps([*uris, "https://example.org/1.wav", "C:\\x.wav"])
    status = [os.stat(uri) for uri in uris[:3]]
    assert list(found) == uris[:3]
    assert [found[uri] for uri in uris[:3]] == [Stamp(s.st_size, str(s.st_mtime_ns)) for s in status]
    assert missing_folders(uris, found) == [f"{folder}/gone"]
    (folder / "a/1.wav").write_bytes(b"other")
    os.utime(folder / "a/2.wav", ns=(1, 2))
    again = stamps(uris)
    assert again[uris[0]].size == 5
    assert again[uris[1]].modified == "2"
    assert again[uris[2]] == found[uris[2]]


def test_a_folder_without_any_of_its_files_is_there(folder):
    uris = [f"{folder}/a/{i}.flac" for i in range(3)]
    assert stamps(uris) == {}
    assert missing_folders(uris, {}) == []


class Store(pafs.FileSystemHandler):
    """A folder seen as a store, which counts what it is asked."""

    def __init__(self, root):
        self.inner, self.asked = pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem()), []

    def get_file_info(self, paths):
        self.asked += [("head", path) for path in paths]
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector):
        self.asked.append(("list", selector.base_dir))
        return self.inner.get_file_info(selector)

    def get_type_name(self):
        return "store"

    def normalize_path(self, path):
        return path


for _name in pafs.FileSystemHandler.__abstractmethods__ - set(vars(Store)):
    setattr(Store, _name, lambda self, *args: pytest.fail("not asked for"))
Store.__abstractmethods__ = frozenset()


def test_a_store_is_asked_for_lists(folder, monkeypatch):
    store = Store(folder.parent)
    monkeypatch.setattr(storage, "_remote_filesystem", lambda _scheme, _authority: pafs.PyFileSystem(store))
    uris = [f"s3://{folder.name}/{name}" for name in ("a/1.wav", "a/2.wav", "a/3.wav", "b/1.wav", "no/1.wav", "no/2")]
    found = stamps(uris)
    first, second, third = stamps([f"{folder}/a/1.wav", f"{folder}/a/2.wav", f"{folder}/b/1.wav"]).values()
    assert [found.get(uri) for uri in uris] == [first, second, None, third, None, None]
    assert sorted(kind for kind, _ in store.asked) == ["head", "list", "list"]
    assert missing_folders(uris, found) == [f"s3://{folder.name}/no"]


def test_a_store_that_does_not_answer_is_no_missing_file(folder, monkeypatch):
    class Down:
        def get_file_info(self, _paths):
            raise OSError("AWS Error NETWORK_CONNECTION during HeadObject: curlCode: 6, Couldn't resolve host name")

    monkeypatch.setattr(storage, "_remote_filesystem", lambda _scheme, _authority: Down())
    for ask in (lambda: stamps(["s3://bucket/a/1.wav"]), lambda: missing_folders(["s3://bucket/a/1.wav"], {})):
        with pytest.raises(Unreachable, match="NETWORK_CONNECTION"):
            ask()


def test_thousands_of_files_take_a_moment(tmp_path):
    """300,000 files may take 10 s; a tenth of that speed is the limit here, where the machine may be busy."""
    for i in range(5000):
        (tmp_path / f"{i}.wav").touch()
    started = time.perf_counter()
    assert len(stamps(f"{tmp_path}/{i}.wav" for i in range(5000))) == 5000
    assert time.perf_counter() - started < 5000 / 3000
