"""Readers of corpora: each is a function that yields the rows of the requested languages, without audio.

All have one signature, `(source, languages, split) -> Iterator[Utterance]`, and yield language by language, in the
order of `languages`. `--corpus` names a reader, with a path if it needs one: `fleurs`, `manifest:my.jsonl`. Only `hf`
takes a fourth argument, its column names.
"""

from __future__ import annotations

import dataclasses
import difflib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from xlt_ray.corpora import asterisk, covost2, fleurs, hf, hf_files, lhotse, manifest, mass, mustc, nemo
from xlt_ray.corpora.hf import parse_columns as parse_columns
from xlt_ray.corpora.text import composed
from xlt_ray.errors import UserError
from xlt_ray.languages import codes, read_as
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

Reader = Callable[..., Iterator[Utterance]]

CORPORA: dict[str, Reader] = {
    "asterisk": asterisk.asterisk,
    "covost2": covost2.covost2,
    "fleurs": fleurs.fleurs,
    "hf": hf.hf,
    "lhotse": lhotse.lhotse,
    "manifest": manifest.manifest,
    "mass": mass.mass,
    "mustc": mustc.mustc,
    "nemo": nemo.nemo,
}
"""Reader of each corpus, by the name that `--corpus` takes."""

_HOME = {
    "asterisk": "",
    "covost2": "hf://datasets/fixie-ai/covost2",
    "fleurs": "hf://datasets/google/fleurs@refs%2Fconvert%2Fparquet",
}
"""Default location of a corpus. A corpus that is not named here needs a path."""

_ATTRIBUTIONS = {
    "asterisk": "Trained on the Asterisk core sounds: voices Allison Smith (en, es), June Wallack (fr), CC-BY-SA-3.0; "
    "Carlo Flora (it), ivrvoice.ru (ru), CC-BY-3.0; Chinese translations by the xlt_ray authors, CC-BY-SA-3.0.",
    "fleurs": "Trained on FLEURS (Conneau et al. 2022), CC-BY-4.0.",
}
"""Attribution that the licence of a corpus requires, if known."""

_FORMS = ", ".join(
    f"{name}[:PATH]" if name in _HOME else f"{name}:REF" if name == "hf" else f"{name}:PATH" for name in CORPORA
)


def parse(spec: str) -> tuple[Reader, str]:
    """Reader and source of a `--corpus` value; local paths become absolute.

    Raises:
        UserError: no such corpus, or it needs a path and has none.
    """
    name, _, path = spec.partition(":")
    if name not in CORPORA:
        close = difflib.get_close_matches(name, CORPORA, n=1)
        if posixpath.splitext(spec)[1] in manifest.SUFFIXES and not close:
            close = [f"manifest:{spec}"]
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown corpus {spec!r}; valid are {_FORMS}{hint}")
    if not path and name not in _HOME:
        form = "hf:REF, with a folder, Parquet files or a Hub id" if name == "hf" else f"{name}:PATH"
        raise UserError(f"corpus {spec!r} needs a path: {form}")
    if name == "hf":
        return CORPORA[name], hf_files.place(path)
    return CORPORA[name], storage.absolute(path) if path else _HOME[name]


def attribution(spec: str) -> str | None:
    """Attribution required for a model trained on a corpus; None if unknown."""
    known = [_ATTRIBUTIONS.get(part.partition(":")[0]) for part in parts(spec)]
    return " ".join(text for text in known if text) or None


def is_fetched(spec: str) -> bool:
    """Whether each machine downloads the recordings to its own cache, with `fetch`."""
    return "asterisk" in parts(spec)


def fetch(spec: str) -> None:
    """Download the corpus to the user's cache on this machine. Only `asterisk` needs this.

    Workers on machines other than the driver's call it before they read.
    """
    if "asterisk" in parts(spec):
        asterisk.fetch()


def read(
    spec: str, languages: Sequence[str], split: str | None, columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """Rows of a corpus, language by language, in the order of `languages`. Text is in NFC.

    Args:
        spec: a `--corpus` value.
        languages: codes in any spelling; at least one, each once. In the rows all codes have Whisper's spelling.
        split: a split of the corpus; None: the default of the corpus.
        columns: for `hf`, column names of the corpus by ours (`parse_columns`).

    Raises:
        UserError: from `parse`, for `languages`, and, when rows are read, from the reader.
    """
    return map(composed, read_as_written(spec, languages, split, columns))


def read_as_written(
    spec: str, languages: Sequence[str], split: str | None, columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """Like `read`, but text is not normalised, for the doctor, which counts what `read` changes."""
    reader, source = parse(spec)
    chosen = codes(languages)
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"languages are {', '.join(languages) or 'empty'}; name at least one, and each once")
    if reader is hf.hf:
        return map(_in_our_codes, hf.hf(source, chosen, split, columns))
    if columns:
        raise UserError(f"columns are named for hf: only, not for {spec!r}")
    return map(_in_our_codes, reader(source, chosen, split))


def _in_our_codes(row: Utterance) -> Utterance:
    """The row with all codes in the spelling of `languages.code_of`."""
    _require_texts(row)
    translations: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for spelling, text in row.translations.items():
        code = read_as(spelling)
        if code in spelled:
            raise UserError(
                f"utterance {row.utterance_id!r} has translations {spelled[code]} and {spelling}, which are both read "
                f"as {code}; keep one"
            )
        spelled[code], translations[code] = spelling, text
    return dataclasses.replace(row, language=read_as(row.language), translations=translations)


def _require_texts(row: Utterance) -> None:
    """Refuse text columns that hold anything else, because columns of a Parquet file can have any type."""
    names = (row.utterance_id, row.sentence_id, row.language, row.audio, row.member, *row.translations)
    texts = (row.text, row.speaker, row.split, *row.translations.values())
    if wrong := [
        value for value in (*names, *(text for text in texts if text is not None)) if not isinstance(value, str)
    ]:
        raise UserError(f"utterance {row.utterance_id!r} has {wrong[0]!r:.100} instead of text")


_SEPARATE = {"fleurs": ("train", "dev", "test"), "covost2": ("train", "dev", "test")}
"""Splits of the corpora that store each split in files of its own, so that it can be read without the others."""


def parts(spec: str) -> list[str]:
    """The corpora that a `--corpus` value joins with `+`, such as `mustc:PATH+asterisk`."""
    return re.split(rf"\+(?=(?:{'|'.join(CORPORA)})(?:[:+]|$))", spec)


def read_splits(
    spec: str, languages: Sequence[str], splits: Sequence[str], columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """Rows of some splits of a corpus, and of other splits in the same files. Text is in NFC.

    Of joined corpora, each is read in the languages that it has; a line says which it lacks, and why.

    Args:
        spec: as in `read`, or several joined with `+`.
        languages: as in `read`.
        splits: the splits needed; none: all.
        columns: as in `read`; for the `hf` corpora among joined ones.

    Raises:
        UserError: as `read`; also if none of the joined corpora has a language, or if one of them has none of the
            languages.
    """
    return map(composed, read_splits_as_written(spec, languages, splits, columns))


def read_splits_as_written(
    spec: str, languages: Sequence[str], splits: Sequence[str], columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """Like `read_splits`, but text is not normalised."""
    joined = parts(spec)
    if columns and not any(part.partition(":")[0] == "hf" for part in joined):
        raise UserError(f"--columns names columns of an hf: corpus, which {spec!r} is not; rename its own columns")
    if len(joined) == 1:
        yield from _read_one(spec, languages, splits, columns)
        return
    chosen = codes(languages)
    lacks = {part: {code: _lacks(part, code, splits, columns) for code in chosen} for part in joined}
    for code in chosen:
        if all(why[code] for why in lacks.values()):
            raise UserError(f"none of the joined corpora has {code}: {lacks[joined[0]][code]}")
    for part, why in lacks.items():
        if all(why.values()):  # it is misspelt or broken, or not meant
            raise UserError(f"{part} is joined, but has none of {', '.join(chosen)}: {why[chosen[0]]}")
    for part, why in lacks.items():
        for code in filter(why.get, chosen):  # it may be meant, or a part of the corpus was not copied
            print(f"{part} is read without {code}: {why[code]}", flush=True)
        yield from _read_one(part, [code for code in chosen if not why[code]], splits, columns)


def _lacks(spec: str, language: str, splits: Sequence[str], columns: Mapping[str, str] | None) -> UserError | None:
    """Why a corpus has no row of a language; None if it has one."""
    try:
        next(iter(_read_one(spec, [language], splits, columns)), None)
    except UserError as error:
        return error
    return None


def _read_one(
    spec: str, languages: Sequence[str], splits: Sequence[str], columns: Mapping[str, str] | None
) -> Iterator[Utterance]:
    kind = spec.partition(":")[0]
    columns = columns if kind == "hf" else None
    if kind not in _SEPARATE:
        yield from read_as_written(spec, languages, None, columns)
        return
    for split in splits or _SEPARATE[kind]:
        yield from read_as_written(spec, languages, split, columns)


def identity(spec: str) -> dict[str, str]:
    """What distinguishes a corpus from others: its kind and its location."""
    joined = parts(spec)
    kinds = "+".join(part.partition(":")[0] for part in joined)
    return {"kind": kinds, "source": "+".join(parse(part)[1] for part in joined)}
