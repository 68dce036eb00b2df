"""Costs against torch's own count of operations, published sizes, naive loops and hand-made sums."""

import dataclasses

import pyarrow as pa
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray_speech import RATE, row, tone, write_rows
from tiny import tiny_whisper
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from xlt_ray import corpora
from xlt_ray.embed import cost as embed_costs
from xlt_ray.embed import index
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.errors import UserError
from xlt_ray.finetune import batch
from xlt_ray.finetune import cost as finetune_costs
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost
from xlt_ray.models.size import MODELS, ModelSize
from xlt_ray.retrieval import cost as retrieval_costs
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.store import artifacts
from xlt_ray.translate import cost as translate_costs
from xlt_ray.translate.config import TranslateConfig, TranslateJob


def published(job, embeddings=None):
    directions = finetune_costs.learned(job) if isinstance(job, FinetuneJob) else ()
    return embed_costs.public_speech(job, job.embed, embeddings, directions)


LARGE = MODELS["openai/whisper-large-v2"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tiny):
    """transformers' model with attention in plain matrix products, all of which torch counts."""
    return WhisperForConditionalGeneration.from_pretrained(tiny, attn_implementation="eager").eval()


def counted_flops(work):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def test_encoder_flops_are_those_that_torch_counts(tiny, whole):
    mel = torch.zeros(1, 80, 3000)
    assert ModelSize.read(tiny).encoder_flops(1500) == counted_flops(lambda: whole.model.encoder(mel))


@pytest.mark.parametrize(("num_tokens", "num_frames"), [(1, 1500), (7, 300), (60, 33)])
def test_decoder_flops_are_those_that_torch_counts(tiny, whole, num_tokens, num_frames):
    heard = BaseModelOutput(torch.zeros(1, num_frames, 32))
    tokens = torch.zeros(1, num_tokens, dtype=torch.long)
    work = counted_flops(lambda: whole(decoder_input_ids=tokens, encoder_outputs=heard, use_cache=False))
    assert ModelSize.read(tiny).decoder_flops(num_tokens, num_frames) == work


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 37.76), ("base", 72.59), ("small", 241.73), ("medium", 763.86), ("large-v2", 1543.30)],
)
def test_published_models_have_their_published_number_of_weights(name, millions):
    """All but biases and norms, which are below 1 %."""
    weights = MODELS[f"openai/whisper-{name}"].parameters
    assert 0.99 < weights / (millions * 1e6) < 1


def test_weights_of_the_decoder_are_those_of_the_model(tiny, whole):
    matrices = sum(of.numel() for of in whole.model.decoder.parameters() if of.dim() > 1)
    assert ModelSize.read(tiny).decoder_parameters == matrices


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
    assert embed_costs.encoded_frames(2.0, config) == encoded
    assert embed_costs.kept_frames(2.0, config) == kept


def test_frames_of_a_long_recording_are_those_of_the_window():
    assert embed_costs.encoded_frames(29.9, EmbedConfig(encoding="trimmed")) == 1500
    assert embed_costs.kept_frames(29.9, EmbedConfig()) == 1500


def test_embed_writes_float16_frames_of_every_layer():
    spent = embed_costs.embed_cost(LARGE, 10, 2.0, EmbedConfig(layers=(0, 5)))
    assert (spent.num_rows, spent.num_bytes) == (10, 10 * 300 * 1280 * 2 * 3)
    assert spent.audio_hours == pytest.approx(20 / 3600)
    # 2.28 TFLOP a window (2 * 32 * (12 d^2 T + 2 T^2 d) + front), at 124.8 TFLOP/s.
    assert spent.gpu_hours * 3600 * 124.8e12 / 10 == pytest.approx(2.28e12, rel=0.01)


def test_retrieval_is_the_sum_over_all_pairs_of_recordings():
    """A naive loop over recordings of three languages."""
    languages = {"en": [50] * 3, "fr": [100] * 4, "it": [150] * 2}
    flops = pairs = 0
    for first, second in [("en", "fr"), ("en", "it"), ("fr", "it")]:
        for m in languages[first]:
            for n in languages[second]:
                flops += 2 * m * n * 1280
                pairs += 1
    recordings = [(len(frames), frames[0] / 50) for frames in languages.values()]
    spent = retrieval_costs.retrieval_cost(
        LARGE, recordings, RetrievalConfig(baselines=("mean_pool", "random"), layers=(3,))
    )
    assert spent.gpu_hours * 3600 * 0.7 * 19.5e12 == pytest.approx(2 * flops)  # two layers
    assert spent.num_bytes == 4 * pairs * 5  # recall and precision of two layers, and mean_pool
    assert spent.num_rows == 9


@pytest.mark.parametrize("replay", [0.0, 0.4])
def test_finetune_sees_as_many_examples_as_its_plan(replay):
    roles = ["learn"] * 30 + ["keep"] * 7
    examples = pa.table({"role": roles, "num_frames": list(range(37))})
    steps = batch.plan(examples, batch_size=10, epochs=2, replay_fraction=replay, seed=0)
    keep = ("fr-en",) if replay else ()
    config = FinetuneConfig(batch_size=10, epochs=2, replay_fraction=replay, keep=keep)
    spent = finetune_costs.finetune_cost(LARGE, 30, 2.0, EmbedConfig(), config)
    assert spent.num_rows == sum(map(len, steps))


def test_finetune_is_three_forwards_of_what_is_seen():
    forward = LARGE.decoder_flops(4 + 8, 300)
    config = FinetuneConfig(epochs=3)
    spent = finetune_costs.finetune_cost(LARGE, 10, 2.0, EmbedConfig(), config)
    assert spent.gpu_hours * 3600 * 62.4e12 == pytest.approx(3 * 30 * forward)
    ewc = dataclasses.replace(config, keep=("fr-en", "es-en"), ewc_lambda=1.0, fisher_examples=5)
    more = finetune_costs.finetune_cost(LARGE, 10, 2.0, EmbedConfig(), ewc)
    assert (more.gpu_hours - spent.gpu_hours) * 3600 * 62.4e12 == pytest.approx(3 * 2 * 5 * forward)
    found = finetune_costs.finetune_cost(LARGE, 10, 2.0, EmbedConfig(), dataclasses.replace(ewc, fisher="there"))
    assert found == spent


def test_dev_bleu_costs_its_texts():
    config = FinetuneConfig(epochs=2, batch_size=10, evaluate_every=2)  # 4 steps, so measured twice
    plain = finetune_costs.finetune_cost(LARGE, 20, 2.0, EmbedConfig(), FinetuneConfig(epochs=2))
    spent = finetune_costs.finetune_cost(LARGE, 20, 2.0, EmbedConfig(), config, num_dev=6)
    texts = translate_costs.translate_cost(LARGE, 12, 2.0, EmbedConfig(), TranslateConfig())
    assert spent.gpu_hours - plain.gpu_hours == pytest.approx(texts.gpu_hours)
    assert spent.num_rows == plain.num_rows


def test_beams_cost_as_texts():
    one = translate_costs.translate_cost(LARGE, 30, 2.0, EmbedConfig(), TranslateConfig())
    five = translate_costs.translate_cost(LARGE, 6, 2.0, EmbedConfig(), TranslateConfig(num_beams=5))
    assert five.gpu_hours == pytest.approx(one.gpu_hours)
    assert one.gpu_hours * 3600 * 0.936e12 == pytest.approx(30 * LARGE.decoder_flops(12, 300))


numbers = st.integers(0, 10**6)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers), max_size=5))
def test_a_sum_of_costs_is_the_sum_of_every_field(rows):
    total = sum((Cost(*row) for row in rows), Cost())
    assert dataclasses.astuple(total) == tuple(sum(row[field] for row in rows) for field in range(5))


def test_a_public_corpus_needs_not_be_at_hand():
    job = RetrievalJob(corpus="fleurs", languages=("en", "zh"), embed=EmbedConfig(split="test", num_sentences=70))
    speech = published(job)
    assert speech.count("en", "test") == round(763 / 5)  # 70 of 350 sentences
    assert speech.count("en", "train") == 0
    assert published(dataclasses.replace(job, corpus="fleurs:/here")) is None
    assert published(dataclasses.replace(job, corpus="manifest:/x.tsv")) is None
    assert published(job, "embedded") is None
    assert published(EmbedJob(corpus="covost2", languages=("fr",))) is None


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (EmbedJob(corpus="fleurs", languages=("xx",)), "fleurs has no language 'xx'.*valid are af, am"),
        (EmbedJob(corpus="fleurs", languages=("en",), embed=EmbedConfig(split="half")), "no split 'half'; valid"),
        (EmbedJob(corpus="mass", languages=("en",), embed=EmbedConfig(split="test")), "MaSS has no splits"),
        (
            FinetuneJob(corpus="fleurs", languages=("en",), embed=EmbedConfig(split="train")),
            "direction en-zh: fleurs has no zh text for --languages en, only en; add",
        ),
        (
            FinetuneJob(corpus="covost2", languages=("en",), finetune=FinetuneConfig(directions=("en-fr",))),
            "direction en-fr: covost2 has no fr text",
        ),
    ],
)
def test_mistakes_about_a_public_corpus(job, message):
    with pytest.raises(UserError, match=message) as error:
        published(job)
    assert "\n" not in str(error.value)


def test_a_split_without_recordings_is_refused():
    job = FinetuneJob(corpus="covost2", languages=("en",), embed=EmbedConfig(split="test"), model="openai/whisper-tiny")
    with pytest.raises(UserError, match="no en recording is of split 'train'; choose another"):
        finetune_costs.costs(job, published(job))


def test_stages_of_a_translate_job():
    """Into en and zh from en, fr and zh, and each transcribed: 2 + 2 + 2 - 2 translations and 3 transcripts."""
    config = TranslateConfig(targets=("zh", "en"))
    languages = ("en", "fr", "zh")
    job = TranslateJob(corpus="fleurs", languages=languages, translate=config, model="openai/whisper-tiny")
    found = translate_costs.costs(job, published(job))
    assert list(found) == ["embed", "translate"]
    assert found["embed"].num_rows == 3 * 763
    assert found["translate"].num_rows == (4 + 3) * 763
    prompted = dataclasses.replace(job, source_prompts=("auto", "en"))
    assert translate_costs.costs(prompted, published(prompted))["translate"].num_rows == 2 * 7 * 763


@pytest.fixture
def manifest(tmp_path):
    """12 recordings of 1 s and one missing in en; 3 of 0.5 s and 1 s in fr."""
    rows = []
    for language, lengths in (("en", [None] + [1.0] * 12), ("fr", [0.5, 0.5, 1.0])):
        for sentence, seconds in enumerate(lengths):
            name = f"{language}-{sentence}.wav"
            if seconds:
                soundfile.write(tmp_path / name, tone(sentence, 0, seconds), RATE)
            rows.append(row(language, sentence, name))
    return write_rows(tmp_path, rows)


def test_a_corpus_at_hand_is_counted(manifest):
    rows = index.collect(corpora.read(f"manifest:{manifest}", ["en", "fr"], None), ["en", "fr"])
    speech = embed_costs.counted(rows)
    assert (speech.count("en"), speech.count("fr")) == (13, 3)
    assert speech.mean_seconds == pytest.approx({"en": 1.0, "fr": 2 / 3})


def test_a_corpus_of_which_nothing_sounds_is_refused(tmp_path):
    manifest = write_rows(tmp_path, [row("en", 0, "gone.wav")])
    with pytest.raises(UserError, match="none of the first 8 recordings in en can be decoded"):
        embed_costs.counted(index.collect(corpora.read(f"manifest:{manifest}", ["en"], None), ["en"]))


def test_a_rehearsal_leaves_no_trace(tmp_path):
    root = tmp_path / "runs"
    with cost.rehearsal(str(root)) as scratch:
        artifacts.start(scratch, "embed", "x", {"a": 1}, {})
    assert not root.exists()


def test_a_rehearsal_finds_a_name_that_is_taken(tmp_path):
    artifacts.start(str(tmp_path), "embed", "x", {"a": 1}, {})
    before = (tmp_path / "embed/x/config.json").stat().st_mtime_ns
    with cost.rehearsal(str(tmp_path)) as scratch:
        artifacts.start(scratch, "embed", "x", {"a": 1}, {"root": "elsewhere"})
    taken = rf"{tmp_path}/embed/x was made with other settings \(a: 1 there, 2 asked\)"
    with pytest.raises(UserError, match=taken), cost.rehearsal(str(tmp_path)) as scratch:
        artifacts.start(scratch, "embed", "x", {"a": 2}, {})
    assert (tmp_path / "embed/x/config.json").stat().st_mtime_ns == before


def test_a_rehearsal_reads_what_is_finished(tmp_path):
    made = artifacts.start(str(tmp_path), "fisher", "f", {"a": 1}, {})
    unfinished = "no finished fisher artifact 'f'"
    with pytest.raises(UserError, match=unfinished), cost.rehearsal(str(tmp_path), [("fisher", "f")]):
        pass
    made.merge_rejected()
    made.commit(units=[], num_rows_in=0, inputs={}, seconds=0)
    with cost.rehearsal(str(tmp_path), [("fisher", "f"), ("finetune", None)]) as scratch:
        assert artifacts.find(scratch, "fisher", "f").fingerprint == made.fingerprint


def test_the_table_has_every_stage_and_their_sum():
    found = {"embed": Cost(10, 1.5, 0.25, 40, 2_000_000), "finetune": Cost(20, 3.0, 0.5, 80, 999_999_999)}
    table = cost.as_table("x", found, "counted")
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["embed", "finetune", "in all"]
    assert cells[3] == ["0.25", "0.5", "0.75"]
    assert cells[4] == ["40", "80", "120"]
    assert cells[5] == ["2 MB", "1 GB", "1 GB"]
