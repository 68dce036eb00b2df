"""Tuned models as they are compared in MLflow: settings and scores on one run, data as inputs, names under a prefix."""

import json
import sqlite3
import time
import types
from pathlib import Path

import mlflow
import mlflow.data
import mlflow.store.db.utils
import pytest
import sqlalchemy
from mlflow import MlflowClient

from xlt_ray.job import runs, tracking
from xlt_ray.job.tracking import HEADLINES, Model
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact
from xlt_ray.translate.keys import model_keys

SHA256 = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def forget_losses(monkeypatch):
    monkeypatch.setattr(runs, "_lost", {})


def identity_of(rate, strength=0.0):
    rows = {"train": {"num_rows": 90, "sha256": SHA256}, "dev": {"num_rows": 9, "sha256": SHA256[::-1]}}
    finetune = {"learning_rate": rate, "ewc_lambda": strength, "directions": ["en-zh"]}
    return {"embeddings": {"rows": rows}, "model": {"sha256": "ab"}, "finetune": finetune}


def planned(root, name, rate, **settings):
    asked = {"corpus": "fleurs", "model": "base", **settings}
    return artifacts.plan(str(root), "finetune", name, identity_of(rate), asked)


def tune(root, artifact):
    embeddings = Artifact.at(str(root), "embed", "fleurs")
    names = {"corpus": "fleurs", "model": "base"}
    with tracking.track(
        str(root), "finetune", artifact.name, artifact.identity, names, read=embeddings, model=Model(artifact=artifact)
    ) as tracker:
        tracker.curve("train/loss", [(1, 3.0), (2, 2.0)])
        tracker.of_model({"dev/bleu": 20.0, "train/loss": 2.0})
        tracker.checkpoint(artifact.path("model"))


def translate(root, artifact, bleu, name=None, alpha=1.0):
    figures = {
        "directions": {
            "en-zh": {"bleu": bleu, "comet": 0.5},
            "fr-zh": {"bleu": bleu / 2, "comet": 0.25},
            "fr-en": {"bleu": 30.0, "comet": None},
            "fr-fr": {"measure": "wer", "wer": 0.5},
        },
        "kept": {"gain": bleu - 1, "backward_transfer": -2.0},
    }
    name = name or artifact.name
    what = {"checkpoint": artifact.fingerprint, "name": name}
    model = Model(artifact=artifact, alpha=alpha)
    with tracking.track(str(root), "translate", name, what, {"alpha": alpha}, model=model) as tracker:
        tracker.metrics({"bleu/elsewhere": bleu})
        tracker.of_model(model_keys(figures, "test", ["en-zh"]))


def store(root):
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def all_of(root, experiment="xlt_ray/finetune"):
    client = store(root)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_a_setting_and_a_test_score_are_on_one_run(root, monkeypatch):
    """As a user asks for them: MLflow's own table of runs has a row with both, one for each model."""
    tried = {"slow": (1e-5, 4.0), "fast": (1e-3, 12.0)}
    for name, (rate, _) in tried.items():
        tune(root, planned(root, name, rate))
    for name, (rate, bleu) in tried.items():  # another job, later
        translate(root, planned(root, name, rate), bleu, f"{name}-test")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    table = mlflow.search_runs(experiment_names=["xlt_ray/finetune"])
    param, metric = "params.finetune.learning_rate", "metrics.test/bleu_learned"
    both = table[table[param].notna() & table[metric].notna()]
    points = {(float(row[param]), row[metric]) for _, row in both.iterrows()}
    assert points == {(1e-5, 4.0), (1e-3, 12.0)}
    assert set(both["tags.mlflow.runName"]) == set(tried)
    assert set(both["status"]) == {"FINISHED"}
    assert both["params.finetune.ewc_lambda"].tolist() == ["0.0", "0.0"]


def test_a_model_holds_its_parts_and_no_more_than_the_headlines(root):
    artifact = planned(root, "m", 1e-4)
    tune(root, artifact)
    translate(root, artifact, 8.0)
    found = {run.info.run_name: run for run in all_of(root)}
    assert set(found) == {"m", "finetune m", "translate m"}
    whole = found.pop("m")
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {whole.info.run_id}
    assert "mlflow.parentRunId" not in whole.data.tags
    assert whole.data.tags["checkpoint"] == found["finetune m"].data.tags["checkpoint"] == artifact.path("model")
    assert (whole.data.params["corpus"], whole.data.params["alpha"]) == ("fleurs", "1.0")
    assert whole.data.metrics == pytest.approx(
        {
            **{"dev/bleu": 20.0, "train/loss": 2.0, "test/gain": 7.0, "test/backward_transfer": -2.0},
            **{"test/bleu_learned": 8.0, "test/bleu_transfer": 4.0, "test/bleu_into_en": 30.0, "test/comet": 0.375},
        }
    )
    assert len(whole.data.metrics) <= HEADLINES
    assert "fingerprint" not in whole.data.tags


def test_weights_between_two_models_are_a_model_of_their_own(root):
    artifact = planned(root, "m", 1e-4)
    tune(root, artifact)
    translate(root, artifact, 8.0)
    translate(root, artifact, 3.0, "half", alpha=0.5)
    scores = {
        run.info.run_name: (run.data.params["alpha"], run.data.metrics["test/bleu_learned"])
        for run in all_of(root)
        if "mlflow.parentRunId" not in run.data.tags
    }
    assert scores == {"m": ("1.0", 8.0), "m alpha 0.5": ("0.5", 3.0)}


def test_the_same_settings_under_another_root_are_another_model(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    for folder in ("one", "two"):
        tune(root / folder, planned(root / folder, "m", 1e-4))
        translate(root / folder, planned(root / folder, "m", 1e-4), 8.0)
    whole = [run for run in all_of(root) if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["artifact"] for run in whole} == {f"{root}/{name}/finetune/m" for name in ("one", "two")}
    assert len(all_of(root)) == 6


def test_a_model_that_a_study_makes_is_inside_it(root):
    artifact = planned(root, "s-en-zh", 1e-4)
    with tracking.track(str(root), "study", "s", {"study": 1}, {}):
        tune(root, artifact)
        translate(root, artifact, 8.0)
    translate(root, artifact, 9.0, "later")
    found = {run.info.run_name: run for run in all_of(root, "xlt_ray/study")}
    assert set(found) == {"s", "model s-en-zh", "finetune s-en-zh", "translate s-en-zh", "translate later"}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    whole = found["model s-en-zh"].info.run_id
    assert parents.pop("s") is None
    assert parents.pop("model s-en-zh") == found["s"].info.run_id
    assert set(parents.values()) == {whole}
    assert found["model s-en-zh"].data.metrics["test/bleu_learned"] == 9.0


def test_what_is_logged_late_does_not_hide_what_came_after(root):
    """Two translations of one model: the later one's score stands, in whatever order they are logged."""
    artifact = planned(root, "m", 1e-4)
    model = Model(artifact=artifact)
    for name, bleu, ended_ago in (("new", 9.0, 10.0), ("old", 1.0, 1000.0)):
        with tracking.track(str(root), "translate", name, {"n": name}, {}, 2000.0, ended_ago, model=model) as tracker:
            tracker.of_model({"test/bleu_learned": bleu})
    (whole,) = [run for run in all_of(root) if run.info.run_name == "m"]
    assert whole.data.metrics == {"test/bleu_learned": 9.0}


def test_a_model_whose_part_fails_has_failed_until_it_is_made(root):
    artifact = planned(root, "m", 1e-4)
    run = tracking.track(str(root), "finetune", "m", artifact.identity, {}, model=Model(artifact=artifact))
    with pytest.raises(RuntimeError, match="broken"), run:
        raise RuntimeError("broken")
    assert {run.info.status for run in all_of(root)} == {"FAILED"}
    with tracking.track(str(root), "finetune", "m", artifact.identity, {}, model=Model(artifact=artifact)):
        (whole,) = [run for run in all_of(root) if run.info.run_name == "m"]
        assert whole.info.status == "RUNNING"
    statuses = sorted((run.info.run_name, run.info.status) for run in all_of(root))
    assert statuses == [("finetune m", "FAILED"), ("finetune m", "FINISHED"), ("m", "FINISHED")]


def test_what_a_run_reads_is_its_input(root):
    """Name, hash and place, in the form that `mlflow.data` reads again."""
    index = Path(root, "embed", "fleurs", "index.parquet")
    index.parent.mkdir(parents=True)
    index.write_bytes(b"index")
    tune(root, planned(root, "m", 1e-4))
    (run,) = [run for run in all_of(root) if run.info.run_name == "finetune m"]
    found = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert {split: (data.name, data.digest) for split, data in found.items()} == {
        "train": ("fleurs", SHA256[:36]),
        "dev": ("fleurs", SHA256[::-1][:36]),
    }
    assert json.loads(found["train"].profile) == {"split": "train", "num_rows": 90, "sha256": SHA256}
    source = mlflow.data.get_source(found["train"])
    assert Path(source.load()).read_bytes() == b"index"


def test_no_password_reaches_the_store(root, monkeypatch):
    """Whatever is written: the bytes of the database and of all files do not hold it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    artifact = planned(root, "m", 1e-4, corpus="manifest:s3://ann:hunter2hunter2@b/x.tsv")
    rows = {"test": {"num_rows": 1, "sha256": SHA256}}
    model = Model(artifact=artifact)
    uri = "s3://ann:hunter2hunter2@bucket/runs"
    with tracking.track(str(root), "finetune", "m", artifact.identity, {"corpus": uri}, model=model) as tracker:
        tracker.datasets(uri, rows, f"{uri}/index.parquet")
        tracker.table({"audio": [f"{uri}/a.wav", None], "num": [1, 2]}, "table.json")
        tracker.checkpoint(f"{uri}/model")
        tracker.describe(f"see {uri}")
    assert not runs.lost(str(root))
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    assert any(path.name == "table.json" for path in files)
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


@pytest.mark.parametrize(
    ("prefix", "expected"), [(None, "xlt_ray/embed"), ("", "xlt_ray/embed"), ("team/quechua/", "team/quechua/embed")]
)
def test_experiments_stand_under_a_prefix(root, monkeypatch, prefix, expected):
    if prefix is not None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", prefix)
    with tracking.track(str(root), "embed", "a", {"a": 1}, {}):
        pass
    names = {experiment.name for experiment in store(root).search_experiments()}
    assert names - {"Default"} == {expected}


def test_work_goes_on_while_somebody_locks_the_store(root, monkeypatch, capfd):
    """A run that is opened, and one that is open. MLflow waits 20 s for a lock each time; here, 0.2 s."""
    impatient = types.SimpleNamespace(text=lambda code: sqlalchemy.sql.text(code.replace("20000", "200")))
    monkeypatch.setattr(mlflow.store.db.utils, "sql", impatient)
    other = sqlite3.connect(f"{root}/mlflow.db", isolation_level=None)
    with tracking.track(str(root), "embed", "a", {"a": 1}, {}) as tracker:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        for _ in range(20):
            tracker.metrics({"a": 1.0})
        with tracking.track(str(root), "retrieval", "b", {"b": 1}, {}) as inner:
            inner.metrics({"a": 1.0})
        assert time.monotonic() - started < 10
        other.execute("ROLLBACK")
    other.close()
    out, err = capfd.readouterr()
    assert out.count("not tracked") == 2
    assert "database is locked" in out
    assert "Traceback" not in err
    (run,) = all_of(root, "xlt_ray/embed")
    assert (run.info.status, run.data.metrics) == ("FAILED", {})
