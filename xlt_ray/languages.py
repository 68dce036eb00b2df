"""Facts about languages: codes, script, family, and whether Whisper has a token.

The facts are in two tables beside this file, `languages.tsv` and `typology.tsv`; their first lines name the sources.
Everywhere in this package, a language has the code that Whisper uses for it (`zh`, `no`, `tl`, `jw`).

Some information in other spellings is not kept, because Whisper has one token for all of them: the region (`pt-BR` and
`pt-PT` are both `pt`) and the script (`zh-TW`, `cmn_hant_tw` and `zh-CN` are all `zh`, and scored alike). Cantonese is
a language of its own, `yue`, even though Common Voice calls it `zh-HK`.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any

from xlt_ray.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """Distance of a language without a token to the nearest one with a token, by typological features.

    The distance is about grammar and sounds, not descent. A token for the nearest language does not show how much of
    that language was in Whisper's training data.

    Attributes:
        nearest: code of the nearest language.
        distance: mean of the next three, 0 to 1. Each has the same weight, whatever its number of features.
        syntax: 1 - cosine of the 103 features of syntax.
        phonology: 1 - cosine of the 28 features of phonology.
        inventory: 1 - cosine of the 158 features of the sound inventory.
        observed: number of the 289 features that are documented. The others are predicted from neighbouring and
            related languages, so a language with few documented features has the distance of its relatives.
    """

    nearest: str
    distance: float
    syntax: float
    phonology: float
    inventory: float
    observed: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One language.

    Attributes:
        code: in Whisper's spelling.
        iso639_3: code of the individual language: `cmn`, `arb`, `swh`.
        spellings: other codes for it, without region: ISO 639-1, 639-2, macrolanguage, codes of corpora.
        name: in English.
        script: ISO 15924 code of its usual script; Norwegian is `Latn`, Odia `Orya`.
        family: family and branch, such as `Niger-Congo, Bantu`.
        has_token: whether Whisper has a token for it; for `yue` only since large-v3.
        is_spaced: whether it writes spaces between words.
        related: code of a language of the same family with a token, chosen for prompts; None if there is none, or if
            it is not needed.
        typology: None for languages with a token.
    """

    code: str
    iso639_3: str
    spellings: tuple[str, ...]
    name: str
    script: str
    family: str
    has_token: bool
    is_spaced: bool
    related: str | None
    typology: Distance | None


def _rows(table: str) -> Iterator[dict[str, str]]:
    text = resources.files("xlt_ray").joinpath(table).read_text(encoding="utf-8")
    yield from csv.DictReader((line for line in text.splitlines() if not line.startswith("#")), delimiter="\t")


def _language(row: dict[str, str], typology: Distance | None) -> Language:
    return Language(
        code=row["code"],
        iso639_3=row["iso639_3"],
        spellings=tuple(row["spellings"].split()),
        name=row["name"],
        script=row["script"],
        family=row["family"],
        has_token=row["token"] == "yes",
        is_spaced=row["spaces"] == "yes",
        related=row["related"] or None,
        typology=typology,
    )


def _distance(row: dict[str, Any]) -> Distance:
    parts = {name: float(row[name]) for name in ("distance", "syntax", "phonology", "inventory")}
    return Distance(nearest=row["nearest"], observed=int(row["observed"]), **parts)


_DISTANCES = {row["code"]: _distance(row) for row in _rows("typology.tsv")}

LANGUAGES = {row["code"]: _language(row, _DISTANCES.get(row["code"])) for row in _rows("languages.tsv")}
"""Every language of the table by its code."""

_CODES = {
    spelling: language.code
    for language in LANGUAGES.values()
    for spelling in (language.code, language.iso639_3, *language.spellings)
}
_NAMES = {language.name.lower(): code for code, language in LANGUAGES.items()} | {"mandarin": "zh"}

_TAG = re.compile(r"[a-z]{2,3}(_[a-z0-9]{1,8})*")  # BCP 47 in its short forms, with _ for -

# Regions where a language is written in another script than the table says.
_SCRIPT_OF_REGION = {("zh", "tw"): "Hant", ("zh", "mo"): "Hant"}


def code_of(spelling: str) -> str:
    """Whisper's code for a language, from any spelling of a corpus or a user.

    Args:
        spelling: `zh-CN`, `cmn_hans_cn`, `sv-SE`, `nb_no`, `fil_ph`, `eng`, `cmn`; for a language that is not in the
            table, any BCP 47 tag.

    Returns:
        The code. A tag that is not in the table is returned in lower case and with `_`, so that it can be part of a
        direction: `rm_sursilv` for `rm-sursilv`.

    Raises:
        UserError: if it is not a BCP 47 tag.
    """
    tag = _tag(spelling)
    if found := _known(tag):
        return found
    if not _TAG.fullmatch(tag):
        raise UserError(f"{spelling!r} is no language code{_near(tag)}; give one such as fr, zh-CN or kea")
    return tag


def code_of_name(name: str) -> str:
    """Like `code_of`, but also for the English name of a language: Lhotse's recipes write both `English` and `en`."""
    return _NAMES.get(name.strip().lower()) or code_of(name)


def language_of(code: str) -> str:
    """The language without region or script: `zh` for `zh-CN` and `cmn_hans_cn`, `rm` for `rm_sursilv`."""
    tag = _tag(code)
    return _known(tag) or tag.split("_")[0]


def find(code: str) -> Language | None:
    """A language of the table, by any spelling; None if it is not in the table."""
    return LANGUAGES.get(language_of(code))


def is_spaced(code: str) -> bool:
    """Whether a language writes spaces between words; True for a language that is not in the table."""
    language = find(code)
    return language is None or language.is_spaced


def codes(spellings: Iterable[str]) -> tuple[str, ...]:
    """The code of each language that a user gives. Prints once how a different spelling is read.

    Raises:
        UserError: as `code_of`.
    """
    return tuple(read_as(spelling) for spelling in spellings)


@functools.cache
def read_as(spelling: str) -> str:
    """Like `code_of`, but prints once if the code differs from the spelling.

    Raises:
        UserError: as `code_of`.
    """
    code = code_of(spelling)
    if code != spelling:
        print(f"{spelling} is read as {code}{_lost(spelling, code)}")
    return code


def _tag(spelling: str) -> str:
    return spelling.strip().lower().replace("-", "_")


@functools.lru_cache(maxsize=4096)
def _known(tag: str) -> str | None:
    """The code of a tag of the table; None for other tags."""
    if tag in _CODES:
        return _CODES[tag]
    first, *rest = tag.split("_")
    # BCP 47 allows zh-yue for yue: three letters in the second place are the language itself.
    if rest and re.fullmatch("[a-z]{3}", rest[0]):
        return _CODES.get(rest[0]) if first in _CODES else None
    return _CODES.get(first) if _TAG.fullmatch(tag) else None


def _near(tag: str) -> str:
    names = {language.name.lower(): language for language in LANGUAGES.values()}
    words = {word: language for name, language in names.items() for word in name.split()}
    found = [(names | words)[name] for name in difflib.get_close_matches(tag, [*names, *words], cutoff=0.75)]
    near = dict.fromkeys(f"{language.code} ({language.name})" for language in found)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _lost(spelling: str, code: str) -> str:
    """What the code loses: the script that a spelling names, if the language is usually written in another one."""
    subtags = _tag(spelling).split("_")[1:]
    named = [part.title() for part in subtags if re.fullmatch("[a-z]{4}", part)]
    named += [_SCRIPT_OF_REGION[code, part] for part in subtags if (code, part) in _SCRIPT_OF_REGION]
    usual = LANGUAGES[code].script if code in LANGUAGES else None
    if not (usual and named) or named[0] == usual:
        return ""
    return f"; the script {named[0]} is not kept, as Whisper has one token for all that is written in {code}"


@dataclasses.dataclass(frozen=True, slots=True)
class Direction:
    """Source and target language, such as `fr-zh`. `fr-fr` is transcription."""

    source: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Direction:
        """The direction that `text` names, in the codes of `code_of`.

        Hyphens within a code are allowed if only one reading gives two known languages: `en-zh-CN`.

        Raises:
            UserError: if it is not two language codes joined by a hyphen, or is ambiguous.
        """
        found = _readings(text)
        if len(found) != 1:
            hint = "; within a code write _, as in en-zh_CN" if text.count("-") > 1 else ""
            raise UserError(f"direction {text!r} is not two language codes with a hyphen between, such as fr-zh{hint}")
        ((source, target),) = found
        return cls(code_of(source), code_of(target))

    @property
    def is_native(self) -> bool:
        """Whether Whisper was trained on this task: transcription, or translation into English."""
        return self.target == self.source or language_of(self.target) == "en"

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


@functools.lru_cache(maxsize=4096)
def _readings(text: str) -> tuple[tuple[str, str], ...]:
    """The ways to read a direction as two languages, each with `_` where a hyphen is within a code."""
    if not re.fullmatch(r"\w+(-\w+)+", text):
        return ()
    parts = text.split("-")
    if len(parts) == 2:
        return ((parts[0], parts[1]),)
    splits = [("_".join(parts[:k]), "_".join(parts[k:])) for k in range(1, len(parts))]
    return tuple(split for split in splits if all(_is_plain(side) for side in split))


def _is_plain(tag: str) -> bool:
    """Whether a tag is a language of the table; CN and BR in capitals are regions, although br is Breton."""
    first = tag.split("_")[0]
    return not first.isupper() and _known(tag.lower()) is not None


def directions(spellings: Iterable[str]) -> tuple[str, ...]:
    """Each direction that a user gives, in the codes of `code_of`. Prints once how a different spelling is read.

    Raises:
        UserError: as `Direction.parse` and `code_of`.
    """
    return tuple(_direction_read_as(spelling) for spelling in spellings)


@functools.cache
def _direction_read_as(spelling: str) -> str:
    direction = Direction.parse(spelling)
    if str(direction) != spelling:
        ((source, target),) = _readings(spelling)
        lost = _lost(source, direction.source) + _lost(target, direction.target)
        print(f"{spelling} is read as {direction}{lost}")
    return str(direction)


def by_distance(names: Iterable[str]) -> dict[str, Distance]:
    """Directions into English from languages without a token, sorted by distance to the nearest one with a token."""
    found = {}
    for name in names:
        direction = Direction.parse(name)
        language = find(direction.source)
        if language and language.typology and language_of(direction.target) == "en":
            found[name] = language.typology
    return dict(sorted(found.items(), key=lambda item: (item[1].distance, item[0])))
