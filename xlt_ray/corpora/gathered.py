"""Rows that stand on several lines of a corpus, one for each text: joined to one row of the corpus each."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence

from xlt_ray.corpora.tables import check_languages, pivot, sentence_id
from xlt_ray.errors import UserError
from xlt_ray.store.schema import Utterance

_Key = tuple[str, str, float, float | None]


class Gathered:
    """Utterances by the part of the recording that they are, in the order in which they came.

    Attributes:
        corpus: what identifiers that are made here begin with.
        empty: a row of which nothing is known.
    """

    empty = Utterance(utterance_id="", sentence_id="", language="", audio="")

    def __init__(self, corpus: str) -> None:
        self.corpus = corpus
        self._rows: dict[_Key, tuple[Utterance, dict[str, str]]] = {}

    def add(self, row: Utterance, texts: Mapping[str, str], name: str | None, sentence: str | None) -> None:
        """What a line says of a recording.

        Args:
            row: the recording, without identifiers and texts.
            texts: transcript and translations, by language.
            name: the identifier of the utterance, where the line has one; that of the first line counts.
            sentence: that of its sentence.
        """
        named = dataclasses.replace(row, utterance_id=name or "", sentence_id=sentence or "")
        key = (row.audio, row.language, row.start or 0.0, row.duration)
        self._rows.setdefault(key, (named, {}))[1].update(texts)

    def __iter__(self) -> Iterator[Utterance]:
        depth = self._depth()
        for row, texts in self._rows.values():
            name = row.utterance_id or _name(row, depth)
            yield dataclasses.replace(
                row,
                utterance_id=name,
                sentence_id=row.sentence_id or sentence_id(self.corpus, pivot(texts), name),
                text=texts.get(row.language),
                translations={code: text for code, text in texts.items() if code != row.language},
            )

    def _depth(self) -> int:
        """How many last parts of the path tell apart all recordings that have no identifier: two, or more."""
        unnamed = [row for row, _ in self._rows.values() if not row.utterance_id]
        longest = max((len(row.audio.split("/")) for row in unnamed), default=2)
        depths = range(2, longest + 1)
        return next((depth for depth in depths if len({_name(row, depth) for row in unnamed}) == len(unnamed)), 2)


def select(rows: Iterable[Utterance], source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """The rows of some languages and of one split (None: all), language by language in the order of `languages`.

    Raises:
        UserError: there is nothing of a language or split.
    """
    by_language: dict[str, list[Utterance]] = {}
    for row in rows:
        by_language.setdefault(row.language, []).append(row)
    check_languages(repr(source), languages, by_language)
    chosen = {code: [row for row in by_language[code] if split in (None, row.split)] for code in languages}
    for code in languages:
        if not chosen[code]:
            names = ", ".join(sorted({row.split or "(none)" for row in by_language[code]}))
            raise UserError(f"{source!r} has no {code} rows of split {split!r}; it has {names}")
    for code in languages:
        yield from chosen[code]


def _name(row: Utterance, depth: int) -> str:
    """From the last parts of the path, as recordings of several speakers often have the same names."""
    path = "/".join(posixpath.splitext(row.audio)[0].split("/")[-depth:])
    ends = "" if row.start is None and row.duration is None else f"/{_milliseconds(row)}"
    return f"{row.language}/{path}{ends}"


def _milliseconds(row: Utterance) -> str:
    start = row.start or 0.0
    end = "" if row.duration is None else f"{round(1000 * (start + row.duration)):08d}"
    return f"{round(1000 * start):08d}-{end}"
