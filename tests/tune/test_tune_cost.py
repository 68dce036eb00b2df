"""What a search costs: its trials, each with what it has."""

import dataclasses

import pytest

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.cost import run_cost
from xlt_ray.job.cost import Speech
from xlt_ray.models.size import MODELS
from xlt_ray.tune import cost
from xlt_ray.tune.config import Axis, TuneConfig, TuneJob
from xlt_ray.tune.plan import config_of

TINY = MODELS["openai/whisper-tiny"]
SPEECH = Speech({(code, split): 100 for code in ("en", "fr") for split in ("train", "dev")}, {}, {"en": 5, "fr": 5}, "")


def job(**space):
    """Trials of one learning rate, and of what else is searched."""
    space = {"learning_rate": Axis(values=(1e-5,)), "ewc_lambda": Axis()} | space
    return TuneJob(languages=("en", "fr"), finetune=FinetuneConfig(evaluate_every=10), tune=TuneConfig(**space))


def of_one(asked, **settings):
    """The cost of one run of the search."""

    return run_cost(dataclasses.replace(asked, finetune=config_of(asked, settings)), TINY, SPEECH)


def test_trials_that_can_not_be_cost_nothing():
    """EWC holds weights that LoRA does not train: of four combinations there are three trials."""
    asked = job(lora_rank=Axis(values=(0, 8)), ewc_lambda=Axis(values=(0, 10)))
    assert cost.search_cost(asked, TINY, SPEECH).num_rows == 3 * of_one(asked).num_rows


def test_replay_and_epochs_are_those_of_each_trial():
    asked = job(replay_fraction=Axis(values=(0, 0.5)), epochs=Axis(values=(1, 4)))
    each = [of_one(asked, replay_fraction=fraction, epochs=epochs) for fraction in (0, 0.5) for epochs in (1, 4)]
    assert cost.search_cost(asked, TINY, SPEECH).gpu_hours == pytest.approx(sum(one.gpu_hours for one in each))


def test_trials_with_ewc_share_a_fisher():
    asked = job(ewc_lambda=Axis(values=(1, 10)))
    held = of_one(asked, ewc_lambda=1)
    alone = dataclasses.replace(config_of(asked, {"ewc_lambda": 1}), fisher=None)
    first = run_cost(dataclasses.replace(asked, finetune=alone), TINY, SPEECH)
    assert first.gpu_hours > held.gpu_hours
    assert cost.search_cost(asked, TINY, SPEECH).gpu_hours == pytest.approx(first.gpu_hours + held.gpu_hours)
    named = dataclasses.replace(asked, finetune=dataclasses.replace(asked.finetune, fisher="there"))
    assert cost.search_cost(named, TINY, SPEECH).gpu_hours == pytest.approx(2 * held.gpu_hours)
