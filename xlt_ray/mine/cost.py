"""The cost of mining: operations, bytes, and the memory of its workers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from xlt_ray.embed.cost import FRAMES_PER_SECOND
from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.mine.config import MineConfig, MineJob
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.retrieval import units
from xlt_ray.retrieval.cost import PROCESS_BYTES
from xlt_ray.retrieval.units import Extent

_KEY_BYTES = 8
_ROW_BYTES = 60  # of a pair in data/: two names, three numbers; assumed
_INDEX_BYTES = 300  # of a recording: what is known of it, while units are scored
_FP32 = 4  # fp32 is twice the bytes of fp16, and is there before and after it is normalised


def mine_cost(size: ModelSize, recordings: Sequence[tuple[int, float]], config: MineConfig) -> Cost:
    """The cost of every pair on pooled frames, then candidates on all frames; only the latter if they are all pairs.

    Args:
        size: of the model.
        recordings: number and mean seconds of the recordings of each language.
        config: of the mining.
    """
    flops, num_bytes = 0.0, 0.0
    for (first, first_s), (second, second_s) in itertools.combinations(recordings, 2):
        each = 2 * first_s * second_s * FRAMES_PER_SECOND**2 * size.d_model
        num_exact = exact_pairs((first, second), config)
        pooled = 0.0 if config.covers((first, second)) else first * second / config.pool_frames**2
        flops += each * (num_exact + pooled)
        pair = [
            units.extent(num, config.strip_utterances, 2 * size.d_model * seconds * FRAMES_PER_SECOND)
            for num, seconds in ((first, first_s), (second, second_s))
        ]
        num_bytes += written(config, pair[0], pair[1])
    num_rows, seconds = sum(num for num, _ in recordings), sum(num * mean for num, mean in recordings)
    return cost.estimate("score", flops, num_rows, seconds, num_bytes)


def exact_pairs(sizes: tuple[int, int], config: MineConfig) -> float:
    """Maximum number of pairs of two languages that are scored on all frames: candidates of both, and the sample."""
    everything = sizes[0] * sizes[1]
    if config.candidates == "all" or config.covers(sizes):
        return everything
    sampled = sum(min(config.sample, size) * other for size, other in (sizes, sizes[::-1]))
    return min(everything, config.candidates * sum(sizes) + sampled)


def written(config: MineConfig, first: Extent, second: Extent) -> float:
    """Bytes of the files of two languages, including those that are removed at the end.

    A recording is in the files of as many units as the other language has blocks.
    """
    num_keys = config.neighbours + (0 if config.candidates == "all" else config.candidates)
    num_bytes = 0.0
    for queries, others in ((first, second), (second, first)):
        num_bytes += queries.num * -(-others.num // others.block) * _KEY_BYTES * num_keys
        num_bytes += queries.num * config.neighbours * _ROW_BYTES
    return num_bytes


def scoring_memory(config: MineConfig, extents: Collection[Extent]) -> int:
    """Bytes of memory that a worker needs: the frames of its rows, two strips of columns, all candidates.

    Args:
        config: of the mining.
        extents: of the languages; the largest decide.
    """
    num = max(extent.num for extent in extents)
    strip = min(config.strip_utterances, num)
    block = min(max(extent.block for extent in extents), num)
    each = max(extent.bytes_each for extent in extents)
    frames = each * (block + (3 + 2 * _FP32) * strip)
    kept = 0 if config.candidates == "all" else config.candidates
    tile = strip * strip * _TILE_BYTES
    return round(PROCESS_BYTES + frames + tile + 2 * num * (2 * _KEY_BYTES * kept + _INDEX_BYTES))


_TILE_BYTES = 100  # of a pair: scores, masks, keys of both ways, sorted


def merging_memory(config: MineConfig, extents: Collection[Extent]) -> int:
    """Bytes of memory that a task needs to merge the units of two languages, or to select among their pairs."""
    num = max(extent.num for extent in extents)
    return round(PROCESS_BYTES + 2 * num * (config.neighbours * _PAIR_BYTES + 2 * _INDEX_BYTES))


_PAIR_BYTES = 300  # of a pair while it is sorted, named and chosen


def costs(job: MineJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    recordings = [(speech.count(code), speech.mean_seconds[code]) for code in job.languages]
    return {
        **embed_costs(job, job.embed, speech),
        "mine": mine_cost(model_size(job.model), recordings, job.mine),
    }
