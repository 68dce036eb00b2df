"""CoVoST 2: Common Voice 4 with translations, en into 15 languages and 21 languages into en (arXiv 2007.10310, CC0).

Reads either form, below one root directory:

    en/covost_v2.en_de.tsv, validated.tsv, clips/   translations as published, beside Common Voice's own files
    en/covost_v2.en_de.test.tsv, clips/             the same, after CoVoST's script has merged and split them
    en_de/test/0000.parquet ...                     Parquet copy (`fixie-ai/covost2`)

The root may also be the directory of one language. On disk Chinese is `zh-CN` and Swedish `sv-SE`; here they are `zh`
and `sv`, as for Whisper.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import logging
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from xlt_ray.corpora.tables import (
    HUB_SPLITS,
    canonical_split,
    check_languages,
    parquet_rows,
    parquet_shards,
    sentence_id,
    text_lines,
)
from xlt_ray.errors import UserError
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

_TO_ENGLISH = "fr de es ca it ru zh pt fa et mn nl tr ar sv lv sl ta ja id cy"
_FROM_ENGLISH = "de tr fa sv mn zh cy ca sl et id ar ta lv ja"

TARGETS = {"en": _FROM_ENGLISH.split()} | {source: ["en"] for source in _TO_ENGLISH.split()}
"""What each source language is translated to."""

_ON_DISK = {"zh": "zh-CN", "sv": "sv-SE"}
_LOGGER = logging.getLogger(__name__)
_PUBLISHED_SPLITS = {"train": {"train", "train_covost"}, "dev": {"dev"}, "test": {"test"}}


def covost2(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """The recordings of some source languages, without audio, each with all its translations.

    A clip is one row, however many language pairs have it: English has up to 15 `translations`, the others have
    English. Clips are in the order of the first pair's file (of `validated.tsv`, if it is merged here). As in CoVoST's
    script, a clip that is missing in `validated.tsv` is not a row; a warning counts such clips. A clip whose audio is
    empty or missing is a row, and so is a clip without a sentence or a translation.

    `sentence_id` is a hash of the English side (transcript or translation) without case, punctuation and quotation
    marks. So utterances with the same English text are parallel, in any spoken language.

    Args:
        source: root directory of the corpus, a local path or a URI.
        languages: source languages, as Whisper spells them (`zh`, `sv`).
        split: `train` (CoVoST's enlarged one), `dev` (or `validation`) or `test`; `test` when None.

    Raises:
        UserError: for a language or a split that CoVoST 2 does not have, or that is not below `source`.
    """
    source, part = storage.absolute(source), canonical_split(split)
    codes = dict.fromkeys(languages)
    check_languages("CoVoST 2", codes, TARGETS)
    pairs = {code: _find(source, code, part) for code in codes}
    return itertools.chain.from_iterable(_utterances(code, found, part) for code, found in pairs.items())


@dataclasses.dataclass(frozen=True, slots=True)
class _Clip:
    name: str
    sentence: str | None
    speaker: str | None
    audio: str
    member: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Pair:
    """The data of one language pair: (clip name, translation), and the table that describes its clips."""

    target: str
    translations: Callable[[], Iterator[tuple[str, str | None]]]
    clips: Callable[[], Iterator[_Clip]]


def _utterances(language: str, pairs: Iterable[_Pair], split: str) -> Iterator[Utterance]:
    # Held in memory: 290,000 translations of the training clips of one pair of en are 0.1 GB. The rest is streamed.
    translations: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for pair in pairs:
        for name, text in pair.translations():
            known = translations[name]  # a clip whose translation is missing is a row all the same
            if text:
                known[pair.target] = without_outer_quotes(text)
    for clips in dict.fromkeys(pair.clips for pair in pairs):
        if not translations:
            return  # after the first table, as all pairs of a source have the same clips in CoVoST 2
        for clip in clips():
            if clip.name in translations:
                yield _utterance(language, clip, translations.pop(clip.name), split)
    if translations:
        _LOGGER.warning(
            "CoVoST 2 %s %s: %d clips are not in validated.tsv, so it is not from Common Voice 4",
            language,
            split,
            len(translations),
        )


def _utterance(language: str, clip: _Clip, translations: dict[str, str], split: str) -> Utterance:
    text = without_outer_quotes(clip.sentence) if clip.sentence else None
    english = text if language == "en" else translations.get("en")
    return Utterance(
        utterance_id=f"covost2-{clip.name}",
        sentence_id=sentence_id("covost2", english, clip.name),
        language=language,
        audio=clip.audio,
        member=clip.member,
        text=text,
        translations=translations,
        speaker=clip.speaker or None,
        split=split,
    )


def without_outer_quotes(text: str) -> str:
    """Undo CSV quoting: `"Yes."` is `Yes.`, and `"He said ""no""."` is `He said "no".`.

    Some fields of Common Voice and CoVoST were written with CSV quoting, although the files are read without it. Text
    with quotation marks of its own (`"Yes" and "no"`) does not change.
    """
    inner = text[1:-1]
    quoted = len(text) >= 2 and text[0] == text[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else text


def _find(source: str, language: str, split: str) -> list[_Pair]:
    """The pairs of a source language that are on disk, TSV files first."""
    folder = _ON_DISK.get(language, language)
    tsv = (_find_tsv(place, language, split) for place in (storage.join(source, folder), source))
    pairs = next(filter(None, tsv), []) or _find_parquet(source, language, split)
    if pairs:
        return pairs
    pair = f"{folder}_{'*' if language == 'en' else 'en'}"
    raise UserError(
        f"no CoVoST 2 {language} {split} in {source!r}: looked for {folder}/covost_v2.{pair}.{split}.tsv, "
        f"{folder}/covost_v2.{pair}.tsv (both also without {folder}/) and {pair}/{HUB_SPLITS[split]}/*.parquet"
    )


def _stem(language: str, target: str) -> str:
    return f"{_ON_DISK.get(language, language)}_{_ON_DISK.get(target, target)}"


def _find_tsv(folder: str, language: str, split: str) -> list[_Pair]:
    files = {posixpath.basename(uri): uri for uri in storage.list_files(folder)}
    validated = functools.partial(_clips, storage.join(folder, "validated.tsv"))
    pairs = []
    for target in TARGETS[language]:
        name = f"covost_v2.{_stem(language, target)}"
        if done := files.get(f"{name}.{split}.tsv"):
            pairs.append(_Pair(target, functools.partial(_translations, done), functools.partial(_clips, done)))
        elif published := files.get(f"{name}.tsv"):
            if "validated.tsv" not in files:
                raise UserError(f"{published} needs validated.tsv of Common Voice 4 beside it")
            pairs.append(
                _Pair(target, functools.partial(_translations, published, _PUBLISHED_SPLITS[split]), validated)
            )
    return pairs


def _find_parquet(source: str, language: str, split: str) -> list[_Pair]:
    pairs = []
    for target in TARGETS[language]:
        if shards := parquet_shards(storage.join(source, _stem(language, target)), split):
            translations = functools.partial(_parquet_translations, shards)
            pairs.append(_Pair(target, translations, functools.partial(_parquet_clips, shards)))
    return pairs


def _rows(tsv: str, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """The dialect of CoVoST's script: header, tabs, no quoting, backslash escapes, no value means "missing"."""
    rows = csv.DictReader(text_lines(tsv), delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", restval="")
    if missing := set(columns).difference(rows.fieldnames or ()):
        raise UserError(f"{tsv} lacks the columns {sorted(missing)}; it has {list(rows.fieldnames or ())}")
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(f"{tsv}, line {rows.line_num}: {error}") from error


def _translations(tsv: str, splits: set[str] | None = None) -> Iterator[tuple[str, str]]:
    columns = ("path", "translation", "split") if splits else ("path", "translation")
    for row in _rows(tsv, columns):
        if splits is None or row["split"] in splits:
            yield posixpath.splitext(row["path"])[0], row["translation"]


def _clips(tsv: str) -> Iterator[_Clip]:
    clips = storage.join(posixpath.dirname(tsv), "clips")
    for row in _rows(tsv, ("path", "sentence", "client_id")):
        name = posixpath.splitext(row["path"])[0]
        yield _Clip(name, row["sentence"], row["client_id"], storage.join(clips, row["path"]))


def _parquet_translations(shards: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    for shard in shards:
        for row in parquet_rows(shard, ("id", "translation")):
            yield row["id"], row["translation"]


def _parquet_clips(shards: Iterable[str]) -> Iterator[_Clip]:
    for shard in shards:
        for number, row in enumerate(parquet_rows(shard, ("id", "sentence", "client_id"))):
            yield _Clip(row["id"], row["sentence"], row["client_id"], shard, str(number))
