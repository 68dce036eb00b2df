"""The index of an embed run: which recordings it covers, cut into units of work. Text only, no sound."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.errors import UserError
from xlt_ray.schema import UTTERANCE, Utterance, utterance_table

INDEX = UTTERANCE.append(pa.field("unit", pa.string(), nullable=False))
"""A recording and the shard that it goes to."""

_IDENTITY = (
    "utterance_id",
    "sentence_id",
    "language",
    "start",
    "duration",
    "text",
    "translations",
    "speaker",
    "split",
)


def collect(utterances: Iterable[Utterance], languages: Sequence[str]) -> pa.Table:
    """The rows of the corpus with the schema UTTERANCE, language by language, each sorted by utterance_id.

    Raises:
        UserError: on a duplicate utterance_id, or a language without rows.
    """
    table = utterance_table(utterances)
    _refuse_duplicates(table)
    # Sorted, because units are named by place: a corpus whose lines changed places has the same units.
    table = table.sort_by("utterance_id")
    by_language = {code: table.filter(pc.equal(table["language"], code)) for code in languages}
    if empty := [code for code, rows in by_language.items() if not rows.num_rows]:
        raise UserError(
            f"no rows in language {', '.join(empty)}; choose others with --languages, or another --embed.split"
        )
    return pa.concat_tables(by_language.values())


def first_sentences(rows: pa.Table, num_sentences: int) -> pa.Table:
    """The rows of the first so many sentences, sorted by id, that every language has.

    Raises:
        UserError: if there is none.
    """
    languages = pc.unique(rows["language"]).to_pylist()
    shared = set.intersection(*(_sentences(rows, code) for code in languages))
    if not shared:
        raise UserError(f"no sentence_id is shared by all of {', '.join(languages)}; leave out --embed.num-sentences")
    return rows.filter(pc.is_in(rows["sentence_id"], pa.array(sorted(shared)[:num_sentences], pa.string())))


def cut(rows: pa.Table, rows_per_shard: int) -> pa.Table:
    """The rows with the schema INDEX: cut into units of so many rows, each of one language only."""
    counts: Counter[str] = Counter()
    units = []
    for language in rows["language"].to_pylist():
        units.append(f"{language}-{counts[language] // rows_per_shard:05d}")
        counts[language] += 1
    return rows.append_column(INDEX.field("unit"), pa.array(units, pa.string()))


def by_unit(index: pa.Table) -> dict[str, pa.Table]:
    """The rows of each unit, without a copy: a unit's rows stand together, as `cut` leaves them."""
    units: dict[str, pa.Table] = {}
    start = 0
    for unit, rows in itertools.groupby(index["unit"].to_pylist()):
        units[unit] = index.slice(start, num_rows := sum(1 for _ in rows))
        start += num_rows
    return units


def require_parallel(rows: pa.Table, languages: Sequence[str]) -> None:
    """Refuse languages between which nothing can be retrieved.

    Raises:
        UserError: naming the first two languages that share no sentence.
    """
    sentences = {code: _sentences(rows, code) for code in languages}
    for first, second in itertools.combinations(languages, 2):
        if not sentences[first] & sentences[second]:
            raise UserError(
                f"no sentence_id is shared by {first} and {second}; parallel recordings need the same sentence_id, "
                "or leave one of the two out of --languages"
            )


def sha256(rows: pa.Table) -> str:
    """Hash of what the rows are, wherever their files lie and however they are cut into units."""
    digest = hashlib.sha256()
    for row in rows.select(_IDENTITY).sort_by("utterance_id").to_pylist():
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def _refuse_duplicates(table: pa.Table) -> None:
    counts = pc.value_counts(table["utterance_id"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        example = repeated[0]["values"].as_py()
        raise UserError(
            f"utterance_id {example!r} stands on more than one row ({len(repeated)} such ids); make ids unique"
        )


def _sentences(rows: pa.Table, language: str) -> set[str]:
    return set(pc.unique(rows.filter(pc.equal(rows["language"], language))["sentence_id"]).to_pylist())
