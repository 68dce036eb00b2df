"""Which rows of a corpus belong to which split.

A split is a property of a row. A corpus whose rows name none is divided by sentence where a job trains, so that no
sentence is both trained on and tested; a job that only measures takes all of its rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.corpora.tables import split_of
from xlt_ray.embed import index
from xlt_ray.errors import UserError

Indices = npt.NDArray[np.int64]

ALL = "all"
"""Name of the split that is every row."""


def select(
    rows: pa.Table, splits: Sequence[str], *, divide: bool, num_sentences: int | None = None
) -> dict[str, Indices]:
    """The rows of each split that is asked for, as their places, ascending.

    Args:
        rows: of UTTERANCE, the whole corpus in the chosen languages.
        splits: names of splits, or ALL.
        divide: whether a corpus without splits is divided by sentence into train, dev and test; else every split of it
            is all of its rows.
        num_sentences: only the first so many sentences of each split, sorted by id, that every language has.

    Raises:
        UserError: if a split has no row; if languages share no sentence, and some of them are asked for.
    """
    own = _splits_of(rows, divide)
    found = {}
    for split in splits:
        places = np.arange(rows.num_rows) if split == ALL or own is None else np.flatnonzero(own == split_of(split))
        if not len(places):
            assert own is not None
            there = ", ".join(sorted(set(own.tolist()) - {""})) or "none"
            hint = f"give its name ({there}), or {ALL} for every row"
            raise UserError(f"no recording is of split {split!r}; the corpus has {there}; {hint}")
        if num_sentences is not None:
            places = places[index.first_sentences(rows.take(places), num_sentences)]
        found[split] = places
    return found


def has_splits(rows: pa.Table) -> bool:
    """Whether any row names its split."""
    return bool(rows["split"].null_count < rows.num_rows)


def _splits_of(rows: pa.Table, divide: bool) -> npt.NDArray[np.str_] | None:
    """The split of each row, "" for none; None where every row is of every split."""
    if has_splits(rows):
        return np.array(pc.fill_null(rows["split"], "").to_pylist(), dtype=str)
    return divided(rows["sentence_id"].to_pylist()) if divide else None


def divided(sentence_ids: Sequence[str]) -> npt.NDArray[np.str_]:
    """A split for each sentence by a hash of its id: 8 of 10 train, 1 dev, 1 test.

    The id alone decides, so neither other languages nor other sentences move a sentence to another split.
    """
    splits = {sentence: _split_of(sentence) for sentence in set(sentence_ids)}
    return np.array([splits[sentence] for sentence in sentence_ids], dtype=str)


def _split_of(sentence_id: str) -> str:
    place = int.from_bytes(hashlib.sha256(sentence_id.encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "dev"}.get(place, "train")
