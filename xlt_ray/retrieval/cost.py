"""The cost of retrieval: operations, bytes, and the memory of its workers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

from xlt_ray.embed.cost import FRAMES_PER_SECOND
from xlt_ray.embed.cost import costs as embed_costs
from xlt_ray.job import cost
from xlt_ray.job.cost import Cost, Speech
from xlt_ray.models.size import ModelSize, model_size
from xlt_ray.retrieval import scores, units
from xlt_ray.retrieval.candidates import SAMPLED
from xlt_ray.retrieval.config import MODES, POOL_FRAMES, PROTOCOLS, RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.units import Extent

PROCESS_BYTES = 530_000_000
"""Memory of a worker before it reads: Python with torch, pyarrow and Ray; measured 533 MB."""

_TEXT_BYTES = 150  # names and text of a query, assumed


def retrieval_cost(size: ModelSize, recordings: Sequence[tuple[int, float]], config: RetrievalConfig) -> Cost:
    """The cost of scoring every recording of each language with every one of each other: 2 m n d for m with n frames.

    The bytes written grow with the number of queries times the stored candidates per query.

    Args:
        size: of the model.
        recordings: number and mean seconds of the recordings of each language.
        config: of the retrieval.
    """
    frames, num_bytes = 0.0, 0.0
    for (first, first_s), (second, second_s) in itertools.combinations(recordings, 2):
        frames += scored_pairs((first, second), config) * first_s * second_s * FRAMES_PER_SECOND**2
        pair = [
            units.extent(num, config.strip_utterances, 2 * size.d_model * seconds * FRAMES_PER_SECOND)
            for num, seconds in ((first, first_s), (second, second_s))
        ]
        num_bytes += written(config, pair[0], pair[1])
    num_layers = 1 + len(config.layers)
    seconds = sum(num * mean for num, mean in recordings)
    num_rows = sum(num for num, _ in recordings)
    return cost.estimate("score", 2 * frames * size.d_model * num_layers, num_rows, seconds, num_bytes)


def scored_pairs(sizes: tuple[int, int], config: RetrievalConfig) -> float:
    """Pairs of recordings whose frames are compared: all pairs, or candidates, a sample and pooled frames.

    Baselines with one vector per utterance compare all pairs too. They are left out: even for clips of 1 s, two of them
    take 2 % of the time for pooled frames.
    """
    everything = sizes[0] * sizes[1]
    if config.candidates is None or config.covers(sizes):
        return everything
    sampled = sum(min(SAMPLED, size) * other for size, other in (sizes, sizes[::-1]))
    return min(everything, config.candidates * sum(sizes)) + sampled + everything / POOL_FRAMES**2


def written(config: RetrievalConfig, first: Extent, second: Extent) -> float:
    """Bytes of the files of two languages, including those that are removed at the end.

    A query is in the files of as many units as the other language has blocks.
    """
    ranking = 4 * _num_scores(config) + len(PROTOCOLS) * len(MODES) * (4 + 9 * config.top_k) + _TEXT_BYTES
    num_bytes = 0.0
    for queries, candidates in ((first, second), (second, first)):
        num_units = math.ceil(candidates.num / candidates.block)
        num_bytes += queries.num * num_units * 8 * (config.candidates or 0)
        num_bytes += queries.num * (ranking + 4 * _num_scores(config) + num_units * _counted_bytes(config))
    whole = first.num * second.num * 4 * (2 * (1 + len(config.layers)) + len(set(config.baselines) - {"random"}))
    return num_bytes + (whole if config.keep_scores else 0)


def scoring_memory(config: RetrievalConfig, extents: Collection[Extent]) -> int:
    """Bytes of memory that a scoring worker needs.

    It holds the strips of the rows and two strips of the columns in fp16, one strip of each in fp32, the scores of a
    block's rows with a strip of columns, the counts of each query, and the best hits of all queries.

    Args:
        config: of the retrieval.
        extents: of the languages; the largest decide.
    """
    strip, block, num, each = _largest(config, extents)
    frames = each * (block + (3 + 2 * _FP32) * strip)
    panel = block * strip * (4 * (2 + len(MODES) + len(config.baselines)) + _KEY_BYTES)
    queries = 2 * block * 2 * _counted_bytes(config) + 2 * num * 4 * _num_scores(config) + strip * num * 4
    found = 2 * num * 2 * 8 * (config.candidates or 0)
    return round(PROCESS_BYTES + frames + panel + queries + found + 2 * num * _ROW_BYTES)


def merging_memory(config: RetrievalConfig, extents: Collection[Extent]) -> int:
    """Bytes of memory of a task that merges the units of two languages, or that summarises a direction."""
    _, _, num, _ = _largest(config, extents)
    return round(PROCESS_BYTES + num * (2 * _counted_bytes(config) + 3 * _counted_bytes(config)) + 2 * num * _ROW_BYTES)


_FP32 = 4  # fp32 is twice the bytes of fp16, and is there before and after it is normalised
_KEY_BYTES = 48  # of an element while the best candidates are found: keys, masked, sorted
_ROW_BYTES = 3000  # of a recording while relevance is computed


def _largest(config: RetrievalConfig, extents: Collection[Extent]) -> tuple[int, int, int, float]:
    block, num = (max(extent[place] for extent in extents) for place in (1, 0))
    strip = min(config.strip_utterances, int(num))
    return strip, min(int(block), int(num)), int(num), max(extent.bytes_each for extent in extents)


def _num_scores(config: RetrievalConfig) -> int:
    return len(PROTOCOLS) * len(scores.kept(config))


def _counted_bytes(config: RetrievalConfig) -> int:
    """Bytes of a query in the file of a unit: counts, and keys of the best candidates."""
    return 4 * _num_scores(config) + 8 * len(PROTOCOLS) * len(MODES) * config.top_k


def costs(job: RetrievalJob, speech: Speech) -> dict[str, Cost]:
    """The cost of each stage that the job runs, in their order."""
    recordings = [(speech.count(code), speech.mean_seconds[code]) for code in job.languages]
    return {
        **embed_costs(job, job.embed, speech),
        "retrieval": retrieval_cost(model_size(job.model), recordings, job.retrieval),
    }
