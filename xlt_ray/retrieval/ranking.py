"""From scores to ranks and R@k. Pure numpy.

Ties count against the system, so a score that cannot tell candidates apart finds nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_KS = (1, 5, 10)


def normalised(text: str) -> str:
    """The words of a transcript: NFKC, case folded, and only letters, marks and digits kept between single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Marks are no \w, but in many scripts they are the vowels.
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())


def positives(queries: Sequence[str], candidates: Sequence[str], candidate_texts: Sequence[str | None]) -> Mask:
    """Which candidate is a hit for which query: (num_queries, num_candidates).

    A hit is a recording of the query's sentence, or one with the same words as such a recording: no listener could say
    which of two sentences with the same words was meant.

    Args:
        queries: sentence_id of each query.
        candidates: sentence_id of each candidate.
        candidate_texts: transcript of each candidate, where there is one.
    """
    sentences = {sentence: number for number, sentence in enumerate(dict.fromkeys(candidates))}
    words = [normalised(text or "") for text in candidate_texts]
    texts = {text: number for number, text in enumerate(dict.fromkeys(words))}
    holds = np.zeros((len(sentences), len(texts)), dtype=bool)  # sentence x text; no text is like no other
    for sentence, text in zip(candidates, words, strict=True):
        if text:
            holds[sentences[sentence], texts[text]] = True
    same_sentence = np.array([sentences[sentence] for sentence in candidates])
    text_of = np.array([texts[text] for text in words])
    hits = np.zeros((len(queries), len(candidates)), dtype=bool)
    for row, sentence in enumerate(queries):
        if (number := sentences.get(sentence)) is not None:
            hits[row] = (same_sentence == number) | holds[number][text_of]
    return hits


def one_recording(sentence_ids: Sequence[str], seed: int) -> Indices:
    """One recording of each sentence, drawn by the seed: their positions, ascending."""
    places: dict[str, list[int]] = {}
    for place, sentence in enumerate(sentence_ids):
        places.setdefault(sentence, []).append(place)
    generator = np.random.default_rng(seed)
    return np.array(sorted(int(generator.choice(places[sentence])) for sentence in sorted(places)), dtype=np.int64)


def rank_of_best_positive(scores: Scores, positive: Mask) -> Indices:
    """Rank of the best hit of each query, 1 the best: 1 + how many wrong candidates score as high or higher.

    Other hits of the same query do not push the rank down. A NaN is the worst score for a hit and the best for a wrong
    candidate.

    Raises:
        ValueError: if a query has no hit.
    """
    if not positive.any(axis=1).all():
        raise ValueError("a query without a positive has no rank")
    best = np.where(positive & ~np.isnan(scores), scores, -np.inf).max(axis=1, keepdims=True)
    above: Indices = (~positive & ~(scores < best)).sum(axis=1)
    return 1 + above


def top_k(scores: Scores, k: int) -> Indices:
    """Positions of the k best candidates of each query, best first, equals in their order: (num_queries, k)."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def summarise(
    ranks: Indices,
    sentence_ids: Sequence[str],
    *,
    num_candidates: int,
    num_positives: Indices,
    seed: int,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """R@1, R@5, R@10 and MRR of one pair of languages, with chance and a 95% interval.

    Chance is R@1 of candidates in random order: the mean over queries of positives / candidates. The interval is the
    percentile bootstrap over sentences, whose recordings are drawn together, because they are not independent.

    Args:
        ranks: (num_queries,) rank of the best positive.
        sentence_ids: sentence of each query.
        num_candidates: how many were ranked for every query.
        num_positives: (num_queries,) how many of them were hits.
        seed: of the bootstrap.
        num_resamples: draws of the bootstrap.
    """
    hits = ranks == 1
    low, high = _interval(hits, sentence_ids, seed, num_resamples)
    return {
        **{f"r{k}": float(np.mean(ranks <= k)) for k in _KS},
        "mrr": float(np.mean(1 / ranks)),
        "chance_r1": float(np.mean(num_positives / num_candidates)),
        "num_queries": len(ranks),
        "num_candidates": num_candidates,
        "r1_ci95": [low, high],
    }


def _interval(hits: Mask, sentence_ids: Sequence[str], seed: int, num_resamples: int) -> tuple[float, float]:
    _, sentence = np.unique(np.array(sentence_ids), return_inverse=True)
    num_hits, num_queries = np.bincount(sentence, weights=hits), np.bincount(sentence)
    num_sentences = len(num_queries)
    # How often each sentence is drawn is multinomial, so one matrix product replaces the drawing of rows.
    draws = np.random.default_rng(seed).multinomial(
        num_sentences, np.full(num_sentences, 1 / num_sentences), size=num_resamples
    )
    low, high = np.percentile((draws @ num_hits) / (draws @ num_queries), [2.5, 97.5])
    return float(low), float(high)
