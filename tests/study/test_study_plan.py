"""What a study is asked for, every run that it needs, and everything that stops it before work."""

import dataclasses
import shutil

import embedded
import pytest
from tiny import tiny_whisper

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.cost import public_speech
from xlt_ray.embed.selection import divided
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.cost import learned
from xlt_ray.job.cli import parse
from xlt_ray.job.settings import identity
from xlt_ray.languages import Direction
from xlt_ray.models import whisper
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval import plan as retrieval
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.store import artifacts
from xlt_ray.store.schema import Utterance
from xlt_ray.study import pipeline
from xlt_ray.study.config import StudyConfig, StudyJob
from xlt_ray.study.plan import prepare, retrieval_job, run_name, splits_of, translation

SENTENCES = [f"s{number}" for number in range(60)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


def rows(languages, sentences=SENTENCES):
    """Every sentence in every language, without splits."""
    return [
        Utterance(
            utterance_id=f"{code}-{sentence}",
            sentence_id=sentence,
            language=code,
            audio="/x.wav",
            text="hello",
            translations={"zh": "你好"},
        )
        for code in languages
        for sentence in sentences
    ]


def embed(root, model, recordings=None, name="speech", rejected=(), **config):
    sha256 = whisper.weights_sha256(model)
    recordings = rows(("en", "fr")) if recordings is None else recordings
    return embedded.write(root, name, recordings, sha256=sha256, config=EmbedConfig(**config), rejected=rejected)


def job(root, model, languages=("en", "fr"), name="mine", **study):
    return StudyJob(
        root=str(root),
        name=name,
        languages=languages,
        model=str(model),
        finetune=FinetuneConfig(embeddings="speech"),
        study=StudyConfig(**study),
    )


def test_every_language_but_the_target_is_a_source():
    assert StudyJob(languages=("ru", "zh", "en")).sources == ("en", "ru")
    assert parse(StudyJob, ["--study.sources", "it,en"], PRESETS).sources == ("en", "it")


@pytest.mark.parametrize("languages", [("fr", "de"), ("en", "fr", "de")])
def test_a_study_learns_what_its_sources_say_and_not_the_direction_of_a_run(languages):
    """The default of --finetune.directions is en-zh, of which a study may know neither."""
    asked = StudyJob(corpus="fleurs", languages=languages, study=StudyConfig(sources=("fr", "de"), target="en"))
    assert learned(asked) == [Direction("de", "en"), Direction("fr", "en")]


def test_a_dry_run_asks_the_corpus_for_the_texts_of_the_study():
    """FLEURS has texts in the languages that are read, and zh is none of them."""
    asked = StudyJob(corpus="fleurs", languages=("en", "fr", "de"), study=StudyConfig(target="de"))
    assert public_speech(asked, asked.embed, splits_of(asked), None, learned(asked)).count("fr", "train") > 0


def test_names_of_what_a_study_makes():
    asked = StudyJob(name="mine", languages=("en", "fr", "de"))
    assert run_name(asked, "fr") == "mine-fr-zh"
    found = retrieval_job(asked)
    assert (found.name, found.languages, found.retrieval.split) == ("mine-test", ("en", "fr", "de"), "test")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--study.sources", "en,zh"], "zh is among --study.sources"),
        (["--study.sources", "en"], "two sources or more; given: en"),
        (["--study.sources", "en,de"], "names de, which is not in --languages"),
        (["--study.sources", "en,en"], "names a language twice"),
        (["--study.seed", "-1"], "--study.seed is -1"),
        (["--finetune.keep", "es-en", "--finetune.ewc-lambda", "1"], "a study does not support --finetune.keep"),
        (["--finetune.export", "hub:me/mine"], "hub:me/mine would upload 5 models to one repository"),
    ],
)
def test_a_mistake_is_one_line(flags, message):
    with pytest.raises(UserError, match=message) as error:
        parse(StudyJob, flags, PRESETS)
    assert "\n" not in str(error.value)


def test_every_run_of_a_study_reads_its_own_part_of_the_same_embeddings(tmp_path, model):
    embed(tmp_path, model)
    plan = prepare(job(tmp_path, model))
    own = dict(zip(SENTENCES, divided(SENTENCES), strict=True))
    expected = {split: sum(place == split for place in own.values()) for split in ("train", "test")}
    assert list(plan.runs) == list(plan.fishers) == ["en", "fr"]
    for source, run in plan.runs.items():
        assert run.artifact.name == f"mine-{source}-zh"
        assert run.job.finetune.directions == (f"{source}-zh",)
        assert {split: part["num_rows"] for split, part in run.embeddings.identity["rows"].items()} == {
            "train": 2 * expected["train"]
        }
        fisher = plan.fishers[source].identity
        assert fisher["fisher"]["keep"] == [f"{source}-zh"]
        assert fisher["embeddings"] == run.embeddings.identity
    tested = {own[sentence] for sentence in plan.before.embeddings.rows("test")["sentence_id"].to_pylist()}
    assert tested == {"test"}
    assert plan.before.artifact.name == "mine-base"
    assert isinstance(plan.retrieval, RetrievalPlan)
    assert plan.retrieval.embeddings.identity == plan.before.embeddings.identity
    assert {run.embeddings.artifact.uri for run in plan.runs.values()} == {plan.embeddings.artifact.uri}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_source_without_references_is_refused(tmp_path, model, split):
    own = dict(zip(SENTENCES, divided(SENTENCES), strict=True))
    silent = [
        dataclasses.replace(row, translations={}) if row.language == "fr" and own[row.sentence_id] == split else row
        for row in rows(("en", "fr"))
    ]
    embed(tmp_path, model, silent)
    with pytest.raises(UserError, match=f"direction fr-zh: no fr recording of split '{split}' has a zh text"):
        prepare(job(tmp_path, model))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_source_that_was_rejected_stops_a_study_before_its_first_run(tmp_path, model, monkeypatch, split):
    """Whichever of the sources it is, and whatever the others have."""
    own = dict(zip(SENTENCES, divided(SENTENCES), strict=True))
    bad = [f"fr-{sentence}" for sentence in SENTENCES if own[sentence] == split]
    embed(tmp_path, model, rejected=bad)
    plan = prepare(job(tmp_path, model))
    begun = []
    monkeypatch.setattr(pipeline.cluster, "require_shared", lambda _: None)
    monkeypatch.setattr(pipeline, "_retrieval", lambda _: begun.append("retrieval"))
    monkeypatch.setattr(pipeline.translate, "translate", lambda _: begun.append("translate"))
    monkeypatch.setattr(pipeline, "_run", lambda _, source: begun.append(source))
    with pytest.raises(UserError, match=f"direction fr-zh: no recording of split '{split}' is left.*/rejected.parquet"):
        pipeline.study(plan)
    assert not begun


def test_a_direction_that_no_run_learns_is_warned_of(tmp_path, model, capsys):
    embed(tmp_path, model)
    asked = job(tmp_path, model)
    prepare(asked)
    assert "no effect" not in capsys.readouterr().out
    prepare(dataclasses.replace(asked, finetune=dataclasses.replace(asked.finetune, directions=("fr-de",))))
    said = capsys.readouterr().out
    assert "--finetune.directions fr-de has no effect: the runs learn en-zh,fr-zh, by --study.sources and" in said


def test_a_plan_of_a_study_writes_nothing(tmp_path, model):
    embed(tmp_path, model)
    before = sorted(tmp_path.rglob("*"))
    prepare(job(tmp_path, model))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_taken_is_refused_before_the_first_run(tmp_path, model):
    embed(tmp_path, model)
    prepare(job(tmp_path, model)).runs["fr"].artifact.begin()
    other = dataclasses.replace(job(tmp_path, model), finetune=FinetuneConfig(embeddings="speech", learning_rate=1e-3))
    with pytest.raises(UserError, match=r"mine-fr-zh was made with other settings \(finetune.learning_rate"):
        prepare(other)


def test_the_translations_of_a_run_are_held_against_those_of_the_untouched_model(tmp_path, model):
    embed(tmp_path, model)
    plan = prepare(job(tmp_path, model))
    for artifact, metrics in (
        (plan.before.artifact, {"directions": {"en-zh": {}, "fr-zh": {}}}),
        (plan.runs["fr"].artifact, {"weights_sha256": "of what it learned"}),
    ):
        artifact.begin()
        artifact.write_json("metrics.json", metrics)
        artifact.write_table("data/first.parquet", plan.before.embeddings.rows("test").select(["utterance_id"]))
        artifact.merge_rejected()
        num = plan.before.embeddings.rows("test").num_rows
        artifact.commit(units={"first": num}, num_rows_in=num, inputs={}, seconds=0)
    found = translation(plan, "fr")
    assert (found.artifact.name, found.baseline, found.checkpoint) == (
        "mine-fr-zh",
        plan.before.artifact,
        plan.runs["fr"].artifact,
    )
    assert [str(direction) for direction in found.directions] == ["en-zh", "fr-zh"]
    assert found.embeddings.identity == plan.before.embeddings.identity


def test_the_retrieval_that_a_study_makes_is_that_of_jobs_retrieval():
    """So that its R@1 is what a user of jobs/retrieval.py knows."""
    flags = ["--preset", "plain", "--name", "same-test", "--languages", "en,fr"]
    mine, theirs = (
        retrieval_job(parse(StudyJob, ["--preset", "plain", "--name", "same", "--languages", "en,fr"], PRESETS)),
        parse(RetrievalJob, flags, PRESETS),
    )
    assert identity(mine.retrieval) == identity(theirs.retrieval)
    assert (mine.name, sorted(mine.languages)) == (theirs.name, sorted(theirs.languages))


def test_a_retrieval_of_all_rows_is_not_in_the_way(tmp_path, model):
    """As the demo leaves it: of a corpus without splits jobs/retrieval.py reads every row, a study its test split."""
    embed(tmp_path, model)
    every = RetrievalConfig(embeddings="speech", split="all")
    asked = RetrievalJob(root=str(tmp_path), name="mine", languages=("en", "fr"), model=str(model), retrieval=every)
    made = retrieval.prepare(asked)
    made.artifact.begin()
    plan = prepare(job(tmp_path, model))
    assert plan.retrieval.artifact.uri != made.artifact.uri
    assert made.embeddings.rows("all").num_rows == 120 > plan.retrieval.embeddings.rows("test").num_rows


def test_languages_that_share_no_sentence_are_studied_without_retrieval(tmp_path, model, capsys):
    apart = rows(("en",)) + rows(("fr",), [f"other{number}" for number in range(60)])
    embed(tmp_path, model, apart)
    assert prepare(job(tmp_path, model)).retrieval is None
    assert "study: R@1 can't be compared with the transfer: no sentence_id is shared by en and fr" in (
        capsys.readouterr().out
    )


def test_a_target_that_shares_no_sentence_stops_no_study(tmp_path, model):
    """Retrieval would be over all languages of the job, so it can't be run: that is known before the first training."""
    apart = rows(("en", "fr")) + rows(("zh",), [f"other{number}" for number in range(60)])
    embed(tmp_path, model, apart)
    assert prepare(job(tmp_path, model, ("en", "fr", "zh"))).retrieval is None


def write_retrieval(root, name, embeddings, languages=("en", "fr"), **identity):
    made = {key: embeddings.identity[key] for key in ("model", "encoding")} | {"rows": {}}
    what = {"embeddings": made, "languages": list(languages), **identity}
    artifact = artifacts.plan(str(root), "retrieval", name, what, {})
    artifact.begin()
    artifact.write_json("metrics.json", {"mode": "f1", "protocol": "multi_positive"})
    artifact.merge_rejected()
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    return artifact


def test_a_retrieval_that_is_named_is_taken_as_it_is(tmp_path, model):
    made = write_retrieval(tmp_path, "there", embed(tmp_path, model))
    assert prepare(job(tmp_path, model, retrieval="there")).retrieval == made


def test_another_retrieval_of_the_same_name_is_another_study(tmp_path, model):
    speech = embed(tmp_path, model)
    write_retrieval(tmp_path, "there", speech)
    prepare(job(tmp_path, model, retrieval="there")).artifact.begin()
    prepare(job(tmp_path, model, retrieval="there"))
    shutil.rmtree(tmp_path / "retrieval" / "there")
    write_retrieval(tmp_path, "there", speech, retrieval={"strip_ends": True})
    with pytest.raises(UserError, match=r"study/mine was made with other settings \(retrieval\.fingerprint"):
        prepare(job(tmp_path, model, retrieval="there"))


def test_a_retrieval_that_is_shown_otherwise_is_another_study(tmp_path, model):
    made = write_retrieval(tmp_path, "there", embed(tmp_path, model))
    prepare(job(tmp_path, model, retrieval="there")).artifact.begin()
    made.begin()
    made.amend("metrics.json", {"mode": "recall", "protocol": "multi_positive"})
    with pytest.raises(UserError, match=r'retrieval\.mode: "f1" stored, "recall" given'):
        prepare(job(tmp_path, model, retrieval="there"))


def test_a_study_that_names_no_retrieval_has_the_identity_that_it_always_had(tmp_path, model):
    embed(tmp_path, model)
    asked = prepare(job(tmp_path, model)).artifact.identity
    assert asked.keys() == {"schema", "sources", "embeddings", "model", "finetune", "study"}


def test_the_models_of_a_finished_study_can_be_exported_later(tmp_path, model, monkeypatch):
    embed(tmp_path, model)
    asked = job(tmp_path, model)
    plan = prepare(asked)
    for artifact in (plan.artifact, *(run.artifact for run in plan.runs.values())):
        artifact.begin()
        artifact.merge_rejected()
        artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    exported = []
    monkeypatch.setattr(pipeline.finetune, "_export", lambda run, *how: exported.append((run.name, *how)))
    pipeline.study(
        prepare(dataclasses.replace(asked, finetune=dataclasses.replace(asked.finetune, export="ctranslate2")))
    )
    assert exported == [(f"mine-{source}-zh", "ctranslate2", asked.model) for source in ("en", "fr")]


def test_a_retrieval_of_other_embeddings_is_refused(tmp_path, model):
    embed(tmp_path, model, rows(("en", "fr", "de")))
    write_retrieval(tmp_path, "far", embed(tmp_path, model, name="far", keep_margin=150))
    with pytest.raises(UserError, match="'far' was made from other embeddings than 'speech'"):
        prepare(job(tmp_path, model, retrieval="far"))
    foreign = embedded.write(tmp_path, "foreign", rows(("en", "fr")), sha256="0" * 64)
    write_retrieval(tmp_path, "foreign", foreign)
    with pytest.raises(UserError, match="'foreign' was made from other embeddings than 'speech'"):
        prepare(job(tmp_path, model, retrieval="foreign"))
    write_retrieval(tmp_path, "narrow", artifacts.find(str(tmp_path), "embed", "speech"))
    with pytest.raises(UserError, match="'narrow' has no pair with de"):
        prepare(job(tmp_path, model, ("en", "fr", "de"), retrieval="narrow"))
    with pytest.raises(UserError, match="no finished retrieval artifact 'none'"):
        prepare(job(tmp_path, model, retrieval="none"))
