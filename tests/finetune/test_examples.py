"""What is left to train on, once the encoder has rejected what it can't read."""

import dataclasses

import embedded
import numpy as np
import pytest
from tiny import tiny_whisper

from xlt_ray.errors import UserError
from xlt_ray.finetune import fisher, pipeline
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.finetune.plan import prepare
from xlt_ray.models import whisper

ROWS = [
    embedded.utterance(f"{code}-{split}-{number}", f"{split}-{number}", code, split)
    for code in ("en", "fr")
    for split in ("train", "dev")
    for number in range(2)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


def planned(root, model, rows=ROWS, rejected=(), **settings):
    frames = {None: np.zeros((3, 32), np.float16)}
    embedded.write(root, "speech", rows, lambda _: frames, sha256=whisper.weights_sha256(model), rejected=rejected)
    config = FinetuneConfig(embeddings="speech", **settings)
    return prepare(FinetuneJob(root=str(root), name="new", languages=("en", "fr"), model=str(model), finetune=config))


def ids(code, split):
    return {row.utterance_id for row in ROWS if (row.language, row.split) == (code, split)}


@pytest.mark.parametrize(
    ("split", "settings", "direction"),
    [
        ("train", {"directions": ("en-zh", "fr-zh")}, "fr-zh"),
        ("train", {"keep": ("fr-en", "en-en"), "replay_fraction": 0.5}, "fr-en"),
        ("dev", {"directions": ("en-zh", "fr-zh"), "evaluate_every": 1}, "fr-zh"),
        ("dev", {"evaluate": ("fr-en",), "evaluate_every": 1}, "fr-en"),
    ],
)
def test_a_direction_without_a_recording_that_is_left_stops_the_run(tmp_path, model, split, settings, direction):
    """Of the others alone it would be another training, and dev BLEU of it can't be measured."""
    plan = planned(tmp_path, model, rejected=ids("fr", split), **settings)
    with pytest.raises(UserError, match=f"no example of {direction} is left in split '{split}': /.*rejected.parquet"):
        pipeline.begin(plan, pipeline.Collected())


def test_so_does_one_whose_texts_are_all_too_long(tmp_path, model):
    long = [dataclasses.replace(row, translations={"zh": "你" * 200}) if row.language == "fr" else row for row in ROWS]
    plan = planned(tmp_path, model, long, directions=("en-zh", "fr-zh"))
    with pytest.raises(UserError, match="no example of fr-zh is left in split 'train': 2 texts are longer"):
        pipeline.begin(plan, pipeline.Collected())


@pytest.mark.parametrize("keep", [("fr-en",), ("fr-en", "en-en")])
def test_no_fisher_is_estimated_without_one_of_its_tasks(tmp_path, model, keep):
    plan = planned(tmp_path, model, rejected=ids("fr", "train"), keep=keep, ewc_lambda=1.0)
    with pytest.raises(UserError, match="no example of fr-en is left in split 'train'"):
        fisher._examples(plan.job, plan.embeddings, keep)


def test_some_that_are_rejected_stop_nothing(tmp_path, model):
    plan = planned(tmp_path, model, rejected=["fr-train-0"], directions=("en-zh", "fr-zh"))
    _, examples = pipeline.begin(plan, pipeline.Collected())
    assert examples.table["utterance_id"].to_pylist() == ["en-train-0", "en-train-1", "fr-train-1"]
