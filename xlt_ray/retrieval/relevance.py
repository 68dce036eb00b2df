"""Queries, candidates and hits between two languages, in one direction, by one protocol. Pure numpy.

The matrix of all queries and candidates is never stored: any part of it is computed from sentences and texts.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xlt_ray.retrieval.config import PROTOCOLS

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_CHUNK = 256  # queries at a time, where every candidate is looked at


@dataclasses.dataclass(frozen=True)
class Relevance:
    """Which candidates are right for which queries.

    Attributes:
        queries: (num_queries,) whether each query takes part.
        candidates: (num_candidates,) whether each candidate takes part.
        query_sentences: (num_queries,) number of the sentence of each query.
        candidate_sentences: (num_candidates,) number of the sentence of each candidate.
        words: (num_candidates,) number of the text of each candidate; -1 if it has none.
        spoken: (num, 2) pairs of a sentence and a text that one of its candidates has.
    """

    queries: Mask
    candidates: Mask
    query_sentences: Indices
    candidate_sentences: Indices
    words: Indices
    spoken: Indices

    def hits(self, rows: slice | Indices, columns: slice | Indices) -> Mask:
        """Which of these candidates is right for which of these queries; both take part."""
        return self._taking_part(rows, columns) & self._same(rows, columns)

    def wrong(self, rows: slice | Indices, columns: slice | Indices) -> Mask:
        """Which of these candidates is wrong for which of these queries; both take part."""
        return self._taking_part(rows, columns) & ~self._same(rows, columns)

    @property
    def num_hits(self) -> Indices:
        """(num_queries,) right candidates of each query."""
        starts = range(0, len(self.queries), _CHUNK)
        counts = [self.hits(slice(start, start + _CHUNK), slice(None)).sum(axis=1) for start in starts]
        return np.concatenate(counts).astype(np.int64)

    def _taking_part(self, rows: slice | Indices, columns: slice | Indices) -> Mask:
        part: Mask = self.queries[rows, None] & self.candidates[None, columns]
        return part

    def _same(self, rows: slice | Indices, columns: slice | Indices) -> Mask:
        query_sentences, words = self.query_sentences[rows], self.words[columns]
        same: Mask = query_sentences[:, None] == self.candidate_sentences[None, columns]
        sentences, row = np.unique(query_sentences, return_inverse=True)
        texts, column = np.unique(words, return_inverse=True)
        here = self.spoken[np.isin(self.spoken[:, 0], sentences) & np.isin(self.spoken[:, 1], texts)]
        holds = np.zeros((len(sentences), len(texts)), dtype=bool)
        holds[np.searchsorted(sentences, here[:, 0]), np.searchsorted(texts, here[:, 1])] = True
        return same | holds[np.ix_(row, column)] if len(here) else same


def relevance(queries: pa.Table, candidates: pa.Table, protocol: str, seed: int) -> Relevance:
    """Which candidates are hits for which queries.

    multi_positive: a hit is a recording of the query's sentence, or one with the same words as such a recording,
    because two sentences with the same words cannot be distinguished. one_per_sentence: one recording of each sentence
    is sampled, and only that one is a hit.

    Args:
        queries: rows of INDEX of the query language.
        candidates: rows of INDEX of the candidate language.
        protocol: one of PROTOCOLS.
        seed: seed for one_per_sentence.
    """
    query_sentences, candidate_sentences = queries["sentence_id"].to_pylist(), candidates["sentence_id"].to_pylist()
    numbers = {
        sentence: number for number, sentence in enumerate(dict.fromkeys([*query_sentences, *candidate_sentences]))
    }
    texts = [""] * len(candidate_sentences)
    if protocol == "multi_positive":
        texts = [normalised(text or "") for text in candidates["text"].to_pylist()]
    of_text = {text: number for number, text in enumerate(dict.fromkeys(filter(None, texts)))}
    words = np.array([of_text.get(text, -1) for text in texts], dtype=np.int64)
    spoken = {
        (numbers[sentence], of_text[text]) for sentence, text in zip(candidate_sentences, texts, strict=True) if text
    }
    return Relevance(
        queries=np.array([reason is None for reason in reasons(queries, candidates, protocol, seed)], dtype=bool),
        candidates=np.array([reason is None for reason in reasons(candidates, queries, protocol, seed)], dtype=bool),
        query_sentences=np.array([numbers[sentence] for sentence in query_sentences], dtype=np.int64),
        candidate_sentences=np.array([numbers[sentence] for sentence in candidate_sentences], dtype=np.int64),
        words=words,
        spoken=np.array(sorted(spoken), dtype=np.int64).reshape(-1, 2),
    )


def both_ways(first: pa.Table, second: pa.Table, seed: int) -> tuple[tuple[Relevance, ...], tuple[Relevance, ...]]:
    """The relevance by every protocol of PROTOCOLS, for queries of the first and of the second language."""
    there = tuple(relevance(first, second, protocol, seed) for protocol in PROTOCOLS)
    return there, tuple(relevance(second, first, protocol, seed) for protocol in PROTOCOLS)


def reasons(rows: pa.Table, others: pa.Table, protocol: str, seed: int) -> list[str | None]:
    """Why each row takes no part between these two languages; None if it takes part."""
    shared = set(others["sentence_id"].to_pylist())
    sentences, other = rows["sentence_id"].to_pylist(), others["language"][0].as_py()
    found = [None if sentence in shared else f"no recording of this sentence in {other}" for sentence in sentences]
    if protocol == "one_per_sentence":
        drawn = set(one_recording(sentences, seed).tolist())
        for row in range(len(sentences)):
            if row not in drawn and found[row] is None:
                found[row] = "another recording of this sentence was drawn (one_per_sentence)"
    return found


def one_recording(sentence_ids: Sequence[str], seed: int) -> Indices:
    """One recording of each sentence, drawn by the seed: their positions, ascending."""
    places: dict[str, list[int]] = {}
    for place, sentence in enumerate(sentence_ids):
        places.setdefault(sentence, []).append(place)
    generator = np.random.default_rng(seed)
    return np.array(sorted(int(generator.choice(places[sentence])) for sentence in sorted(places)), dtype=np.int64)


def normalised(text: str) -> str:
    """The words of a transcript: NFKC, case folded, and only letters, marks and digits kept between single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Marks are no \w, but in many scripts they are the vowels.
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())
