"""Files that are cut, emptied, changed, replaced or gone: a reader says which one, or reads what was written."""

import hashlib
import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.errors import Damaged, UserError
from xlt_ray.store import artifacts, manifest, reading, storage
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import REJECTED

IDENTITY = {"languages": ["en", "fr"]}
ROWS = {"en-00000": [1, 2, 3], "fr-00000": [4, 5]}
PLAIN = {"compression": "none", "use_dictionary": False, "write_statistics": False}
FILES = ("config.json", "data/en-00000.parquet", "data/fr-00000.parquet", "index.parquet", "manifest.json")
FILES += ("metrics.json", "plots/a.png", "rejected.parquet")


def planned(root):
    return artifacts.plan(str(root), "embed", "a", IDENTITY, {"root": str(root)})


def write(artifact):
    for unit, values in ROWS.items():
        if unit not in artifact.done():
            artifact.write_table(f"data/{unit}.parquet", pa.table({"x": values, "y": ["text"] * len(values)}))
    artifact.write_table("index.parquet", pa.table({"unit": list(ROWS)}))
    artifact.write_json("metrics.json", {"score": 0.123456})
    artifact.write_bytes("plots/a.png", bytes(range(256)))
    row = {"utterance_id": "u", "language": "en", "audio": "/x.wav", "reason": "silent"}
    artifact.merge_rejected([pa.Table.from_pylist([row], schema=REJECTED)])
    artifact.commit(units=dict.fromkeys(ROWS), num_rows_in=6, inputs={}, seconds=1, others=["index.parquet"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    artifact = planned(root)
    artifact.begin()
    write(artifact)
    return root


def read(root):
    """Everything that an artifact holds, as its readers read it."""
    found = artifacts.find(str(root), "embed", "a")
    return {
        "identity": found.identity,
        "settings": found.settings,
        "metrics": found.read_json("metrics.json"),
        "rows": [table.to_pydict() for table in found.tables()],
        "index": found.table("index.parquet").to_pydict(),
        "rejected": found.table("rejected.parquet").to_pylist(),
        "plot": found.read_bytes("plots/a.png"),
        "counts": [entry["rows"] for entry in found.read_json("manifest.json")["files"]],
    }


def outcome(root):
    """What a user is told, or what is read."""
    try:
        return None, read(root)
    except UserError as error:
        return str(error), None


@st.composite
def damages(draw):
    """A file, and what becomes of its bytes; None: it is deleted."""
    name = draw(st.sampled_from(FILES))
    kind = draw(st.sampled_from(["flip", "cut", "zero", "delete", "grow"]))
    place, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))

    def damage(data: bytes) -> bytes | None:
        at = int(place * len(data))
        flipped = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
        zeroed = data[:at] + bytes(len(data) - at)
        return {"flip": flipped, "cut": data[:at], "zero": zeroed, "grow": data + b"\0", "delete": None}[kind]

    return name, damage


@given(damages())
def test_a_reader_names_the_file_or_reads_what_was_written(whole, tmp_path_factory, damage):
    name, change = damage
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(whole, root, dirs_exist_ok=True)
    file = root / "embed/a" / name
    before = file.read_bytes()
    after = change(before)
    file.unlink() if after is None else file.write_bytes(after)
    problem, found = outcome(root)
    if problem is None:
        assert found == read(whole)
    else:
        assert after != before
        assert name in problem or (name == "manifest.json" and after is None)
        assert "\n" not in problem
    shutil.rmtree(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["cut", "gone", "replaced"])
def test_the_job_makes_what_is_damaged_again(whole, tmp_path, capsys, name, kind):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "embed/a" / name
    data = file.read_bytes()
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:5] if kind == "cut" else data + data)
    artifact = planned(tmp_path)
    assert not artifact.is_complete
    artifact.begin()
    if name in FILES[1:3]:
        assert artifact.done() == set(ROWS) - {file.stem}
    if name != "manifest.json" or kind != "gone":
        assert re.search(rf"warning: {file} .*; it is made again", capsys.readouterr().out)
    write(artifact)
    again = artifacts.find(str(tmp_path), "embed", "a")
    assert not again.damage(verify=True)
    assert {**read(tmp_path), "settings": 0} == {**read(whole), "settings": 0}


def test_damage_is_named_with_the_command_that_made_the_artifact(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["jobs/embed.py", "--name", "a b"])
    artifact = planned(tmp_path)
    artifact.begin()
    write(artifact)
    shard = tmp_path / "embed/a/data/en-00000.parquet"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(Damaged) as error:
        artifacts.find(str(tmp_path), "embed", "a")
    again = "make it again: python jobs/embed.py --name 'a b'"
    assert str(error.value) == f"{shard} has 100 bytes, and {size} were written; {again}"


def test_a_shard_replaced_by_another_of_the_same_size_is_noticed(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / "embed/a/data/en-00000.parquet"
    size = shard.stat().st_size
    other = pa.table({"x": [3, 2, 1], "y": ["text"] * 3})
    Artifact.at(str(tmp_path), "embed", "b").write_table("data/o.parquet", other)
    shutil.copy(tmp_path / "embed/b/data/o.parquet", shard)
    assert shard.stat().st_size == size
    found = artifacts.find(str(tmp_path), "embed", "a")
    assert not found.damage()
    assert list(found.damage(verify=True)) == ["data/en-00000.parquet"]
    with pytest.raises(Damaged, match=r"en-00000\.parquet is not what was written: its checksum differs"):
        list(found.tables())


def test_a_page_that_changed_is_noticed_by_a_reader_of_some_rows(tmp_path):
    artifact = planned(tmp_path)
    artifact.write_table("data/u.parquet", pa.table({"x": [b"frames" * 100]}), **PLAIN)
    file = tmp_path / "embed/a/data/u.parquet"
    data = file.read_bytes()
    at = data.index(b"framesframes") + 50
    file.write_bytes(data[:at] + b"!" + data[at + 1 :])
    assert pq.read_table(file).num_rows == 1  # nothing else notices
    with pytest.raises(Damaged, match=r"u\.parquet is damaged"):
        reading.table_of(str(file))


def test_every_file_is_in_the_manifest_with_its_checksum(whole):
    folder = whole / "embed/a"
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {entry["path"]: entry for entry in (*manifest["files"], *manifest["others"])}
    assert set(listed) == set(FILES) - {"manifest.json"}

    for path, entry in listed.items():
        data = (folder / path).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert {path.name for path in folder.iterdir()} == {path.split("/")[0] for path in FILES}


def test_rows_that_are_added_keep_the_checksums_of_the_rows_before(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    artifact = planned(tmp_path)
    artifact.begin()
    artifact.write_table("data/de-00000.parquet", pa.table({"x": [7], "y": ["text"]}))
    units = dict.fromkeys([*ROWS, "de-00000"])
    artifact.commit(units=units, num_rows_in=7, inputs={}, seconds=1, others=["index.parquet"])
    assert not artifact.damage(verify=True)
    assert set(artifact.read_json("manifest.json")["files"][0]) == {"path", "bytes", "sha256", "rows"}


def test_a_json_file_that_is_replaced_is_in_the_manifest(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    artifact = planned(tmp_path)
    artifact.begin()
    artifact.amend("metrics.json", {"score": 1})
    assert not artifact.damage(verify=True)
    assert artifact.read_json("metrics.json") == {"score": 1}


def test_a_commit_counts_the_rejected_rows_that_are_there(tmp_path):
    artifact = planned(tmp_path)
    artifact.begin()
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1]}))
    artifact.merge_rejected()
    with pytest.raises(RuntimeError, match="9 rows in, but 1 out and 0 rejected"):
        artifact.commit(units={"en-00000": 1}, num_rows_in=9, inputs={}, seconds=1)
    assert not artifact.is_committed


def test_a_commit_notices_a_file_that_somebody_else_has_replaced(tmp_path):
    """Two embeds once met here: the rows of one were counted, and the rejected rows of the other were left."""
    artifact = planned(tmp_path)
    artifact.begin()
    row = {"utterance_id": "u", "language": "en", "audio": "/x.wav", "reason": "silent"}
    artifact.merge_rejected([pa.Table.from_pylist([row] * 8, schema=REJECTED)])
    pq.write_table(pa.Table.from_pylist([row] * 8, schema=REJECTED), artifact.path("rejected.parquet"))
    with pytest.raises(RuntimeError, match=r"rejected\.parquet has \d+ bytes, and \d+ were written"):
        artifact.commit(units={}, num_rows_in=8, inputs={}, seconds=1)


def test_a_unit_of_a_killed_run_that_lost_bytes_is_made_again(tmp_path, capsys):
    artifact = planned(tmp_path)
    artifact.begin()
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1]}))
    file = tmp_path / "embed/a/data/en-00000.parquet"
    file.write_bytes(b"")
    planned(tmp_path).begin()
    assert not file.exists()
    assert f"{file} has 0 bytes" in capsys.readouterr().out


def test_an_older_manifest_without_checksums_is_read(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "embed/a/manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["checksum"]
    manifest["others"] = [{"path": "index.parquet", "bytes": storage.sizes(str(file.parent))["index.parquet"]}]
    for entry in manifest["files"]:
        del entry["sha256"]
    file.write_text(json.dumps(manifest))
    found = artifacts.find(str(tmp_path), "embed", "a")
    assert [table.num_rows for table in found.tables()] == [3, 2]
    assert not found.damage(verify=True)


def resealed(root, **changed):
    """The manifest as somebody writes it who means harm."""
    path = root / "embed/a/manifest.json"
    path.write_text(json.dumps(manifest.sealed(json.loads(path.read_text()) | changed)))


@pytest.mark.parametrize(
    "entry",
    [
        *({"path": path, "bytes": 1} for path in ("../../other", "/etc/passwd", "s3://bucket/x", "a/../../b", "a\0b")),
        *({"path": "data/x.parquet", "bytes": size} for size in ("x", None, [])),
        *("x", None, {}, {"path": 1, "bytes": 1}, {"path": "x", "bytes": 1, "sha256": 1}),
    ],
)
def test_a_manifest_reaches_nothing_outside_its_artifact(whole, tmp_path, entry):
    root = shutil.copytree(whole, tmp_path / "root")
    (tmp_path / "root/other").write_text("kept")
    resealed(root, others=[entry])
    with pytest.raises(Damaged, match=r"manifest\.json"):
        artifacts.find(str(root), "embed", "a")
    again = planned(whole)
    artifact = Artifact.at(str(root), "embed", "a").planned(again.asked)
    artifact.begin()
    artifact.remove("")
    assert (tmp_path / "root/other").read_text() == "kept"


@pytest.mark.parametrize("content", ["[]", '{"identity": []}', "1", "[" * 100_000])
def test_a_config_of_another_form_is_damaged(whole, tmp_path, content):
    root = shutil.copytree(whole, tmp_path / "root")
    (root / "embed/a/config.json").write_text(content)
    artifact = Artifact.at(str(root), "embed", "a")
    for part in ("identity", "settings"):
        with pytest.raises(Damaged, match=r"config\.json"):
            getattr(artifact, part)


@pytest.mark.parametrize("files", [None, "x", {"path": "x"}, 1])
def test_a_manifest_without_its_files_is_damaged(whole, tmp_path, files):
    root = shutil.copytree(whole, tmp_path / "root")
    resealed(root, files=files)
    with pytest.raises(Damaged, match=r"manifest\.json is damaged"):
        artifacts.find(str(root), "embed", "a")
