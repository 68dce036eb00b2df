"""`--config FILE`: what a run has recorded, or a YAML file, gives the settings that flags would."""

import dataclasses
import json
from pathlib import Path

import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_whisper
from trees import write_hf_saved

from xlt_ray.embed import plan as embed
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS, presets_of
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.plan import prepare
from xlt_ray.tune.config import Axis, TuneConfig, TuneJob


def parse(*words, job=RetrievalJob):
    return cli.parse(job, list(map(str, words)), PRESETS)


def recorded(path, job):
    """A config.json with the settings of a job, as a stage writes it."""
    path.write_text(json.dumps({"identity": {}, "settings": dataclasses.asdict(job), "command": "x"}))
    return path


def replayed(path, job):
    again = parse("--config", recorded(path, job), job=type(job))
    assert again.config == str(path)
    return dataclasses.replace(again, config=None)


@pytest.mark.parametrize("job", [name for name in worlds.JOBS if name != "report"])
def test_a_record_gives_the_job_that_it_is_of(tmp_path, job):
    for preset in presets_of(job):
        made = parse("--preset", preset, job=worlds.JOBS[job])
        assert replayed(tmp_path / "config.json", made) == made


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: text != "None"
)


@settings(max_examples=25)  # each reads the command line anew
@given(
    st.builds(
        RetrievalJob,
        languages=st.lists(st.sampled_from(["en", "fr", "no", "zh"]), min_size=2, max_size=4, unique=True).map(tuple),
        model=texts,
        root=texts,
        embed=st.builds(
            EmbedConfig,
            num_sentences=st.none() | st.integers(1),
            keep_margin=st.just("all") | st.integers(0),
            layers=st.lists(st.integers(0, 40), unique=True).map(tuple),
            split_long=st.booleans(),
            max_rejected=st.floats(0, 1),
        ),
        retrieval=st.builds(
            RetrievalConfig,
            baselines=st.lists(st.sampled_from(["mean_pool", "dtw"]), unique=True).map(tuple),
            mode=st.sampled_from(["f1", "recall"]),
            keep_scores=st.booleans(),
        ),
    )
)
def test_any_settings_survive(tmp_path_factory, job):
    assert replayed(tmp_path_factory.mktemp("record") / "config.json", job) == job


def test_what_a_search_tries_survives(tmp_path):
    tried = TuneConfig(learning_rate=Axis(bounds=(1e-5, 1e-4)), ewc_lambda=Axis(values=(0.0, 10.0)), epochs=Axis())
    assert replayed(tmp_path / "config.json", TuneJob(tune=tried)).tune == tried


def test_an_artifact_is_what_its_config_asks_for_again(tmp_path):
    """By the file that a stage writes; other flags win over it."""
    world = worlds.manifest(tmp_path / "corpus")
    model = tiny_whisper(tmp_path / "model")
    flags = ["--corpus", world.spec, "--languages", "en,fr", "--model", model, "--root", tmp_path / "runs"]
    asked = parse(*flags, "--name", "first", "--retrieval.seed", "3", "--embed.encoding", "trimmed")
    plan = prepare(asked)
    plan.artifact.begin()
    file = plan.artifact.path("config.json")
    again = parse("--config", file)
    assert dataclasses.replace(again, config=None) == asked
    assert prepare(again).artifact.fingerprint == plan.artifact.fingerprint
    other = parse("--config", file, "--retrieval.seed", "4", "--name", "second", "--languages", "fr,en")
    assert (other.retrieval.seed, other.name, other.languages) == (4, "second", ("fr", "en"))
    assert other.embed == asked.embed
    plan.embeddings.artifact.begin()  # its record has the number of layers, which is no setting
    record = plan.embeddings.artifact.path("config.json")
    assert "num_layers" in json.loads(Path(record).read_text())["settings"]
    encoded = parse("--config", record, job=EmbedJob)
    assert (encoded.embed, encoded.corpus, encoded.model) == (asked.embed, asked.corpus, asked.model)


def test_embeddings_are_what_their_config_asks_for_again(tmp_path):
    """The columns of a data set and the splits among it; a job without splits takes the rest."""
    spec = write_hf_saved(tmp_path / "corpus")
    flags = ["--corpus", spec, "--languages", "en,fr", "--model", tiny_whisper(tmp_path / "model"), "--root", tmp_path]
    asked = parse(*flags, "--splits", "train,dev", "--columns", "text=sentence", job=EmbedJob)
    planned = embed.prepare(asked, asked.embed, asked.splits)
    planned.artifact.begin()
    file = planned.artifact.path("config.json")
    assert dataclasses.replace(parse("--config", file, job=EmbedJob), config=None) == asked
    assert parse("--config", file).columns == "text=sentence"


OWN = """
# comments are free
corpus: fleurs
languages: [no, en]     # Norwegian, not false
dry_run: true
embed:
  encoding: trimmed
  keep-margin: all
  layers: [0, 1]
  num_gpus: null
retrieval:
  baselines: [dtw]
"""


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    job = parse("--config", file, "--embed.encoding", "exact")
    assert (job.preset, job.corpus, job.languages, job.dry_run) == ("plain", "fleurs", ("no", "en"), True)
    assert job.embed == EmbedConfig(encoding="exact", keep_margin="all", layers=(0, 1))
    assert job.retrieval.baselines == ("dtw",)
    assert not parse("--config", file, "--no-dry-run").dry_run


@pytest.mark.parametrize("word", ["~", "null"])
def test_null_is_a_word_where_it_is_quoted(tmp_path, word):
    file = tmp_path / "own.yaml"
    file.write_text(f"root: '{word}'\nembed:\n  num_sentences: {word}")
    job = parse("--config", file, "--preset", "demo")
    assert (job.root, job.embed.num_sentences) == (word, None)


def test_a_file_may_start_from_a_preset(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("preset: asterisk_100\nmodel: x/y")
    assert parse("--config", file).embed.num_sentences == 100
    job = parse("--config", file, "--preset", "demo")
    assert (job.preset, job.model, job.embed.num_sentences) == ("demo", "x/y", 50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embed:\n  encodng: exact", r"unknown key embed.encodng; did you mean embed.encoding\? valid: .*languages"),
        ("encoding: exact", r"unknown key encoding; did you mean embed.encoding\?"),
        ("finetune:\n  epochs: 3", "unknown key finetune.epochs; valid: "),
        ("embed:\n  encoding: mp3", "invalid choice 'mp3' for --embed.encoding; valid: exact, trimmed"),
        ("embed:\n  num_sentences: [1, 2]", "invalid choice .* for --embed.num-sentences; valid: whole number or None"),
        ("dry_run: perhaps", "dry_run is 'perhaps'; give true or false"),
        ("retrieval:\n  top_k: 0", "--retrieval.top-k is 0; give 1 or more"),
        ("preset: nope", "unknown preset 'nope'; valid: demo"),
        ("just words", "holds no settings"),
        ("a: [", "can't be read as YAML"),
        ("", "holds no settings"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, text, message):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        parse("--config", file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gone.json", "gone.yaml", ""], ids=["json", "yaml", "folder"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(UserError, match=r"--config .* is no file; give the config.json of a run, or a YAML"):
        parse("--config", tmp_path / name)


def test_a_flag_without_its_file_is_refused():
    with pytest.raises(UserError, match="invalid choice '' for --config"):
        parse("--config")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"identity": {}, "settings": ["x"]}', "holds no settings"),
        ("a.json", "[" * 100_000, "can't be read as JSON"),
        ("a.yaml", "a: " + "[" * 100_000, "can't be read as YAML"),
        ("a.yaml", "languages: &a [en, *a]", "repeats a value by a name"),
        ("a.yaml", "embed: &a\n  x: *a", "repeats a value by a name"),
        ("a.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "repeats a value by a name"),
    ],
)
def test_a_file_that_means_harm(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        parse("--config", tmp_path / name)


@pytest.mark.parametrize("place", ["a\0b.yaml", "~nobody-of-that-name/a.yaml", "\udcff.yaml", "x" * 300 + ".yaml"])
def test_a_place_that_can_be_none(place):
    with pytest.raises(UserError):
        parse("--config", place)
