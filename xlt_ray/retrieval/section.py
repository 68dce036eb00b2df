"""The section of a `retrieval` artifact in the report: figures with chance and mean pooling, best and worst queries.

Reads `metrics.json` (already parsed) and the ranking tables `data/{query}-{candidate}.parquet`, in the mode and
protocol of the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.retrieval import rankings
from xlt_ray.store import reading

MAX_EXAMPLES = 8
"""Number of best and of worst queries shown per run: eight fit on a screen."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Figures of one pair, or their mean over pairs: fractions in [0, 1], None if `metrics.json` has none.

    Attributes:
        lead_ci95: interval of R@1 of the leading score minus this one's, on the same sentences (paired bootstrap).
    """

    r1: float
    r5: float | None = None
    r10: float | None = None
    mrr: float | None = None
    chance_r1: float | None = None
    num_queries: int | None = None
    num_candidates: int | None = None
    r1_ci95: tuple[float, float] | None = None
    lead_ci95: tuple[float, float] | None = None

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> Self:
        """The figures by name; other keys are left out."""
        known = {field.name: figures[field.name] for field in dataclasses.fields(cls) if field.name in figures}
        intervals = {name: tuple(known[name]) if known.get(name) else None for name in ("r1_ci95", "lead_ci95")}
        return cls(**known | intervals)

    @property
    def times_chance(self) -> float | None:
        """R@1 over the R@1 of a blind guess."""
        return self.r1 / self.chance_r1 if self.chance_r1 else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """All figures of one score (`seqsim`, `mean_pool`, ...) or of one encoder layer."""

    pairs: dict[str, Metrics]
    mean: Metrics

    @classmethod
    def from_json(cls, metrics: Mapping[str, Any]) -> Self:
        """From the keys `pairs` and `mean`."""
        pairs = {pair: Metrics.from_json(figures) for pair, figures in metrics["pairs"].items()}
        return cls(pairs=pairs, mean=Metrics.from_json(metrics["mean"]))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One row of the pair table: a query language, a candidate language, and mean pooling to compare with."""

    query: str
    candidate: str
    metrics: Metrics
    mean_pool: Metrics | None

    @property
    def gain(self) -> float | None:
        """R@1 minus the R@1 of mean pooling."""
        return None if self.mean_pool is None else self.metrics.r1 - self.mean_pool.r1

    @property
    def gain_ci95(self) -> tuple[float, float] | None:
        """Interval of the gain, paired by sentence; None without a baseline, or for an older run without intervals."""
        return self.mean_pool.lead_ci95 if self.mean_pool else None

    @property
    def gain_is_clear(self) -> bool:
        """Whether the interval of the paired difference excludes 0."""
        found = self.gain_ci95
        return found is not None and (found[0] > 0 or found[1] < 0)

    @property
    def above_chance(self) -> bool:
        """Whether chance is below the whole 95% interval, or below R@1 if there is no interval."""
        low = self.metrics.r1_ci95[0] if self.metrics.r1_ci95 else self.metrics.r1
        return self.metrics.chance_r1 is not None and low > self.metrics.chance_r1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One retrieved recording."""

    utterance_id: str
    sentence_id: str
    text: str | None
    score: float
    correct: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One query with its retrieved candidates.

    Attributes:
        rank: rank of the best recording of the same sentence; 1 is the top.
        sought: transcript of the sentence in the candidate language, if any ranking of the run has it.
        sought_id: a recording of it.
        top: the first candidates, best first.
    """

    query: str
    candidate: str
    utterance_id: str
    text: str | None
    rank: int
    num_candidates: int
    positive_score: float
    margin: float
    sought: str | None
    sought_id: str | None
    top: tuple[Candidate, ...]

    @property
    def first_wrong(self) -> Candidate | None:
        """The highest ranked recording of another sentence, if the ranking has one."""
        return next((candidate for candidate in self.top if not candidate.correct), None)

    @property
    def recordings(self) -> tuple[str, ...]:
        """The recordings that the page plays: the query, the sought recording, and the highest ranked wrong one."""
        wrong = self.first_wrong.utterance_id if self.first_wrong else None
        return tuple(name for name in (self.utterance_id, self.sought_id, wrong) if name)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """One retrieval run for the report.

    Attributes:
        candidates: number of scored candidates per recording; None: all.
        held: fraction of the nearest recordings by exact scores that are candidates, in a sample; None: not measured.
    """

    score: str
    protocol: str
    scored: Scored
    baselines: dict[str, Scored]
    layers: dict[str, Scored]
    best: tuple[Example, ...]
    worst: tuple[Example, ...]
    candidates: int | None = None
    held: float | None = None

    @property
    def mean_pool(self) -> Scored | None:
        """The figures of mean pooling, the main baseline."""
        return self.baselines.get("mean_pool")

    @property
    def gain(self) -> float | None:
        """Mean R@1 minus the mean R@1 of mean pooling."""
        return None if self.mean_pool is None else self.scored.mean.r1 - self.mean_pool.mean.r1

    @property
    def pairs(self) -> list[Pair]:
        """Every pair, the one with the highest R@1 first."""
        baseline = self.mean_pool.pairs if self.mean_pool else {}
        rows = [
            Pair(query=query, candidate=candidate, metrics=metrics, mean_pool=baseline.get(pair))
            for pair, metrics in self.scored.pairs.items()
            for query, candidate in [split_pair(pair)]
        ]
        return sorted(rows, key=lambda row: -row.metrics.r1)

    @property
    def cells(self) -> dict[tuple[str, str], Pair]:
        """Every pair, by its query language and its candidate language."""
        return {(row.query, row.candidate): row for row in self.pairs}

    @property
    def languages(self) -> list[str]:
        """Languages, in the order in which they occur in the pairs."""
        return list(dict.fromkeys(language for pair in self.scored.pairs for language in split_pair(pair)))

    @property
    def mean_by_query(self) -> dict[str, float]:
        """Mean R@1 over the pairs with each query language."""
        return self._mean_by(0)

    @property
    def mean_by_candidate(self) -> dict[str, float]:
        """Mean R@1 over the pairs with each candidate language."""
        return self._mean_by(1)

    def _mean_by(self, side: int) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for pair, metrics in self.scored.pairs.items():
            found.setdefault(split_pair(pair)[side], []).append(metrics.r1)
        return {language: float(np.mean(values)) for language, values in found.items()}


def split_pair(pair: str) -> tuple[str, str]:
    """Query language and candidate language of a key such as `en-fr`."""
    query, _, candidate = pair.partition("-")
    return query, candidate


def read_retrieval(metrics: Mapping[str, Any], data: Sequence[str]) -> Retrieval:
    """The run with the `metrics.json` `metrics` and ranking tables at the URIs `data`."""
    best, worst = read_examples(metrics, data)
    chosen = metrics.get("candidates", {})
    recalls = [recall["first"] for recall in chosen.get("recall", {}).values()]
    return Retrieval(
        score=f"{metrics['score']}-{metrics['mode']}" if metrics.get("mode") else metrics["score"],
        protocol=metrics.get("protocol", ""),
        scored=Scored.from_json(metrics),
        baselines={name: Scored.from_json(scored) for name, scored in metrics.get("baselines", {}).items()},
        layers={name: Scored.from_json(scored) for name, scored in metrics.get("layers", {}).items()},
        best=best,
        worst=worst,
        candidates=chosen.get("num"),
        held=float(np.mean(recalls)) if recalls else None,
    )


def read_examples(metrics: Mapping[str, Any], data: Sequence[str]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Best and worst queries over all ranking tables, the same number from each pair, so that no pair hides the others.

    The best have rank 1 and the largest margins over the best wrong candidate. The worst have the largest rank numbers.
    Mode and protocol are those of the figures. One table is in memory at a time.
    """
    best: list[dict[str, Any]] = []
    worst: list[dict[str, Any]] = []
    for uri in data:
        table = rankings.read(uri, metrics["mode"], metrics["protocol"])
        first, last = (
            rankings.with_candidates(rows, uri, metrics["top_k"]).to_pylist()
            for rows in _extremes(table, count=-(-MAX_EXAMPLES // len(data)))
        )
        sought = _spoken(rankings.other_way(uri), {row["sentence_id"] for row in (*first, *last)})
        for rows, found in ((first, best), (last, worst)):
            found += [row | {"sought": sought.get(row["sentence_id"], {})} for row in rows]
    best.sort(key=lambda row: -row["margin"])
    worst.sort(key=lambda row: (-row["rank"], row["margin"]))
    return tuple(map(_example, best[:MAX_EXAMPLES])), tuple(map(_example, worst[:MAX_EXAMPLES]))


def _extremes(table: pa.Table, count: int) -> tuple[pa.Table, pa.Table]:
    """The `count` best and the `count` worst rows of one ranking table, each with its margin."""
    rank, margin = table["rank"].to_numpy(), _margins(table)
    table = table.append_column("margin", pa.array(margin))
    order = np.lexsort((margin, -rank))
    worst, best = order[rank[order] > 1], order[::-1][(rank[order] == 1)[::-1]]
    return table.take(best[:count]), table.take(worst[:count])


def _margins(table: pa.Table) -> npt.NDArray[np.float64]:
    """Score of the right candidate minus the best wrong one in `top`; -inf if `top` has no wrong one."""
    top = table["top"].combine_chunks()
    kept = pa.table({"row": pc.list_parent_indices(top), "score": pc.struct_field(top.flatten(), "score")})
    kept = kept.filter(pc.invert(pc.struct_field(top.flatten(), "correct")))
    wrong = kept.group_by("row").aggregate([("score", "max")])
    margins = np.full(table.num_rows, -np.inf)
    rows = wrong["row"].to_numpy()
    margins[rows] = table["positive_score"].to_numpy()[rows] - wrong["score_max"].to_numpy()
    return margins


def _spoken(uri: str, sentences: set[str]) -> dict[str, dict[str, str]]:
    """A recording of each of some sentences, if possible with a transcript, from a ranking table's queries."""
    table = reading.table_of(uri, columns=["sentence_id", "utterance_id", "text"])
    table = table.filter(pc.is_in(table["sentence_id"], value_set=pa.array(sorted(sentences), pa.string())))
    rows = sorted(table.to_pylist(), key=lambda row: bool(row["text"]))
    return {row["sentence_id"]: row for row in rows}


def _example(row: dict[str, Any]) -> Example:
    query, candidate = split_pair(row["pair"])
    names = ("utterance_id", "text", "rank", "num_candidates", "positive_score", "margin")
    top = tuple(Candidate(**found) for found in row["top"])
    retrieved = next((found for found in top if found.correct), None)
    sought = row["sought"]
    return Example(
        query=query,
        candidate=candidate,
        sought=(retrieved.text if retrieved else None) or sought.get("text"),
        sought_id=retrieved.utterance_id if retrieved else sought.get("utterance_id"),
        top=top,
        **{name: row[name] for name in names},
    )
