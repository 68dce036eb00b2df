"""Lhotse manifests as JSON lines (`.jsonl`, `.jsonl.gz`): cuts, or recordings and supervisions.

    corpus_cuts_train.jsonl.gz
    corpus_recordings_train.jsonl.gz, corpus_supervisions_train.jsonl.gz     if there are no cuts

Each supervision is an utterance: its segment of the recording, `text`, `language` and `speaker`. Translations are in
its `custom` fields: `translations`, `translation` or `translated_text`, an object of texts by language, or one text
with `target_lang` (`tgt_lang`).
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xlt_ray.corpora import places
from xlt_ray.corpora.gathered import Gathered, select
from xlt_ray.corpora.manifest import LATEST_S, seconds
from xlt_ray.corpora.tables import at_line, json_lines, split_in, text_of
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of_name
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

_Object = Mapping[str, Any]

_HARMLESS = {"LoudnessNormalization", "Resample", "Volume"}
"""Transforms after which the file still has the same speech at the same times."""


def lhotse(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """Supervisions of one file of cuts, or of all manifests in a folder, language by language.

    Args:
        source: path or URI of a file of cuts, or of a folder.
        languages: as Whisper spells them. If there is only one, it is that of supervisions without a language.
        split: `train`, `dev` or `test`, from the name of the file; None: all.

    Raises:
        UserError: if a file or line is not as described above (mixed or padded cuts, audio that is not in a file or
            whose speed is changed, one channel out of several), or if a language or the split has no rows.
    """
    source, rows = storage.absolute(source), Gathered("lhotse")
    cuts, supervisions, recordings = _files(source)
    for file in cuts:
        for number, cut in json_lines(file):
            with at_line(file, number):
                _add_cut(rows, cut, file, languages)
    if not cuts:
        known = {str(line["id"]): (line, file) for file in recordings for _, line in json_lines(file) if "id" in line}
        for file in supervisions:
            for number, line in json_lines(file):
                with at_line(file, number):
                    _add_supervision(rows, line, known, file, languages)
    yield from select(rows, source, languages, split)


def _files(source: str) -> tuple[list[str], list[str], list[str]]:
    """The files of cuts, of supervisions and of recordings."""
    if source.endswith((".jsonl", ".jsonl.gz")):
        return [source], [], []
    files = [uri for uri in storage.list_files(source) if uri.endswith((".jsonl", ".jsonl.gz"))]
    cuts, supervisions, recordings = (_named(files, word) for word in ("cuts", "supervisions", "recordings"))
    if not cuts and not (supervisions and recordings):
        raise UserError(
            f"no manifests of Lhotse in {source!r}: looked for *cuts*.jsonl[.gz], and for *recordings*.jsonl[.gz] with "
            "*supervisions*.jsonl[.gz]; give a file of cuts, or a folder"
        )
    return cuts, supervisions, recordings


def _named(files: Iterable[str], word: str) -> list[str]:
    return [uri for uri in files if word in posixpath.basename(uri)]


def _add_cut(rows: Gathered, cut: _Object, file: str, languages: Sequence[str]) -> None:
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut") or "recording" not in cut:
        raise ValueError(f"a cut of type {cut.get('type')!r} is not part of one recording; save cuts before mixing")
    start = seconds("start", cut.get("start")) or 0.0
    for supervision in _objects(cut, "supervisions"):
        _add(rows, supervision, start, _object(cut, "recording"), (file, file), languages)


def _object(line: _Object, name: str) -> _Object:
    """An object in an object; {} if there is none."""
    if not isinstance(value := line.get(name) or {}, dict):
        raise ValueError(f"{name} must be an object, not {value!r:.100}")
    return value


def _objects(line: _Object, name: str) -> Sequence[_Object]:
    """Objects in an object."""
    value = line.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{name} must be a list of objects, not {value!r:.100}")
    return value


def _add_supervision(
    rows: Gathered, line: _Object, known: Mapping[str, tuple[_Object, str]], file: str, languages: Sequence[str]
) -> None:
    name = str(line.get("recording_id"))
    if name not in known:
        raise ValueError(f"recording_id {name!r} is in no file of recordings")
    recording, place = known[name]
    _add(rows, line, 0.0, recording, (place, file), languages)


def _add(
    rows: Gathered,
    supervision: _Object,
    cut_start: float,
    recording: _Object,
    files: tuple[str, str],
    languages: Sequence[str],
) -> None:
    """One supervision.

    Args:
        rows: the rows to add it to.
        supervision: its object; its start is relative to the start of its cut.
        cut_start: start of the cut in the recording, in seconds.
        recording: the object of its recording.
        files: the files that contain the recording and the supervision.
        languages: the requested languages.
    """
    language = _language(supervision, languages)
    # A supervision may begin before its cut, and so have a negative start.
    own_start = supervision.get("start") or 0.0
    if not isinstance(own_start, int | float) or not abs(own_start) < LATEST_S:
        raise ValueError(f"start must be a number of seconds, not {own_start!r:.100}")
    # Rounded as Lhotse does: in two windows of one recording, the sums for one supervision differ in the last digit.
    start = seconds("start", round(cut_start + own_start, 8))
    row = dataclasses.replace(
        rows.empty,
        language=language,
        audio=places.resolve(posixpath.dirname(files[0]), _sound(recording, supervision)),
        start=start,
        duration=seconds("duration", supervision.get("duration")),
        speaker=text_of(supervision, "speaker"),
        split=split_in(posixpath.basename(files[1])),
    )
    custom = _object(supervision, "custom")
    texts = _translations(custom) | ({language: text} if (text := text_of(supervision, "text")) else {})
    name, sentence = supervision.get("id"), custom.get("sentence_id")
    rows.add(row, texts, name and str(name), sentence and str(sentence))


def _language(supervision: _Object, languages: Sequence[str]) -> str:
    code = text_of(supervision, "language")
    if not code and len(languages) != 1:
        raise ValueError("no language; if all supervisions are in one language, give only that in --languages")
    return code_of_name(code) if code else languages[0]


def _sound(recording: _Object, supervision: _Object) -> str:
    """The file of a recording."""
    sources = _objects(recording, "sources")
    if len(sources) != 1 or sources[0].get("type") not in ("file", "url"):
        kinds = ", ".join(str(item.get("type")) for item in sources) or "nothing"
        raise ValueError(f"recording {recording.get('id')!r} is {kinds}; only sound in one file is read")
    if changed := [name for name in map(_transform, _objects(recording, "transforms")) if name not in _HARMLESS]:
        raise ValueError(
            f"recording {recording.get('id')!r} is changed by {changed[0]}, and its file is not; give cuts without it, "
            "or write the sound with save_audios"
        )
    channels, source = sources[0].get("channels") or [0], text_of(sources[0], "source")
    wanted = supervision.get("channel", 0)
    if not source or not isinstance(channels, list):
        raise ValueError(f"recording {recording.get('id')!r} has no source with its channels")
    if len(channels) > len(wanted if isinstance(wanted, list) else [wanted]):
        raise ValueError(f"channel {wanted} of {len(channels)} in one file cannot be read; write one file per channel")
    return source


def _transform(written: _Object) -> str:
    """The name of a transform, such as Speed, which perturbed copies of a corpus have."""
    return str(written.get("name"))


def _translations(custom: _Object) -> dict[str, str]:
    texts: dict[str, str] = {}
    target = text_of(custom, "target_lang") or text_of(custom, "tgt_lang")
    for name in ("translations", "translation", "translated_text"):
        value = custom.get(name)
        known = {target: value} if isinstance(value, str) and target else value or {}
        if not isinstance(known, dict) or not all(isinstance(text, str | None) for text in known.values()):
            raise ValueError(f"custom.{name} must be an object of texts by language, not {value!r}")
        texts |= {code_of_name(code): text for code, text in known.items() if text}
    return texts
