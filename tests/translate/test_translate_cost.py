"""What translation costs, against hand-made sums."""

import dataclasses

import pytest

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.cost import public_speech
from xlt_ray.models.size import MODELS
from xlt_ray.store import artifacts
from xlt_ray.translate import cost
from xlt_ray.translate.config import TranslateConfig, TranslateJob

LARGE = MODELS["openai/whisper-large-v2"]


def published(job):
    return public_speech(job, job.embed, [job.translate.split])


def test_beams_cost_as_texts():
    one = cost.translate_cost(LARGE, 30, 2.0, EmbedConfig(), TranslateConfig())
    five = cost.translate_cost(LARGE, 6, 2.0, EmbedConfig(), TranslateConfig(num_beams=5))
    assert five.gpu_hours == pytest.approx(one.gpu_hours)
    assert one.gpu_hours * 3600 * 0.936e12 == pytest.approx(30 * LARGE.decoder_flops(12, 300))


def test_stages_of_a_translate_job():
    """Into en and zh from en, fr and zh, and each transcribed: 2 + 2 + 2 - 2 translations and 3 transcripts."""
    config = TranslateConfig(targets=("zh", "en"))
    languages = ("en", "fr", "zh")
    job = TranslateJob(corpus="fleurs", languages=languages, translate=config, model="openai/whisper-tiny")
    found = cost.costs(job, published(job))
    assert list(found) == ["embed", "translate"]
    assert found["embed"].num_rows == 3 * 763
    assert found["translate"].num_rows == (4 + 3) * 763
    prompted = dataclasses.replace(job, source_prompts=("auto", "en"))
    assert cost.costs(prompted, published(prompted))["translate"].num_rows == 2 * 7 * 763


def test_only_the_split_that_is_translated_counts():
    config = TranslateConfig(split="dev", transcribe=False)
    job = TranslateJob(corpus="fleurs", languages=("fr",), model="openai/whisper-tiny", translate=config)
    found = cost.costs(job, published(job))
    assert (found["embed"].num_rows, found["translate"].num_rows) == (330, 330)


def test_what_a_checkpoint_has_learned_is_translated_too(tmp_path):
    """Without --translate.targets a run goes into en and into the targets of its checkpoint."""
    config = TranslateConfig(checkpoint="zh", transcribe=False)
    languages, model = ("en", "fr"), "openai/whisper-tiny"
    job = TranslateJob(root=str(tmp_path), corpus="fleurs", languages=languages, translate=config, model=model)
    assert cost.costs(job, published(job))["translate"].num_rows == 763
    tuned = artifacts.plan(str(tmp_path), "finetune", "zh", {}, {"finetune": {"directions": ["en-zh", "fr-fr"]}})
    tuned.begin()
    tuned.merge_rejected()
    tuned.commit(units={}, num_rows_in=0, inputs={}, seconds=0)
    assert cost.costs(job, published(job))["translate"].num_rows == 3 * 763
