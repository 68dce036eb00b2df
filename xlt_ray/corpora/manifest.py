"""A corpus described by the user: one row per utterance, in a .jsonl, .tsv, .csv or .parquet file.

Every row has `utterance_id`, `sentence_id`, `language` and `audio`, a path or URI relative to the manifest. The other
columns are optional. `start` and `duration`, in seconds, select a segment of a longer recording. `member` selects one
recording of many in `audio`: the row of a Parquet or Arrow file (`17`, or `17:speech` for the column `speech`), or the
name in a tar archive. `text`, `translations` and `speaker` describe the recording. `split` is `train`, `dev` (also
`val`, `valid` or `validation`), `test` (also `tst-COMMON`) or another name.

    .jsonl    one JSON object per line
    .tsv      a header line, then one row per line; cells are separated by tabs, and quotes have no special meaning;
              `translations` is a JSON object
    .csv      a header line, then rows as spreadsheets write them (RFC 4180); `translations` is a JSON object
    .parquet  string columns, and numbers for `start` and `duration`; `translations` is a map, a struct, a list of
              {language, text} or a JSON object; `audio` may hold the audio itself, as binary or as the struct
              {bytes, path} of Hugging Face datasets
"""

from __future__ import annotations

import collections
import csv
import io
import json
import math
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from xlt_ray.corpora import places
from xlt_ray.corpora.tables import at_line, has_sound, json_lines, numbered_lines, parsed, split_of, text_of, undamaged
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

REQUIRED = ("utterance_id", "sentence_id", "language", "audio")
SECONDS = ("start", "duration")
OPTIONAL = (*SECONDS, "member", "text", "translations", "speaker", "split")
SUFFIXES = (".jsonl", ".tsv", ".csv", ".parquet")

LATEST_S = 1e8
"""Upper limit of a time in a recording, in seconds: three years."""

_LISTED = {"language", "text"}  # a translation as the tables of this package hold it

_Row = dict[str, Any]


def manifest(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """Rows of a manifest, language by language in the order of `languages`.

    The file is read as a stream: once to check all of it before the first row is yielded, and once per language.

    Args:
        source: path or URI of the manifest.
        languages: codes as Whisper spells them; in the manifest they may be in any spelling.
        split: only rows of this split; None: all.

    Raises:
        UserError: if the file or one of its lines is not as described above, an `utterance_id` occurs twice, or a
            language has no rows. The message names the line; in a Parquet file lines are rows, counted from 1.
    """
    source, split = storage.absolute(source), split and split_of(split)
    _check(source, languages, split)
    for language in languages:
        for _, utterance in _utterances(source):
            if code_of(utterance.language) == language and split in (None, utterance.split):
                yield utterance


def _check(source: str, languages: Iterable[str], split: str | None) -> None:
    """Read everything once; only the identifiers are kept."""
    seen: set[str] = set()
    splits: collections.defaultdict[str, set[str]] = collections.defaultdict(set)
    for number, utterance in _utterances(source):
        if utterance.utterance_id in seen:
            raise UserError(
                f"{source}, line {number}: utterance_id {utterance.utterance_id!r} occurs twice; it must be unique"
            )
        seen.add(utterance.utterance_id)
        splits[code_of(utterance.language)].add(utterance.split or "(none)")
    for language in languages:
        if language not in splits:
            advice = "; give --languages with some of these" if splits else ""
            raise UserError(f"{source} has no rows of language {language!r}; it has {_names(splits)}{advice}")
        if split is not None and split not in splits[language]:
            raise UserError(f"{source} has no {language} rows of split {split!r}; it has {_names(splits[language])}")


def _names(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "no rows at all"


def _utterances(source: str) -> Iterator[tuple[int, Utterance]]:
    """Line numbers and rows, each checked."""
    suffix = posixpath.splitext(source)[1]
    readers = dict(zip(SUFFIXES, (_read_jsonl, _read_tsv, _read_csv, _read_parquet), strict=True))
    if suffix not in readers:
        raise UserError(f"{source!r} has suffix {suffix!r}; a manifest has one of {', '.join(SUFFIXES)}")
    try:
        for number, row in readers[suffix](source):
            with at_line(source, number):
                utterance = _utterance(row, posixpath.dirname(source))
            yield number, utterance
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"there is no manifest {source!r}; give the path of a {', '.join(SUFFIXES)} file") from error


def _utterance(row: _Row, folder: str) -> Utterance:
    """Check the values of a row. Its columns have been checked."""
    translations = _translations(row.pop("translations", None))
    segment = {name: seconds(name, row.pop(name, None)) for name in SECONDS}
    row = {column: text_of(row, column) for column in row}
    if empty := [column for column in REQUIRED if not row[column]]:
        raise ValueError(f"{empty[0]} is empty")
    present = {column: value for column, value in row.items() if value}
    if "split" in present:
        present["split"] = split_of(present["split"])
    for code in (present["language"], *translations):
        code_of(code)
    audio = places.resolve(folder, present["audio"])
    return Utterance(**present | segment | {"audio": audio, "translations": translations})


def seconds(name: str, value: Any) -> float | None:
    """A time in seconds, from a number or its text; None if there is none.

    Raises:
        ValueError: if it is not a number, or out of range: `start` must be at least 0, `duration` greater than 0, both
            below `LATEST_S`.
    """
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < LATEST_S or (name == "duration" and not number):
        least = "greater than 0" if name == "duration" else "at least 0"
        raise ValueError(f"{name} must be a number of seconds, {least}, not {value!r:.100}")
    return number


def _translations(value: Any) -> dict[str, str]:
    translations = _object(value) if isinstance(value, str) and value else value or {}
    if isinstance(translations, list) and all(
        isinstance(entry, dict) and entry.keys() == _LISTED for entry in translations
    ):
        translations = {entry["language"]: entry["text"] for entry in translations}
    if isinstance(translations, dict):
        present = {code: text for code, text in translations.items() if text is not None}
        if all(isinstance(text, str) for text in present.values()):
            return present
    raise ValueError(f"translations must be an object of texts by language code, not {value!r}")


def _object(text: str) -> Any:
    try:
        return parsed(text)
    except json.JSONDecodeError:
        hint = "; quotes around a cell are for .csv, not for .tsv" if text.startswith('"') else ""
        raise ValueError(
            f'translations must be a JSON object such as {{"zh": "..."}}, not {text!r:.100}{hint}'
        ) from None


def _check_columns(columns: Sequence[str]) -> None:
    known = f"the columns are {', '.join(REQUIRED)} and, if known, {', '.join(OPTIONAL)}"
    if unknown := [repr(name) for name in columns if name not in REQUIRED + OPTIONAL]:
        raise ValueError(f"unknown column {', '.join(unknown)}; {known}")
    if missing := [repr(name) for name in REQUIRED if name not in columns]:
        raise ValueError(f"no column {', '.join(missing)}; {known}")
    if len(set(columns)) < len(columns):
        raise ValueError(f"a column occurs twice; {known}")


def _read_jsonl(source: str) -> Iterator[tuple[int, _Row]]:
    for number, row in json_lines(source):
        with at_line(source, number):
            _check_columns(list(row))
        yield number, row


def _read_tsv(source: str) -> Iterator[tuple[int, _Row]]:
    lines = numbered_lines(source)
    number, header = next(lines, (1, ""))
    columns = header.split("\t") if header else []
    with at_line(source, number):
        _check_columns(columns)
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise UserError(f"{source}, line {number}: {len(cells)} cells, but {len(columns)} columns in the header")
        yield number, dict(zip(columns, cells, strict=True))


def _read_csv(source: str) -> Iterator[tuple[int, _Row]]:
    filesystem, path = storage.locate(source)
    with (
        undamaged(source),
        filesystem.open_input_stream(path, compression=None) as stream,
        io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="") as lines,
    ):
        reader = csv.reader(lines, strict=True)
        number = 1
        while True:
            with at_line(source, number):
                cells = _next_cells(reader)
                if number == 1:
                    columns = cells or []
                    _check_columns(columns)
                elif cells and len(cells) != len(columns):
                    raise ValueError(f"{len(cells)} cells, but {len(columns)} columns in the header")
            if cells is None:
                return
            if cells and number > 1:
                yield number, dict(zip(columns, cells, strict=True))
            number = reader.line_num + 1


def _next_cells(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row, [] for an empty line, None at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _read_parquet(source: str) -> Iterator[tuple[int, _Row]]:
    filesystem, path = storage.locate(source)
    with undamaged(source), filesystem.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
        with at_line(source, 1):
            _check_columns(file.schema_arrow.names)
            is_sound = has_sound(file.schema_arrow.field("audio").type)
        columns = [name for name in file.schema_arrow.names if name != "audio" or not is_sound]
        number = 0
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                number += 1
                yield number, row | ({"audio": source, "member": str(number - 1)} if is_sound else {})
