"""Runs that MLflow has none of: a root with every stage in it, logged later, as users compare it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from searched_runs import search_figures, study_figures
from test_report import retrieval_metrics
from tuned_runs import BEFORE, KEEP, MODEL, WER_BEFORE, compared, figures_of, log_of, moved

from xlt_ray.errors import Damaged
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.job import runs
from xlt_ray.job.settings import identity
from xlt_ray.job.tracking import HEADLINES
from xlt_ray.report.untracked import log_missing
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import HYPOTHESIS
from xlt_ray.translate.config import TranslateConfig

SETTINGS = {"corpus": "fleurs", "model": "base"}
ROWS = {"test": {"num_rows": 3, "sha256": "f0" * 32}}
RATES = {"slow": (1e-5, 1.5), "fast": (1e-3, 9.0)}
"""Learning rate and gain of two models."""
SPEECH = {
    "languages": {
        "en": {"num_utterances": 2, "seconds": 3.5, "num_rejected": 1, "splits": {}},
        "fr": {"num_utterances": 5, "seconds": 4.0, "num_rejected": 0, "splits": {}},
    }
}


def finished(
    root: Path, stage: str, name: str, metrics: Any, what: dict[str, Any] | None = None, **settings: Any
) -> Artifact:
    """A finished artifact without rows."""
    found = {"embeddings": {"rows": ROWS}, "name": name, **(what or {})}
    artifact = artifacts.plan(str(root), stage, name, found, SETTINGS | settings)
    artifact.begin()
    artifact.write_json("metrics.json", metrics)
    units: dict[str, int | None] = {}
    if stage == "translate":
        rows = [{"direction": d, "utterance_id": "u", "sentence_id": "s", "text": None} for d in BEFORE]
        table = [row | {"reference": "a", "hypothesis": "b", "num_tokens": 1} for row in rows]
        artifact.write_table("data/u.parquet", pa.Table.from_pylist(table, schema=HYPOTHESIS))
        units = {"u": len(table)}
    if stage == "finetune":
        rows = log_of(120, has_dev=True)
        artifact.write_json("log.json", [row | _by_direction(row) for row in rows])
    artifact.merge_rejected()
    embedded = {"embed": {"name": "speech", "fingerprint": "e"}}
    inputs = {"corpus": {"name": "fleurs", "num_rows": 8, "sha256": "ab" * 32}} if stage == "embed" else embedded
    others = ["log.json"] if stage == "finetune" else []
    artifact.commit(units=units, num_rows_in=sum(map(int, units.values())), inputs=inputs, seconds=2, others=others)
    return artifact


def _by_direction(row: dict[str, float]) -> dict[str, float]:
    return {f"dev_bleu/{name}": row["dev_bleu"] + 1 for name in ("en-zh", "fr-en")} if "dev_bleu" in row else {}


def write_all(root: Path) -> None:
    """One finished artifact of each stage, and two models with their translations."""
    finished(root, "embed", "speech", SPEECH)
    finished(root, "retrieval", "found", retrieval_metrics())
    pair = {"num_first": 4, "num_second": 3, "num_found": 2, "num_mined": 1, "candidate_recall": {}}
    finished(root, "mine", "mined", {"pairs": {"en-fr": pair | {"against_corpus": None}}})
    finished(root, "fisher", "f", {"num_examples": 200, "trace": 41234.5, "largest": 12.5})
    finished(root, "tune", "search", search_figures())
    figures = study_figures()
    figures["transfer"]["ru"]["it"] = figures["transfer"]["ru"]["fr"]
    finished(root, "study", "s", figures)
    untouched = figures_of(BEFORE, WER_BEFORE) | {"source_prompt": None}
    finished(root, "translate", "base", untouched, translate={"split": "test"})
    for name, (rate, gain) in RATES.items():
        config = FinetuneConfig(learning_rate=rate, directions=("en-zh",), keep=KEEP, ewc_lambda=10.0)
        figures = {"num_examples": {"learn": 9}, "num_steps": 120, "loss": {"first": 3.5, "last": 1.0}}
        figures |= {"dev_bleu": {"best": 20.0, "last": 17.5}, "penalty": None, "samples_per_s": 20.25}
        what = {"model": MODEL, "finetune": identity(config)}
        tuned = finished(root, "finetune", name, figures, what, finetune=dataclasses.asdict(config))
        after = moved(0.5, gain)
        scores = figures_of(after, WER_BEFORE) | {"checkpoint": tuned.named, "alpha": 1.0, "source_prompt": None}
        scores |= {"kept": {"directions": compared(after), "gain": gain, "backward_transfer": -3.0}}
        translate = TranslateConfig(checkpoint=name)
        finished(root, "translate", name, scores, {"translate": identity(translate)}, translate={"split": "test"})


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MlflowClient, list[Run]]:
    """A root, its store, and every run in it."""
    root = tmp_path_factory.mktemp("runs")
    write_all(root)
    log_missing(str(root))
    assert not runs.lost(str(root))
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return root, client, client.search_runs(experiments)


def table_of(logged: tuple[Path, MlflowClient, list[Run]], stage: str, file: str) -> list[dict[str, Any]]:
    _, client, found = logged
    run = next(run for run in found if run.data.tags["stage"] == stage)
    table = json.loads(Path(client.download_artifacts(run.info.run_id, file)).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@pytest.mark.slow
def test_no_run_has_more_numbers_than_fit_beside_one_another(logged: tuple[Path, MlflowClient, list[Run]]) -> None:
    _, _, found = logged
    stages = {"embed", "retrieval", "mine", "fisher", "finetune", "tune", "translate", "study", "model"}
    assert {run.data.tags["stage"] for run in found} == stages
    for run in found:
        assert 1 <= len(run.data.metrics) <= HEADLINES, (run.data.tags["stage"], sorted(run.data.metrics))
        assert not [key for key in run.data.metrics if "-" in key.rpartition("/")[2]]


def test_what_belongs_to_a_pair_is_in_a_table(logged: tuple[Path, MlflowClient, list[Run]]) -> None:
    metrics = retrieval_metrics()
    pairs = {row["pair"]: row["r1"] for row in table_of(logged, "retrieval", "retrieval.json")}
    assert pairs == pytest.approx({pair: figures["r1"] for pair, figures in metrics["pairs"].items()})
    scores = {row["score"]: row["r1"] for row in table_of(logged, "retrieval", "scores.json")}
    assert scores == pytest.approx(
        {"seqsim-f1": metrics["mean"]["r1"]} | {k: scores["mean"]["r1"] for k, scores in metrics["baselines"].items()}
    )
    assert [row["seconds"] for row in table_of(logged, "embed", "languages.json")] == [3.5, 4.0]
    dev = table_of(logged, "finetune", "dev_bleu.json")
    assert [(row["step"], row["direction"]) for row in dev[:3]] == [(30, "en-zh"), (30, "fr-en"), (60, "en-zh")]
    assert dev[0]["bleu"] == 1 + 20 - 60
    cells = table_of(logged, "study", "cells.json")
    figures = study_figures()["transfer"]
    assert {(row["trained"], row["heard"]): row["gain"] for row in cells if row["trained"] == "it"} == pytest.approx(
        {("it", heard): cell["gain"] for heard, cell in figures["it"].items()}
    )


def test_a_setting_is_held_against_a_test_score_on_one_run(logged: tuple[Path, MlflowClient, list[Run]]) -> None:
    _, _, found = logged
    models = [run for run in found if run.data.tags["stage"] == "model"]
    points = {float(run.data.params["finetune.learning_rate"]): run.data.metrics["test/bleu_learned"] for run in models}
    assert points == pytest.approx({rate: moved(0.5, gain)["en-zh"] for rate, gain in RATES.values()})
    for run in models:
        parts = [part for part in found if part.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert {part.data.tags["stage"] for part in parts} == {"finetune", "translate"}
        assert run.data.metrics["dev/bleu"] == 20.0


def test_every_run_names_what_it_read(logged: tuple[Path, MlflowClient, list[Run]]) -> None:
    root, _, found = logged
    for run in found:
        if run.data.tags["stage"] == "model":
            continue
        (read,) = run.inputs.dataset_inputs
        digest = "ab" * 18 if run.data.tags["stage"] == "embed" else "f0" * 18
        assert (read.dataset.name, read.dataset.digest) == ("fleurs", digest)
        assert json.loads(read.dataset.source) == {"uri": f"{root}/embed/speech/index.parquet"}


@pytest.mark.slow
def test_figures_that_no_job_writes_keep_no_other_from_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, "retrieval", "odd", {"pairs": 3})
    finished(tmp_path, "fisher", "f", {"num_examples": 200, "trace": 41234.5, "largest": 12.5})
    log_missing(str(tmp_path))
    odd, closing = capsys.readouterr().out.splitlines()[-2:]
    assert odd.startswith("runs: not logged: ")
    assert "retrieval/odd can't be read" in odd
    assert closing == "runs: 1 artifacts logged, 0 had a run"


def test_a_damaged_file_is_told_as_its_reader_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untouched = figures_of(BEFORE, WER_BEFORE) | {"source_prompt": None}
    broken = finished(tmp_path, "translate", "base", untouched, translate={"split": "test"})
    rows = Path(broken.path("data", "u.parquet"))
    rows.write_bytes(b"{" * rows.stat().st_size)  # as long as they were, so that only their reader sees it
    log_missing(str(tmp_path))
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("runs: not logged: ")]
    with pytest.raises(Damaged) as error:
        list(broken.tables())
    assert said == f"runs: not logged: {error.value}"


def test_nothing_is_logged_twice(
    logged: tuple[Path, MlflowClient, list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, client, found = logged
    log_missing(str(root))
    assert "0 artifacts logged, 11 had a run" in capsys.readouterr().out
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert len(client.search_runs(experiments)) == len(found)
