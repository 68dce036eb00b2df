"""What fine-tuning costs, against the plan of its batches and hand-made sums."""

import dataclasses

import pyarrow as pa
import pytest

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.cost import public_speech
from xlt_ray.errors import UserError
from xlt_ray.finetune import batch, cost
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.models.size import MODELS
from xlt_ray.translate.config import TranslateConfig
from xlt_ray.translate.cost import translate_cost

LARGE = MODELS["openai/whisper-large-v2"]


@pytest.mark.parametrize("replay", [0.0, 0.4])
def test_finetune_sees_as_many_examples_as_its_plan(replay):
    roles = ["learn"] * 30 + ["keep"] * 7
    examples = pa.table({"role": roles, "num_frames": list(range(37))})
    steps = batch.plan(examples, batch_size=10, epochs=2, replay_fraction=replay, seed=0)
    keep = ("fr-en",) if replay else ()
    config = FinetuneConfig(batch_size=10, epochs=2, replay_fraction=replay, keep=keep)
    spent = cost.finetune_cost(LARGE, 30, 2.0, EmbedConfig(), config)
    assert spent.num_rows == sum(map(len, steps))


def test_finetune_is_three_forwards_of_what_is_seen():
    forward = LARGE.decoder_flops(4 + 8, 300)
    config = FinetuneConfig(epochs=3)
    spent = cost.finetune_cost(LARGE, 10, 2.0, EmbedConfig(), config)
    assert spent.gpu_hours * 3600 * 75e12 == pytest.approx(3 * 30 * forward)
    ewc = dataclasses.replace(config, keep=("fr-en", "es-en"), ewc_lambda=1.0, fisher_examples=5)
    more = cost.finetune_cost(LARGE, 10, 2.0, EmbedConfig(), ewc)
    assert (more.gpu_hours - spent.gpu_hours) * 3600 * 75e12 == pytest.approx(3 * 2 * 5 * forward)
    found = cost.finetune_cost(LARGE, 10, 2.0, EmbedConfig(), dataclasses.replace(ewc, fisher="there"))
    assert found == spent


def test_dev_bleu_costs_its_texts():
    config = FinetuneConfig(epochs=2, batch_size=10, evaluate_every=2)  # 4 steps, so measured twice
    plain = cost.finetune_cost(LARGE, 20, 2.0, EmbedConfig(), FinetuneConfig(epochs=2))
    spent = cost.finetune_cost(LARGE, 20, 2.0, EmbedConfig(), config, num_dev=6)
    texts = translate_cost(LARGE, 12, 2.0, EmbedConfig(), TranslateConfig())
    assert spent.gpu_hours - plain.gpu_hours == pytest.approx(texts.gpu_hours)
    assert spent.num_rows == plain.num_rows


def test_a_split_without_recordings_is_refused():
    job = FinetuneJob(corpus="covost2", languages=("en",), model="openai/whisper-tiny")
    speech = public_speech(job, job.embed, ["test"], None, cost.learned(job))
    with pytest.raises(UserError, match="no en recording is of split 'train'; choose another"):
        cost.costs(job, speech)


def test_training_and_dev_bleu_are_of_their_own_splits():
    """CoVoST 2 has 289,000 recordings to train on and 15,500 to measure on; both are encoded."""
    config = FinetuneConfig(batch_size=1000, epochs=1, evaluate_every=100)
    job = FinetuneJob(corpus="covost2", languages=("en",), model="openai/whisper-tiny", finetune=config)
    found = cost.costs(job, public_speech(job, job.embed, config.splits, None, cost.learned(job)))
    assert found["embed"].num_rows == 289_000 + 15_500
    assert found["finetune"].num_rows == 289_000
    plain = dataclasses.replace(job, finetune=dataclasses.replace(config, evaluate_every=0))
    without = cost.costs(plain, public_speech(plain, plain.embed, plain.finetune.splits, None, cost.learned(plain)))
    assert without["embed"].num_rows == 289_000
    texts = translate_cost(MODELS["openai/whisper-tiny"], 3 * 15_500, 5.4, EmbedConfig(), TranslateConfig())
    assert found["finetune"].gpu_hours - without["finetune"].gpu_hours == pytest.approx(texts.gpu_hours)
