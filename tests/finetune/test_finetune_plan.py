"""Every mistake of a user stops before Ray starts, in one line that names the value and what to do."""

import dataclasses

import embedded
import pytest
from safetensors.torch import load_file, save_file
from tiny import tiny_whisper

from xlt_ray.errors import NoResources, UserError
from xlt_ray.finetune import pipeline
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.finetune.cost import saving_memory
from xlt_ray.finetune.plan import plan_fisher, prepare
from xlt_ray.job import cli, cluster
from xlt_ray.models import whisper
from xlt_ray.models.size import ModelSize
from xlt_ray.presets import PRESETS
from xlt_ray.store import artifacts

FISHER = {
    "keep": ["fr-en"],
    "split": "train",
    "labels": "empirical",
    "examples": 200,
    "prompt": "tgt_transcribe",
    "seed": 7,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with embeddings of four recordings, and a finished fisher artifact of fr-en."""
    folder = tmp_path_factory.mktemp("root")
    model = tiny_whisper(folder / "model")
    sha256 = whisper.weights_sha256(model)
    rows = [
        embedded.utterance(f"{code}-{split}", "s", code, split) for code in ("en", "fr") for split in ("train", "dev")
    ]
    embedded.write(folder, "speech", rows, sha256=sha256, model=str(model))
    fisher = artifacts.plan(
        str(folder),
        "fisher",
        "kept",
        {"model": {"sha256": sha256}, "fisher": FISHER},
        {"model": str(model)},
    )
    fisher.begin()
    fisher.merge_rejected()
    fisher.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    return folder


def parsed(root, *flags, model="model"):
    base = ["--root", str(root), "--model", str(root / model), "--languages", "en,fr", "--preset", "plain"]
    return cli.parse(FinetuneJob, [*base, "--name", "new", "--finetune.embeddings", "speech", *flags], PRESETS)


def attempt(root, *flags, model="model"):
    return prepare(parsed(root, *flags, model=model))


EWC = ["--finetune.ewc-lambda", "5"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--finetune.directions", "en-xx"], "no token for language 'xx'"),
        (["--finetune.directions", "en-de"], "has a de text; add de to --languages if the corpus has recordings of it"),
        (["--finetune.directions", "de-zh"], "has source de, which is not in --languages en,fr"),
        (["--finetune.directions", "zh"], "'zh' is not two language codes"),
        (["--finetune.directions", "en-zh,en-zh"], "names a direction twice"),
        (["--finetune.directions", ""], "--finetune.directions is empty"),
        (
            ["--finetune.split", "nowhere"],
            "no recording is of split 'nowhere'; the corpus has dev, train; give its name (dev, train), or all",
        ),
        (["--finetune.evaluate-every", "2", "--finetune.dev-split", "nowhere"], "is of split 'nowhere'"),
        (["--finetune.embeddings", "none"], "no finished embed artifact 'none'"),
        (["--finetune.ewc-lambda", "-1"], "--finetune.ewc-lambda is -1"),
        (EWC, "needs directions to preserve; add --finetune.keep"),
        ([*EWC, "--finetune.keep", "fr-en", "--finetune.lora-rank", "2"], "--finetune.lora-rank does not train"),
        ([*EWC, "--finetune.keep", "fr-en", "--finetune.fisher", "none"], "finished ones: kept"),
        (
            [*EWC, "--finetune.keep", "en-en", "--finetune.fisher", "kept"],
            "was made with fr-en, and --finetune.keep is en-en",
        ),
        (
            [*EWC, "--finetune.keep", "fr-en", "--finetune.fisher", "kept", "--finetune.fisher-labels", "sampled"],
            "was made with empirical, and --finetune.fisher-labels is sampled",
        ),
        (["--finetune.num-gpus", "0.5"], "--finetune.num-gpus"),
        (["--finetune.keep", "fr-en"], "--finetune.keep alone does nothing"),
        (["--finetune.fisher", "kept"], "--finetune.fisher has no effect without"),
        (["--finetune.replay-fraction", "0.5"], "--finetune.replay-fraction needs --finetune.keep"),
        (["--finetune.replay-fraction", "0.01", "--finetune.keep", "fr-en"], "of a batch of 10 is 0 examples"),
        (["--finetune.replay-fraction", "1", "--finetune.keep", "fr-en"], "give 0 or more, below 1"),
        ([*EWC, "--finetune.keep", "en-zh"], "is in --finetune.directions and in --finetune.keep"),
        (["--finetune.learning-rate", "0"], "--finetune.learning-rate is 0.0; give more than 0"),
        (["--finetune.warmup", "2"], "--finetune.warmup is 2.0"),
        (["--finetune.patience", "2"], "--finetune.patience needs dev BLEU"),
        (["--finetune.epochs", "0"], "--finetune.epochs is 0; give 1 or more"),
    ],
)
def test_a_mistake_stops_in_one_line(root, flags, says):
    with pytest.raises(UserError) as error:
        attempt(root, *flags)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_frames_of_another_model_are_refused(root):
    other = tiny_whisper(root / "other")
    state = load_file(other / "model.safetensors")
    state["model.decoder.layer_norm.bias"] += 1
    save_file(state, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="embed artifact 'speech' was made with another model"):
        attempt(root, model="other")


def test_nothing_is_written(root):
    before = sorted(root.rglob("*"))
    plan = attempt(root, *EWC, "--finetune.keep", "fr-en", "--name", "unwritten")
    assert (plan.artifact.name, plan.fisher.name, plan.fisher.is_begun) == ("unwritten", "unwritten", False)
    assert sorted(root.rglob("*")) == before


def test_a_name_that_is_taken_by_other_settings_is_refused(root):
    attempt(root, "--name", "taken").artifact.begin()
    attempt(root, "--name", "taken", "--finetune.num-workers", "2", "--finetune.checkpoint-every", "5")
    with pytest.raises(UserError, match=r"finetune.learning_rate: 3e-05 stored, 0.01 given"):
        attempt(root, "--name", "taken", "--finetune.learning-rate", "1e-2")


def test_a_run_is_of_the_rows_that_it_reads(root):
    """Rows of dev count where it is measured, and not else; all are those of every split."""
    plain = attempt(root).artifact.identity["embeddings"]
    assert {split: part["num_rows"] for split, part in plain["rows"].items()} == {"train": 2}
    measured = attempt(root, "--finetune.evaluate-every", "2").artifact.identity["embeddings"]
    assert {split: part["num_rows"] for split, part in measured["rows"].items()} == {"train": 2, "dev": 2}
    assert measured["rows"]["train"] == plain["rows"]["train"]
    every = attempt(root, "--finetune.split", "all").artifact.identity["embeddings"]
    assert {split: part["num_rows"] for split, part in every["rows"].items()} == {"all": 4}
    assert plain["encoding"] == measured["encoding"] == every["encoding"]


def test_a_fisher_is_of_the_split_that_is_trained_on(root):
    """So that one is shared by runs that measure dev BLEU and runs that do not."""
    keep = [*EWC, "--finetune.keep", "fr-en"]
    plain, measured = attempt(root, *keep), attempt(root, *keep, "--finetune.evaluate-every", "2")
    assert plain.fisher.identity == measured.fisher.identity
    assert list(plain.fisher.identity["embeddings"]["rows"]) == ["train"]
    assert plain.artifact.identity["fisher"] == plain.fisher.fingerprint
    other = plan_fisher(plain.job, ("en-en",), plain.embeddings)
    assert other.identity["fisher"] == plain.fisher.identity["fisher"] | {"keep": ["en-en"]}


def test_what_is_asked_may_not_wait_for_the_encoder(root, tmp_path):
    """References are checked in the rows of a corpus that is still to be encoded."""
    (tmp_path / "a.wav").write_bytes(b"no sound, and nobody listens")
    manifest = tmp_path / "corpus.tsv"
    manifest.write_text("utterance_id\tsentence_id\tlanguage\taudio\tsplit\na\ts\ten\ta.wav\ttrain\n")
    base = ["--root", str(tmp_path / "runs"), "--model", str(root / "model"), "--languages", "en"]
    job = cli.parse(FinetuneJob, [*base, "--corpus", f"manifest:{manifest}"], PRESETS)
    with pytest.raises(UserError, match="no en recording of split 'train' has a zh text"):
        prepare(job)
    assert not (tmp_path / "runs").exists()


def test_a_model_that_a_node_does_not_see_stops_the_run(root, monkeypatch):
    def sees(path, advice=""):
        if path.endswith("model.safetensors"):
            raise UserError(f"1 of 2 nodes do not see {path}; {advice}")

    monkeypatch.setattr(cluster, "require_shared", sees)
    monkeypatch.setattr(pipeline.pools, "workers", lambda *_: pytest.fail("training begins"))
    plan = prepare(dataclasses.replace(parsed(root), name="blind"))
    with pytest.raises(UserError, match=r"do not see .*/model/model.safetensors; copy the model to all nodes, or give"):
        pipeline.finetune(plan)


def test_a_run_whose_model_nobody_could_write_stops_before_it_trains(root, monkeypatch):
    def pool(stage, num_gpus, max_actors, num_units, needed):
        raise NoResources(f"{stage} needs {needed('cpu')} bytes")

    monkeypatch.setattr(cluster, "require_shared", lambda *_: None)
    monkeypatch.setattr(pipeline.pools, "workers", lambda *_: None)
    monkeypatch.setattr(pipeline.pools, "pool", pool)
    monkeypatch.setattr(pipeline, "begin", lambda *_: pytest.fail("training begins"))
    plan = prepare(dataclasses.replace(parsed(root), name="large"))
    needed = saving_memory(ModelSize.read(plan.model_dir))
    with pytest.raises(NoResources, match=f"finetune model needs {needed} bytes"):
        pipeline.finetune(plan)
