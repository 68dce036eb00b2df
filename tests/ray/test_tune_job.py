"""A search on a tiny model: every trial a Ray Train run, killed half-way, gone on with; a trial that fails."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pyarrow.parquet as pq
import pytest
from ray_speech import row, tone, write_rows
from soundfile import write
from tiny import tiny_whisper

from xlt_ray.job.tracking import HEADLINES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

NUM_SENTENCES = 12
GRID = ["--tune.learning-rate", "1e-3,1e-2", "--tune.ewc-lambda", "0,100"]
ROW = ["--tune.learning-rate", "1e-2", "--tune.ewc-lambda", "0,100"]
LIGHT = ["--finetune.batch-size", "4", "--finetune.epochs", "3", "--finetune.evaluate-every", "2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus of tones with texts in zh and en, a tiny model, and a root with embeddings."""
    folder = tmp_path_factory.mktemp("search")
    rows = []
    for number, language in enumerate(("en", "fr")):
        for sentence in range(NUM_SENTENCES):
            name = f"{language}-{sentence:03d}.wav"
            write(folder / name, tone(sentence, number, 0.5), 16_000)
            translations = {"zh": f"{sentence}号", "en": f"number {sentence}"}
            split = {1: "dev", 2: "test"}.get(sentence % 4, "train")
            rows.append(row(language, sentence, name) | {"translations": translations, "split": split})
    manifest = write_rows(folder, rows)
    model = tiny_whisper(folder / "model")
    flags = ["--corpus", f"manifest:{manifest}", "--languages", "en,fr", "--model", str(model)]
    return folder, [*flags, "--root", str(folder)]


def start(flags):
    command = [sys.executable, "jobs/tune.py", *flags, "--tune.num-chosen", "1", *LIGHT]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def kill(process):
    """The driver and all that it has started."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def settings_of(figures):
    """EWC strength and learning rate of each trial, smallest first."""
    return sorted((trial["settings"]["ewc_lambda"], trial["settings"]["learning_rate"]) for trial in figures["trials"])


def trial_files(folder, name):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "tune" / name / "data").glob("[0-9]*.parquet")}


def test_a_search_that_is_killed_goes_on_with_what_is_missing(world):
    folder, flags = world
    flags = [*flags, *ROW, "--name", "search", "--tune.max-concurrent", "1", "--tune.reduction", "1"]
    process = start(flags)
    while process.poll() is None and not trial_files(folder, "search"):
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[0]
    kill(process)
    before = trial_files(folder, "search")
    assert len(before) == 1
    output = finish(start(flags))
    assert "1 of 2 trials are done" in output
    after = trial_files(folder, "search")
    assert len(after) == 2
    assert {name: after[name] for name in before} == before

    artifact = folder / "tune" / "search"
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_rejected"]) == (2, 2, 0)
    figures = json.loads((artifact / "metrics.json").read_text())
    assert [trial["status"] for trial in figures["trials"]] == ["finished"] * 2
    # 6 sentences to learn, 4 a step, 3 epochs: 5 or 6 steps, measured at 2, 4 and at the end.
    assert [[point["step"] for point in trial["curve"]] for trial in figures["trials"]] == [[2, 4, 6]] * 2
    assert settings_of(figures) == [(0.0, 1e-2), (100.0, 1e-2)]
    chosen = [trial for trial in figures["trials"] if trial["chosen"]]
    assert len(chosen) == 1
    assert {path.name for path in (folder / "finetune").iterdir()} == {chosen[0]["name"]}
    tested = json.loads((folder / "translate" / chosen[0]["name"] / "metrics.json").read_text())
    assert tested["checkpoint"]["name"] == chosen[0]["name"]
    assert chosen[0]["test"]["new_bleu"] == tested["directions"]["en-zh"]["bleu"]
    assert not (artifact / "search").exists()

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("xlt_ray/tune").experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "search" and run.info.status == "FINISHED"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    trials = [run for run in children if run.info.run_name.startswith("trial ")]
    assert {run.info.run_name for run in trials} == {f"trial search-{number:03d}" for number in range(2)}
    for run in trials:
        assert {"new_bleu", "old_bleu", "kept/gain", "finetune/num_steps"} <= run.data.metrics.keys()
        assert len(run.data.metrics) <= HEADLINES
        table = json.loads(Path(client.download_artifacts(run.info.run_id, "bleu.json")).read_text())
        bleu = dict(table["data"])
        assert bleu.keys() == {"en-zh", "fr-en"}
        assert run.data.metrics["new_bleu"] == pytest.approx(bleu["en-zh"])
        assert {"learning_rate", "ewc_lambda"} == run.data.params.keys()  # the axes that the UI draws by itself

    assert "nothing to search" in finish(start(flags))


def test_trials_that_fall_behind_are_stopped_and_one_that_fails_is_recorded(world, several_cpus):
    """Two at a time; a checkpoint that can't be read makes one trial fail, and the others end."""
    folder, flags = world
    flags = [*flags, *GRID, "--name", "side", "--finetune.embeddings", "search", "--finetune.max-failures", "0"]
    broken = folder / "finetune" / "side-001"
    broken.mkdir(parents=True)
    (broken / "train").write_text("a file where Ray Train wants a folder")
    output = finish(start(flags))
    artifact = folder / "tune" / "side"
    figures = json.loads((artifact / "metrics.json").read_text())
    assert settings_of(figures) == [(0.0, 1e-3), (0.0, 1e-2), (100.0, 1e-3), (100.0, 1e-2)]
    assert figures["trials"][1]["status"] == "failed"
    (rejected,) = pq.read_table(artifact / "rejected.parquet").to_pylist()
    assert rejected["utterance_id"] == "side-001"
    assert rejected["reason"]
    assert rejected["reason"] == figures["trials"][1]["reason"]
    assert "side-001 failed" in output
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_rejected"]) == (4, 3, 1)
    assert sum(trial["chosen"] for trial in figures["trials"]) == 1
