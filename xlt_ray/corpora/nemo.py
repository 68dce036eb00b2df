"""NeMo manifests: JSON lines, or a folder of such files.

    {"audio_filepath": "a.wav", "offset": 1.5, "source_lang": "en", "target_lang": "de", "answer": ""}

The reference is `answer`, or `text` if there is no `answer`. It is the transcript if `target_lang` is `source_lang` or
missing, and the translation otherwise. If a line has both, `text` is the transcript. `translation` is the text in
`target_lang`, or, like `translations`, an object of texts by language. Lines for the same segment of the same recording
are one row: Canary has one line for each target.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlt_ray.corpora import places
from xlt_ray.corpora.gathered import Gathered, select
from xlt_ray.corpora.manifest import seconds
from xlt_ray.corpora.tables import at_line, json_lines, split_in, text_of
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance


def nemo(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """Rows of one manifest or of all in a folder, language by language in the order of `languages`.

    Args:
        source: path or URI of a manifest (`.json`, `.jsonl`, also `.gz`), or of a folder of them.
        languages: as Whisper spells them. If there is only one, it is that of lines without a language.
        split: `train`, `dev` or `test`, from the name of the file (`train_manifest.json`) or the field `split`; None:
            all.

    Raises:
        UserError: if a file or line is not as described above, or if a language or the split has no rows.
    """
    rows = Gathered("nemo")
    source = storage.absolute(source)
    for file in _files(source):
        for number, line in json_lines(file):
            with at_line(file, number):
                _add(rows, line, file, languages)
    yield from select(rows, source, languages, split)


def _files(source: str) -> list[str]:
    if not source.endswith((".json", ".jsonl", ".gz")):
        if files := [uri for uri in storage.list_files(source) if uri.endswith((".json", ".jsonl", ".jsonl.gz"))]:
            return files
        raise UserError(f"no manifest of NeMo in {source!r}; give a .json or .jsonl file, or a folder of them")
    return [source]


def _add(rows: Gathered, line: Mapping[str, Any], file: str, languages: Sequence[str]) -> None:
    audio = line.get("audio_filepath")
    if not isinstance(audio, str) or not audio:
        raise ValueError(f"audio_filepath must be the path of a recording, not {audio!r}")
    language = _language(line, languages)
    recording = dataclasses.replace(
        rows.empty,
        language=language,
        audio=places.resolve(posixpath.dirname(file), audio),
        start=seconds("start", line.get("offset")),
        duration=seconds("duration", line.get("duration")),
        speaker=text_of(line, "speaker") or text_of(line, "speaker_id"),
        split=split_in(text_of(line, "split") or "") or split_in(posixpath.basename(file)),
    )
    name = text_of(line, "id") or text_of(line, "utt_id") or text_of(line, "utterance_id")
    rows.add(recording, _texts(line, language), name, text_of(line, "sentence_id"))


def _language(line: Mapping[str, Any], languages: Sequence[str]) -> str:
    code = text_of(line, "source_lang") or text_of(line, "lang") or text_of(line, "language")
    if not code and len(languages) != 1:
        raise ValueError("no source_lang; if all lines are in one language, give only that in --languages")
    return code_of(code) if code else languages[0]


def _texts(line: Mapping[str, Any], language: str) -> dict[str, str]:
    target = code_of(text_of(line, "target_lang") or language)
    answer, text = text_of(line, "answer"), text_of(line, "text")
    texts = {language: text} if text and (answer or target == language) else {}
    if written := answer or text:
        texts[target] = written
    for name in ("translation", "translations"):
        value = line.get(name)
        known = {target: value} if isinstance(value, str) else value or {}
        if not isinstance(known, dict) or not all(isinstance(item, str | None) for item in known.values()):
            raise ValueError(f"{name} must be a text, or an object of texts by language, not {value!r}")
        texts |= {code_of(code): item for code, item in known.items() if item}
    return texts
