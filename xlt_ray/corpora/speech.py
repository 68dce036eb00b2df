"""A corpus in Python: rows and waveforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from xlt_ray import corpora
from xlt_ray.corpora.audio import decode
from xlt_ray.corpora.recordings import Place, read_recordings
from xlt_ray.corpora.tables import split_of
from xlt_ray.errors import RejectedRow, UserError
from xlt_ray.store.schema import Utterance


def read_corpus(
    corpus: str, languages: Sequence[str], split: str | None = None, *, columns: str = ""
) -> list[Utterance]:
    """Read the rows of a corpus: sentence, text and translations of each recording, without audio.

    Args:
        corpus: as `--corpus`: `fleurs`, `manifest:corpus.jsonl`, `hf:REF`, several with `+`.
        languages: codes in any spelling, at least one.
        split: `train`, `dev` or `test`; None: every row.
        columns: as `--columns`, for an `hf` corpus with other column names.

    Returns:
        Rows language by language, in the order of `languages`.

    Raises:
        UserError: if the corpus, a language or the split does not exist.

    >>> rows = read_corpus("manifest:corpus.jsonl", ["en", "fr"], split="test")
    >>> len(rows)
    6
    >>> rows[0].language, rows[0].sentence_id, rows[0].translations["zh"]
    ('en', 's009', 'zh dix 十')
    """
    splits = () if split is None else (split,)
    rows = list(corpora.read_splits(corpus, languages, splits, corpora.parse_columns(columns)))
    if split is None:
        return rows
    if not (found := [row for row in rows if row.split == split_of(split)]):
        there = ", ".join(sorted({row.split for row in rows if row.split})) or "none"
        raise UserError(f"no recording of {corpus} is of split {split!r}; the corpus has {there}")
    return found


def load_speech(rows: Iterable[Utterance]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the waveform of each row: float32 mono at 16 kHz, shape (num_samples,), in [-1, 1].

    Raises:
        RejectedRow: if a recording can't be used; the message has the reason.
        Unreachable: if a file does not exist, or can't be read from this machine.

    >>> rows = read_corpus("manifest:corpus.jsonl", ["en"], split="test")
    >>> [len(waveform) / 16_000 for waveform in load_speech(rows)]
    [0.85, 0.9, 0.95]
    """
    places = [Place(row.audio, row.member, row.start, row.duration) for row in rows]
    for place, recording in zip(places, read_recordings(places), strict=True):
        if isinstance(recording, RejectedRow):
            raise recording
        yield decode(recording, place.name)
