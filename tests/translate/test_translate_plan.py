"""What a translate run is asked for, and everything that stops it before work, on one line."""

import dataclasses

import pyarrow as pa
import pytest
from tiny import CODES, IDS, tiny_whisper

from xlt_ray.errors import UserError
from xlt_ray.models import whisper
from xlt_ray.store import artifacts, shards
from xlt_ray.store.schema import HYPOTHESIS, UTTERANCE, embedding_schema
from xlt_ray.translate import plan
from xlt_ray.translate.config import TranslateConfig, TranslateJob


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


def utterance(language, sentence):
    """English has texts in Chinese, French in English; only the first sentence is of the test split."""
    translations = {"en": {"zh": "你好", "fr": "bonjour"}, "fr": {"en": "hello"}, "it": {}}[language]
    split = "test" if sentence == 0 else "train"
    ids = {"utterance_id": f"{language}-{sentence}", "sentence_id": f"s{sentence}", "language": language}
    rest = {"audio": "/x.wav", "member": "", "text": None if language == "it" else "text", "speaker": None}
    return {**ids, **rest, "translations": list(translations.items()), "split": split}


UNSEEN = {
    **utterance("fr", 0),
    "utterance_id": "kea-0",
    "language": "kea",
    "translations": [("en", "hello"), ("zh", "你好")],
}
ROWS = [utterance(language, sentence) for language in ("en", "fr", "it") for sentence in range(2)]
ROWS.append(UNSEEN)


def embedded(root, model, name="corpus", sha256=None):
    """A finished embed artifact of ROWS."""
    identity = {
        "languages": ["en", "fr", "it", "kea"],
        "embed": {"encoding": "exact", "keep_margin": 200, "context_margin": 100},
        "model": {"sha256": sha256 or whisper.weights_sha256(model)},
        "name": name,
    }
    artifact = artifacts.start(
        str(root), "embed", name, identity, {"corpus": "manifest:x", "embed": {}, "model": "other"}
    )
    counts = {"num_samples": 320, "num_valid": 1, "num_frames": 1, "dim": 1, "frames": b"\0\0"}
    for language in identity["languages"]:
        rows = [{**row, **counts} for row in ROWS if row["language"] == language]
        artifact.write_table(f"data/{language}-00000.parquet", pa.Table.from_pylist(rows, schema=embedding_schema()))
    artifact.merge_rejected()
    artifact.commit(
        units=["en-00000", "fr-00000", "it-00000", "kea-00000"], num_rows_in=len(ROWS), inputs={}, seconds=0
    )
    return artifact


def finetuned(root, model, name="tuned", sha256=None, directions=("en-zh", "fr-fr"), prompt="tgt_transcribe"):
    """A finished finetune artifact, without its weights."""
    identity = {"model": {"sha256": sha256 or whisper.weights_sha256(model)}}
    settings = {"finetune": {"directions": list(directions), "prompt": prompt}, "model": "other"}
    artifact = artifacts.start(str(root), "finetune", name, identity, settings)
    artifact.write_json("metrics.json", {"weights_sha256": "of what it learned"})
    artifact.merge_rejected()
    artifact.commit(units=[], num_rows_in=0, inputs={}, seconds=0)
    return artifact


def translated(root, name, embeddings, directions=("fr-en",)):
    """A finished translate artifact, without its rows."""
    identity = {"embeddings": embeddings.fingerprint, "translate": {"num_beams": 1, "max_tokens": 224}}
    artifact = artifacts.start(str(root), "translate", name, identity, {})
    artifact.write_table("data/x-00000.parquet", HYPOTHESIS.empty_table())
    artifact.write_json("metrics.json", {"directions": {name: {} for name in directions}})
    artifact.merge_rejected()
    artifact.commit(units=["x-00000"], num_rows_in=0, inputs={}, seconds=0)
    return artifact


def job(root, model, languages=("fr", "en"), name="run", **config):
    config = {"transcribe": False, "embeddings": "corpus"} | config
    return TranslateJob(
        root=str(root), name=name, model=str(model), languages=languages, translate=TranslateConfig(**config)
    )


def prepared(asked, index=None):
    return plan.prepare(
        asked, shards.find(asked.root, asked.translate.embeddings or asked.name, asked.languages), index
    )


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
    embedded(tmp_path, model)
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
    embeddings = embedded(tmp_path, model)
    first = prepared(job(tmp_path, model))
    assert first.artifact.identity["embeddings"] == embeddings.fingerprint
    assert first.artifact.identity["model"] == {"sha256": whisper.weights_sha256(model)}
    translated(tmp_path, "base", embeddings)
    same = {"comet": "Unbabel/wmt22-comet-da", "baseline": "base", "batch_size": 3, "rows_per_unit": 2}
    assert prepared(job(tmp_path, model, ("en", "fr"), **same)).artifact == first.artifact
    for other in ({"num_beams": 2}, {"targets": ("en",)}, {"split": "train"}, {"max_tokens": 9}):
        with pytest.raises(UserError, match=f"translate.{next(iter(other))}"):
            prepared(job(tmp_path, model, **other))


def test_settings_say_how_the_embeddings_were_made(tmp_path, model):
    embedded(tmp_path, model)
    assert prepared(job(tmp_path, model)).artifact.settings["corpus"] == "manifest:x"


def refused(asked, *words, index=None):
    with pytest.raises(UserError) as error:
        prepared(asked, index)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_unknown_names(tmp_path, model):
    embedded(tmp_path, model)
    for name, stage in (("embeddings", "embed"), ("checkpoint", "finetune"), ("baseline", "translate")):
        refused(job(tmp_path, model, **{name: "nobody"}), f"no finished {stage} artifact 'nobody'")
    refused(job(tmp_path, model, ("fr", "de")), "has no de", "en,fr,it,kea")


def test_models_that_do_not_fit(tmp_path, model):
    embedded(tmp_path, model, "far", sha256="0" * 64)
    refused(job(tmp_path, model, embeddings="far"), "embed artifact 'far'", "another model", str(model), "'other'")
    embedded(tmp_path, model)
    finetuned(tmp_path, model, "large", sha256="0" * 64)
    refused(job(tmp_path, model, checkpoint="large"), "finetune artifact 'large'", "another model")
    assert not (tmp_path / "translate").exists()


def test_a_target_without_token(tmp_path, model):
    embedded(tmp_path, model)
    refused(job(tmp_path, model, targets=("kea",)), "no token for language 'kea'", "it knows")


def test_a_source_without_token_needs_a_source_prompt(tmp_path, model):
    embedded(tmp_path, model)
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
    embedded(tmp_path, model)
    refused(job(tmp_path, model, source_prompt="kea"), "source prompt 'kea' is neither auto, soft", "it knows af am")
    refused(job(tmp_path, model, ("fr",), source_prompt="related"), "no related language is known for 'fr'", "kea ast")
    refused(job(tmp_path, model, ("en",), targets=("zh",), source_prompt="es"), "no effect on en-zh", "--translate.tar")
    hidden = {"source_prompt": "auto", "hide": ("kea",)}
    refused(job(tmp_path, model, **hidden), "--translate.hide kea", "no such token", "it knows af am")
    hidden = {"source_prompt": "soft", "hide": tuple(CODES)}
    refused(job(tmp_path, model, **hidden), "--translate.hide names every language")
    assert not (tmp_path / "translate").exists()


def test_hidden_languages_are_tokens_and_part_of_the_identity(tmp_path, model):
    embedded(tmp_path, model)
    found = prepared(job(tmp_path, model, source_prompt="soft", hide=("it", "zh_CN")))
    assert found.hidden == tuple(sorted([IDS["<|it|>"], IDS["<|zh|>"]]))
    assert found.artifact.identity["translate"]["hide"] == ["it", "zh_CN"]
    with pytest.raises(UserError, match=r"translate\.hide"):
        prepared(job(tmp_path, model, source_prompt="soft", hide=("it",)))
    assert prepared(job(tmp_path, model, name="plain")).hidden == ()


def sweep(asked, *prompts):
    return dataclasses.replace(asked, source_prompts=prompts)


def test_a_run_for_each_source_prompt(tmp_path, model):
    embedded(tmp_path, model)
    asked = job(tmp_path, model, ("kea",))
    assert plan.runs(asked) == [asked]
    found = plan.runs(sweep(asked, "auto", "es"))
    assert [(of.name, of.translate.source_prompt) for of in found] == [("run-auto", "auto"), ("run-es", "es")]
    for of in found:
        same = {"name": "run", "translate": dataclasses.replace(of.translate, source_prompt=None)}
        assert dataclasses.replace(of, **same) == asked
        assert prepared(of).artifact.name == of.name


def test_the_runs_of_a_job_read_its_embeddings(tmp_path):
    plain = TranslateJob(root=str(tmp_path), name="mine", source_prompts=("auto", "en"))
    assert [of.translate.embeddings for of in plan.runs(plain)] == ["mine", "mine"]


def test_only_runs_that_detect_hide_something(tmp_path):
    config = TranslateConfig(hide=("it",))
    asked = TranslateJob(root=str(tmp_path), source_prompts=("auto", "es", "soft"), translate=config)
    assert [of.translate.hide for of in plan.runs(asked)] == [("it",), (), ("it",)]


@pytest.mark.parametrize(
    ("prompts", "config", "message"),
    [
        (("auto", "es", "auto"), {}, "--source-prompts auto,es,auto names a prompt twice"),
        (("es/it",), {}, "--source-prompts has 'es/it'; give auto, soft, related or language codes"),
        (("es",), {"source_prompt": "auto"}, "--source-prompts and --translate.source-prompt auto exclude each other"),
        (("es", "en"), {"hide": ("it",)}, "--translate.hide it has no effect without detection"),
        ((), {"hide": ("it",)}, "add --translate.source-prompt auto or soft"),
        ((), {"hide": ("it",), "source_prompt": "es"}, "--translate.hide it has no effect without detection"),
    ],
)
def test_source_prompts_that_contradict_each_other(prompts, config, message):
    with pytest.raises(UserError, match=message):
        TranslateJob(source_prompts=prompts, translate=TranslateConfig(**config))


@pytest.mark.parametrize("is_finished", [True, False])
def test_directions_without_reference(tmp_path, model, is_finished):
    embedded(tmp_path, model)
    index = None if is_finished else pa.Table.from_pylist(ROWS, schema=UTTERANCE)
    refused(job(tmp_path, model, ("fr", "it")), "direction it-en", "translations", index=index)
    refused(job(tmp_path, model, targets=("zh",)), "direction fr-zh", index=index)
    refused(job(tmp_path, model, ("it",), targets=("it",), transcribe=True), "direction it-it", index=index)
    refused(job(tmp_path, model, split="dev"), "'dev'", index=index)
    assert not (tmp_path / "translate").exists()
    assert names(prepared(job(tmp_path, model), index).directions) == ["fr-en"]


def test_the_splits_that_there_are(tmp_path, model):
    embedded(tmp_path, model)
    index = pa.Table.from_pylist(ROWS, schema=UTTERANCE)
    refused(job(tmp_path, model, split="dev"), "but of test, train", "None takes all", index=index)
    assert prepared(job(tmp_path, model, split=None), index)


def test_references_of_another_split_do_not_count(tmp_path, model):
    rows = [dict(row) for row in ROWS if row["language"] == "fr"]
    rows[0] |= {"translations": []}
    embedded(tmp_path, model)
    index = pa.Table.from_pylist(rows, schema=UTTERANCE)
    refused(job(tmp_path, model, ("fr",)), "direction fr-en", index=index)
    assert prepared(job(tmp_path, model, ("fr",), split="train"), index)


def test_baselines_that_cannot_be_compared(tmp_path, model):
    embeddings = embedded(tmp_path, model)
    translated(tmp_path, "far", embedded(tmp_path, model, "others"))
    refused(job(tmp_path, model, baseline="far"), "'far'", "other embeddings than 'corpus'")
    translated(tmp_path, "apart", embeddings, ["it-zh"])
    refused(job(tmp_path, model, baseline="apart"), "'apart'", "only it-zh")
    baseline = translated(tmp_path, "near", embeddings, ["it-zh", "fr-en"])
    assert prepared(job(tmp_path, model, baseline="near")).baseline == baseline
    refused(job(tmp_path, model, baseline="near", num_beams=5), "--translate.num-beams 1", "search alike")


def test_a_plan_travels_to_workers(tmp_path, model):
    import pickle

    embedded(tmp_path, model)
    found = prepared(job(tmp_path, model))
    assert dataclasses.asdict(pickle.loads(pickle.dumps(found))) == dataclasses.asdict(found)
