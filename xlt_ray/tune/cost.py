"""The cost of a search."""

from __future__ import annotations

import dataclasses

from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.finetune.cost import run_cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.tune import space
from xlt_ray.tune.config import TuneJob
from xlt_ray.tune.plan import config_of


def search_cost(job: TuneJob, size: ModelSize, speech: Speech) -> Cost:
    """The cost of all trials, each run to its end, and of the Fisher that those with EWC share; halving is cheaper."""
    configs = [config_of(job, settings) for settings in space.draw(job.tune)]
    if (first := next((place for place, config in enumerate(configs) if config.ewc_lambda), None)) is not None:
        configs[first] = dataclasses.replace(configs[first], fisher=job.finetune.fisher)
    return sum((run_cost(dataclasses.replace(job, finetune=config), size, speech) for config in configs), Cost())


def costs(job: TuneJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    made = embed_costs(job, job.embed, speech)
    return {**made, "tune": search_cost(job, model_size(job.model), speech)}
