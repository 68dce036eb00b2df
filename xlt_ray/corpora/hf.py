"""Data sets of the Hugging Face `datasets` library with audio in Parquet or Arrow files, or in files beside them.

    org/name, org/name:config, org/name@revision, org/name:config@revision      on the Hub
    /data/saved                                                                 as `save_to_disk` writes it
    /data/parquet, /data/train-*.parquet                                        a folder, or files

Only text is read here. A row refers to its audio by row number, so workers need only the file, not the library. Columns
have their usual names, or the user names them with `--columns ours=theirs,...`:

    utterance_id   utterance_id, utt_id, id; else from the position of the row
    sentence_id    sentence_id; else a hash of the English text, or of the first language's text
    audio          audio, speech, sound: {bytes, path}, binary, or a path
    text           sentence, text, transcription, transcript, raw_transcription
    language       language, lang, locale, source_lang; else the only requested language
    translation_XX the translation into XX; `translation` and `translations` are objects of texts by language
    speaker        speaker, speaker_id, client_id
    start          start, with `duration`: the segment of the audio
    split          split; else the split of the data set
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_ray.corpora import hf_files, places
from xlt_ray.corpora.gathered import select
from xlt_ray.corpora.manifest import seconds
from xlt_ray.corpora.tables import at_line, has_sound, is_text, parsed, pivot, sentence_id, split_in, text_of, undamaged
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of_name
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

_NAMES = {
    "utterance_id": ("utterance_id", "utt_id", "id"),
    "sentence_id": ("sentence_id",),
    "audio": ("audio", "speech", "sound"),
    "text": ("sentence", "text", "transcription", "transcript", "raw_transcription"),
    "language": ("language", "lang", "locale", "source_lang"),
    "translations": ("translations", "translation"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "start": ("start",),
    "duration": ("duration",),
    "split": ("split",),
}
_TRANSLATION = re.compile(r"translation_([a-zA-Z]{2,3}(?:[-_]\w+)?)")


def hf(
    source: str, languages: Sequence[str], split: str | None, columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """Rows of a data set, language by language in the order of `languages`.

    Args:
        source: from `hf_files.place`.
        languages: as Whisper spells them.
        split: a split, or `train`, `dev`, `test` under any usual name; None: all.
        columns: column names of the data set by ours, in addition to the usual ones.

    Raises:
        UserError: if there is no such data set, the Hub does not answer, a column is missing or has the wrong type, or
            a language or the split has no rows.
    """
    rows = (row for table in hf_files.tables(source) for row in _rows(table, languages, columns or {}))
    yield from select(rows, source, languages, split and (split_in(split) or split))


def parse_columns(text: str) -> dict[str, str]:
    """Column names of the data set by ours, from `ours=theirs,ours=theirs`.

    Raises:
        UserError: if the syntax is wrong, or if we have no such column.
    """
    pairs = [item.partition("=") for item in text.split(",") if item]
    for ours, _, theirs in pairs:
        if not theirs or not (ours in _NAMES or _TRANSLATION.fullmatch(ours)):
            raise UserError(
                f"columns are written ours=theirs,...; {ours!r} in {text!r} is not; ours are {', '.join(_NAMES)} "
                "and translation_XX for a language XX"
            )
    return {ours: theirs for ours, _, theirs in pairs}


def _rows(table: hf_files.Table, languages: Sequence[str], columns: Mapping[str, str]) -> Iterator[Utterance]:
    """The rows of one file, in order, without audio."""
    with undamaged(table.uri):
        yield from _read(table, languages, columns)


def _read(table: hf_files.Table, languages: Sequence[str], columns: Mapping[str, str]) -> Iterator[Utterance]:
    number = 0
    for schema, batches in _opened(table.uri):
        with at_line(table.uri, 1):
            known = _known(schema, columns)
            labels = _labels(schema)
            is_sound = has_sound(schema.field(known["audio"]).type)
            _drop_lone_start(known, columns, is_sound)
        wanted = [name for name in dict.fromkeys(known.values()) if name != known["audio"] or not is_sound]
        for batch in batches(wanted):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                ours = {name: _label(labels.get(theirs), row.get(theirs)) for name, theirs in known.items()}
                with at_line(table.uri, number + 1):
                    utterance = _utterance(table, number, ours, known, languages)
                yield utterance
                number += 1


def _opened(uri: str) -> Iterator[tuple[pa.Schema, Any]]:
    """The schema of a file, and a function from column names to batches of these columns."""
    filesystem, path = storage.locate(uri)
    if uri.endswith(".parquet"):
        with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
            yield file.schema_arrow, lambda names: file.iter_batches(columns=names)
    else:
        stream = filesystem.open_input_stream(path, compression=None) if storage.is_remote(uri) else pa.memory_map(path)
        with stream, pa.ipc.open_stream(stream) as reader:
            yield reader.schema, lambda names: (_whole(batch.select(names)) for batch in reader)


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A validated batch: Arrow trusts the file, and would read beyond its end."""
    batch.validate(full=True)
    return batch


def _known(schema: pa.Schema, columns: Mapping[str, str]) -> dict[str, str]:
    """Column names of a file by ours."""
    if missing := [name for name in columns.values() if name not in schema.names]:
        raise ValueError(f"no column {missing[0]!r}; it has {', '.join(schema.names)}")
    usual = ((ours, next((name for name in names if name in schema.names), None)) for ours, names in _NAMES.items())
    known = {ours: name for ours, name in usual if name}
    # Of texts alone: `translation_id` is more often a number than a text in Indonesian.
    known |= {field.name: field.name for field in schema if _TRANSLATION.fullmatch(field.name) and is_text(field.type)}
    if "start" not in known and "start" not in columns:
        known.pop("duration", None)  # how long the recording is, as many tables say, and no segment of it
    known |= columns
    taken = set(columns.values())
    known = {ours: name for ours, name in known.items() if ours in columns or name not in taken}
    if "audio" not in known:
        raise ValueError(f"no column audio; it has {', '.join(schema.names)}; name it with --columns audio=NAME")
    return known


def _drop_lone_start(known: dict[str, str], columns: Mapping[str, str], is_sound: bool) -> None:
    """Leave out a start without a duration beside it, unless the user names it.

    Raises:
        ValueError: if the audio is in files, whose segments these may be.
    """
    if "start" not in known or "start" in columns or "duration" in known:
        return
    if not is_sound:
        raise ValueError(
            f"{known['start']} without a duration; name its column with --columns duration=NAME, or give "
            f"--columns start={known['start']} if each utterance lasts to the end of its file"
        )
    del known["start"]  # where the sound in the cell was cut from


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the values of columns that store names as numbers (`ClassLabel`)."""
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features"):
        features = features.get(key) if isinstance(features, dict) else None
    kinds = features.items() if isinstance(features, dict) else ()
    return {
        name: kind["names"] for name, kind in kinds if isinstance(kind, dict) and isinstance(kind.get("names"), list)
    }


def _label(names: Sequence[str] | None, value: Any) -> Any:
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def _utterance(
    table: hf_files.Table, number: int, row: Mapping[str, Any], known: Mapping[str, str], languages: Sequence[str]
) -> Utterance:
    language, split = _language(row, languages), text_of(row, "split")
    texts = _texts(row, language, known)
    name = text_of(row, "utterance_id") or f"{table.name}/{number}"
    column = known["audio"]
    audio, member = table.uri, f"{number}" if column == "audio" else f"{number}:{column}"
    if path := row.get("audio"):
        audio, member = places.resolve(posixpath.dirname(table.uri), str(path)), ""
    return Utterance(
        utterance_id=name,
        sentence_id=text_of(row, "sentence_id") or sentence_id("hf", pivot(texts), name),
        language=language,
        audio=audio,
        member=member,
        start=seconds("start", row.get("start")),
        duration=seconds("duration", row.get("duration")),
        text=texts.get(language),
        translations={code: text for code, text in texts.items() if code != language},
        speaker=text_of(row, "speaker"),
        split=(split_in(split) or split) if split else table.split,
    )


def _language(row: Mapping[str, Any], languages: Sequence[str]) -> str:
    code = text_of(row, "language")
    if not code and len(languages) != 1:
        raise ValueError("no language; name its column with --columns language=NAME, or give only one language")
    return code_of_name(code) if code else languages[0]


def _texts(row: Mapping[str, Any], language: str, known: Mapping[str, str]) -> dict[str, str]:
    """Transcript and translations, by language."""
    several = row.get("translations")
    if isinstance(several, str) and several.lstrip().startswith("{"):
        several = parsed(several)
    if not isinstance(several, dict | None):
        column = known["translations"]
        raise ValueError(f"{column} is a text; say in which language with --columns translation_XX={column}")
    texts = {code_of_name(code): text for code, text in (several or {}).items() if text}
    for ours in known:
        if (match := _TRANSLATION.fullmatch(ours)) and (text := text_of(row, ours)):
            texts[code_of_name(match[1])] = text
    return texts | ({language: text} if (text := text_of(row, "text")) else {})
