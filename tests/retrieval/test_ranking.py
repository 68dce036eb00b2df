import numpy as np
import pytest
import whole_matrix

from xlt_ray.retrieval import ranking


def summarise(ranks, *args, **kwargs):
    return ranking.summarise({"score": ranks}, *args, **kwargs)["score"]


def test_figures_of_known_ranks():
    ranks = np.array([1, 2, 6, 11])
    figures = summarise(ranks, list("abcd"), num_candidates=20, num_positives=np.array([1, 2, 1, 1]), seed=0)
    assert (figures["r1"], figures["r5"], figures["r10"]) == (0.25, 0.5, 0.75)
    assert figures["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)
    assert figures["chance_r1"] == pytest.approx((3 / 20 + 2 / 20) / 4)
    assert (figures["num_queries"], figures["num_candidates"]) == (4, 20)


def test_chance_is_what_a_random_score_reaches():
    generator = np.random.default_rng(0)
    positive = np.zeros((3, 10), dtype=bool)
    positive[0, :1] = positive[1, :2] = positive[2, :4] = True
    draws = generator.random((20_000, 3, 10))
    runs = [positive[query, draws[:, query].argmax(axis=1)] for query in range(3)]
    figures = summarise(np.ones(3, int), list("abc"), num_candidates=10, num_positives=positive.sum(axis=1), seed=0)
    assert np.mean(runs) == pytest.approx(figures["chance_r1"], abs=4 * 0.5 / np.sqrt(60_000))


def test_the_interval_is_the_bootstrap_over_sentences():
    """Against a naive bootstrap that draws sentences with all their recordings, one resample at a time."""
    generator = np.random.default_rng(1)
    sentences = [f"s{n // 3}" for n in range(120)]  # 40 sentences, 3 recordings that agree: the effective size is 40
    ranks = np.repeat(generator.integers(1, 3, 40), 3)
    low, high = summarise(
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


def test_all_scores_see_the_same_draws_however_many_are_made_at_a_time():
    """The bootstrap that makes all draws at a time gives the same bits."""
    generator = np.random.default_rng(2)
    sentences = [f"s{n}" for n in generator.integers(0, 30, 77)]
    ranks = {name: generator.integers(1, 4, 77) for name in ("one", "other")}
    for num_resamples in (1000, 250, 7):
        found = ranking.summarise(
            ranks,
            sentences,
            num_candidates=40,
            num_positives=np.ones(77, int),
            seed=5,
            num_resamples=num_resamples,
        )
        for name, of_score in ranks.items():
            expected = whole_matrix.interval(of_score, sentences, 5, num_resamples)
            assert found[name]["r1_ci95"] == expected


def test_the_interval_of_a_lead_is_that_of_the_differences_on_the_same_sentences():
    """Against a naive bootstrap; two scores that fail together differ far less than their intervals say."""
    generator = np.random.default_rng(4)
    sentences = [f"s{n // 2}" for n in range(160)]
    one = np.repeat(generator.integers(1, 3, 80), 2)
    other = np.where(generator.random(160) < 0.1, 3, one)
    found = ranking.summarise(
        {"one": one, "other": other},
        sentences,
        num_candidates=40,
        num_positives=np.ones(160, int),
        seed=0,
        num_resamples=4000,
    )
    assert found["one"]["lead_ci95"] is None
    naive = []
    for _ in range(4000):
        drawn = [n for s in generator.integers(0, 80, 80) for n in (2 * s, 2 * s + 1)]
        naive.append(np.mean(one[drawn] == 1) - np.mean(other[drawn] == 1))
    low, high = found["other"]["lead_ci95"]
    assert [low, high] == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=0.004)
    assert low > 0
    assert found["one"]["r1_ci95"][0] < found["other"]["r1_ci95"][1]
