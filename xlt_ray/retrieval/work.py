"""The kinds of work of a run. Each reads files, and writes a file whose name is known beforehand. No Ray.

found/{unit}.parquet          candidates of the recordings of a block, if not every pair is scored
recall/{pair}.json            how many of the nearest recordings are candidates, in a sample
best/{rows}.parquet           the best hit of each query
counted/{unit}.parquet        counts and best candidates of a block of the score matrix
data/{direction}.parquet      the rankings
rejected/{direction}.parquet  queries that take no part, by the protocol that is shown
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from xlt_ray.retrieval import best, candidates, matrices, merge, ranking, rankings, relevance, scores, units
from xlt_ray.retrieval.best import Best
from xlt_ray.retrieval.bitext import Bitext, Sides
from xlt_ray.retrieval.candidates import CANDIDATES, Candidates
from xlt_ray.retrieval.config import POOL_FRAMES, RetrievalConfig
from xlt_ray.retrieval.counting import UnitScorer
from xlt_ray.retrieval.units import Extent, Unit
from xlt_ray.store import reading, storage, workers
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import REJECTED

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The input of every worker of a run.

    Attributes:
        artifact: the retrieval artifact.
        uri: URI of the embed artifact.
        recordings: rows of INDEX by language, with the columns `bitext.COLUMNS`.
        extents: size of each language.
        config: settings of the run that began the artifact.
        device: the device to compute on.
    """

    artifact: Artifact
    uri: str
    recordings: Mapping[str, pa.Table]
    extents: Mapping[str, Extent]
    config: RetrievalConfig
    device: str = "cpu"

    def bitext(self, pair: Pair) -> Bitext:
        """Two of the languages."""
        return Bitext.make(self.uri, self.recordings, pair, self.config)

    def strips_of_hits(self, pair: Pair) -> list[Unit]:
        """The units in which the hits of two languages are scored, each with all columns."""
        rows, columns = (self.extents[code] for code in pair)
        return units.cut(pair, (rows.num, columns.num), (rows.block, columns.num))

    def units(self, pair: Pair) -> list[Unit]:
        """The blocks of their score matrix."""
        rows, columns = (self.extents[code] for code in pair)
        return units.cut(pair, (rows.num, columns.num), (rows.block, columns.block))

    def covers(self, pair: Pair) -> bool:
        """Whether every pair of recordings is scored."""
        return self.config.covers((self.extents[pair[0]].num, self.extents[pair[1]].num))

    def candidates(self, pair: Pair) -> Candidates | None:
        """The pairs to score, after the candidate search; None: every pair."""
        if self.covers(pair):
            return None
        num = self.config.candidates
        assert num is not None  # `covers` is true then
        files = [self.artifact.path("found", f"{unit.name}.parquet") for unit in self.units(pair)]
        sides = Sides(self.uri, pair, (self.recordings[pair[0]], self.recordings[pair[1]]))
        return Candidates.make(candidates.gathered(map(reading.table_of, files), sides, CANDIDATES, num))

    def best(self, bitext: Bitext) -> Best:
        """The best hit of every query. All hits must be scored."""
        files = [self.artifact.path("best", f"{unit.name}.parquet") for unit in self.strips_of_hits(bitext.pair)]
        return Best.gathered(map(reading.table_of, files), bitext, len(scores.kept(self.config)))


@dataclasses.dataclass(frozen=True)
class Left:
    """What a run still has to do, in this order.

    Attributes:
        found: units whose candidates are to be found.
        recalls: pairs of languages whose candidates have no recall.
        hits: units whose hits are to be scored.
        counts: units to count in.
        ranks: pairs of languages without rankings.
    """

    found: list[Unit]
    recalls: list[Pair]
    hits: list[Unit]
    counts: list[Unit]
    ranks: list[Pair]


def left(scoring: Scoring, pairs: Sequence[Pair]) -> Left:
    """What is left to do for these pairs of languages. A recall that was lost is measured again."""
    artifact, searched = scoring.artifact, [pair for pair in pairs if not scoring.covers(pair)]
    ranked, measured = artifact.done(), {Path(uri).stem for uri in storage.list_files(artifact.path("recall"))}
    recalls = [pair for pair in searched if "-".join(pair) not in measured]
    ranks = [pair for pair in pairs if not {"-".join(pair), "-".join(reversed(pair))} <= ranked]
    hits = _missing(artifact, "best", (unit for pair in ranks for unit in scoring.strips_of_hits(pair)))
    counts = _missing(artifact, "counted", (unit for pair in ranks for unit in scoring.units(pair)))
    needed = {*recalls, *(unit.pair for unit in (*hits, *counts))}
    found = (unit for pair in searched if pair in needed for unit in scoring.units(pair))
    return Left(_missing(artifact, "found", found), recalls, hits, counts, ranks)


def _missing(artifact: Artifact, folder: str, wanted: Iterable[Unit]) -> list[Unit]:
    """The units without a file in the folder."""
    done = artifact.done(folder)
    return [unit for unit in wanted if unit.name not in done]


def find_candidates(scoring: Scoring, unit: Unit) -> None:
    """Write the candidates of the recordings of a block."""
    torch.set_num_threads(1)
    config, num = scoring.config, scoring.config.candidates
    assert num is not None
    sides = Sides(scoring.uri, unit.pair, (scoring.recordings[unit.pair[0]], scoring.recordings[unit.pair[1]]))
    table = candidates.find(sides, unit, num, POOL_FRAMES, "f1", config.strip_utterances, scoring.device)
    scoring.artifact.write_table(f"found/{unit.name}.parquet", table)


def score_hits(scoring: Scoring, unit: Unit) -> None:
    """Write the best hits of the queries of some rows."""
    torch.set_num_threads(1)  # one thread a worker, as in the embed stage
    found = scoring.candidates(unit.pair)
    table = best.score_hits(scoring.bitext(unit.pair), range(*unit.rows), scoring.config, scoring.device, found)
    scoring.artifact.write_table(f"best/{unit.name}.parquet", table)


class CountUnit:
    """An actor that counts in the blocks of a score matrix, one after another."""

    def __init__(self, scoring: Scoring) -> None:
        """Set the input of the run."""
        torch.set_num_threads(1)
        workers.note(scoring.artifact.uri, scoring.device)
        self._scoring = scoring
        # Units come pair by pair.
        self._known = functools.lru_cache(maxsize=1)(self._read)

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Write the counts of each unit. Yields rows with the number of pairs, as they are scored."""
        for row in rows.to_pylist():
            unit = Unit.from_row(row)
            bitext, found, wanted = self._known(unit.pair)
            config = self._scoring.config
            keep = functools.partial(matrices.write, self._scoring.artifact, unit.pair) if config.keep_scores else None
            scorer = UnitScorer(bitext, unit, found, config, self._scoring.device, keep, wanted)
            for num_pairs in scorer.run():
                yield pa.table({"num_pairs": [num_pairs]})
            self._scoring.artifact.write_table(f"counted/{unit.name}.parquet", scorer.table())

    def _read(self, pair: Pair) -> tuple[Bitext, Best, Candidates | None]:
        bitext = self._scoring.bitext(pair)
        return bitext, self._scoring.best(bitext), self._scoring.candidates(pair)


def measure_recall(scoring: Scoring, pair: Pair) -> None:
    """Write how many of the nearest recordings are candidates, for a sample that is scored with all others."""
    torch.set_num_threads(1)
    sides = Sides(scoring.uri, pair, (scoring.recordings[pair[0]], scoring.recordings[pair[1]]))
    wanted, config = scoring.candidates(pair), scoring.config
    assert wanted is not None
    figures = candidates.measured_recall(sides, wanted, config.seed, config.strip_utterances, scoring.device)
    scoring.artifact.write_json(f"recall/{'-'.join(pair)}.json", figures)


def merge_pair(scoring: Scoring, pair: Pair) -> None:
    """Write the rankings of both directions of two languages. All their units must exist."""
    bitext = scoring.bitext(pair)
    files = [scoring.artifact.path("counted", f"{unit.name}.parquet") for unit in scoring.units(pair)]
    tables = merge.rankings(bitext, scoring.best(bitext), map(reading.table_of, files), scoring.config)
    for direction, table in tables.items():
        scoring.artifact.write_table(f"data/{direction}.parquet", table)


def summarise(scoring: Scoring, direction: str, config: RetrievalConfig) -> dict[str, Any]:
    """Summarise the rankings of a direction, and write which of its queries take no part, and why.

    Args:
        scoring: of the run, whose rankings must exist.
        direction: `en-fr`.
        config: with the mode and protocol to show.

    Returns:
        `figures` of each shown score, `num_queries`, and `best_hit` for the plot, None if there is no hit.
    """
    uri = scoring.artifact.path("data", f"{direction}.parquet")
    names = scores.shown(config)
    found = rankings.ranks(uri, config.protocol, list(names.values()))
    figures = ranking.summarise(
        {name: found.by_score[kept] for name, kept in names.items()},
        found.sentence_ids,
        num_candidates=found.num_candidates,
        num_positives=found.num_positives,
        seed=config.seed,
    )
    scoring.artifact.write_table(f"rejected/{direction}.parquet", _rejected(scoring, direction, config.protocol))
    best_hit = rankings.best_hit(uri, config.mode, config.protocol)
    return {"figures": figures, "num_queries": len(found.sentence_ids), "best_hit": best_hit}


def _rejected(scoring: Scoring, direction: str, protocol: str) -> pa.Table:
    queries, candidates = (scoring.recordings[code] for code in direction.split("-", 1))
    reasons = pa.array(relevance.reasons(queries, candidates, protocol, scoring.config.seed), pa.string())
    table = queries.select(["utterance_id", "language", "audio"]).append_column("reason", reasons)
    return table.filter(pc.is_valid(table["reason"])).cast(REJECTED)
