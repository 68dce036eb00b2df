"""A study on a tiny model: two sources into one target, their matrix, and what is held against it."""

import json
import subprocess
import sys

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
from ray_speech import row, tone, write_rows
from safetensors.torch import load_file
from soundfile import write
from tiny import tiny_whisper

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SOURCES = ("en", "fr")
NUM_SENTENCES = 12
LIGHT = ["--finetune.batch-size", "4", "--finetune.epochs", "1", "--finetune.learning-rate", "1e-2"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The root of a finished study, its flags, and what it printed."""
    folder = tmp_path_factory.mktemp("study")
    rows = []
    for number, language in enumerate(SOURCES):
        for sentence in range(NUM_SENTENCES):
            name = f"{language}-{sentence:03d}.wav"
            write(folder / name, tone(sentence, number, 0.5), 16_000)
            split = "test" if sentence % 3 == 1 else "train"
            rows.append(row(language, sentence, name) | {"translations": {"zh": f"{sentence}号"}, "split": split})
    manifest = write_rows(folder, rows)
    model = tiny_whisper(folder / "model")
    flags = ["--corpus", f"manifest:{manifest}", "--languages", ",".join(SOURCES), "--model", str(model)]
    flags += ["--root", str(folder), "--name", "mine", *LIGHT]
    return folder, flags, run(flags)


def run(flags):
    command = [sys.executable, "jobs/study.py", *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    return done.stdout


def read(folder, stage, name):
    return json.loads((folder / stage / name / "metrics.json").read_text())


def test_the_matrix_is_what_the_runs_scored(studied):
    folder, _, output = studied
    figures = read(folder, "study", "mine")
    before = read(folder, "translate", "mine-base")["directions"]
    pairs = read(folder, "retrieval", "mine-test")["pairs"]
    for trained in SOURCES:
        scores = read(folder, "translate", f"mine-{trained}-zh")
        assert scores["checkpoint"]["name"] == f"mine-{trained}-zh"
        for heard in SOURCES:
            cell, direction = figures["transfer"][trained][heard], f"{heard}-zh"
            assert cell["bleu"] == scores["directions"][direction]["bleu"]
            assert cell["gain"] == pytest.approx(cell["bleu"] - before[direction]["bleu"])
            assert cell["num"] == 4
    assert figures["predictors"]["r1"] == {
        "en": {"fr": pairs["fr-en"]["r1"]},
        "fr": {"en": pairs["en-fr"]["r1"]},
    }
    assert figures["correlations"]["r1"]["num_cells"] == 2
    assert "BLEU into zh over the untouched model" in output
    rows = pq.read_table(folder / "study" / "mine" / "data" / "cells.parquet").to_pylist()
    assert [(row["trained"], row["heard"]) for row in rows] == [(a, b) for a in SOURCES for b in SOURCES]
    manifest = json.loads((folder / "study" / "mine" / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_out"]) == (4, 4)


def test_the_distance_is_that_of_the_two_fishers_over_the_weights_that_train(studied):
    folder, _, _ = studied
    fishers = [load_file(folder / "fisher" / f"mine-{source}-zh" / "fisher.safetensors") for source in SOURCES]
    parts = [
        torch.cat([fisher[name].flatten() for name in sorted(fisher) if "embed_tokens" not in name])
        for fisher in fishers
    ]
    first, second = (values.double() / values.double().sum() for values in parts)
    expected = 0.5 * (first.sqrt() - second.sqrt()).square().sum().item()
    figures = read(folder, "study", "mine")["predictors"]["fisher_distance"]
    assert figures == {"en": {"fr": pytest.approx(expected)}, "fr": {"en": pytest.approx(expected)}}
    assert 0 < expected < 1


def test_its_runs_are_nested_in_mlflow(studied):
    folder, _, _ = studied
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("xlt_ray/study").experiment_id])
    (parent,) = [found for found in runs if found.info.run_name == "mine"]
    children = {
        found.info.run_name for found in runs if found.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    tuned = {f"{kind} mine-{source}-zh" for kind in ("fisher", "model") for source in SOURCES}
    assert children == {"translate mine-base", "retrieval mine-test", *tuned}
    for source in SOURCES:
        (model,) = [found for found in runs if found.info.run_name == f"model mine-{source}-zh"]
        parts = [found for found in runs if found.data.tags.get("mlflow.parentRunId") == model.info.run_id]
        assert {found.info.run_name for found in parts} == {
            f"{kind} mine-{source}-zh" for kind in ("finetune", "translate")
        }
        scores = read(folder, "translate", f"mine-{source}-zh")["directions"]
        assert model.data.metrics["test/bleu_learned"] == pytest.approx(scores[f"{source}-zh"]["bleu"])
        assert model.data.params["finetune.learning_rate"] == "0.01"
    figures = read(folder, "study", "mine")
    assert parent.data.metrics["gain/best_source"] == pytest.approx(figures["ranking"][0]["mean_gain"])
    gains = [figures["transfer"][a][b]["gain"] for a in SOURCES for b in SOURCES if a != b]
    assert parent.data.metrics["gain/others"] == pytest.approx(sum(gains) / 2)


def test_a_finished_study_is_left_alone(studied):
    _, flags, _ = studied
    assert "is complete, nothing to compare" in run(flags)
