"""The kinds of work of a run. Each reads files, and writes a file whose name is known beforehand. No Ray.

found/{unit}.parquet   the candidates of the recordings of a block, by pooled frames
scored/{unit}.parquet  the nearest candidates, by exact scores
recall/{pair}.json     how many of the nearest recordings are among the candidates
data/{pair}.parquet    nearest neighbours, with scores and margins
mined/{pair}.parquet   the selected pairs, by the requested margin
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from xlt_ray.errors import Damaged
from xlt_ray.mine import figures, margins
from xlt_ray.mine.config import MineConfig
from xlt_ray.mine.margins import Pairs
from xlt_ray.mine.nearest import Sampled, UnitScorer
from xlt_ray.retrieval import candidates, units
from xlt_ray.retrieval.bitext import Sides
from xlt_ray.retrieval.candidates import ALL, CANDIDATES, Candidates
from xlt_ray.retrieval.units import Extent, Unit
from xlt_ray.store import reading, workers
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import PAIR

COLUMNS = ("utterance_id", "sentence_id", "language", "unit", "row", "num_valid")
"""Columns of INDEX that the workers need."""

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Mining:
    """The input of every worker of a run.

    Attributes:
        artifact: the mine artifact.
        uri: URI of the embed artifact.
        recordings: rows of INDEX by language, with the columns COLUMNS.
        extents: size of each language.
        config: settings of the run that began the artifact.
        device: the device to compute on.
    """

    artifact: Artifact
    uri: str
    recordings: Mapping[str, pa.Table]
    extents: Mapping[str, Extent]
    config: MineConfig
    device: str = "cpu"

    def sides(self, pair: Pair) -> Sides:
        """Two of the languages."""
        return Sides(self.uri, pair, (self.recordings[pair[0]], self.recordings[pair[1]]))

    def units(self, pair: Pair) -> list[Unit]:
        """The blocks of their score matrix."""
        rows, columns = (self.extents[code] for code in pair)
        return units.cut(pair, (rows.num, columns.num), (rows.block, columns.block))

    def covers(self, pair: Pair) -> bool:
        """Whether every pair of recordings is a candidate."""
        return self.config.covers((self.extents[pair[0]].num, self.extents[pair[1]].num))

    def sampled(self, pair: Pair) -> Sampled:
        """Recordings that are scored with all others; none if every pair is a candidate."""
        num = 0 if self.covers(pair) else self.config.sample
        return candidates.drawn(self.sides(pair), num, self.config.seed)

    def tables(self, folder: str, pair: Pair) -> Iterator[pa.Table]:
        """The tables of the units of two languages."""
        for unit in self.units(pair):
            yield reading.table_of(self.artifact.path(folder, f"{unit.name}.parquet"))


class Worker:
    """An actor that processes units of one of KINDS, one after another."""

    def __init__(self, mining: Mining, folder: str) -> None:
        """Set the input of the run, and the kind of work."""
        torch.set_num_threads(1)  # one thread a worker, as in the embed stage
        workers.note(mining.artifact.uri, mining.device)
        self._mining, self._folder = mining, folder
        # Units come pair by pair.
        self._candidates = functools.lru_cache(maxsize=1)(functools.partial(_candidates, mining))

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Write the result of each unit. Yields rows with the number of pairs compared and scored, as it progresses."""
        for row in rows.to_pylist():
            unit = Unit.from_row(row)
            for num_pairs, num_scored in self._find(unit) if self._folder == "found" else self._score(unit):
                yield pa.table({"num_pairs": [num_pairs], "num_scored": [num_scored]})

    def _find(self, unit: Unit) -> Iterator[tuple[int, int]]:
        mining, config = self._mining, self._mining.config
        assert config.candidates != "all"  # `covers` is true then
        found = candidates.find(
            *(mining.sides(unit.pair), unit, config.candidates, config.pool_frames),
            *(config.mode, config.strip_utterances, mining.device),
        )
        self._write(unit, found)
        yield unit.num_pairs, 0

    def _score(self, unit: Unit) -> Iterator[tuple[int, int]]:
        mining = self._mining
        scorer = UnitScorer(
            *(mining.sides(unit.pair), unit, self._candidates(unit.pair), mining.sampled(unit.pair)),
            *(mining.config, mining.device),
        )
        yield from scorer.run()
        self._write(unit, scorer.table())

    def _write(self, unit: Unit, table: pa.Table) -> None:
        self._mining.artifact.write_table(f"{self._folder}/{unit.name}.parquet", table)


def _candidates(mining: Mining, pair: Pair) -> Candidates | None:
    """The candidates of two languages, from finished units; None if every pair is a candidate."""
    if mining.covers(pair):
        return None
    assert mining.config.candidates != "all"
    num = mining.config.candidates
    return Candidates.make(candidates.gathered(mining.tables("found", pair), mining.sides(pair), CANDIDATES, num))


def merge_pair(mining: Mining, pair: Pair) -> None:
    """Write the nearest neighbours. All units must be scored."""
    sides = mining.sides(pair)
    keys = candidates.gathered(mining.tables("scored", pair), sides, CANDIDATES, mining.config.neighbours)
    found = Pairs.make(*keys)
    names = [
        rows["utterance_id"].take(pa.array(places))
        for rows, places in zip(sides.recordings, (found.first, found.second), strict=True)
    ]
    known = {"first": names[0], "second": names[1], **margins.columns(found)}
    table = pa.table([known[field.name] for field in PAIR], schema=PAIR)
    mining.artifact.write_json(f"recall/{'-'.join(pair)}.json", _recall(mining, sides, keys))
    mining.artifact.write_table(f"data/{'-'.join(pair)}.parquet", table)  # last: see `unmerged`


def _recall(mining: Mining, sides: Sides, keys: tuple[Any, Any]) -> dict[str, Any]:
    """Recall of the candidates by direction; {} if every pair is a candidate."""
    if mining.covers(sides.pair) or not mining.config.sample:
        return {}
    exact = candidates.gathered(mining.tables("scored", sides.pair), sides, ALL, mining.config.neighbours)
    found = zip(sides.directions, keys, exact, mining.sampled(sides.pair), strict=True)
    return {name: candidates.recall(there, every, sampled) for name, there, every, sampled in found}


def choose(mining: Mining, pair: Pair, config: MineConfig) -> dict[str, Any]:
    """Write the selected pairs, by margin and threshold. Returns their figures.

    Args:
        mining: of the run, whose nearest neighbours must exist.
        pair: two languages.
        config: with the margin and the selection.
    """
    name, sides = "-".join(pair), mining.sides(pair)
    found = reading.table_of(mining.artifact.path("data", f"{name}.parquet"))
    margin = found["score" if config.margin == "absolute" else config.margin].cast(pa.float64())
    values = margin.fill_null(np.nan).to_numpy()
    first, second = (
        pc.index_in(found[side], value_set=rows["utterance_id"].combine_chunks()).to_numpy()
        for side, rows in zip(("first", "second"), sides.recordings, strict=True)
    )
    taken = margins.chosen(first, second, values, config)
    kept = found.take(pa.array(taken)).select(["first", "second", "score", "found_by"])
    kept = kept.append_column("margin", pa.array(values[taken]))
    mining.artifact.write_table(f"mined/{name}.parquet", kept)
    sentences = [rows["sentence_id"].to_pylist() for rows in sides.recordings]
    chosen = tuple([every[place] for place in at[taken]] for every, at in zip(sentences, (first, second), strict=True))
    return {
        "num_first": sides.sizes[0],
        "num_second": sides.sizes[1],
        "num_found": found.num_rows,
        "num_mined": len(taken),
        "candidate_recall": mining.artifact.read_json(f"recall/{name}.json"),
        "score": figures.spread(kept["score"].to_numpy()),
        "margin": figures.spread(values[taken]),
        "against_corpus": figures.against_corpus(
            (chosen[0], chosen[1]), values[taken], set(sentences[0]) & set(sentences[1])
        ),
    }


def unmerged(mining: Mining, pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs of languages without neighbours or recall. Merging makes both, so both are made again."""
    done = mining.artifact.done()
    left = [pair for pair in pairs if "-".join(pair) not in done or not _has_recall(mining.artifact, pair)]
    for pair in left:
        mining.artifact.remove_file(f"data/{'-'.join(pair)}.parquet")
    return left


def _has_recall(artifact: Artifact, pair: Pair) -> bool:
    try:
        artifact.read_json(f"recall/{'-'.join(pair)}.json")
    except Damaged:
        return False
    return True


def missing(mining: Mining, folder: str, pairs: Iterable[Pair]) -> list[Unit]:
    """The units of some pairs of languages without a file in the folder."""
    done = mining.artifact.done(folder)
    return [unit for pair in pairs for unit in mining.units(pair) if unit.name not in done]
