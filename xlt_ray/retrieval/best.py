"""The best hit of each query, the score that a wrong candidate has to reach. Scores only queries and hits. No Ray.

    for each strip of rows:  its hits in the other language, some at a time -> their scores -> the best of each query

This completes the queries of the rows. For the queries of the columns, only the hits among these rows are known; their
best hit is the best over all units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from xlt_ray.retrieval import scores, units
from xlt_ray.retrieval.bitext import Bitext
from xlt_ray.retrieval.candidates import Candidates
from xlt_ray.retrieval.config import MODES, PROTOCOLS, RetrievalConfig
from xlt_ray.retrieval.relevance import Indices, Mask
from xlt_ray.retrieval.seqsim import Frames
from xlt_ray.store.schema import BEST

Scores = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Best:
    """The best score of a hit, for the queries of the first language and for those of the second.

    Attributes:
        scores: two of (num_queries, protocols, scores); -inf if there is no hit, or only hits with NaN.
    """

    scores: tuple[Scores, Scores]

    @classmethod
    def none(cls, sizes: tuple[int, int], num_scores: int) -> Best:
        """The state before any hit is scored."""
        first, second = (np.full((size, len(PROTOCOLS), num_scores), -np.inf, np.float32) for size in sizes)
        return cls((first, second))

    @classmethod
    def gathered(cls, tables: Iterable[pa.Table], bitext: Bitext, num_scores: int) -> Best:
        """The best over all units, whose tables have the schema BEST."""
        found = cls.none(bitext.sizes, num_scores)
        for table in tables:
            for best, direction in zip(found.scores, bitext.directions, strict=True):
                asked = table.filter(pc.equal(table["direction"], direction)).combine_chunks()
                queries = asked["query"].to_numpy()
                values = asked["scores"].combine_chunks().flatten().to_numpy().reshape(-1, len(PROTOCOLS), num_scores)
                best[queries] = np.maximum(best[queries], values)
        return found


def score_hits(
    bitext: Bitext,
    rows: range,
    config: RetrievalConfig,
    device: str = "cpu",
    candidates: Candidates | None = None,
) -> pa.Table:
    """The best hits of the queries in these rows, and of the other language's queries among these rows (BEST).

    Args:
        bitext: the two languages.
        rows: recordings of the first language.
        config: scores, and number of recordings to read at a time.
        device: the device to compute on.
        candidates: hits that SeqSim can find; None: all. Baselines can find all.
    """
    names = scores.kept(config)
    best = Best.none(bitext.sizes, len(names))
    touched = np.zeros(bitext.sizes[1], dtype=bool)
    for part in units.ranges(rows.start, rows.stop, config.strip_utterances):
        hits = _Hits.make(bitext, part, candidates)
        touched |= hits.either.any(axis=0)
        for places, found in _scored(bitext, hits, config, device):
            _keep(best, hits, places, found, names)
    return _table(bitext, best, (np.arange(rows.start, rows.stop), np.flatnonzero(touched)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Hits:
    """Relevance between the recordings of a strip and all of the other language.

    Attributes:
        rows: the strip.
        by_protocol: two of (strip, M) for each protocol, for queries of the first and of the second language.
        either: hits by any protocol.
        found: which of these pairs SeqSim ranks.
        groups: rows of the strip that share a sentence, counted from the first row.
    """

    rows: range
    by_protocol: tuple[list[Mask], list[Mask]]
    either: Mask
    found: Mask
    groups: list[Indices]

    @classmethod
    def make(cls, bitext: Bitext, rows: range, candidates: Candidates | None) -> _Hits:
        there, back = bitext.relevance
        here, every = slice(rows.start, rows.stop), slice(None)
        by_protocol = [each.hits(here, every) for each in there], [each.hits(every, here).T for each in back]
        either = np.logical_or.reduce([*by_protocol[0], *by_protocol[1]])
        found = candidates.wanted(rows, range(bitext.sizes[1])) if candidates else np.ones_like(either)
        sentences = there[0].query_sentences[here]
        groups = [np.flatnonzero(sentences == sentence) for sentence in np.unique(sentences)]
        return cls(rows, by_protocol, either, found, groups)


_Places = tuple[Indices, Indices]
"""Row of the strip, and recording of the other language, of each hit."""

_Values = dict[str, torch.Tensor]
"""Scores of each hit by name."""


def _scored(
    bitext: Bitext, hits: _Hits, config: RetrievalConfig, device: str
) -> Iterator[tuple[_Places, tuple[_Values, _Values]]]:
    """Hits, with their scores for queries of the first and of the second language."""
    wanted = np.flatnonzero(hits.either.any(axis=0))
    for layer in (None, *config.layers) if len(wanted) else ():
        x = bitext.read(0, layer, hits.rows).to(device).frames
        for columns in (
            wanted[part.start : part.stop] for part in units.ranges(0, len(wanted), config.strip_utterances)
        ):
            y = bitext.read(1, layer, columns).to(device).frames
            (rows, near), measured = _measured(x, y, hits, columns, layer, config)
            there = dict(scores.named(measured, layer))
            back = {scores.flipped(name): values for name, values in there.items()}
            if layer is None and "random" in config.baselines:
                there["random"] = _drawn(bitext, 0, hits.rows.start + rows, columns[near])
                back["random"] = _drawn(bitext, 1, columns[near], hits.rows.start + rows)
            yield (rows, columns[near]), (there, back)


def _measured(
    x: Frames, y: Frames, hits: _Hits, columns: Indices, layer: int | None, config: RetrievalConfig
) -> tuple[_Places, _Values]:
    """Score the recordings of a sentence together, with all hits of any of them; positions are in x and y."""
    rows, others, measured = [], [], []
    for group in hits.groups:
        near = np.flatnonzero(hits.either[np.ix_(group, columns)].any(axis=0))
        if len(near):
            found = scores.measured(x.take(group.tolist()), y.take(near.tolist()), layer, config)
            measured.append({name: matrix.flatten().cpu() for name, matrix in found.items()})
            rows.append(np.repeat(group, len(near)))
            others.append(np.tile(near, len(group)))
    together = {name: torch.cat([each[name] for each in measured]) for name in measured[0]}
    return (np.concatenate(rows), np.concatenate(others)), together


def _drawn(bitext: Bitext, side: int, queries: Indices, candidates: Indices) -> torch.Tensor:
    places = zip(queries.tolist(), candidates.tolist(), strict=True)
    return torch.tensor([float(bitext.drawn(side, range(q, q + 1), range(c, c + 1))[0, 0]) for q, c in places])


def _keep(best: Best, hits: _Hits, places: _Places, found: tuple[_Values, _Values], names: list[str]) -> None:
    rows, others = places
    asking = hits.rows.start + rows, others
    for side, queries in enumerate(asking):
        for protocol, right in enumerate(hits.by_protocol[side]):
            every = right[rows, others]
            among_candidates = every & hits.found[rows, others]
            for name, values in found[side].items():
                number = names.index(name)
                is_hit = among_candidates if number < len(MODES) else every
                np.fmax.at(best.scores[side][:, protocol, number], queries[is_hit], values.numpy()[is_hit])


def _table(bitext: Bitext, best: Best, queries: tuple[Indices, Indices]) -> pa.Table:
    parts = [BEST.empty_table()]
    for direction, found, places in zip(bitext.directions, best.scores, queries, strict=True):
        columns = [[direction] * len(places), places, [row.flatten() for row in found[places]]]
        parts.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, BEST, strict=True)], schema=BEST))
    return pa.concat_tables(parts)
