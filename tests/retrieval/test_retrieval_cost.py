"""What retrieval costs, against naive loops and the memory of a process that does the work."""

import dataclasses
import math

import pytest

from benchmarks import retrieval_size
from xlt_ray.models.size import MODELS
from xlt_ray.retrieval import cost
from xlt_ray.retrieval.config import RetrievalConfig
from xlt_ray.retrieval.units import Extent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # processes of their own, on a machine that may be busy

LARGE = MODELS["openai/whisper-large-v2"]
CONFIG = RetrievalConfig(baselines=("mean_pool", "random"), layers=(3,))


def test_operations_are_the_sum_over_all_pairs_of_recordings():
    """A naive loop over recordings of three languages."""
    languages = {"en": [50] * 3, "fr": [100] * 4, "it": [150] * 2}
    flops = 0
    for first, second in [("en", "fr"), ("en", "it"), ("fr", "it")]:
        flops += sum(2 * m * n * 1280 for m in languages[first] for n in languages[second])
    recordings = [(len(frames), frames[0] / 50) for frames in languages.values()]
    spent = cost.retrieval_cost(LARGE, recordings, CONFIG)
    assert spent.gpu_hours * 3600 * 377e12 == pytest.approx(2 * flops)  # two layers
    assert spent.num_rows == 9


def test_candidates_cost_pooled_pairs_a_sample_and_exact_ones():
    """1,000 x 2,000 recordings of 1 s: every pair at 10 frames, 20 candidates and a sample of 100 of each at 50."""
    config = RetrievalConfig(baselines=(), candidates=20)
    num_exact = 20 * (1000 + 2000) + 100 * (2000 + 1000)
    flops = 2 * 1280 * (1000 * 2000 * 10 * 10 + num_exact * 50 * 50)
    spent = cost.retrieval_cost(LARGE, [(1000, 1.0), (2000, 1.0)], config)
    assert spent.gpu_hours * 3600 * 377e12 == pytest.approx(flops)
    whole, covered = (RetrievalConfig(baselines=(), candidates=num) for num in (None, 1000))
    assert cost.scored_pairs((1000, 2000), covered) == cost.scored_pairs((1000, 2000), whole) == 2_000_000


def test_bytes_follow_recordings_and_candidates_kept_and_not_pairs():
    few, many = (cost.retrieval_cost(LARGE, [(num, 1.0)] * 2, CONFIG).num_bytes for num in (1000, 16_000))
    assert many / few < 16 * math.sqrt(16)  # each query is in the files of as many units as the other side has blocks
    assert many < 16_000**2 * 4
    twice = cost.retrieval_cost(LARGE, [(1000, 1.0)] * 2, dataclasses.replace(CONFIG, top_k=20)).num_bytes
    assert 1.3 < twice / few < 2
    whole = cost.retrieval_cost(LARGE, [(1000, 1.0)] * 2, dataclasses.replace(CONFIG, keep_scores=True)).num_bytes
    assert whole - few == 1000 * 1000 * 4 * 5  # recall and precision of two layers, and mean_pool


def test_bytes_written_are_those_of_the_files(tmp_path):
    """Parquet packs them, so that files are smaller, but not by much."""
    scoring = retrieval_size.scoring_of(str(tmp_path), 300, 3, 16, RetrievalConfig(strip_utterances=100))
    for step in retrieval_size.STEPS.values():
        step(scoring)
    found = sum(path.stat().st_size for path in (tmp_path / "retrieval").rglob("*.parquet"))
    expected = cost.written(scoring.config, *scoring.extents.values())
    assert expected / 2 < found < expected


@pytest.mark.parametrize("frames", [2, 30])
def test_memory_is_that_of_a_process_that_scores(tmp_path, frames):
    config = RetrievalConfig(baselines=())
    scoring = retrieval_size.scoring_of(str(tmp_path), 512, frames, 1024, config)
    each = next(iter(scoring.extents.values())).bytes_each
    whole = Extent(512, 512, each)
    scoring = dataclasses.replace(scoring, extents=dict.fromkeys(retrieval_size.PAIR, whole))
    retrieval_size.score_hits(scoring)
    figures = retrieval_size.peak_of(retrieval_size.count, scoring)
    declared = cost.scoring_memory(config, [whole])
    assert figures["peak"] == pytest.approx(declared, rel=0.3)
    # Of the work itself; libraries that are loaded with the first operation take up to 100 MB.
    work, expected = figures["peak"] - figures["base"], declared - cost.PROCESS_BYTES
    assert expected / 2 < work < 1.5 * expected + 1e8


def test_no_worker_takes_a_gigabyte_for_short_clips_of_16_000_recordings_a_language():
    """1 second: 50 frames of large-v2."""
    extent = retrieval_size.units.extent(16_000, 256, 2 * 50 * 1280)
    assert cost.scoring_memory(RetrievalConfig(), [extent]) < 1.5e9
    assert cost.merging_memory(RetrievalConfig(), [extent]) < 1e9
