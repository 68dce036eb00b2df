import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.retrieval import ranking


def ranks_naively(scores, positive):
    ranks = []
    for row, hits in zip(scores, positive, strict=True):
        best = max(score for score, hit in zip(row, hits, strict=True) if hit)
        ranks.append(1 + sum(score >= best for score, hit in zip(row, hits, strict=True) if not hit))
    return ranks


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 8))
def test_ranks_equal_a_naive_loop(seed, num_queries, num_candidates):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (num_queries, num_candidates)).astype(np.float32)  # many ties
    positive = generator.random(scores.shape) < 0.3
    positive[np.arange(num_queries), generator.integers(0, num_candidates, num_queries)] = True
    assert ranking.rank_of_best_positive(scores, positive).tolist() == ranks_naively(scores, positive)


def test_ties_count_against_the_system():
    scores = np.zeros((3, 3), np.float32)
    assert ranking.rank_of_best_positive(scores, np.eye(3, dtype=bool)).tolist() == [3, 3, 3]
    assert ranking.rank_of_best_positive(np.eye(3, dtype=np.float32), np.eye(3, dtype=bool)).tolist() == [1, 1, 1]


def test_nan_counts_against_the_system():
    scores = np.array([[np.nan, 0.1, 0.2], [0.5, np.nan, 0.2]], np.float32)
    positive = np.array([[True, False, False], [True, False, False]])
    assert ranking.rank_of_best_positive(scores, positive).tolist() == [3, 2]


def test_a_query_without_a_positive_is_an_error():
    with pytest.raises(ValueError, match="without a positive"):
        ranking.rank_of_best_positive(np.ones((1, 2), np.float32), np.zeros((1, 2), dtype=bool))


def test_positives_are_recordings_of_the_sentence_or_of_the_same_words():
    candidates = ["a", "a", "b", "c", "d"]
    texts = ["Please wait.", None, "please,  WAIT", "Goodbye", "Ｇｏｏｄｂｙｅ!"]
    assert ranking.positives(["a", "b", "c", "x"], candidates, texts).astype(int).tolist() == [
        [1, 1, 1, 0, 0],
        [1, 0, 1, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0],
    ]


def test_rows_without_text_are_not_the_same_text():
    assert ranking.positives(["a", "b"], ["a", "b"], ["", None]).tolist() == [[True, False], [False, True]]
    assert ranking.positives(["a", "b"], ["a", "b"], ["...", "?!"]).tolist() == [[True, False], [False, True]]


def test_words_that_differ_in_a_vowel_sign_are_different():
    assert len({ranking.normalised(word) for word in ("की", "का", "कि", "कू")}) == 4
    assert ranking.normalised("  Où—est l’ÉCOLE?_") == ranking.normalised("où est l école")


def test_one_recording_draws_each_sentence_once_and_by_the_seed():
    sentences = ["a", "b", "a", "a", "c", "b"]
    drawn = ranking.one_recording(sentences, 0)
    assert sorted(sentences[place] for place in drawn) == ["a", "b", "c"]
    assert drawn.tolist() == ranking.one_recording(sentences, 0).tolist()
    first_of_a = {ranking.one_recording(sentences, seed)[0] for seed in range(30)}
    assert len(first_of_a) > 1


def test_figures_of_known_ranks():
    ranks = np.array([1, 2, 6, 11])
    figures = ranking.summarise(ranks, list("abcd"), num_candidates=20, num_positives=np.array([1, 2, 1, 1]), seed=0)
    assert (figures["r1"], figures["r5"], figures["r10"]) == (0.25, 0.5, 0.75)
    assert figures["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)
    assert figures["chance_r1"] == pytest.approx((3 / 20 + 2 / 20) / 4)
    assert (figures["num_queries"], figures["num_candidates"]) == (4, 20)


def test_chance_is_what_a_random_score_reaches():
    generator = np.random.default_rng(0)
    positive = np.zeros((3, 10), dtype=bool)
    positive[0, :1] = positive[1, :2] = positive[2, :4] = True
    runs = [ranking.rank_of_best_positive(generator.random((3, 10)), positive) == 1 for _ in range(20_000)]
    figures = ranking.summarise(
        np.ones(3, int), list("abc"), num_candidates=10, num_positives=positive.sum(axis=1), seed=0
    )
    assert np.mean(runs) == pytest.approx(figures["chance_r1"], abs=4 * 0.5 / np.sqrt(60_000))


def test_the_interval_is_the_bootstrap_over_sentences():
    """Against a naive bootstrap that draws sentences with all their recordings, one resample at a time."""
    generator = np.random.default_rng(1)
    sentences = [f"s{n // 3}" for n in range(120)]  # 40 sentences, 3 recordings that agree: the effective size is 40
    ranks = np.repeat(generator.integers(1, 3, 40), 3)
    low, high = ranking.summarise(
        ranks, sentences, num_candidates=40, num_positives=np.ones(120, int), seed=0, num_resamples=4000
    )["r1_ci95"]
    rows = {s: [n for n, other in enumerate(sentences) if other == s] for s in set(sentences)}
    names = sorted(rows)
    naive = []
    for _ in range(4000):
        drawn = [n for name in generator.choice(names, len(names)) for n in rows[name]]
        naive.append(np.mean(ranks[drawn] == 1))
    assert [low, high] == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=0.02)
    width_if_independent = 2 * 1.96 * 0.5 / np.sqrt(120)
    assert high - low > 1.4 * width_if_independent


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_top_k_is_the_sorted_head(seed, num_queries, num_candidates, k):
    scores = np.random.default_rng(seed).integers(0, 5, (num_queries, num_candidates)).astype(np.float32)
    for row, best in zip(scores, ranking.top_k(scores, k), strict=True):
        expected = sorted(range(num_candidates), key=lambda c: (-row[c], c))[:k]
        assert best.tolist() == expected
