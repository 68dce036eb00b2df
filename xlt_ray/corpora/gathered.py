"""Joins the lines of a corpus that belong to the same utterance, one line for each text, to one row."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence

from xlt_ray.corpora.tables import check_languages, pivot, sentence_id
from xlt_ray.errors import UserError
from xlt_ray.store.schema import Utterance

_Key = tuple[str, str, float, float | None]


class Gathered:
    """Utterances by segment of a recording, in the order in which they were added.

    Attributes:
        corpus: prefix of the identifiers that are generated here.
        empty: a row without any values.
    """

    empty = Utterance(utterance_id="", sentence_id="", language="", audio="")

    def __init__(self, corpus: str) -> None:
        self.corpus = corpus
        self._rows: dict[_Key, tuple[Utterance, dict[str, str]]] = {}

    def add(self, row: Utterance, texts: Mapping[str, str], name: str | None, sentence: str | None) -> None:
        """Add a line of the corpus.

        Args:
            row: the recording, without identifiers and texts.
            texts: transcript and translations, by language.
            name: identifier of the utterance, if the line has one; that of the first line counts.
            sentence: identifier of its sentence.
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
        """How many last parts of the path distinguish all recordings without an identifier: at least two."""
        unnamed = [row for row, _ in self._rows.values() if not row.utterance_id]
        longest = max((len(row.audio.split("/")) for row in unnamed), default=2)
        depths = range(2, longest + 1)
        return next((depth for depth in depths if len({_name(row, depth) for row in unnamed}) == len(unnamed)), 2)


def select(rows: Iterable[Utterance], source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """The rows of some languages and of one split (None: all), language by language in the order of `languages`.

    Raises:
        UserError: if a language or the split has no rows.
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
    """A name from the last parts of the path, because recordings of several speakers often have the same file name."""
    path = "/".join(posixpath.splitext(row.audio)[0].split("/")[-depth:])
    ends = "" if row.start is None and row.duration is None else f"/{_milliseconds(row)}"
    return f"{row.language}/{path}{ends}"


def _milliseconds(row: Utterance) -> str:
    start = row.start or 0.0
    end = "" if row.duration is None else f"{round(1000 * (start + row.duration)):08d}"
    return f"{round(1000 * start):08d}-{end}"
