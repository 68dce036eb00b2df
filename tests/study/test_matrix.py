import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked import spearman
from sacrebleu.metrics.bleu import BLEU

from xlt_ray.metrics import sentence_counts
from xlt_ray.study import matrix
from xlt_ray.study.matrix import Texts

WORDS = "one two three four five six seven eight nine ten".split()


def sentences(rng, num):
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(num)]


def worse(rng, texts, share):
    return [" ".join(w if rng.random() > share else "none" for w in text.split()) for text in texts]


@pytest.fixture(scope="module")
def made():
    """Texts of three languages trained on and heard, the same 12 sentences in each."""
    rng = np.random.default_rng(0)
    wanted = sentences(rng, 12)
    said = {
        pair: (worse(rng, wanted, 0.1 + 0.1 * i), worse(rng, wanted, 0.5))
        for i, pair in enumerate(itertools.product("abc", repeat=2))
    }
    ids = [f"s{i}" for i in range(12)]
    cells = {
        pair: Texts(ids, sentence_counts(after, wanted, "en"), sentence_counts(before, wanted, "en"))
        for pair, (after, before) in said.items()
    }
    return wanted, said, cells


def corpus_bleu(said, wanted):
    return BLEU().corpus_score(said, [wanted]).score


def test_gains_are_sacrebleus(made):
    wanted, said, cells = made
    expected = {
        pair: corpus_bleu(after, wanted) - corpus_bleu(before, wanted) for pair, (after, before) in said.items()
    }
    assert matrix.gains(cells) == pytest.approx(expected)


def test_a_draw_takes_the_same_sentences_in_every_cell(made):
    """Each draw is rebuilt from its multiplicities by repeating the texts themselves."""
    wanted, said, cells = made
    draws = matrix.resampled(cells, 7, num_draws=5)
    rng = np.random.default_rng(7)
    order = sorted(f"s{i}" for i in range(12))
    for draw in draws:
        times = dict(zip(order, rng.multinomial(12, np.full(12, 1 / 12)), strict=True))
        chosen = [i for i in range(12) for _ in range(times[f"s{i}"])]
        for pair, (after, before) in said.items():
            references = [wanted[i] for i in chosen]
            expected = corpus_bleu([after[i] for i in chosen], references)
            expected -= corpus_bleu([before[i] for i in chosen], references)
            assert draw[pair] == pytest.approx(expected)


def test_several_recordings_of_a_sentence_are_drawn_together():
    counts = sentence_counts(["one two three four", "five six"], ["one two three four", "five seven"], "en")
    cells = {("a", "b"): Texts(["s", "s"], counts, np.zeros_like(counts))}
    gain = matrix.gains(cells)["a", "b"]
    assert [draw["a", "b"] for draw in matrix.resampled(cells, 0, 10)] == pytest.approx([gain] * 10)


def test_the_ranking_leaves_out_what_was_heard_in_training(made):
    _, _, cells = made
    found, draws = matrix.gains(cells), matrix.resampled(cells, 0, 200)
    rows = matrix.ranking(found, draws)
    means = {a: np.mean([found[a, b] for b in "abc" if b != a]) for a in "abc"}
    assert [row["source"] for row in rows] == sorted(means, key=means.get, reverse=True)
    for row in rows:
        source = row["source"]
        assert row["mean_gain"] == pytest.approx(means[source])
        assert row["own_gain"] == found[source, source]
        drawn = [np.mean([draw[source, b] for b in "abc" if b != source]) for draw in draws]
        assert row["mean_gain_ci95"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
        assert row["mean_gain_ci95"][0] < row["mean_gain"] < row["mean_gain_ci95"][1]
    best = rows[0]["source"]
    assert rows[0]["behind_ci95"] is None
    for row in rows[1:]:
        of_draws = [
            np.mean([draw[best, b] for b in "abc" if b != best])
            - np.mean([draw[row["source"], b] for b in "abc" if b != row["source"]])
            for draw in draws
        ]
        assert row["behind_ci95"] == pytest.approx(np.percentile(of_draws, [2.5, 97.5]).tolist())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=12), st.lists(st.integers(0, 6), min_size=12, max_size=12))
def test_the_correlation_is_spearmans_and_its_p_counts_all_ways_to_name_the_languages(first, second):
    languages = "abcd"
    pairs = list(itertools.permutations(languages, 2))
    predictor, found = dict(zip(pairs, first, strict=True)), dict(zip(pairs, second, strict=True))
    figures = matrix.correlation(predictor, found | {(a, a): 99.0 for a in languages}, [found], 0)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert figures["spearman"] is None
        return
    rho = spearman(first, second)
    assert figures["spearman"] == pytest.approx(rho)
    assert figures["num_cells"] == 12
    others = []
    for names in itertools.permutations(languages):
        renamed = dict(zip(languages, names, strict=True))
        values = [predictor[renamed[a], renamed[b]] for a, b in pairs]
        others.append(abs(spearman(values, second)) >= abs(rho) - 1e-9)
    assert figures["num_permutations"] == len(others) == 24
    assert figures["p_permutation"] == pytest.approx(np.mean(others))
    assert figures["ci95"] == pytest.approx([rho, rho])


@pytest.mark.slow
def test_with_many_languages_permutations_are_drawn_and_no_p_is_zero():
    languages = [f"l{i}" for i in range(8)]
    pairs = list(itertools.permutations(languages, 2))
    values = {pair: float(i) for i, pair in enumerate(pairs)}
    figures = matrix.correlation(values, values, [values], 0)
    assert figures["spearman"] == pytest.approx(1.0)
    assert figures["num_permutations"] == 5040
    assert 0 < figures["p_permutation"] < 0.01
