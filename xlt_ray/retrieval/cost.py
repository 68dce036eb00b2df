"""What retrieval costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from xlt_ray.embed.cost import FRAMES_PER_SECOND
from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob


def retrieval_cost(size: ModelSize, recordings: Sequence[tuple[int, float]], config: RetrievalConfig) -> Cost:
    """Scoring every recording of each language with every one of each other: 2 m n d for m with n frames.

    Args:
        size: of the model.
        recordings: number and mean seconds of the recordings of each language.
        config: of the retrieval.
    """
    frames, pairs = 0.0, 0
    for (first, first_s), (second, second_s) in itertools.combinations(recordings, 2):
        frames += first * first_s * second * second_s * FRAMES_PER_SECOND**2
        pairs += first * second
    num_layers = 1 + len(config.layers)
    num_scores = 2 * num_layers + len(set(config.baselines) - {"random"})
    seconds = sum(num * mean for num, mean in recordings)
    num_rows = sum(num for num, _ in recordings)
    return cost.estimate("score", 2 * frames * size.d_model * num_layers, num_rows, seconds, 4 * pairs * num_scores)


def costs(job: RetrievalJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    recordings = [(speech.count(code), speech.mean_seconds[code]) for code in job.languages]
    return {
        **embed_costs(job, job.embed, speech),
        "retrieval": retrieval_cost(model_size(job.model), recordings, job.retrieval),
    }
