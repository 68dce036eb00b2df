"""What mining costs, against naive loops and the files that it writes."""

import dataclasses

import pytest

from xlt_ray.mine import cost
from xlt_ray.mine.config import MineConfig
from xlt_ray.models.size import MODELS
from xlt_ray.retrieval.units import Extent

LARGE = MODELS["openai/whisper-large-v2"]
SCORED = 377e12  # operations a second


def test_operations_of_exact_mining_are_the_sum_over_all_pairs_of_recordings():
    languages = {"en": [50] * 3, "fr": [100] * 4, "it": [150] * 2}
    flops = 0
    for first, second in [("en", "fr"), ("en", "it"), ("fr", "it")]:
        flops += sum(2 * m * n * 1280 for m in languages[first] for n in languages[second])
    recordings = [(len(frames), frames[0] / 50) for frames in languages.values()]
    spent = cost.mine_cost(LARGE, recordings, MineConfig(candidates="all"))
    assert spent.gpu_hours * 3600 * SCORED == pytest.approx(flops)
    assert spent.num_rows == 9
    covered = cost.mine_cost(LARGE, recordings, MineConfig(candidates=4))
    assert covered.gpu_hours == pytest.approx(spent.gpu_hours)


def test_candidates_cost_pooled_pairs_and_exact_ones():
    """1,000 x 2,000 recordings of 1 s: every pair at 5 frames, 20 candidates and a sample of 10 of each at 50."""
    config = MineConfig(candidates=20, pool_frames=10, sample=10)
    num_exact = 20 * (1000 + 2000) + 10 * (2000 + 1000)
    flops = 2 * 1280 * (1000 * 2000 * 5 * 5 + num_exact * 50 * 50)
    spent = cost.mine_cost(LARGE, [(1000, 1.0), (2000, 1.0)], config)
    assert spent.gpu_hours * 3600 * SCORED == pytest.approx(flops)


def test_bytes_and_memory_follow_candidates_and_not_pairs():
    config, whole = MineConfig(), [Extent(100_000, 5120, 4e5)] * 2
    assert cost.written(config, *whole) < 100_000**2 / 2
    assert cost.scoring_memory(config, whole) < 8e9
    few = dataclasses.replace(config, candidates=10)
    assert cost.written(few, *whole) < cost.written(config, *whole)
    assert cost.scoring_memory(few, whole) < cost.scoring_memory(config, whole)
    assert cost.merging_memory(config, whole) < 2e9
