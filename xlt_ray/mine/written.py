"""Writes the mined pairs as a corpus: `mined.tsv`, which `--corpus manifest:PATH` reads. Pure.

Recordings of a pair share a sentence_id, also across several languages. The transcript of its partner is a recording's
translation; if it has several partners in a language, that with the highest margin counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

NAME = "mined.tsv"

COLUMNS = (
    *("utterance_id", "sentence_id", "language", "audio", "member", "start", "duration"),
    *("text", "translations", "speaker"),
)

Mined = tuple[str, str, float]
"""Utterance_id of both recordings, and their margin."""


def lines(mined: Iterable[Mined], recordings: pa.Table) -> Iterator[str]:
    """The lines of the manifest: the recordings of a sentence together, the sentence with the highest margin first.

    Args:
        mined: the pairs of all languages.
        recordings: rows of INDEX; those that are in no pair are left out.
    """
    ordered = sorted(mined, key=lambda pair: -pair[2])
    partners: dict[str, list[str]] = {}
    for first, second, _ in ordered:
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    rows = _rows(partners, recordings)
    yield "\t".join(COLUMNS)
    for number, group in enumerate(groups(partners)):
        for name in group:
            translations = _translations(rows[name], [rows[partner] for partner in partners[name]])
            row = rows[name] | {"sentence_id": f"mined-{number:07d}", "translations": translations}
            yield "\t".join(_cell(row[column]) for column in COLUMNS)


def _rows(names: Iterable[str], recordings: pa.Table) -> dict[str, dict[str, Any]]:
    wanted = recordings.filter(pc.is_in(recordings["utterance_id"], pa.array(list(names), pa.string())))
    columns = [name for name in COLUMNS if name != "translations"]
    return {row["utterance_id"]: row for row in wanted.select(columns).to_pylist()}


def groups(partners: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Recordings connected by pairs, in the order in which they occur."""
    seen: set[str] = set()
    for start in partners:
        group, waiting = [], [start]
        while waiting:
            name = waiting.pop(0)
            if name not in seen:
                seen.add(name)
                group.append(name)
                waiting += partners[name]
        if group:
            yield group


def _translations(row: Mapping[str, Any], partners: Iterable[Mapping[str, Any]]) -> str:
    """Translations as JSON by language; empty if no partner has a transcript."""
    found: dict[str, str] = {}
    for partner in partners:
        if partner["text"] and partner["language"] != row["language"]:
            found.setdefault(partner["language"], _cell(partner["text"]))
    return json.dumps(found, ensure_ascii=False) if found else ""


def _cell(value: Any) -> str:
    """The text on one line, because a tab would end the cell and a line feed the row."""
    return "" if value is None else str(value).translate(_SPACES)


_SPACES = str.maketrans("\t\n\r", "   ")
