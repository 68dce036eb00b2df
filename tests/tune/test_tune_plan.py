"""A search before it starts: what each of its runs reads, and that nothing is written."""

import dataclasses

import embedded
import mlflow
import pytest
from tiny import tiny_whisper

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.selection import divided
from xlt_ray.errors import UserError
from xlt_ray.finetune import plan as finetune
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.pools import Workers
from xlt_ray.job.tracking import track
from xlt_ray.models import whisper
from xlt_ray.store import artifacts
from xlt_ray.store.schema import Utterance
from xlt_ray.study import plan as study
from xlt_ray.study.config import StudyJob
from xlt_ray.tune import pipeline
from xlt_ray.tune.config import Axis, TuneConfig, TuneJob
from xlt_ray.tune.plan import config_of, prepare, splits_of, trial_name, trial_plan

SENTENCES = [f"s{number}" for number in range(60)]
ROWS = [
    Utterance(
        utterance_id=f"{code}-{sentence}",
        sentence_id=sentence,
        language=code,
        audio="/x.wav",
        text="hello",
        translations={"zh": "你好", "en": "hello"},
    )
    for code in ("en", "fr")
    for sentence in SENTENCES
]
RATES = TuneConfig(learning_rate=Axis(values=(1e-5, 1e-4)), ewc_lambda=Axis())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(tmp_path, model):
    """Two trials with EWC and two without, on a corpus without splits."""
    embedded.write(tmp_path, "speech", ROWS, sha256=whisper.weights_sha256(model))
    return TuneJob(
        root=str(tmp_path),
        name="search",
        languages=("en", "fr"),
        model=str(model),
        finetune=FinetuneConfig(embeddings="speech", evaluate_every=2),
        tune=TuneConfig(learning_rate=Axis(values=(1e-5, 1e-4)), ewc_lambda=Axis(values=(0.0, 10.0))),
    )


def num_of(split):
    return 2 * divided(SENTENCES).tolist().count(split)


def num_rows(embeddings):
    return {split: part["num_rows"] for split, part in embeddings.identity["rows"].items()}


def test_every_run_of_a_search_reads_its_own_splits_of_the_same_embeddings(job):
    plan = prepare(job)
    assert splits_of(job) == plan.embeddings.splits == ("train", "dev", "test")
    assert num_rows(plan.before["dev"].embeddings) == {"dev": num_of("dev")}
    assert num_rows(plan.before["test"].embeddings) == {"test": num_of("test")}
    assert num_of("dev") != num_of("test")
    run, fisher = plan.fisher
    assert fisher.name == run.name == "search"
    assert {split: part["num_rows"] for split, part in fisher.identity["embeddings"]["rows"].items()} == {
        "train": num_of("train")
    }
    assert [plan.before[split].artifact.name for split in ("dev", "test")] == ["search-dev", "search-test"]


@pytest.mark.parametrize("languages", [("en", "fr"), ("en",)])
def test_a_search_may_preserve_transcription(job, languages):
    """As on a corpus of English alone. The untouched model is measured in every direction that trials are."""
    finetune = dataclasses.replace(job.finetune, directions=("en-zh",), evaluate=("en-en",))
    plan = prepare(dataclasses.replace(job, languages=languages, finetune=finetune, tune=RATES))
    for before in plan.before.values():
        assert {"en-zh", "en-en"} <= {str(direction) for direction in before.directions}


@pytest.mark.parametrize(
    ("finetune", "silent"), [({}, ("en", "zh")), ({}, ("fr", "en")), ({"evaluate": ("en-en", "fr-fr")}, ("en", "en"))]
)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_direction_that_a_split_has_no_reference_of_is_refused(job, tmp_path, model, finetune, silent, split):
    """A trial is scored in every direction on dev, and the best of them on test."""
    source, target = silent
    places = dict(zip(SENTENCES, divided(SENTENCES), strict=True))
    rows = [
        without(row, target) if row.language == source and places[row.sentence_id] == split else row for row in ROWS
    ]
    embedded.write(tmp_path, "gaps", rows, sha256=whisper.weights_sha256(model))
    config = dataclasses.replace(job.finetune, embeddings="gaps", **finetune)
    with pytest.raises(UserError, match=f"direction {source}-{target}: no {source} recording of split '{split}' has"):
        prepare(dataclasses.replace(job, finetune=config, tune=RATES))


@pytest.mark.parametrize("searched", [{"ewc_lambda": Axis(values=(0.0, 10.0))}, {"replay_fraction": Axis((0.0, 0.2))}])
def test_what_trials_preserve_has_references_in_train(job, tmp_path, model, searched):
    """Some trials train on fr-en although the settings that all share do not."""
    places = dict(zip(SENTENCES, divided(SENTENCES), strict=True))
    rows = [without(row, "en") if row.language == "fr" and places[row.sentence_id] == "train" else row for row in ROWS]
    embedded.write(tmp_path, "gaps", rows, sha256=whisper.weights_sha256(model))
    asked = dataclasses.replace(job, finetune=dataclasses.replace(job.finetune, embeddings="gaps"))
    with pytest.raises(UserError, match="direction fr-en: no fr recording of split 'train' has"):
        prepare(dataclasses.replace(asked, tune=dataclasses.replace(RATES, **searched)))
    prepare(dataclasses.replace(asked, tune=RATES))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_direction_that_was_rejected_stops_a_search_before_its_trials(job, tmp_path, model, monkeypatch, split):
    """Those that are only translated count too: the scores of the chosen come with them, after the trials."""
    places = dict(zip(SENTENCES, divided(SENTENCES), strict=True))
    bad = [f"fr-{sentence}" for sentence in SENTENCES if places[sentence] == split]
    embedded.write(tmp_path, "gaps", ROWS, sha256=whisper.weights_sha256(model), rejected=bad)
    config = dataclasses.replace(job.finetune, embeddings="gaps", evaluate=("en-en",))
    plan = prepare(dataclasses.replace(job, finetune=config, tune=RATES))
    begun = []
    monkeypatch.setattr(pipeline.cluster, "require_shared", lambda _: None)
    monkeypatch.setattr(pipeline.translate, "translate", begun.append)
    monkeypatch.setattr(pipeline, "_scores", lambda *_: {})
    monkeypatch.setattr(pipeline, "_run_missing", lambda *_: begun.append("trials"))
    with pytest.raises(UserError, match=f"direction fr-zh: no recording of split '{split}' is left.*/rejected.parquet"):
        pipeline.search(plan)
    assert not begun


def without(row, language):
    translations = {code: text for code, text in row.translations.items() if code != language}
    return dataclasses.replace(row, translations=translations, text=None if row.language == language else row.text)


def test_a_plan_of_a_search_writes_nothing(job, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    prepare(job)
    assert sorted(tmp_path.rglob("*")) == before


def test_trials_share_the_fisher_of_the_search(job):
    plan = prepare(job)
    _, fisher = plan.fisher
    finish(fisher)
    trials = [trial_plan(plan, number) for number in range(len(plan.trials))]
    assert len(trials) == 4
    for number, (trial, settings) in enumerate(zip(trials, plan.trials, strict=True)):
        assert trial.artifact.name == trial_name(job, number) == f"search-{number:03d}"
        assert (trial.fisher == fisher) if settings["ewc_lambda"] else (trial.fisher is None)
        assert num_rows(trial.embeddings) == {"train": num_of("train"), "dev": num_of("dev")}
    assert len({trial.artifact.fingerprint for trial in trials}) == 4


@pytest.mark.slow
def test_a_search_with_another_fisher_is_another_search(job):
    """Examples of another seed are taken, so the name alone does not say what the trials hold on to."""
    own = prepare(job)
    assert own.artifact.identity.keys() == {"schema", "languages", "embeddings", "model", "finetune", "kept", "tune"}
    for name, seed in (("one", 1), ("two", 2)):
        asked = dataclasses.replace(job, name=name, finetune=dataclasses.replace(job.finetune, seed=seed))
        _, fisher = prepare(asked).fisher
        finish(fisher)
    named = [
        dataclasses.replace(job, finetune=dataclasses.replace(job.finetune, fisher=name)) for name in ("one", "two")
    ]
    assert prepare(named[0]).artifact.identity["fisher"] != prepare(named[1]).artifact.identity["fisher"]
    prepare(named[0]).artifact.begin()
    prepare(named[0])
    with pytest.raises(UserError, match=r"tune/search was made with other settings \(fisher: "):
        prepare(named[1])


def finish(artifact):
    artifact.begin()
    artifact.merge_rejected()
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0)


def test_a_search_without_ewc_needs_no_fisher(job):
    assert prepare(dataclasses.replace(job, tune=RATES)).fisher is None


def test_what_is_kept_may_be_held_by_the_settings_that_are_searched_alone(job):
    """A strength of EWC in the search is enough; without any, what should be kept has no effect and is refused."""
    keeping = dataclasses.replace(job, finetune=dataclasses.replace(job.finetune, keep=("fr-en",)))
    assert keeping.kept == ("fr-en",)
    held = {config_of(keeping, settings).keep for settings in prepare(keeping).trials if settings["ewc_lambda"]}
    free = {config_of(keeping, settings).keep for settings in prepare(keeping).trials if not settings["ewc_lambda"]}
    assert (held, free) == ({("fr-en",)}, {()})
    with pytest.raises(UserError, match=r"--finetune\.keep alone does nothing"):
        dataclasses.replace(keeping, tune=RATES)
    replayed = dataclasses.replace(RATES, replay_fraction=Axis(values=(0.0, 0.25)))
    assert dataclasses.replace(keeping, tune=replayed).kept == ("fr-en",)


def test_a_search_may_be_tested_on_what_it_was_measured_on(job):
    finetune = dataclasses.replace(job.finetune, dev_split="test")
    plan = prepare(dataclasses.replace(job, finetune=finetune))
    assert plan.embeddings.splits == ("train", "test")


def test_a_name_that_is_taken_is_refused(job):
    prepare(job).artifact.begin()
    prepare(job)
    other = dataclasses.replace(job, tune=dataclasses.replace(job.tune, seed=5))
    with pytest.raises(UserError, match=r"tune/search was made with other settings \(tune.seed: 0 stored, 5 given\)"):
        prepare(other)


def test_too_little_silence_is_warned_of_once(job, tmp_path, model, capsys):
    config = EmbedConfig(encoding="trimmed", keep_margin=0, context_margin=0)
    embedded.write(tmp_path, "short", ROWS, sha256=whisper.weights_sha256(model), config=config)
    prepare(dataclasses.replace(job, finetune=dataclasses.replace(job.finetune, embeddings="short")))
    assert capsys.readouterr().out.count("0 frames of silence behind the speech") == 1


def test_a_run_of_fine_tuning_of_the_same_name_is_not_in_the_way(job):
    """As the demo leaves it: each job of it has the same name, and a search writes no such run."""
    tuned = FinetuneJob(**{name: getattr(job, name) for name in ("root", "name", "languages", "model", "embed")})
    finetune.prepare(dataclasses.replace(tuned, finetune=FinetuneConfig(embeddings="speech"))).artifact.begin()
    assert prepare(job).artifact.name == "search"


def test_a_study_of_the_same_name_is_not_in_the_way(job):
    """Both translate the test split with the untouched model, in other directions."""
    shared = {name: getattr(job, name) for name in ("root", "name", "languages", "model", "embed")}
    other = study.prepare(StudyJob(**shared, finetune=FinetuneConfig(embeddings="speech")))
    for artifact in (other.before.artifact, *(run.artifact for run in other.runs.values())):
        artifact.begin()
    assert prepare(job).artifact.name == "search"


def test_a_trial_that_is_lost_with_its_node_is_run_again(job, monkeypatch):
    """Ray Tune's own default is to give it up, and a search that has ended can't be asked for it again."""
    plan = prepare(dataclasses.replace(job, tune=RATES, finetune=dataclasses.replace(job.finetune, max_failures=2)))
    asked = {}

    class Tuner:
        def __init__(self, trainable, **settings):
            asked.update(settings)

        def fit(self):
            """No trial is run."""

    monkeypatch.setattr(pipeline.cluster, "require_shared_model", lambda _: None)
    monkeypatch.setattr(pipeline.pools, "workers", lambda *_: Workers(1, 0.89, 0.0))
    monkeypatch.setattr(pipeline.pools, "most_groups", lambda _: 1.0)
    monkeypatch.setattr(pipeline.ray.tune, "with_parameters", lambda trainable, **_: trainable)
    monkeypatch.setattr(pipeline.ray.tune, "Tuner", Tuner)
    plan.artifact.begin()
    pipeline._run_missing(plan, {})
    assert asked["run_config"].failure_config.max_failures == 2


def test_one_repository_takes_one_model(job):
    """Each of the chosen would be uploaded over the one before it."""
    finetune = dataclasses.replace(job.finetune, export="hub:me/mine")
    with pytest.raises(UserError, match=r"hub:me/mine would upload up to 3 models .* add --tune.num-chosen 1"):
        dataclasses.replace(job, finetune=finetune)
    dataclasses.replace(job, finetune=finetune, tune=dataclasses.replace(job.tune, num_chosen=1))


def test_the_best_of_a_finished_search_can_be_registered_later(job, tmp_path, capsys):
    """As where the registry was down, or nobody had thought of it; the same command adds no second version."""
    plan = prepare(job)
    with track(job.root, "tune", "search", plan.artifact.identity, {}):
        plan.artifact.begin()
        plan.artifact.write_json("metrics.json", {"trials": [], "best": "search-001"})
        finish(plan.artifact)
    asked = dataclasses.replace(job, tune=dataclasses.replace(job.tune, register="en-zh"))
    for _ in range(2):
        pipeline.search(prepare(asked))
    (version,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_model_versions("name = 'en-zh'")
    assert version.source == f"{tmp_path}/finetune/search-001/model"
    assert "tune: search-001 is en-zh" in capsys.readouterr().out


def test_the_chosen_of_a_finished_search_can_be_exported_later(job, monkeypatch, capsys):
    plan = prepare(job)
    trials = [{"trial": number, "name": f"search-00{number}", "chosen": number < 2} for number in range(3)]
    plan.artifact.begin()
    plan.artifact.write_json("metrics.json", {"trials": trials, "best": "search-000"})
    finish(plan.artifact)
    made = artifacts.plan(job.root, "finetune", "search-000", {}, {})
    made.begin()
    finish(made)
    exported = []
    monkeypatch.setattr(pipeline.finetune, "_export", lambda run, *asked: exported.append((run.name, *asked)))
    pipeline.search(prepare(job))
    assert not exported
    finetune = dataclasses.replace(job.finetune, export="ctranslate2")
    pipeline.search(prepare(dataclasses.replace(job, finetune=finetune)))
    assert exported == [("search-000", "ctranslate2", job.model)]
    assert "finetune/search-001 is not complete any more, so its model is not exported" in capsys.readouterr().out


def test_a_finished_search_without_a_run_is_not_registered_and_says_why(job, capsys):
    plan = prepare(job)
    plan.artifact.begin()
    plan.artifact.write_json("metrics.json", {"trials": [], "best": "search-001"})
    finish(plan.artifact)
    pipeline.search(prepare(dataclasses.replace(job, tune=dataclasses.replace(job.tune, register="en-zh"))))
    assert "search-001 is not registered: it has no run in MLflow; to log it: " in capsys.readouterr().out


def test_a_setting_that_the_search_replaces_is_warned_of(job, capsys):
    finetune = dataclasses.replace(job.finetune, learning_rate=5e-5, epochs=4)
    prepare(dataclasses.replace(job, finetune=finetune))
    said = capsys.readouterr().out
    assert "--finetune.learning-rate 5e-05 has no effect: trials have --tune.learning-rate 1e-05,0.0001" in said
    assert said.count("has no effect") == 1
