"""What a search costs."""

from __future__ import annotations

import dataclasses

from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.finetune.cost import run_cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.tune.config import TuneJob


def search_cost(job: TuneJob, size: ModelSize, speech: Speech) -> Cost:
    """Every trial to its end, which halving makes cheaper, as the middle of the searched values would be."""
    config = dataclasses.replace(job.finetune, evaluate=job.kept)
    epochs = job.tune.epochs.bounds or job.tune.epochs.values
    if epochs:
        config = dataclasses.replace(config, epochs=round(sum(epochs) / len(epochs)))
    one = run_cost(dataclasses.replace(job, finetune=config), size, speech)
    return sum([one] * job.tune.size, Cost())


def costs(job: TuneJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    made = embed_costs(job, job.embed, speech)
    return {**made, "tune": search_cost(job, model_size(job.model), speech)}
