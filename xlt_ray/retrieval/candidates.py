"""Finds candidates for each recording by frames pooled in time, and scores only the candidates exactly.

    pooled:   each 100 ms of speech becomes one frame, so that all pairs cost 25 times less than exact scores
    find:     the C best candidates of each recording, in both directions, block by block
    scored:   SeqSim of a tile on all frames, for wanted pairs

On the demo's speech (Whisper base, 50 sentences, 4 pairs of languages), the nearest recording by all frames is among
the 10 nearest by frames of 200 ms for 98 % of the queries, by single means for 82 %, and by 16 k-means centroids, which
take 20 times as long to compute, for 98 %. Frames of 100 ms find more of the ten nearest than frames of 200 ms: see
"Retrieval in two stages" in docs/results.md.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from xlt_ray.retrieval import top, units
from xlt_ray.retrieval.bitext import Sides
from xlt_ray.retrieval.relevance import Indices, Mask
from xlt_ray.retrieval.seqsim import Frames, combine, seqsim, seqsim_of
from xlt_ray.retrieval.units import Stored, Unit
from xlt_ray.store.ahead import ahead
from xlt_ray.store.schema import NEAREST

Keys = npt.NDArray[np.int64]

SAMPLED, NEAREST_KEPT = 100, 10
"""Recordings per language for measuring the recall of candidates, and number of nearest recordings to find of each."""

CANDIDATES, ALL = "candidates", "all"
"""Values of the column `among` of NEAREST."""


def pooled(stored: Stored, num_frames: int) -> Stored:
    """The mean of every `num_frames` consecutive unit frames; the last mean of an utterance may have fewer."""
    whole = [divmod(length, num_frames) for length in stored.lengths]
    parts = itertools.chain.from_iterable([num_frames] * num + [rest] * (rest > 0) for num, rest in whole)
    sizes = torch.tensor(list(parts), device=stored.data.device)
    means = torch.segment_reduce(stored.frames.data.float(), "mean", lengths=sizes, axis=0)
    return Stored(means, tuple(num + (rest > 0) for num, rest in whole))


def tiles(
    sides: Sides, unit: Unit, strip: int, device: str, prepared: Callable[[Stored], Stored] = lambda stored: stored
) -> Iterator[tuple[range, range, Frames, Frames]]:
    """The pairs of strips of a unit with their frames, column by column. The rows stay in memory.

    Args:
        sides: the two languages.
        unit: the block.
        strip: recordings per strip.
        device: the device to compute on.
        prepared: function applied to the frames of a strip after reading.
    """
    rows, columns = (units.ranges(*ends, strip) for ends in (unit.rows, unit.columns))
    held = [(row, prepared(sides.read(0, None, row).to(device))) for row in rows]
    for part, stored in ahead((part, sides.read(1, None, part)) for part in columns):
        y = prepared(stored.to(device)).frames
        yield from ((row, part, x.frames, y) for row, x in held)


class Nearest:
    """Keys of the nearest candidates of some queries of one direction."""

    def __init__(self, queries: Indices, num: int, device: str) -> None:
        """Start without candidates.

        Args:
            queries: positions of the queries, ascending.
            num: number of candidates to keep per query.
            device: device of the scores.
        """
        self._queries = queries
        self._keys = torch.full((len(queries), num), top.NONE, dtype=torch.int64, device=device)

    def add(self, queries: range, keys: torch.Tensor) -> None:
        """Add keys (queries, candidates) of a tile; only those of its own queries count."""
        first, last = np.searchsorted(self._queries, [queries.start, queries.stop])
        rows = torch.from_numpy(self._queries[first:last] - queries.start).to(keys.device)
        self._keys[first:last] = top.best(self._keys[first:last], keys[rows])

    @property
    def keys(self) -> Keys:
        """The keys that were found: (num_queries, num)."""
        found: Keys = self._keys.cpu().numpy()
        return found

    def table(self, direction: str, among: str) -> pa.Table:
        """The candidates that were found, with the schema NEAREST."""
        num = len(self._queries)
        columns = [[direction] * num, [among] * num, self._queries, list(self.keys)]
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, NEAREST, strict=True)], schema=NEAREST)


def gathered(tables: Iterable[pa.Table], sides: Sides, among: str, num: int) -> tuple[Keys, Keys]:
    """The nearest over all units: keys (num_recordings, num) of the first language's queries and of the second's.

    Args:
        tables: with the schema NEAREST.
        sides: the two languages.
        among: CANDIDATES or ALL.
        num: number per query.
    """
    first, second = (np.full((size, num), top.NONE, np.int64) for size in sides.sizes)
    for table in tables:
        table = table.filter(pc.equal(table["among"], among))
        for found, direction in zip((first, second), sides.directions, strict=True):
            rows = table.filter(pc.equal(table["direction"], direction)).combine_chunks()
            queries, values = rows["query"].to_numpy(), rows["top"].combine_chunks().flatten().to_numpy()
            more = torch.from_numpy(values.reshape(-1, num).copy())
            found[queries] = top.best(torch.from_numpy(found[queries]), more).numpy()
    return first, second


def find(sides: Sides, unit: Unit, num: int, pool_frames: int, mode: str, strip: int, device: str) -> pa.Table:
    """The best candidates in a block of the recordings of its rows and of its columns (NEAREST).

    Args:
        sides: the two languages.
        unit: the block.
        num: candidates per recording.
        pool_frames: frames pooled into one.
        mode: SeqSim mode, on pooled frames.
        strip: recordings to read at a time.
        device: the device to compute on.
    """
    there, back = (Nearest(np.arange(*ends), num, device) for ends in (unit.rows, unit.columns))
    for rows, columns, x, y in tiles(sides, unit, strip, device, lambda stored: pooled(stored, pool_frames)):
        matrix = combine(*seqsim(x, y), mode)
        there.add(rows, top.keys(matrix, columns))
        back.add(columns, top.keys(matrix.T.contiguous(), rows))
    forward, backward = sides.directions
    return pa.concat_tables([there.table(forward, CANDIDATES), back.table(backward, CANDIDATES)])


@dataclasses.dataclass(frozen=True, slots=True)
class Candidates:
    """Which pairs of two languages are candidates: at least one recording has the other as a candidate.

    Attributes:
        places: positions of the candidates of each recording of the first and of the second language: (num, C); -1 for
            none.
    """

    places: tuple[Indices, Indices]

    @classmethod
    def make(cls, keys: tuple[Keys, Keys]) -> Candidates:
        """From gathered keys."""
        first, second = (top.read(each)[0] for each in keys)
        return cls((first, second))

    def wanted(self, rows: range, columns: range) -> Mask:
        """Which pairs of a tile are candidates: (rows, columns)."""
        return self.of(0, np.arange(rows.start, rows.stop), columns)

    def of(self, side: int, queries: Indices, others: range) -> Mask:
        """Which pairs of these recordings of one language, ascending, with others are candidates: (queries, others)."""
        own, theirs = self.places[side], self.places[1 - side]
        marked = np.zeros((len(queries), len(others)), dtype=bool)
        here = own[queries]
        query, number = np.nonzero((here >= others.start) & (here < others.stop))
        marked[query, here[query, number] - others.start] = True
        there = theirs[others.start : others.stop]
        at = np.searchsorted(queries, there).clip(max=len(queries) - 1)
        other, number = np.nonzero(queries[at] == there)
        marked[at[other, number], other] = True
        return marked


def scored(x: Frames, y: Frames, wanted: Mask, mode: str) -> torch.Tensor:
    """Exact scores (N, M) of N and M utterances; NaN for unwanted pairs.

    Args:
        x: N utterances.
        y: M utterances.
        wanted: (N, M); if all are wanted, whole chunks are multiplied.
        mode: SeqSim mode.
    """
    if wanted.all():
        return combine(*seqsim(x, y), mode)
    matrix = torch.full(wanted.shape, torch.nan, device=x.data.device)
    rows, columns = np.nonzero(wanted)
    if len(rows):
        values = combine(*seqsim_of(x, y, rows.tolist(), columns.tolist()), mode)
        matrix[torch.from_numpy(rows).to(matrix.device), torch.from_numpy(columns).to(matrix.device)] = values
    return matrix


def drawn(sides: Sides, num: int, seed: int) -> tuple[Indices, Indices]:
    """At most `num` recordings of each language, drawn with the seed and the pair of languages, ascending."""
    generator = np.random.default_rng([seed, *map(ord, "-".join(sides.pair))])
    first, second = (np.sort(generator.choice(size, min(num, size), replace=False)) for size in sides.sizes)
    return first, second


def measured_recall(
    sides: Sides, candidates: Candidates, seed: int, strip: int, device: str = "cpu"
) -> dict[str, dict[str, Any] | None]:
    """The recall of the candidates over SAMPLED recordings of each language, by direction, by SeqSim F1.

    Args:
        sides: the two languages.
        candidates: candidates of all recordings.
        seed: seed of the sample.
        strip: recordings to read at a time.
        device: the device to compute on.
    """
    found = {}
    for side, queries in enumerate(drawn(sides, SAMPLED, seed)):
        every, held = (Nearest(np.arange(len(queries)), NEAREST_KEPT, device) for _ in range(2))
        x = sides.read(side, None, queries).to(device).frames
        parts = units.ranges(0, sides.sizes[1 - side], strip)
        for part, stored in ahead((part, sides.read(1 - side, None, part)) for part in parts):
            keys = top.keys(combine(*seqsim(x, stored.to(device).frames), "f1"), part)
            absent = torch.from_numpy(~candidates.of(side, queries, part)).to(device)
            every.add(range(len(queries)), keys)
            held.add(range(len(queries)), keys.masked_fill(absent, top.NONE))
        found[sides.directions[side]] = recall(held.keys, every.keys, np.arange(len(queries)))
    return found


def recall(found: Keys, exact: Keys, sampled: Indices) -> dict[str, Any] | None:
    """The fraction of the nearest recordings that are among the candidates, in a sample; None if it is empty.

    Args:
        found: keys (num, k) of the nearest candidates.
        exact: keys (num, k) of the nearest recordings; only for sampled recordings.
        sampled: positions of the sampled recordings.

    Returns:
        `first`, the fraction of sampled recordings whose nearest recording is a candidate; `nearest`, the fraction of
        their k nearest recordings that are candidates; `num_sampled`.
    """
    if not len(sampled):
        return None
    there, wanted = found[sampled], exact[sampled]
    is_found = (wanted[:, :, None] == there[:, None, :]).any(axis=2)
    counts = wanted != top.NONE
    return {
        "first": float(is_found[:, 0].mean()),
        "nearest": float(is_found[counts].mean()),
        "num_sampled": len(sampled),
    }
