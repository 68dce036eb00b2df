"""Corpora: each is a function that yields the rows of the languages asked for, without their sound.

All have one signature, `(source, languages, split) -> Iterator[Utterance]`, and yield language by language in the
order of `languages`. `--corpus` names one, with a place where there is a choice: `fleurs`, `manifest:my.jsonl`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Sequence

from xlt_ray import storage
from xlt_ray.corpora import asterisk, covost2, fleurs, manifest, mass
from xlt_ray.errors import UserError
from xlt_ray.languages import codes, read_as
from xlt_ray.schema import Utterance

Reader = Callable[[str, Sequence[str], str | None], Iterator[Utterance]]

CORPORA: dict[str, Reader] = {
    "asterisk": asterisk.asterisk,
    "covost2": covost2.covost2,
    "fleurs": fleurs.fleurs,
    "manifest": manifest.manifest,
    "mass": mass.mass,
}
"""Reader of each corpus, by the name that `--corpus` takes."""

_HOME = {
    "asterisk": "",
    "covost2": "hf://datasets/fixie-ai/covost2",
    "fleurs": "hf://datasets/google/fleurs@refs%2Fconvert%2Fparquet",
}
"""Where a corpus lies when no place is given; those not named here lie nowhere but with the user."""

_ATTRIBUTIONS = {
    "asterisk": "Trained on the Asterisk core sounds: voices Allison Smith (en, es), June Wallack (fr), CC-BY-SA-3.0; "
    "Carlo Flora (it), ivrvoice.ru (ru), CC-BY-3.0; Chinese translations by the xlt_ray authors, CC-BY-SA-3.0.",
    "fleurs": "Trained on FLEURS (Conneau et al. 2022), CC-BY-4.0.",
}
"""What the licence of a corpus asks to be said, where it is known."""

_FORMS = ", ".join(f"{name}[:PATH]" if name in _HOME else f"{name}:PATH" for name in CORPORA)


def parse(spec: str) -> tuple[Reader, str]:
    """Reader and source of a `--corpus` value; local paths become absolute.

    Raises:
        UserError: no such corpus, or it needs a path and has none.
    """
    name, _, path = spec.partition(":")
    if name not in CORPORA:
        close = difflib.get_close_matches(name, CORPORA, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown corpus {spec!r}; valid are {_FORMS}{hint}")
    if not path and name not in _HOME:
        raise UserError(f"corpus {spec!r} needs a path: {name}:PATH")
    return CORPORA[name], storage.absolute(path) if path else _HOME[name]


def attribution(spec: str) -> str | None:
    """What must be said of a model that was trained on a corpus; None where nothing is known."""
    return _ATTRIBUTIONS.get(spec.partition(":")[0])


def fetch(spec: str) -> None:
    """Bring to this machine what the corpus keeps in the user's cache; for all but `asterisk` there is nothing to do.

    Workers on other machines than the driver's call it before they read.
    """
    if spec == "asterisk":
        asterisk.fetch()


def read(spec: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """Rows of a corpus, language by language in the order of `languages`.

    Args:
        spec: a `--corpus` value.
        languages: codes in any spelling; at least one, each once. In the rows all codes are as Whisper spells them.
        split: a split of the corpus; None for what the corpus does by default.

    Raises:
        UserError: from `parse`, for `languages`, and, once rows are asked for, from the reader.
    """
    reader, source = parse(spec)
    chosen = codes(languages)
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"languages are {', '.join(languages) or 'empty'}; name at least one, and each once")
    return map(_in_our_codes, reader(source, chosen, split))


def _in_our_codes(row: Utterance) -> Utterance:
    """The row with the codes of `languages.code_of`, however the corpus spells them."""
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
