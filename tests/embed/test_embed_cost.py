"""What encoding costs, and how much speech there is: hand-made sums, published sizes, recordings that are counted."""

import dataclasses

import pytest
import soundfile
from ray_speech import RATE, row, tone, write_rows
from tiny import tiny_whisper

from xlt_ray.embed import cost, plan
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.finetune.cost import learned
from xlt_ray.models.size import MODELS
from xlt_ray.retrieval.config import RetrievalJob

LARGE = MODELS["openai/whisper-large-v2"]


def published(job, splits=(), embeddings=None):
    directions = learned(job) if isinstance(job, FinetuneJob) else ()
    return cost.public_speech(job, job.embed, splits, embeddings, directions)


@pytest.mark.parametrize(
    ("config", "encoded", "kept"),
    [
        (EmbedConfig(), 1500, 300),
        (EmbedConfig(keep_margin="all"), 1500, 1500),
        (EmbedConfig(encoding="trimmed", context_margin=50), 150, 150),
        (EmbedConfig(encoding="trimmed", context_margin=50, keep_margin=20), 150, 120),
    ],
)
def test_frames_of_two_seconds(config, encoded, kept):
    assert cost.encoded_frames(2.0, config) == encoded
    assert cost.kept_frames(2.0, config) == kept


def test_frames_of_a_long_recording_are_those_of_the_window():
    assert cost.encoded_frames(29.9, EmbedConfig(encoding="trimmed")) == 1500
    assert cost.kept_frames(29.9, EmbedConfig()) == 1500


def test_embed_writes_float16_frames_of_every_layer():
    spent = cost.embed_cost(LARGE, 10, 2.0, EmbedConfig(layers=(0, 5)))
    assert (spent.num_rows, spent.num_bytes) == (10, 10 * 300 * 1280 * 2 * 3)
    assert spent.audio_hours == pytest.approx(20 / 3600)
    # 2.28 TFLOP a window (2 * 32 * (12 d^2 T + 2 T^2 d) + front), at 124.8 TFLOP/s.
    assert spent.gpu_hours * 3600 * 468e12 / 10 == pytest.approx(2.28e12, rel=0.01)


def test_a_public_corpus_needs_not_be_at_hand():
    job = RetrievalJob(corpus="fleurs", languages=("en", "zh"), embed=EmbedConfig(num_sentences=70))
    speech = published(job, ["test"])
    assert speech.count("en", "test") == round(763 / 5)  # 70 of 350 sentences
    assert speech.count("en", "train") == 0
    assert speech.num_missing == {"en": round(763 / 5), "zh": round(763 / 5)}
    assert published(dataclasses.replace(job, corpus="fleurs:/here"), ["test"]) is None
    assert published(dataclasses.replace(job, corpus="manifest:/x.tsv"), ["test"]) is None
    assert published(job, ["test"], "embedded") is None
    assert published(EmbedJob(corpus="covost2", languages=("fr",))) is None


def test_splits_of_a_public_corpus_are_counted_one_by_one_and_together():
    job = EmbedJob(corpus="fleurs", languages=("en",))
    every = published(job)
    counts = {split: every.count("en", split) for split in ("train", "dev", "test")}
    assert counts == {"train": 3000, "dev": 330, "test": 763}
    assert every.count("en") == every.num_missing["en"] == 3000 + 330 + 763
    assert published(job, ["all"]).num_missing["en"] == 3000 + 330 + 763


def test_a_public_corpus_without_splits_is_whole_where_nothing_is_trained():
    job = RetrievalJob(corpus="mass", languages=("en", "fr"))
    speech = published(job, ["test"])
    assert (speech.count("en", "test"), speech.num_missing["fr"]) == (8160, 8160)


def test_a_public_corpus_without_splits_is_divided_where_a_job_trains():
    """No recording is counted, or paid for, twice."""
    config = FinetuneConfig(directions=("en-fr",), evaluate_every=5)
    job = FinetuneJob(corpus="mass", languages=("en", "fr"), finetune=config)
    speech = published(job, ["train", "dev", "test"])
    assert [speech.count("en", split) for split in ("train", "dev", "test")] == [6528, 816, 816]
    assert speech.num_missing == {"en": 8160, "fr": 8160}


@pytest.mark.parametrize(
    ("job", "splits", "message"),
    [
        (EmbedJob(corpus="fleurs", languages=("xx",)), (), "fleurs has no language 'xx'.*valid are af, am"),
        (EmbedJob(corpus="fleurs", languages=("en",)), ("half",), "no split 'half'; valid"),
        (
            FinetuneJob(corpus="fleurs", languages=("en",)),
            ("train",),
            "direction en-zh: fleurs has no zh text for --languages en, only en; add",
        ),
        (
            FinetuneJob(corpus="covost2", languages=("en",), finetune=FinetuneConfig(directions=("en-fr",))),
            ("train",),
            "direction en-fr: covost2 has no fr text",
        ),
    ],
)
def test_mistakes_about_a_public_corpus(job, splits, message):
    with pytest.raises(UserError, match=message) as error:
        published(job, splits)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture
def manifest(tmp_path):
    """12 recordings of 1 s and one missing in en; 3 of 0.5 s and 1 s in fr; the first two sentences are of dev."""
    rows = []
    for language, lengths in (("en", [None] + [1.0] * 12), ("fr", [0.5, 0.5, 1.0])):
        for sentence, seconds in enumerate(lengths):
            name = f"{language}-{sentence}.wav"
            if seconds:
                soundfile.write(tmp_path / name, tone(sentence, 0, seconds), RATE)
            rows.append(row(language, sentence, name) | {"split": "dev" if sentence < 2 else "train"})
    return write_rows(tmp_path, rows)


def counted(manifest, model, tmp_path, splits, languages=("en", "fr")):
    config = EmbedConfig(max_rejected=0.5)
    job = EmbedJob(
        corpus=f"manifest:{manifest}", languages=languages, model=str(model), root=str(tmp_path / "runs"), embed=config
    )
    return cost.counted(plan.prepare(job, config, splits))


def test_a_corpus_at_hand_is_counted(manifest, model, tmp_path):
    speech = counted(manifest, model, tmp_path, ["all"])
    assert (speech.count("en"), speech.count("fr")) == (13, 3)
    assert speech.mean_seconds == pytest.approx({"en": 1.0, "fr": 2 / 3})
    assert speech.num_missing == {"en": 13, "fr": 3}


def test_a_corpus_at_hand_is_counted_by_split(manifest, model, tmp_path):
    speech = counted(manifest, model, tmp_path, ["dev", "train"])
    found = {(code, split): speech.count(code, split) for code in ("en", "fr") for split in ("dev", "train")}
    assert found == {("en", "dev"): 2, ("en", "train"): 11, ("fr", "dev"): 2, ("fr", "train"): 1}
    assert counted(manifest, model, tmp_path, ["train"]).num_missing == {"en": 11, "fr": 1}


def test_a_corpus_of_which_nothing_sounds_is_refused(tmp_path, model):
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    manifest = write_rows(tmp_path, [row("en", 0, "noise.wav")])
    with pytest.raises(UserError, match="none of the first 8 recordings in en can be decoded"):
        counted(manifest, model, tmp_path, ["all"], ("en",))
