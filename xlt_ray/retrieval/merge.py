"""Merges the files of all units of two languages into the rankings of both directions. No Ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from xlt_ray.retrieval import scores, top
from xlt_ray.retrieval.best import Best
from xlt_ray.retrieval.bitext import Bitext
from xlt_ray.retrieval.config import MODES, PROTOCOLS, RetrievalConfig
from xlt_ray.retrieval.relevance import Relevance
from xlt_ray.store.schema import ranking_schema

_CHUNK = 256  # queries at a time, where every candidate is looked at


def rankings(bitext: Bitext, best: Best, counted: Iterable[pa.Table], config: RetrievalConfig) -> dict[str, pa.Table]:
    """The rankings of both directions, with the schema of `ranking_schema`.

    Args:
        bitext: the two languages.
        best: the best hit of every query.
        counted: the tables of all units, COUNTED.
        config: scores, and number of candidates to keep.
    """
    num_scores = len(scores.kept(config))
    sums = [_Sum(size, num_scores, config.top_k) for size in bitext.sizes]
    for table in counted:
        for total, direction in zip(sums, bitext.directions, strict=True):
            total.add(table.filter(pc.equal(table["direction"], direction)))
    return {
        direction: _table(direction, bitext, side, best.scores[side], sums[side], config)
        for side, direction in enumerate(bitext.directions)
    }


class _Sum:
    """Counts and best candidates of all queries of one direction, over units."""

    def __init__(self, num_queries: int, num_scores: int, top_k: int) -> None:
        self.counts = np.zeros((num_queries, len(PROTOCOLS), num_scores), np.int32)
        self.top = np.full((num_queries, len(PROTOCOLS), len(MODES), top_k), top.NONE, np.int64)

    def add(self, table: pa.Table) -> None:
        queries = table["query"].to_numpy()
        self.counts[queries] += _lists(table["counts"]).reshape(-1, *self.counts.shape[1:])
        more = _lists(table["top"]).reshape(-1, *self.top.shape[1:])
        found = top.best(torch.from_numpy(self.top[queries]), torch.from_numpy(more))
        self.top[queries] = found.numpy()


def _lists(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return values.copy()  # torch wants to be able to write


def _table(
    direction: str,
    bitext: Bitext,
    side: int,
    best: npt.NDArray[np.float32],
    found: _Sum,
    config: RetrievalConfig,
) -> pa.Table:
    """A row for every query of the widest protocol, in the order of the recordings."""
    relevance, back = bitext.relevance[side], bitext.relevance[1 - side]
    asking = np.flatnonzero(relevance[0].queries)
    queries = bitext.recordings[side].take(pa.array(asking))
    # A candidate is a row of the other direction's table.
    place = np.cumsum(back[0].queries) - 1
    results = [
        _result(
            each, asking, best[asking, number], found.counts[asking, number], found.top[asking, number], place, config
        )
        for number, each in enumerate(relevance)
    ]
    schema = ranking_schema(PROTOCOLS, MODES, scores.kept(config))
    names = [queries[name] for name in ("utterance_id", "sentence_id", "text")]
    return pa.table([pa.array([direction] * len(asking), pa.string()), *names, *results], schema=schema)


def _result(
    relevance: Relevance,
    asking: npt.NDArray[np.int64],
    best: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int32],
    found: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    config: RetrievalConfig,
) -> pa.Array:
    """The results of one protocol; null for queries that take no part in it."""
    num_candidates = np.full(len(asking), relevance.candidates.sum(), np.int32)
    candidates, values = top.read(found)
    correct = _correct(relevance, asking, candidates)
    names = scores.kept(config)
    # Where no hit was scored, because none is a candidate, the query ranks behind all that are wrong.
    wrong = num_candidates - relevance.num_hits[asking]
    ranks = 1 + np.where(np.isneginf(best), wrong[:, None], counts).astype(np.int32)
    columns = {
        "num_positives": pa.array(relevance.num_hits[asking], pa.int32()),
        "num_candidates": pa.array(num_candidates),
        "ranks": _struct({name: pa.array(ranks[:, number].copy()) for number, name in enumerate(names)}),
        "hit_scores": _struct({mode: pa.array(best[:, number].copy()) for number, mode in enumerate(MODES)}),
        "top": _struct(
            {
                mode: _found(candidates[:, number], values[:, number], correct[:, number], place)
                for number, mode in enumerate(MODES)
            }
        ),
    }
    left_out = pa.array(~relevance.queries[asking])
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns), mask=left_out)


def _struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def _correct(
    relevance: Relevance, asking: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether each candidate (num_queries, modes, k) is right."""
    found = np.zeros(candidates.shape, dtype=bool)
    for start in range(0, len(asking), _CHUNK):
        some = slice(start, start + _CHUNK)
        hits = relevance.hits(asking[some], slice(None))
        found[some] = hits[np.arange(len(hits))[:, None, None], candidates[some]]
    return found


def _found(
    candidates: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    correct: npt.NDArray[np.bool_],
    place: npt.NDArray[np.int64],
) -> pa.ListArray:
    """The best candidates of each query (num_queries, k) as lists; -1 is none."""
    there = candidates >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    columns = {
        "candidate": pa.array(place[candidates[there]], pa.int32()),
        "score": pa.array(values[there]),
        "correct": pa.array(correct[there]),
    }
    return pa.ListArray.from_arrays(pa.array(offsets), _struct(columns))
