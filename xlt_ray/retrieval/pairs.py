"""From the tiles of two languages to the rankings of both directions. Pure: files in, files out, no Ray."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.retrieval import baselines, ranking, seqsim, tiles
from xlt_ray.retrieval.config import MODES, RetrievalConfig
from xlt_ray.retrieval.ranking import Indices, Mask, Scores
from xlt_ray.store import artifacts
from xlt_ray.store.artifacts import Artifact
from xlt_ray.store.schema import RANKING, REJECTED


@dataclasses.dataclass(frozen=True)
class PairScores:
    """Queries in one language, candidates in another, and the tiles of the two.

    `flipped` says that the tiles were made with the candidates as rows; then recall and precision change places.
    """

    artifact: Artifact
    queries: pa.Table
    candidates: pa.Table
    tiles: Sequence[str]
    flipped: bool

    def score(self, name: str, config: RetrievalConfig) -> Scores:
        """The matrix (num_queries, num_candidates) of a score: `seqsim-MODE`, `layer-K` or a baseline."""
        kind, _, detail = name.partition("-")
        if kind == "seqsim":
            return self._seqsim(detail, None)
        if kind == "layer":
            return self._seqsim(config.mode, int(detail))
        if kind == "random":
            return self._random(config.seed)
        return self._stored(kind)

    def _seqsim(self, mode: str, layer: int | None) -> Scores:
        recall, precision = (self._stored(tiles.of_layer(part, layer)) for part in ("recall", "precision"))
        if self.flipped:
            recall, precision = precision, recall
        return seqsim.combine(recall, precision, mode)

    def _random(self, seed: int) -> Scores:
        languages = self.queries["language"][0].as_py(), self.candidates["language"][0].as_py()
        return baselines.random(self.queries.num_rows, self.candidates.num_rows, seed, languages)

    def _stored(self, name: str) -> Scores:
        by_row = itertools.groupby(sorted(self.tiles), key=lambda tile: tile.rsplit("-", 1)[0])
        matrix = np.block([[self._tile(tile, name) for tile in row] for _, row in by_row])
        matrix = matrix.T if self.flipped else matrix
        assert matrix.shape == (self.queries.num_rows, self.candidates.num_rows), "tiles of another cut"
        return matrix

    def _tile(self, tile: str, name: str) -> Scores:
        uri = self.artifact.path("tiles", f"{tile}.parquet")
        (row,) = artifacts.read_table(uri, filters=[("score", "=", name)]).to_pylist()
        return np.frombuffer(row["values"], np.float32).reshape(row["num_rows"], row["num_columns"])


def score_names(config: RetrievalConfig) -> list[str]:
    """All scores of a run, the one that leads first."""
    modes = [config.mode, *(mode for mode in MODES if mode != config.mode)]
    layers = [f"layer-{layer}" for layer in config.layers]
    return [f"seqsim-{mode}" for mode in modes] + list(config.baselines) + layers


def rank_pair(
    artifact: Artifact, names: Sequence[str], recordings: tuple[pa.Table, pa.Table], config: RetrievalConfig
) -> None:
    """Write the rankings of both directions of a pair of languages, and which queries can't be ranked.

    Args:
        artifact: the retrieval artifact; its tiles of this pair are all there.
        names: of the pair's tiles.
        recordings: rows of INDEX of the tiles' rows, and those of their columns.
        config: scores and protocol.
    """
    first, second = recordings
    pair = first["language"][0].as_py(), second["language"][0].as_py()
    directions = {"-".join(pair): PairScores(artifact, first, second, names, flipped=False)}
    directions["-".join(reversed(pair))] = PairScores(artifact, second, first, names, flipped=True)
    for name, direction in directions.items():
        table, rejected = _rank(name, direction, config)
        artifact.write_table(f"rejected/{name}.parquet", rejected)
        artifact.write_table(f"data/{name}.parquet", table)


def _rank(name: str, pair: PairScores, config: RetrievalConfig) -> tuple[pa.Table, pa.Table]:
    query_reasons = _reasons(pair.queries, pair.candidates, config)
    candidate_reasons = _reasons(pair.candidates, pair.queries, config)
    rows, columns = (np.flatnonzero([r is None for r in reasons]) for reasons in (query_reasons, candidate_reasons))
    queries, candidates = pair.queries.take(rows), pair.candidates.take(columns)
    rejected = _rejected(pair.queries, query_reasons)
    # Where one recording stands for a sentence, only that one is right; else whatever says the same words is.
    texts = candidates["text"].to_pylist() if config.protocol == "multi_positive" else [None] * candidates.num_rows
    positive = ranking.positives(queries["sentence_id"].to_pylist(), candidates["sentence_id"].to_pylist(), texts)
    lead, *others = score_names(config)
    scores = pair.score(lead, config)[np.ix_(rows, columns)]
    ranks = {lead: ranking.rank_of_best_positive(scores, positive)}
    for score in others:
        ranks[score] = ranking.rank_of_best_positive(pair.score(score, config)[np.ix_(rows, columns)], positive)
    return _table(name, queries, candidates, scores, positive, ranks, config.top_k), rejected


def _reasons(rows: pa.Table, others: pa.Table, config: RetrievalConfig) -> list[str | None]:
    """Why each row takes no part between these two languages; None where it does."""
    shared = set(others["sentence_id"].to_pylist())
    sentences, other = rows["sentence_id"].to_pylist(), others["language"][0].as_py()
    reasons = [None if sentence in shared else f"no recording of this sentence in {other}" for sentence in sentences]
    if config.protocol == "one_per_sentence":
        drawn = set(ranking.one_recording(sentences, config.seed).tolist())
        for row in range(len(sentences)):
            if row not in drawn and reasons[row] is None:
                reasons[row] = "another recording of this sentence was drawn (one_per_sentence)"
    return reasons


def _rejected(rows: pa.Table, reasons: list[str | None]) -> pa.Table:
    table = rows.select(["utterance_id", "language", "audio"]).append_column("reason", pa.array(reasons, pa.string()))
    return table.filter(pc.is_valid(table["reason"])).cast(REJECTED)


def _table(
    name: str,
    queries: pa.Table,
    candidates: pa.Table,
    scores: Scores,
    positive: Mask,
    ranks: dict[str, Indices],
    top_k: int,
) -> pa.Table:
    facts = candidates.select(["utterance_id", "sentence_id", "text"]).to_pylist()
    best_positive = np.where(positive, scores, -np.inf).max(axis=1)
    num_queries, (lead, *_) = queries.num_rows, ranks
    columns = {
        "pair": [name] * num_queries,
        "utterance_id": queries["utterance_id"],
        "sentence_id": queries["sentence_id"],
        "text": queries["text"],
        "rank": ranks[lead],
        "positive_score": best_positive,
        "num_positives": positive.sum(axis=1),
        "num_candidates": [candidates.num_rows] * num_queries,
        "top": [
            [facts[c] | {"score": scores[q, c], "correct": bool(positive[q, c])} for c in best]
            for q, best in enumerate(ranking.top_k(scores, min(top_k, candidates.num_rows)).tolist())
        ],
        "ranks": [list(zip(ranks, row, strict=True)) for row in np.stack(list(ranks.values()), axis=1).tolist()],
    }
    return pa.table([_column(columns[field.name], field) for field in RANKING], schema=RANKING)


def _column(values: Any, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    return values.cast(field.type) if isinstance(values, pa.ChunkedArray) else pa.array(values, field.type)
