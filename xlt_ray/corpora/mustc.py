"""MuST-C and corpora in the same layout: mTEDx, the low-resource tracks of IWSLT.

    en-de/data/train/txt/train.{yaml,en,de}     `data/` is optional; the path is en-de or its parent
    en-de/data/train/wav/ted_1096.wav

The YAML file is a list of `{duration, offset, speaker_id, wav}`; the lines of the texts are in the same order. The name
of the folder gives source and target language; `que_spa_constrained` works too. Texts may be missing: a blind test set
has no transcripts.
"""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import yaml

from xlt_ray.corpora.tables import at_line, check_languages, folders, pivot, sentence_id, split_in, text_lines
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

_PAIR = re.compile(r"([a-z]{2,3})[-_]([a-z]{2,3})(?:[-_].*)?")
_CODE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z]{2,4})?")
_FLOW = re.compile(r"- \{(.*)\}\s*")
_ITEM = re.compile(r"(\w+): ([^,'\"\[\]{}#&*!|>%@`:]+)(?:, |$)")
"""A key and a plain text value, without special characters of YAML."""


def mustc(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """The segments of some source languages, each with its transcript and all its translations.

    A segment that several pairs share (the same part of the same recording) is one row. `sentence_id` is a hash of the
    English side or, if there is none, of the text of the first code: utterances with the same text are parallel.

    Args:
        source: folder of one pair or of several pairs, a local path or a URI.
        languages: source languages, as Whisper spells them.
        split: `train`, `dev` (`valid` on disk), `test` (`tst-COMMON`) or another name on disk (`tst-HE`); None: all.

    Raises:
        UserError: if `source` has another layout, a language or the split does not exist, or the lines of a file do
            not match the others.
    """
    parts = list(_parts(storage.absolute(source)))
    check_languages(f"{source!r}", languages, {part.language for part in parts})
    for language in languages:
        own = [part for part in parts if part.language == language]
        chosen = [part for part in own if split in (None, part.split, part.name)]
        if not chosen:
            names = ", ".join(sorted({part.split for part in own}))
            raise UserError(f"{source!r} has no {language} rows of split {split!r}; it has {names}")
        yield from _utterances(chosen)


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """One split of one pair.

    Attributes:
        folder: the folder with `txt/` and `wav/`.
        name: name of the split on disk.
        split: its name in rows.
        codes: codes of source and target, as spelled on disk.
    """

    folder: str
    name: str
    split: str
    codes: tuple[str, str]

    @property
    def language(self) -> str:
        return code_of(self.codes[0])


class _Entry(NamedTuple):
    wav: str
    offset: float
    duration: float
    speaker: str | None


def _parts(source: str) -> Iterator[_Part]:
    pairs = [source] if _splits(source) else [storage.join(source, name) for name in folders(source)]
    found = [(pair, base, name) for pair in pairs for base, name in _splits(pair)]
    if not found:
        raise UserError(
            f"nothing in the layout of MuST-C in {source!r}: looked for data/SPLIT/txt/SPLIT.yaml and "
            "SPLIT/txt/SPLIT.yaml there and one folder below; give the folder of a pair (en-de), or its parent"
        )
    for pair, base, name in found:
        match = _PAIR.fullmatch(posixpath.basename(pair))
        if not match:
            raise UserError(f"{pair!r} does not name its languages; name the folder like en-de, source language first")
        split = "test" if name == "tst-COMMON" else name if name.startswith("tst-") else split_in(name) or name
        yield _Part(storage.join(base, name), name, split, (match[1], match[2]))


def _splits(pair: str) -> list[tuple[str, str]]:
    """The folder with the splits, and the name of each."""
    for base in (storage.join(pair, "data"), pair):
        if names := [name for name in folders(base) if storage.exists(f"{base}/{name}/txt/{name}.yaml")]:
            return [(base, name) for name in names]
    return []


def _utterances(parts: Sequence[_Part]) -> Iterator[Utterance]:
    """The rows of one source language, split by split."""
    for split, group in itertools.groupby(sorted(parts, key=lambda part: part.split), lambda part: part.split):
        entries: dict[tuple[str, float, float], tuple[_Entry, str, dict[str, str]]] = {}
        for part in group:
            wav = f"{part.folder}/wav"
            files = _recordings(wav)
            for entry, texts in _rows(part):
                audio = files.get(entry.wav) or files.get(_stem(entry.wav)) or f"{wav}/{entry.wav}"
                entries.setdefault(entry[:3], (entry, audio, {}))[2].update(texts)
        for entry, audio, texts in entries.values():
            yield _utterance(parts[0].language, split, entry, audio, texts)


def _recordings(folder: str) -> dict[str, str]:
    """The files of a folder by their names, and by their names without suffix."""
    files = storage.list_files(folder)
    return {_stem(uri): uri for uri in files} | {posixpath.basename(uri): uri for uri in files}


def _stem(file: str) -> str:
    """The name without its suffix: a table may name .wav files although the recordings are .flac."""
    return posixpath.splitext(posixpath.basename(file))[0]


def _utterance(language: str, split: str, entry: _Entry, audio: str, texts: dict[str, str]) -> Utterance:
    ends = (round(1000 * seconds) for seconds in (entry.offset, entry.offset + entry.duration))
    name = f"{language}/{split}/{_stem(entry.wav)}/{'-'.join(f'{end:08d}' for end in ends)}"
    return Utterance(
        utterance_id=name,
        sentence_id=sentence_id("mustc", pivot(texts), name),
        language=language,
        audio=audio,
        start=entry.offset,
        duration=entry.duration,
        text=texts.get(language),
        translations={code: text for code, text in texts.items() if code != language},
        speaker=entry.speaker,
        split=split,
    )


def _rows(part: _Part) -> Iterator[tuple[_Entry, dict[str, str]]]:
    """Segments of one split with their texts by language; an empty line is no text."""
    table = f"{part.folder}/txt/{part.name}.yaml"
    entries = list(_entries(table))
    columns = {}
    for uri in storage.list_files(f"{part.folder}/txt"):
        code = posixpath.basename(uri).removeprefix(f"{part.name}.")
        if _CODE.fullmatch(code) and posixpath.basename(uri) == f"{part.name}.{code}":
            lines = [line.rstrip("\r\n").strip() for line in text_lines(uri)]
            if len(lines) != len(entries):
                raise UserError(f"{uri} has {len(lines)} lines, but {table} has {len(entries)} segments")
            columns[code_of(code)] = lines
    for number, entry in enumerate(entries):
        yield entry, {code: lines[number] for code, lines in columns.items() if lines[number]}


def _entries(table: str) -> Iterator[_Entry]:
    """The segments of a YAML file.

    If each line is one segment of plain values, as in all published files, it is read line by line: libyaml takes 40 s
    for the 230,000 segments of MuST-C.
    """
    lines = list(text_lines(table))
    rows = [_plain(line) for line in lines if line.strip()]
    if not all(rows):
        try:
            rows = yaml.load("".join(lines), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{table} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(rows, list | None):
            raise UserError(f"{table} is not a list of segments")
    for number, row in enumerate(rows or [], start=1):
        with at_line(table, number):
            yield _entry(row)


def _plain(line: str) -> dict[str, str] | None:
    match = _FLOW.fullmatch(line)
    items = _ITEM.findall(match[1]) if match else []
    whole = match and sum(len(key) + len(value) + 2 for key, value in items) + 2 * (len(items) - 1) == len(match[1])
    return {key: value.strip() for key, value in items} if whole else None


def _entry(row: Any) -> _Entry:
    if not isinstance(row, dict) or not {"wav", "offset", "duration"} <= row.keys():
        raise ValueError(f"not a segment with wav, offset and duration: {row!r}")
    offset, duration = float(row["offset"]), float(row["duration"])
    if not (0 <= offset < float("inf") and 0 < duration < float("inf")):
        raise ValueError(f"offset must be at least 0 and duration greater than 0, not {offset} and {duration}")
    speaker = row.get("speaker_id")
    return _Entry(str(row["wav"]), offset, duration, None if speaker is None else str(speaker))
