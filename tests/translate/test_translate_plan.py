"""What a translate run is asked for, and everything that stops it before work, on one line."""

import dataclasses
import json

import embedded
import pyarrow as pa
import pytest
from tiny import CODES, IDS, tiny_whisper

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.selection import divided
from xlt_ray.errors import UserError
from xlt_ray.models import whisper
from xlt_ray.store import artifacts
from xlt_ray.store.schema import HYPOTHESIS, Utterance
from xlt_ray.translate import plan
from xlt_ray.translate.config import TranslateConfig, TranslateJob


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


def utterance(language, sentence):
    """English has texts in Chinese, French in English; only the first sentence is of the test split."""
    return Utterance(
        utterance_id=f"{language}-{sentence}",
        sentence_id=f"s{sentence}",
        language=language,
        audio="/x.wav",
        text=None if language == "it" else "text",
        translations={"en": {"zh": "你好", "fr": "bonjour"}, "fr": {"en": "hello"}, "it": {}}[language],
        split="test" if sentence == 0 else "train",
    )


UNSEEN = dataclasses.replace(
    utterance("fr", 0), utterance_id="kea-0", language="kea", translations={"en": "hello", "zh": "你好"}
)
ROWS = [utterance(language, sentence) for language in ("en", "fr", "it") for sentence in range(2)]
ROWS.append(UNSEEN)


def embed(root, model, name="corpus", sha256=None, rows=ROWS, **config):
    """A finished embed artifact of ROWS."""
    sha256 = sha256 or whisper.weights_sha256(model)
    return embedded.write(root, name, rows, sha256=sha256, config=EmbedConfig(**config))


def finetuned(root, model, name="tuned", sha256=None, directions=("en-zh", "fr-fr"), prompt="tgt_transcribe"):
    """A finished finetune artifact, without its weights."""
    identity = {"model": {"sha256": sha256 or whisper.weights_sha256(model)}}
    settings = {"finetune": {"directions": list(directions), "prompt": prompt}, "model": "other"}
    artifact = artifacts.plan(str(root), "finetune", name, identity, settings)
    artifact.begin()
    artifact.write_json("metrics.json", {"weights_sha256": "of what it learned"})
    artifact.merge_rejected()
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    return artifact


def translated(root, name, embeddings, directions=("fr-en",), utterance="fr-0"):
    """A finished translate artifact of one row."""
    made = {name: embeddings.identity[name] for name in ("model", "encoding")} | {"rows": {}}
    identity = {"embeddings": made, "translate": {"num_beams": 1, "max_tokens": 224, "split": "train"}}
    row = dict.fromkeys(("sentence_id", "reference", "hypothesis"), "s") | {"num_tokens": 1}
    row |= {"direction": directions[0], "utterance_id": utterance}
    artifact = artifacts.plan(str(root), "translate", name, identity, {})
    artifact.begin()
    artifact.write_table("data/x-00000.parquet", pa.Table.from_pylist([row], schema=HYPOTHESIS))
    artifact.write_json("metrics.json", {"directions": {name: {} for name in directions}})
    artifact.merge_rejected()
    artifact.commit(units={"x-00000": 1}, num_rows_in=1, inputs={}, seconds=0)
    return artifact


def job(root, model, languages=("fr", "en"), name="run", **config):
    config = {"transcribe": False, "embeddings": "corpus"} | config
    return TranslateJob(
        root=str(root), name=name, model=str(model), languages=languages, translate=TranslateConfig(**config)
    )


def prepared(asked):
    """The plan of a job of one run; the name is taken."""
    (found,) = plan.prepare(asked)
    found.artifact.begin()
    return found


def names(directions):
    return [str(direction) for direction in directions]


@pytest.mark.parametrize(
    ("config", "learned", "expected"),
    [
        ({}, [], ["de-en", "fr-en"]),
        ({"transcribe": True}, [], ["de-en", "fr-en", "de-de", "en-en", "fr-fr"]),
        ({}, ["en-zh"], ["de-en", "fr-en", "de-zh", "en-zh", "fr-zh"]),
        ({}, ["fr-fr", "fr-en"], ["de-en", "fr-en"]),
        ({"targets": ("zh", "fr", "zh")}, ["en-ja"], ["de-zh", "en-zh", "fr-zh", "de-fr", "en-fr"]),
    ],
)
def test_directions(tmp_path, config, learned, expected):
    for languages in (("fr", "en", "de"), ("de", "fr", "en")):
        assert names(plan.directions_of(job(tmp_path, "m", languages, **config), learned)) == expected


def test_nothing_to_translate(tmp_path):
    with pytest.raises(UserError, match=r"--languages en has no language other than --translate\.targets en"):
        plan.directions_of(job(tmp_path, "m", ("en",)), [])


def test_the_checkpoint_decides_targets_and_prompt(tmp_path, model):
    embed(tmp_path, model)
    checkpoint = finetuned(tmp_path, model, prompt="tgt_translate")
    found = prepared(job(tmp_path, model, ("en",), checkpoint="tuned", transcribe=True))
    assert names(found.directions) == ["en-zh", "en-en"]
    assert found.scheme == "tgt_translate"
    assert found.checkpoint == checkpoint
    assert found.artifact.identity["checkpoint"] == checkpoint.fingerprint
    other = prepared(job(tmp_path, model, ("en",), "other", checkpoint="tuned", prompt="src_translate"))
    assert other.scheme == "src_translate"
    plain = prepared(job(tmp_path, model, ("fr",), "plain"))
    assert plain.scheme == "tgt_transcribe"
    assert plain.artifact.identity["checkpoint"] is None


def test_the_identity_is_of_what_is_written(tmp_path, model):
    embeddings = embed(tmp_path, model)
    first = prepared(job(tmp_path, model))
    made = first.artifact.identity["embeddings"]
    assert {key: made[key] for key in ("model", "encoding")} == {
        key: embeddings.identity[key] for key in ("model", "encoding")
    }
    assert {split: part["num_rows"] for split, part in made["rows"].items()} == {"test": 2}
    assert first.artifact.identity["model"] == {"sha256": whisper.weights_sha256(model)}
    translated(tmp_path, "base", embeddings)
    same = {"comet": "Unbabel/wmt22-comet-da", "baseline": "base", "batch_size": 3, "rows_per_unit": 2}
    assert prepared(job(tmp_path, model, ("en", "fr"), **same)).artifact == first.artifact
    for other in ({"num_beams": 2}, {"targets": ("en",)}, {"split": "train"}, {"max_tokens": 9}):
        with pytest.raises(UserError, match=f"translate.{next(iter(other))}"):
            prepared(job(tmp_path, model, **other))


def test_settings_say_how_the_embeddings_were_made(tmp_path, model):
    embed(tmp_path, model)
    assert prepared(job(tmp_path, model)).artifact.settings["corpus"] == "manifest:x"


def refused(asked, *words):
    with pytest.raises(UserError) as error:
        prepared(asked)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_unknown_names(tmp_path, model):
    embed(tmp_path, model)
    for name, stage in (("embeddings", "embed"), ("checkpoint", "finetune"), ("baseline", "translate")):
        refused(job(tmp_path, model, **{name: "nobody"}), f"no finished {stage} artifact 'nobody'")
    refused(job(tmp_path, model, ("fr", "de")), "has no de", "en,fr,it,kea")


def test_a_comet_that_no_model_can_be_called_is_refused_before_the_work(tmp_path, model):
    embed(tmp_path, model)
    with pytest.raises(UserError, match=r"--translate.comet: 'wmt22-comet-da' is neither a .ckpt file nor a Hub id"):
        plan.prepare(job(tmp_path, model, comet="wmt22-comet-da"))
    plan.prepare(job(tmp_path, model, comet="Unbabel/wmt22-comet-da"))


def test_models_that_do_not_fit(tmp_path, model):
    embed(tmp_path, model, "far", sha256="0" * 64)
    refused(job(tmp_path, model, embeddings="far"), "embed artifact 'far'", "another model", str(model), "'other'")
    embed(tmp_path, model)
    finetuned(tmp_path, model, "large", sha256="0" * 64)
    refused(job(tmp_path, model, checkpoint="large"), "finetune artifact 'large'", "another model")
    assert not (tmp_path / "translate").exists()


def test_a_target_without_token(tmp_path, model):
    embed(tmp_path, model)
    refused(job(tmp_path, model, targets=("kea",)), "no token for language 'kea'", "it knows")


def test_a_source_without_token_needs_a_source_prompt(tmp_path, model):
    embed(tmp_path, model)
    hint = "give --translate.source-prompt auto, soft, en or a related language"
    for config in ({}, {"targets": ("zh",), "transcribe": True}):
        refused(job(tmp_path, model, ("kea",), **config), "no token for language 'kea'", "it knows af am", hint)
    for number, prompt in enumerate(("auto", "soft", "related", "es")):
        found = prepared(job(tmp_path, model, ("kea",), f"run{number}", transcribe=True, source_prompt=prompt))
        assert names(found.directions) == ["kea-en", "kea-kea"]
        assert found.artifact.identity["translate"]["source_prompt"] == prompt
    # A scheme that names the source is no task of Whisper's own: no source prompt helps there.
    learned = {"targets": ("en", "zh"), "prompt": "src_translate", "source_prompt": "auto"}
    with pytest.raises(UserError, match="direction kea-zh: the model has no token for language 'kea'") as error:
        prepared(job(tmp_path, model, ("kea",), "learned", **learned))
    assert hint not in str(error.value)


def test_source_prompts_that_cannot_be(tmp_path, model):
    embed(tmp_path, model)
    refused(job(tmp_path, model, source_prompt="kea"), "source prompt 'kea' is neither auto, soft", "it knows af am")
    refused(job(tmp_path, model, ("fr",), source_prompt="related"), "no related language is known for 'fr'", "name one")
    refused(job(tmp_path, model, ("en",), targets=("zh",), source_prompt="es"), "no effect on en-zh", "--translate.tar")
    hidden = {"source_prompt": "auto", "hide": ("kea",)}
    refused(job(tmp_path, model, **hidden), "--translate.hide kea", "no such token", "it knows af am")
    hidden = {"source_prompt": "soft", "hide": tuple(CODES)}
    refused(job(tmp_path, model, **hidden), "--translate.hide names every language")
    assert not (tmp_path / "translate").exists()


def test_hidden_languages_are_tokens_and_part_of_the_identity(tmp_path, model):
    embed(tmp_path, model)
    found = prepared(job(tmp_path, model, source_prompt="soft", hide=("it", "zh_CN")))
    assert found.hidden == tuple(sorted([IDS["<|it|>"], IDS["<|zh|>"]]))
    assert found.artifact.identity["translate"]["hide"] == ["it", "zh"]
    with pytest.raises(UserError, match=r"translate\.hide"):
        prepared(job(tmp_path, model, source_prompt="soft", hide=("it",)))
    assert prepared(job(tmp_path, model, name="plain")).hidden == ()


def sweep(asked, *prompts):
    return dataclasses.replace(asked, source_prompts=prompts)


def test_a_run_for_each_source_prompt(tmp_path, model):
    embed(tmp_path, model)
    asked = job(tmp_path, model, ("kea",))
    assert plan.runs(asked) == [asked]
    found = plan.runs(sweep(asked, "auto", "es"))
    assert [(run.name, run.translate.source_prompt) for run in found] == [("run-auto", "auto"), ("run-es", "es")]
    for run in found:
        same = {"name": "run", "translate": dataclasses.replace(run.translate, source_prompt=None)}
        assert dataclasses.replace(run, **same) == asked
        assert prepared(run).artifact.name == run.name


def test_the_runs_of_a_job_read_the_same_embeddings(tmp_path, model):
    """Found once, so that they are encoded once."""
    embed(tmp_path, model)
    found = plan.prepare(sweep(job(tmp_path, model, ("kea",), name="mine"), "auto", "en"))
    assert [one.artifact.name for one in found] == ["mine-auto", "mine-en"]
    assert {one.embeddings.artifact.uri for one in found} == {str(tmp_path / "embed/corpus")}
    first, second = (one.artifact.identity for one in found)
    assert first["embeddings"] == second["embeddings"]
    assert not (tmp_path / "translate").exists()


def test_only_runs_that_detect_hide_something(tmp_path):
    config = TranslateConfig(hide=("it",))
    asked = TranslateJob(root=str(tmp_path), source_prompts=("auto", "es", "soft"), translate=config)
    assert [run.translate.hide for run in plan.runs(asked)] == [("it",), (), ("it",)]


@pytest.mark.parametrize(
    ("prompts", "config", "message"),
    [
        (("auto", "es", "auto"), {}, "--source-prompts auto,es,auto names a prompt twice"),
        (("es/it",), {}, "source prompt 'es/it' is neither auto, soft nor related: 'es/it' is no language code"),
        (("es",), {"source_prompt": "auto"}, "--source-prompts and --translate.source-prompt auto exclude each other"),
        (("es", "en"), {"hide": ("it",)}, "--translate.hide it has no effect without detection"),
        ((), {"hide": ("it",)}, "add --translate.source-prompt auto or soft"),
        ((), {"hide": ("it",), "source_prompt": "es"}, "--translate.hide it has no effect without detection"),
    ],
)
def test_source_prompts_that_contradict_each_other(prompts, config, message):
    with pytest.raises(UserError, match=message):
        TranslateJob(source_prompts=prompts, translate=TranslateConfig(**config))


def write_corpus(folder, rows):
    """The rows as a manifest, with a file for each that nobody listens to; the value of --corpus."""
    (folder / "x.wav").write_bytes(b"no sound")
    columns = [dataclasses.asdict(row) | {"audio": "x.wav"} for row in rows]
    lines = [json.dumps({name: value for name, value in row.items() if name != "member"}) for row in columns]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return f"manifest:{folder}/manifest.jsonl"


@pytest.fixture(params=["finished", "still to be encoded"])
def speech(request, tmp_path, model):
    """A function from settings to a job that reads ROWS, or other rows: of a finished artifact, or of a corpus."""

    def asked(languages=("fr", "en"), rows=ROWS, **config):
        if request.param == "finished":
            embed(tmp_path, model, "corpus", rows=rows)
            return job(tmp_path, model, languages, **config)
        corpus = write_corpus(tmp_path, rows)
        return dataclasses.replace(job(tmp_path, model, languages, embeddings=None, **config), corpus=corpus)

    return asked


def test_directions_without_reference(tmp_path, speech, capsys):
    refused(speech(("fr",), targets=("zh",)), "direction fr-zh", "translations")
    refused(speech(("it",), targets=("it",), transcribe=True), "direction it-it")
    refused(speech(split="dev"), "'dev'")
    assert not (tmp_path / "translate").exists()
    assert names(prepared(speech()).directions) == ["fr-en"]
    capsys.readouterr()
    wider = dataclasses.replace(speech(("fr", "it")), name="wider")
    assert names(prepared(wider).directions) == ["fr-en"]
    assert "no references for it-en, left out" in capsys.readouterr().out


def test_the_splits_that_there_are(speech):
    refused(speech(split="dev"), "the corpus has test, train", "give its name (test, train), or all for every row")
    found = prepared(speech(split="all"))
    assert found.embeddings.rows("all")["utterance_id"].to_pylist() == ["fr-0", "fr-1", "en-0", "en-1"]


def test_references_of_another_split_do_not_count(speech):
    first, second = (row for row in ROWS if row.language == "fr")
    rows = [dataclasses.replace(first, translations={}), second]
    refused(speech(("fr",), rows), "direction fr-en")
    found = prepared(speech(("fr",), rows, split="train"))
    assert found.embeddings.rows("train")["utterance_id"].to_pylist() == ["fr-1"]


def test_a_corpus_without_splits_is_divided_only_for_weights_that_were_trained(tmp_path, model):
    """The untouched model may be tested on all of it; weights only on what they were not trained on."""
    ids = [f"s{number}" for number in range(60)]
    rows = [dataclasses.replace(utterance("fr", 0), utterance_id=f"fr-{s}", sentence_id=s, split=None) for s in ids]
    embed(tmp_path, model, rows=rows)
    finetuned(tmp_path, model, directions=("fr-en",))
    plain = prepared(job(tmp_path, model, ("fr",), "plain"))
    tuned = prepared(job(tmp_path, model, ("fr",), "tuned", checkpoint="tuned"))
    assert plain.embeddings.rows("test").num_rows == 60
    expected = sorted(s for s, split in zip(ids, divided(ids), strict=True) if split == "test")
    assert 0 < len(expected) < 20
    assert sorted(tuned.embeddings.rows("test")["sentence_id"].to_pylist()) == expected


def test_embeddings_are_found_by_what_they_are(tmp_path, model):
    """Of no name, from the rows of the corpus, what is missing is to be encoded first."""
    asked = dataclasses.replace(job(tmp_path, model, embeddings=None), corpus=write_corpus(tmp_path, ROWS))
    found = prepared(asked)
    assert found.embeddings.work.missing["utterance_id"].to_pylist() == ["fr-0", "en-0"]
    assert found.embeddings.name == asked.name


def test_baselines_that_cannot_be_compared(tmp_path, model):
    embeddings = embed(tmp_path, model)
    translated(tmp_path, "far", embed(tmp_path, model, "others", keep_margin=150))
    refused(job(tmp_path, model, baseline="far"), "'far'", "other embeddings than 'corpus'")
    translated(tmp_path, "foreign", embed(tmp_path, model, "foreign", sha256="0" * 64))
    refused(job(tmp_path, model, baseline="foreign"), "'foreign'", "other embeddings than 'corpus'")
    translated(tmp_path, "apart", embeddings, ["it-zh"])
    refused(job(tmp_path, model, baseline="apart"), "'apart'", "only it-zh")
    baseline = translated(tmp_path, "near", embeddings, ["it-zh", "fr-en"])
    assert prepared(job(tmp_path, model, baseline="near")).baseline == baseline
    translated(tmp_path, "train", embeddings, utterance="fr-1")
    refused(job(tmp_path, model, baseline="train"), "'train' (split 'train') has none", "of this run (split 'test')")
    refused(
        job(tmp_path, model, name="beams", baseline="near", num_beams=5),
        "--translate.num-beams 1",
        "give this run the same values",
    )


def test_a_plan_travels_to_workers(tmp_path, model):
    import pickle

    embed(tmp_path, model)
    found = prepared(job(tmp_path, model))
    again = pickle.loads(pickle.dumps(found))
    for field in dataclasses.fields(found):
        if field.name != "embeddings":
            assert getattr(again, field.name) == getattr(found, field.name)
    assert again.embeddings.rows("test").equals(found.embeddings.rows("test"))
    assert again.embeddings.identity == found.embeddings.identity
