"""Reduces a block of the score matrix to counts and best candidates of each query, in both directions. No Ray.

A query's rank is 1 + the number of wrong candidates that reach its best hit, which is known beforehand (`best`). So a
block keeps the number of such candidates for each query and score, and the best candidates for each query and mode, but
no scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import torch

from xlt_ray.retrieval import scores, top, units
from xlt_ray.retrieval.best import Best
from xlt_ray.retrieval.bitext import Bitext
from xlt_ray.retrieval.candidates import Candidates
from xlt_ray.retrieval.config import MODES, PROTOCOLS, RetrievalConfig
from xlt_ray.retrieval.relevance import Mask, Relevance
from xlt_ray.retrieval.seqsim import Frames
from xlt_ray.retrieval.units import Unit
from xlt_ray.store.ahead import ahead
from xlt_ray.store.schema import COUNTED

Keep = Callable[[range, range, int | None, Mapping[str, torch.Tensor]], None]
"""Takes a part of the score matrices: rows, columns, layer, and scores."""


class UnitScorer:
    """Scores one unit, strip by strip of its columns."""

    def __init__(
        self,
        bitext: Bitext,
        unit: Unit,
        best: Best,
        config: RetrievalConfig,
        device: str = "cpu",
        keep: Keep | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        """Set up the scorer. Nothing is read yet.

        Args:
            bitext: the two languages of the unit.
            unit: the unit to score.
            best: the best hit of every query.
            config: scores, number of recordings to read at a time, and number of candidates to keep.
            device: the device to compute on.
            keep: called with every part of the matrices; None: they are not kept.
            candidates: pairs that SeqSim scores and ranks; None: all. Baselines use all pairs.
        """
        self._bitext, self._config, self._device, self._keep = bitext, config, device, keep
        self._candidates = candidates
        self._rows, self._columns = range(*unit.rows), range(*unit.columns)
        self._tallies = tuple(
            Tally(relevance, found[queries.start : queries.stop], queries, config, device)
            for relevance, found, queries in zip(
                bitext.relevance, best.scores, (self._rows, self._columns), strict=True
            )
        )

    def run(self) -> Iterator[int]:
        """Score. Yields, after each strip of the columns, the number of scored pairs (of one layer)."""
        for layer in (None, *self._config.layers):
            rows = self._held(layer)
            parts = units.ranges(self._columns.start, self._columns.stop, self._config.strip_utterances)
            for part, columns in ahead((part, self._bitext.read(1, layer, part)) for part in parts):
                y = columns.to(self._device).frames
                measured = [self._measured(here, x.frames, part, y, layer) for here, x in rows]
                self._count(part, layer, {name: torch.cat([m[name] for m in measured]) for name in measured[0]})
                yield len(self._rows) * len(part)

    def table(self) -> pa.Table:
        """What was counted, with the schema COUNTED."""
        named = zip(self._tallies, self._bitext.directions, strict=True)
        return pa.concat_tables([tally.table(direction) for tally, direction in named])

    def _measured(
        self, rows: range, x: Frames, columns: range, y: Frames, layer: int | None
    ) -> dict[str, torch.Tensor]:
        if self._candidates is None:
            return scores.measured(x, y, layer, self._config)
        return scores.measured_of(x, y, self._candidates.wanted(rows, columns), layer, self._config)

    def _held(self, layer: int | None) -> list[tuple[range, units.Stored]]:
        parts = units.ranges(self._rows.start, self._rows.stop, self._config.strip_utterances)
        return [(part, self._bitext.read(0, layer, part).to(self._device)) for part in parts]

    def _count(self, part: range, layer: int | None, measured: dict[str, torch.Tensor]) -> None:
        there, back = self._tallies
        wanted = self._candidates.wanted(self._rows, part) if self._candidates else None
        there.look_at(self._rows, part, wanted)
        back.look_at(part, self._rows, None if wanted is None else wanted.T)
        if self._keep:
            self._keep(self._rows, part, layer, measured)
        for name, matrix in scores.named(measured, layer):
            there.add(name, matrix)
            back.add(scores.flipped(name), matrix.T.contiguous())
        if layer is None and "random" in self._config.baselines:
            there.add("random", self._drawn(0, self._rows, part))
            back.add("random", self._drawn(1, part, self._rows))

    def _drawn(self, side: int, queries: range, candidates: range) -> torch.Tensor:
        return torch.from_numpy(self._bitext.drawn(side, queries, candidates)).to(self._device)


class Tally:
    """Counts and best candidates of the queries of one direction."""

    def __init__(
        self, relevance: tuple[Relevance, ...], best: np.ndarray, queries: range, config: RetrievalConfig, device: str
    ) -> None:
        """Set up the counts. Nothing is counted yet.

        Args:
            relevance: by protocol.
            best: (num_queries, protocols, scores), the best hit of each query.
            queries: positions of the queries.
            config: scores, and number of candidates to keep.
            device: device of the scores.
        """
        self._relevance, self._queries, self._device = relevance, queries, device
        self._names = scores.kept(config)
        self._reach = torch.from_numpy(best - np.float32(scores.TOLERANCE)).to(device)
        self._counts = torch.zeros(best.shape, dtype=torch.int32, device=device)
        shape = (len(queries), len(PROTOCOLS), len(MODES), config.top_k)
        self._top = torch.full(shape, top.NONE, dtype=torch.int64, device=device)

    def look_at(self, queries: range, candidates: range, wanted: Mask | None = None) -> None:
        """Set the pairs of the next scores. SeqSim ranks only wanted pairs, baselines all."""
        rows, columns = slice(queries.start, queries.stop), slice(candidates.start, candidates.stop)
        self._here = slice(queries.start - self._queries.start, queries.stop - self._queries.start)
        self._candidates = candidates
        counts = np.bool_(True) if wanted is None else wanted
        wrong = [each.wrong(rows, columns) for each in self._relevance]
        self._wrong = self._moved(wrong)
        self._found = self._wrong if wanted is None else self._moved(each & wanted for each in wrong)
        self._absent = self._moved(~(each.candidates[columns] & counts) for each in self._relevance)

    def _moved(self, masks: Iterable[Mask]) -> list[torch.Tensor]:
        return [torch.from_numpy(mask).to(self._device) for mask in masks]

    def add(self, name: str, matrix: torch.Tensor) -> None:
        """Count a score (queries, candidates)."""
        number = self._names.index(name)
        is_seqsim = number < len(MODES)
        keys = top.keys(matrix, self._candidates) if is_seqsim else None
        counted = self._found if is_seqsim else self._wrong
        for protocol, (wrong, absent) in enumerate(zip(counted, self._absent, strict=True)):
            # A NaN is not below anything: it reaches.
            reaches = ~(matrix < self._reach[self._here, protocol, number, None]) & wrong
            self._counts[self._here, protocol, number] += reaches.sum(dim=1, dtype=torch.int32)
            if keys is not None:
                found = self._top[self._here, protocol, number]
                self._top[self._here, protocol, number] = top.best(found, keys.masked_fill(absent, top.NONE))

    def table(self, direction: str) -> pa.Table:
        """What was counted, with the schema COUNTED."""
        lists = [list(values.flatten(1).cpu().numpy()) for values in (self._counts, self._top)]
        columns = [[direction] * len(self._queries), list(self._queries), *lists]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, COUNTED, strict=True)]
        return pa.table(arrays, schema=COUNTED)
