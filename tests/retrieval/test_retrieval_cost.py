"""What retrieval costs, against a naive loop."""

import pytest

from xlt_ray.models.size import MODELS
from xlt_ray.retrieval import cost
from xlt_ray.retrieval.config import RetrievalConfig

LARGE = MODELS["openai/whisper-large-v2"]


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
    spent = cost.retrieval_cost(LARGE, recordings, RetrievalConfig(baselines=("mean_pool", "random"), layers=(3,)))
    assert spent.gpu_hours * 3600 * 0.7 * 19.5e12 == pytest.approx(2 * flops)  # two layers
    assert spent.num_bytes == 4 * pairs * 5  # recall and precision of two layers, and mean_pool
    assert spent.num_rows == 9
