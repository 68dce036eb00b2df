"""Files of an earlier run, as the next one finds them."""

from types import SimpleNamespace

import pyarrow as pa

from xlt_ray.job import resume
from xlt_ray.store import artifacts


def test_nodes_that_check_are_waited_for_aloud(tmp_path, monkeypatch):
    """On a cluster that has shrunk to its head nobody can check, and Ray would wait without a word."""
    told = []

    def remote(**options):
        assert told == [("embed", [{"CPU": options["num_cpus"]}])]
        return lambda function: SimpleNamespace(remote=function)

    monkeypatch.setattr(resume, "_HERE_BYTES", 0)
    monkeypatch.setattr(resume.room, "wait", lambda what, bundles: told.append((what, bundles)))
    monkeypatch.setattr(resume.ray, "remote", remote)
    monkeypatch.setattr(resume.ray, "get", lambda found: found)
    artifact = artifacts.plan(str(tmp_path), "embed", "x", {}, {})
    artifact.begin()
    artifact.write_table("data/en-00000.parquet", pa.table({"row": [1]}))
    artifact.write_table("data/en-00001.parquet", pa.table({"row": [2]}))
    lost = tmp_path / "embed/x/data/en-00001.parquet"
    lost.write_bytes(bytes(lost.stat().st_size))
    resume.drop_damaged(artifact)
    assert artifact.done() == {"en-00000"}
