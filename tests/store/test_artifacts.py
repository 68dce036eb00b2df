import json
import os
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlt_ray.errors import UserError
from xlt_ray.store import artifacts, lease, schema, storage
from xlt_ray.store.identity import fingerprint
from xlt_ray.store.schema import REJECTED

IDENTITY = {"languages": ["en", "fr"], "embed": {"encoding": "exact", "keep_margin": 100}}


def planned(tmp_path, name="a", identity=IDENTITY, stage="embed"):
    return artifacts.plan(str(tmp_path), stage, name, identity, {"root": str(tmp_path)})


def started(tmp_path, name="a", identity=IDENTITY):
    artifact = planned(tmp_path, name, identity)
    artifact.begin()
    return artifact


def rejected(*ids):
    rows = [{"utterance_id": i, "language": "en", "audio": "/x.wav", "reason": "silent"} for i in ids]
    return pa.Table.from_pylist(rows, schema=REJECTED)


def test_same_name_same_identity_is_the_same_artifact(tmp_path):
    first = started(tmp_path)
    first.write_table("data/en-00000.parquet", pa.table({"x": [1]}))
    again = started(tmp_path)
    assert again == first
    assert again.done() == {"en-00000"}


def test_other_identity_stops_with_the_fields_that_differ(tmp_path):
    started(tmp_path)
    other = {"languages": ["en", "fr"], "embed": {"encoding": "trimmed", "keep_margin": 100}}
    with pytest.raises(UserError, match=r'embed\.encoding: "exact" stored, "trimmed" given') as error:
        started(tmp_path, identity=other)
    assert "keep_margin" not in str(error.value)
    assert "\n" not in str(error.value)


def test_commit_counts_every_row(tmp_path):
    artifact = started(tmp_path)
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1, 2, 3]}))
    artifact.write_table("data/fr-00000.parquet", pa.table({"x": [4]}))
    artifact.write_table("rejected/en-00000.parquet", rejected("b", "a"))
    assert artifact.merge_rejected([rejected("c")]) == 3
    with pytest.raises(RuntimeError, match="8 rows in, but 4 out and 3 rejected"):
        artifact.commit(units={"en-00000": None, "fr-00000": 1}, num_rows_in=8, inputs={}, seconds=1)
    assert not artifact.is_complete
    artifact.commit(units={"en-00000": None, "fr-00000": 1}, num_rows_in=7, inputs={"corpus": "x"}, seconds=1)
    manifest = json.loads((tmp_path / "embed" / "a" / "manifest.json").read_text())
    assert [file["rows"] for file in manifest["files"]] == [3, 1]
    assert [os.path.getsize(tmp_path / "embed" / "a" / f["path"]) for f in manifest["files"]] == [
        f["bytes"] for f in manifest["files"]
    ]
    assert pq.read_table(tmp_path / "embed/a/rejected.parquet")["utterance_id"].to_pylist() == ["a", "b", "c"]
    assert not (tmp_path / "embed/a/rejected").exists()


def test_a_missing_unit_is_not_committed(tmp_path):
    artifact = started(tmp_path)
    artifact.merge_rejected()
    with pytest.raises(RuntimeError, match=r"data/en-00000\.parquet is missing"):
        artifact.commit(units={"en-00000": None}, num_rows_in=0, inputs={}, seconds=1)


def test_only_listed_files_are_read(tmp_path):
    artifact = started(tmp_path)
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1]}))
    artifact.merge_rejected()
    artifact.commit(units={"en-00000": None}, num_rows_in=1, inputs={}, seconds=1)
    artifact.write_table("data/en-00001.parquet", pa.table({"x": [2]}))
    assert artifact.files() == [artifact.path("data/en-00000.parquet")]


def test_a_writer_killed_at_any_moment_leaves_no_half_file(tmp_path):
    """A child writes the same unit over and over and is killed: what stands under the name is always whole."""
    script = (
        "import pyarrow as pa; from xlt_ray.store import artifacts\n"
        f"a = artifacts.plan({str(tmp_path)!r}, 'embed', 'a', {IDENTITY!r}, {{}}); a.begin()\n"
        "print('go', flush=True)\n"
        "for n in range(10**6):\n"
        "    a.write_table('data/u.parquet', pa.table({'x': [n] * 300_000}), use_dictionary=False)\n"
    )
    for wait in (0.05, 0.11, 0.17):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"go\n"
        timer = threading.Timer(wait, child.kill)
        timer.start()
        child.wait()
        files = list((tmp_path / "embed" / "a" / "data").glob("u.parquet"))
        assert all(len(set(pq.read_table(file)["x"].to_pylist())) == 1 for file in files)
        assert all(pq.read_table(file).num_rows == 300_000 for file in files)
    assert planned(tmp_path).done() <= {"u"}


def test_commit_asks_for_no_shard_alone(tmp_path, monkeypatch):
    """Of the thousands of an artifact in an object store: each would take 10 to 50 ms."""
    artifact = started(tmp_path)
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1]}))
    artifact.merge_rejected()
    asked, locate = [], storage.locate
    monkeypatch.setattr(storage, "locate", lambda uri: asked.append(uri) or locate(uri))
    artifact.commit(units={"en-00000": 1}, num_rows_in=1, inputs={}, seconds=0)
    assert artifact.path("data/en-00000.parquet") not in asked


def test_commit_sweeps_up_after_killed_writers(tmp_path):
    artifact = started(tmp_path)
    artifact.write_table("data/en-00000.parquet", pa.table({"x": [1]}))
    half = tmp_path / "embed/a/data/.en-00001.parquet.0123"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    young = half.with_name(".en-00002.parquet.4567")
    young.write_bytes(b"half")
    assert artifact.done() == {"en-00000"}
    artifact.merge_rejected()
    artifact.commit(units={"en-00000": None}, num_rows_in=1, inputs={}, seconds=1)
    assert not half.exists()
    assert young.exists()


def test_find_names_what_is_there(tmp_path):
    artifact = started(tmp_path, name="good")
    artifact.merge_rejected()
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=1)
    started(tmp_path, name="half")
    assert artifacts.find(str(tmp_path), "embed", "good").uri == artifact.uri
    with pytest.raises(UserError, match=r"no finished embed artifact 'half' .* finished ones: good"):
        artifacts.find(str(tmp_path), "embed", "half")


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        planned(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_that_may_not_be_written_is_refused_at_planning(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match=r"--root '.*/locked/runs' can't be written"):
        planned(tmp_path / "locked" / "runs")


def test_a_root_that_can_no_longer_be_written_is_a_mistake_of_the_user(tmp_path):
    """What planning found may have changed until the work starts."""
    artifact = planned(tmp_path / "runs")
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"can't be written .*; choose another --root"):
        artifact.begin()


def test_a_plan_writes_nothing(tmp_path):
    artifact = planned(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert (artifact.is_begun, artifact.is_complete, artifact.done()) == (False, False, set())
    assert artifact.settings == {"root": str(tmp_path / "runs")}
    artifact.begin()
    written = json.loads((tmp_path / "runs/embed/a/config.json").read_text())
    assert written.pop("command").startswith("python ")
    assert written == {"identity": artifact.identity, "settings": artifact.settings}
    assert {key: written["identity"][key] for key in IDENTITY} == IDENTITY


def test_a_plan_sees_a_name_that_is_taken(tmp_path):
    started(tmp_path)
    config = tmp_path / "embed/a/config.json"
    before = config.stat().st_mtime_ns, config.read_bytes()
    planned(tmp_path).begin()
    taken = rf"{tmp_path}/embed/a was made with other settings \(languages: .*\); choose another --name, or delete it"
    with pytest.raises(UserError, match=taken):
        planned(tmp_path, identity=IDENTITY | {"languages": ["fr"]})
    assert (config.stat().st_mtime_ns, config.read_bytes()) == before


def test_what_another_job_began_meanwhile_with_other_settings_is_not_gone_on_with(tmp_path):
    """Both were planned while the name was free; the first was killed after a unit."""
    first, second = planned(tmp_path), planned(tmp_path, identity=IDENTITY | {"languages": ["fr"]})
    first.begin()
    first.write_bytes("data/u.parquet", b"rows of the first")
    lease.give_back(first.uri)
    for _ in range(2):  # it leaves the lease to others
        with pytest.raises(UserError, match=r"was made with other settings \(languages: .*\); choose another --name"):
            second.begin()
    first.begin()
    assert first.done() == {"u"}


def test_settings_are_those_of_the_run_that_began_it(tmp_path):
    """The identity decides what comes out, so a second run may have others."""
    started(tmp_path)
    again = artifacts.plan(str(tmp_path), "embed", "a", IDENTITY, {"root": "elsewhere"})
    again.begin()
    assert again.settings == {"root": str(tmp_path)}


def test_the_version_of_a_table_counts_for_the_stages_that_write_it(tmp_path, monkeypatch):
    made = {stage: planned(tmp_path, stage=stage) for stage in ("embed", "translate")}
    for artifact in made.values():
        artifact.begin()
    monkeypatch.setitem(schema.VERSIONS, "index", schema.VERSIONS["index"] + 1)
    assert planned(tmp_path, stage="translate") == made["translate"]
    version = schema.VERSIONS["index"]
    with pytest.raises(UserError, match=rf"schema\.index: {version - 1} stored, {version} given"):
        planned(tmp_path, stage="embed")


def test_rows_that_are_given_are_taken_and_others_counted(tmp_path):
    """A caller that knows the rows of a unit saves the opening of its file."""
    artifact = started(tmp_path)
    for unit, num in (("en-00000", 3), ("fr-00000", 2)):
        artifact.write_table(f"data/{unit}.parquet", pa.table({"x": [0] * num}))
    artifact.merge_rejected()
    artifact.commit(units={"en-00000": 1, "fr-00000": None}, num_rows_in=3, inputs={}, seconds=1)
    files = artifact.read_json("manifest.json")["files"]
    assert [(file["path"], file["rows"]) for file in files] == [
        ("data/en-00000.parquet", 1),
        ("data/fr-00000.parquet", 2),
    ]


def test_fingerprint_ignores_the_order_of_keys():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
