"""Where the commit, the hash of the source and the hardware of a result come from."""

import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from xlt_ray.errors import UserError
from xlt_ray.store import artifacts, provenance, storage, workers
from xlt_ray.store.schema import REJECTED

PACKAGE = Path(provenance.__file__).parents[1]


def git(folder, *words):
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "a", "GIT_COMMITTER_NAME": "a"}
    env |= {"GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package, with names that git sorts in its own way."""
    package = tmp_path / "repository" / "package"
    (package / "a").mkdir(parents=True)
    (package / "a" / "one.py").write_text("1\n")
    (package / "a.py").write_text("")
    (package / "a-b").write_bytes(b"\x00\xff")
    (package / "__init__.py").write_text("")
    (package / "run").write_text("#!/bin/sh\n")
    (package / "run").chmod(0o755)
    (package / "a" / "__pycache__").mkdir()
    (package / "a" / "__pycache__" / "one.pyc").write_text("no part of it")
    (package / "empty").mkdir()
    (tmp_path / "repository" / ".gitignore").write_text("__pycache__\n")
    git(tmp_path, "init", "-q", "repository")
    git(package, "add", "-A", "..")
    git(package, "commit", "-q", "-m", "all")
    return package


def test_the_hash_of_the_source_is_that_of_git(checkout):
    assert provenance.tree_hash(checkout) == git(checkout, "rev-parse", "HEAD:package")


def test_the_commit_is_that_of_the_checkout(checkout, monkeypatch):
    monkeypatch.setenv("XLT_RAY_COMMIT", "f" * 40)
    head = git(checkout, "rev-parse", "HEAD")
    assert provenance._revision(checkout) == {"sha": head, "dirty": False}
    (checkout / "a.py").write_text("changed")
    assert provenance._revision(checkout) == {"sha": head, "dirty": True}


def test_a_repository_around_an_installed_package_is_not_its_own(checkout, monkeypatch):
    installed = checkout / "installed"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    assert provenance._revision(installed) == {"sha": None, "dirty": None}
    monkeypatch.setenv("XLT_RAY_COMMIT", "f" * 40)
    assert provenance._revision(installed) == {"sha": "f" * 40, "dirty": False}
    monkeypatch.setenv("XLT_RAY_COMMIT", f"{'f' * 40}-dirty")
    assert provenance._revision(installed) == {"sha": "f" * 40, "dirty": True}


def test_the_manifest_counts_the_machines_that_computed(tmp_path, monkeypatch):
    artifact = artifacts.plan(str(tmp_path), "embed", "mine", {}, {})
    artifact.begin()
    card = {"cpu": "Xeon", "num_cpus": 16, "memory_gb": 64.0, "gpus": ["H100"]}
    monkeypatch.setattr(workers, "hardware", lambda: dict(card))
    for node, device in [("one", "cuda"), ("two", "cuda"), ("two", "cuda"), ("head", "cpu")]:
        workers.note.cache_clear()  # each in a process of its own
        monkeypatch.setattr(workers.platform, "node", lambda node=node: node)
        workers.note(artifact.uri, device)
    artifact.write_table("rejected.parquet", REJECTED.empty_table())
    artifact.write_table("data/en.parquet", pa.table({"row": [1]}))
    artifact.commit(units={"en": 1}, num_rows_in=1, inputs={}, seconds=1.0)
    made_by = artifact.read_json("manifest.json")
    assert made_by["workers"] == [{**card, "nodes": 2}, {**card, "gpus": [], "nodes": 1}]
    assert made_by["git"]["source"] == provenance.tree_hash(PACKAGE)
    assert not list(storage.list_files(artifact.path("workers")))


def commit(artifact, rows):
    artifact.write_table("rejected.parquet", REJECTED.empty_table())
    for unit in rows:
        artifact.write_table(f"data/{unit}.parquet", pa.table({"row": [1]}))
    artifact.commit(units=dict.fromkeys(rows, 1), num_rows_in=len(rows), inputs={}, seconds=1.0)
    return artifact.read_json("manifest.json")["workers"]


@pytest.mark.parametrize("again", ["rows are added", "it is shown anew"])
def test_machines_of_an_earlier_run_stay_in_the_manifest(tmp_path, monkeypatch, again):
    card = {"cpu": "Xeon", "num_cpus": 16, "memory_gb": 64.0, "gpus": ["H100"]}
    monkeypatch.setattr(workers, "hardware", lambda: dict(card))
    artifact = artifacts.plan(str(tmp_path), "embed", "mine", {}, {})
    artifact.begin()
    for node in ("one", "two"):
        workers.note.cache_clear()
        monkeypatch.setattr(workers.platform, "node", lambda node=node: node)
        workers.note(artifact.uri, "cuda")
    assert commit(artifact, ["en"]) == [{**card, "nodes": 2}]
    artifact.begin()
    if again == "it is shown anew":
        artifact.reopen()
        assert commit(artifact, ["en"]) == [{**card, "nodes": 2}]
        return
    workers.note.cache_clear()
    workers.note(artifact.uri, "cuda")
    workers.note(artifact.uri, "cpu")
    assert commit(artifact, ["en", "fr"]) == [{**card, "nodes": 2}, {**card, "gpus": [], "nodes": 1}]


def test_a_machine_that_does_not_see_the_artifact_writes_nothing(tmp_path):
    """A node that came after the job had looked at all there were, as on a cluster that starts from none."""
    workers.note.cache_clear()
    with pytest.raises(UserError, match=r"does not see .*/embed/x; give a --root that all nodes share"):
        workers.note(str(tmp_path / "embed" / "x"), "cpu")
    assert not list(tmp_path.iterdir())
