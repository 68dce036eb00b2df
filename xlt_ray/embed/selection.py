"""Selects the rows of a corpus by split.

A split is a property of a row. If the rows of a corpus name no split, a job that trains divides the corpus by sentence,
so that no sentence is both trained on and tested. A job that only measures uses all rows.
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
    """The positions of the rows of each requested split, ascending.

    Args:
        rows: of UTTERANCE, the whole corpus in the chosen languages.
        splits: names of splits, or ALL.
        divide: whether to divide a corpus without splits by sentence into train, dev and test; otherwise each split is
            the whole corpus.
        num_sentences: use only the first N sentences of each split, sorted by id, that all languages share.

    Raises:
        UserError: if a split has no rows, or if num_sentences is given and the languages share no sentence.
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
    """The split of each row, "" for none; None if every row belongs to every split."""
    if has_splits(rows):
        return np.array(pc.fill_null(rows["split"], "").to_pylist(), dtype=str)
    return divided(rows["sentence_id"].to_pylist()) if divide else None


def divided(sentence_ids: Sequence[str]) -> npt.NDArray[np.str_]:
    """A split for each sentence by a hash of its id: 8 of 10 train, 1 dev, 1 test.

    Only the id counts, so neither other languages nor other sentences move a sentence to another split.
    """
    splits = {sentence: _split_of(sentence) for sentence in set(sentence_ids)}
    return np.array([splits[sentence] for sentence in sentence_ids], dtype=str)


def _split_of(sentence_id: str) -> str:
    place = int.from_bytes(hashlib.sha256(sentence_id.encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "dev"}.get(place, "train")
