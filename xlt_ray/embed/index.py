"""The index of an embed artifact: its recordings, divided into units of work. Text only, no audio."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.errors import UserError
from xlt_ray.store.schema import INDEX, UTTERANCE, Utterance, utterance_table

_IDENTITY = (
    *("utterance_id", "sentence_id", "language", "start", "duration"),
    *("text", "translations", "speaker", "split"),
)
_BATCH = 10_000  # rows that exist as Python objects at a time

SOUND = ("bytes", "modified", "member", "start", "duration")
"""Columns of INDEX that identify the encoded audio: the state of its file, and the segment."""

Indices = npt.NDArray[np.int64]


def collect(utterances: Iterable[Utterance], languages: Sequence[str]) -> pa.Table:
    """The rows of the corpus with the schema UTTERANCE, language by language, each sorted by utterance_id.

    Raises:
        UserError: on a duplicate utterance_id, or a language without rows.
    """
    batches = iter(utterances)
    parts = [UTTERANCE.empty_table()]
    while rows := list(itertools.islice(batches, _BATCH)):
        parts.append(utterance_table(rows))
    table = pa.concat_tables(parts)
    _refuse_duplicates(table)
    # Sorted, because units are named by place: a corpus whose lines changed places has the same units.
    table = table.sort_by("utterance_id")
    by_language = {code: table.filter(pc.equal(table["language"], code)) for code in languages}
    if empty := [code for code, rows in by_language.items() if not rows.num_rows]:
        raise UserError(f"no rows in language {', '.join(empty)}; choose others with --languages, or another split")
    return pa.concat_tables(by_language.values())


def first_sentences(rows: pa.Table, num_sentences: int) -> Indices:
    """The positions of the first N sentences, sorted by id, that all languages share.

    Raises:
        UserError: if they share none.
    """
    languages = pc.unique(rows["language"]).to_pylist()
    shared = set.intersection(*(_sentences(rows, code) for code in languages))
    if not shared:
        raise UserError(f"no sentence_id is shared by all of {', '.join(languages)}; leave out --embed.num-sentences")
    chosen = pa.array(sorted(shared)[:num_sentences], pa.string())
    return np.flatnonzero(pc.is_in(rows["sentence_id"], chosen).to_numpy())


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Recordings divided into units. Units of an interrupted run are kept, and the rest is divided again.

    Attributes:
        rows: with the schema INDEX, the rows of a unit together; lengths are null until they are encoded.
    """

    rows: pa.Table

    @property
    def units(self) -> dict[str, pa.Table]:
        """The rows of each unit, without a copy."""
        units: dict[str, pa.Table] = {}
        start = 0
        for unit, group in itertools.groupby(self.rows["unit"].to_pylist()):
            units[unit] = self.rows.slice(start, num_rows := sum(1 for _ in group))
            start += num_rows
        return units


def cut(missing: pa.Table, begun: pa.Table, done: Collection[str], taken: Collection[str], rows_per_shard: int) -> Cut:
    """Divide the recordings that must still be encoded into units of one language and split each.

    Args:
        missing: rows of INDEX that the run needs and the artifact lacks.
        begun: rows of INDEX as an interrupted run divided them.
        done: names of units whose file exists.
        taken: names of units that may not be used again, because committed files have them.
        rows_per_shard: maximum number of rows of a new unit.

    Returns:
        First, finished units, even with rows that this run does not need, because they are encoded already. Then units
        that were begun and whose rows are all needed, under their old names and with current rows. Then new units, with
        the next free numbers.
    """
    needed = set(missing["utterance_id"].to_pylist())
    kept, names = [INDEX.empty_table()], {*taken, *done}
    for unit, rows in Cut(begun).units.items():
        ids = set(rows["utterance_id"].to_pylist())
        if unit in taken:
            continue
        if unit not in done:
            rows = _as_now(rows, missing)
            if not ids <= needed or _prefixes(rows) != {unit.rpartition("-")[0]}:
                continue
        kept.append(rows)
        names.add(unit)
        needed -= ids
    left = missing.filter(pc.is_in(missing["utterance_id"], pa.array(sorted(needed), pa.string())))
    return Cut(pa.concat_tables([*kept, _new_units(left, names, rows_per_shard)]))


def changed(missing: pa.Table, begun: pa.Table) -> set[str]:
    """Units of an interrupted run with a recording whose file has changed or appeared since then."""
    now = _as_now(begun, missing)
    return set(begun.filter(pc.and_(sound_differs(now, begun), pc.is_valid(now["bytes"])))["unit"].to_pylist())


def sound_differs(first: pa.Table, second: pa.Table) -> pa.ChunkedArray:
    """Which rows of two tables (INDEX), compared by position, differ in their audio: another file or segment."""
    return functools.reduce(pc.or_, (_differ(_exact(first[name]), _exact(second[name])) for name in SOUND))


def _exact(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times rounded to microseconds, because sums may differ in the last digit."""
    return pc.round(values, 6) if pa.types.is_floating(values.type) else values


def _differ(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where two columns differ; null and a value differ, null and null do not."""
    both = pc.fill_null(pc.not_equal(first, second), False)
    return pc.or_(both, pc.xor(pc.is_null(first), pc.is_null(second)))


def _as_now(begun: pa.Table, missing: pa.Table) -> pa.Table:
    """The rows of `begun` with the values in `missing`, in their units; null if they are not in `missing`."""
    now = missing.take(pc.index_in(begun["utterance_id"], value_set=missing["utterance_id"].combine_chunks()))
    return now.set_column(INDEX.get_field_index("unit"), INDEX.field("unit"), begun["unit"])


def _prefixes(rows: pa.Table) -> set[str]:
    """The prefix of the unit names of some rows: language and split."""
    pairs = zip(rows["language"].to_pylist(), rows["split"].to_pylist(), strict=True)
    return {_prefix(language, split) for language, split in pairs}


def _prefix(language: str, split: str | None) -> str:
    return f"{language}-{re.sub(r'[^A-Za-z0-9]', '_', split or 'rows')}"


def _new_units(rows: pa.Table, names: Collection[str], rows_per_shard: int) -> pa.Table:
    first = _next_numbers(names)
    counts: defaultdict[str, int] = defaultdict(int)
    units = []
    for language, split in zip(rows["language"].to_pylist(), rows["split"].to_pylist(), strict=True):
        prefix = _prefix(language, split)
        units.append(f"{prefix}-{first[prefix] + counts[prefix] // rows_per_shard:05d}")
        counts[prefix] += 1
    table = rows.set_column(rows.schema.get_field_index("unit"), INDEX.field("unit"), pa.array(units, pa.string()))
    # Rows of two splits may alternate; a unit's rows must stand together.
    return table.take(pa.array(np.argsort(np.array(units, dtype=str), kind="stable"))) if units else table


def _next_numbers(names: Collection[str]) -> defaultdict[str, int]:
    """The next free unit number by prefix."""
    first: defaultdict[str, int] = defaultdict(int)
    for name in names:
        prefix, _, number = name.rpartition("-")
        first[prefix] = max(first[prefix], int(number) + 1)
    return first


def require_parallel(rows: pa.Table, languages: Sequence[str]) -> None:
    """Refuse two languages that share no sentence, because nothing can be retrieved between them.

    Raises:
        UserError: naming the first such languages.
    """
    sentences = {code: _sentences(rows, code) for code in languages}
    for first, second in itertools.combinations(languages, 2):
        if not sentences[first] & sentences[second]:
            raise UserError(
                f"no sentence_id is shared by {first} and {second}; parallel recordings need the same sentence_id, "
                "or leave one of the two out of --languages"
            )


def sha256(rows: pa.Table) -> str:
    """Hash of the rows, independent of where their files are and how they are divided into units.

    Args:
        rows: with the columns of UTTERANCE; `bytes` and `generation` count too if they exist.
    """
    names = [*_IDENTITY, *(name for name in ("bytes", "generation") if name in rows.schema.names)]
    digest = hashlib.sha256()
    for batch in rows.select(names).sort_by("utterance_id").to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def _refuse_duplicates(table: pa.Table) -> None:
    counts = pc.value_counts(table["utterance_id"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        example = repeated[0]["values"].as_py()
        raise UserError(
            f"utterance_id {example!r} occurs on more than one row ({len(repeated)} such ids); make ids unique"
        )


def _sentences(rows: pa.Table, language: str) -> set[str]:
    return set(pc.unique(rows.filter(pc.equal(rows["language"], language))["sentence_id"]).to_pylist())
