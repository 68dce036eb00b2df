"""Reads the rankings of a run in a chosen mode and protocol, one direction at a time.

A run stores every mode and both protocols; only the chosen ones are read from its files. For example, in a notebook:

    table = rankings.read("runs/retrieval/demo/data/en-fr.parquet", "f1", "multi_positive")
    table = rankings.with_candidates(table, "runs/retrieval/demo/data/en-fr.parquet")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xlt_ray.store import storage
from xlt_ray.store.reading import reading, table_of

_NAMES = ("pair", "utterance_id", "sentence_id", "text")


@dataclasses.dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks of the queries of a direction, without names or candidates.

    Attributes:
        sentence_ids: (num_queries,) sentence of each.
        num_positives: (num_queries,) number of right candidates of each.
        num_candidates: number of ranked candidates.
        by_score: (num_queries,) rank of the best hit, by score.
    """

    sentence_ids: Sequence[str]
    num_positives: npt.NDArray[np.int64]
    num_candidates: int
    by_score: dict[str, npt.NDArray[np.int64]]


def read(uri: str, mode: str, protocol: str) -> pa.Table:
    """The ranking of each query that takes part, one row each.

    Args:
        uri: URI of the direction's file.
        mode: SeqSim mode.
        protocol: one of PROTOCOLS.

    Returns:
        pair, utterance_id, sentence_id, text, rank, positive_score, num_positives, num_candidates, and top: candidate
        (a row of the other direction's file), score and correct of the best candidates, best first.
    """
    chosen = (f"ranks.seqsim-{mode}", f"hit_scores.{mode}", "num_positives", "num_candidates", f"top.{mode}")
    table = _read(uri, [*_NAMES, *(f"{protocol}.{name}" for name in chosen)], protocol)
    found = table[protocol].combine_chunks()
    columns = {
        "rank": found.field("ranks").field(f"seqsim-{mode}"),
        "positive_score": found.field("hit_scores").field(mode),
        **{name: found.field(name) for name in ("num_positives", "num_candidates")},
        "top": found.field("top").field(mode),
    }
    return pa.table({**{name: table[name] for name in _NAMES}, **columns})


def with_candidates(table: pa.Table, uri: str, top_k: int | None = None) -> pa.Table:
    """Add utterance_id, sentence_id and text of the candidates in `top`, for at most `top_k` of them.

    Args:
        table: rows from `read`.
        uri: URI of the file that they were read from.
        top_k: maximum number of candidates; None: all that are stored.
    """
    names = list(_NAMES[1:])
    there = table_of(other_way(uri), columns=names)
    top = pc.list_slice(table["top"], 0, top_k) if top_k else table["top"]
    lists = top.combine_chunks()
    entries = lists.flatten()
    known = there.take(entries.field("candidate"))
    columns = [*(known[name].combine_chunks() for name in names), entries.field("score"), entries.field("correct")]
    resolved = pa.StructArray.from_arrays(columns, names=[*names, "score", "correct"])
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    found = pa.ListArray.from_arrays(offsets, resolved)
    return table.set_column(table.schema.get_field_index("top"), "top", found)


def other_way(uri: str) -> str:
    """The file of the other direction of the same two languages."""
    folder, name = uri.rsplit("/", 1)
    query, candidate = name.removesuffix(".parquet").split("-", 1)
    return f"{folder}/{candidate}-{query}.parquet"


def ranks(uri: str, protocol: str, scores: Sequence[str]) -> Ranks:
    """The ranks of a direction by some of the stored scores."""
    chosen = ["num_positives", "num_candidates", *(f"ranks.{score}" for score in scores)]
    table = _read(uri, ["sentence_id", *(f"{protocol}.{name}" for name in chosen)], protocol)
    found = table[protocol].combine_chunks()
    return Ranks(
        sentence_ids=table["sentence_id"].to_pylist(),
        num_positives=found.field("num_positives").to_numpy().astype(np.int64),
        num_candidates=found.field("num_candidates")[0].as_py(),
        by_score={score: found.field("ranks").field(score).to_numpy().astype(np.int64) for score in scores},
    )


def best_hit(uri: str, mode: str, protocol: str) -> dict[str, Any] | None:
    """The highest scoring query with a hit at rank 1, with its candidate; one of at least four words, if there is any.

    Returns:
        A row of `with_candidates` with `is_long`; None if no query has a hit at rank 1.
    """
    hits = read(uri, mode, protocol)
    hits = hits.filter(pc.equal(hits["rank"], 1))
    is_long = pc.greater_equal(pc.count_substring(pc.coalesce(hits["text"], pa.scalar("")), " "), 3)
    hits = hits.append_column("is_long", is_long)
    best = hits.sort_by([("is_long", "descending"), ("positive_score", "descending")]).slice(0, 1)
    return next(iter(with_candidates(best, uri, 1).to_pylist()), None) if best.num_rows else None


def _read(uri: str, columns: Sequence[str], protocol: str) -> pa.Table:
    """Some columns of a file, for the rows that take part."""
    filesystem, path = storage.locate(uri)
    # It reads a part of a struct, unlike pq.read_table.
    with reading(uri), pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True) as file:
        table = file.read(columns=list(columns))
    return table.filter(pc.is_valid(table[protocol]))
