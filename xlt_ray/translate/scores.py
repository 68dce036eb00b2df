"""Scores of hypotheses: the content of metrics.json, and the comparison with an earlier run.

They depend only on the hypotheses, so a finished run can be scored again without translating again.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray import metrics
from xlt_ray.languages import Direction
from xlt_ray.store.schema import DETECTED, HYPOTHESIS
from xlt_ray.translate.comet import CometScores

Figures = dict[str, Any]


def by_direction(hypotheses: Iterable[pa.Table]) -> dict[str, pa.Table]:
    """Rows of HYPOTHESIS from many files, by direction."""
    rows = pa.concat_tables([HYPOTHESIS.empty_table(), *hypotheses])
    names = rows["direction"].unique().to_pylist()
    return {name: rows.filter(pc.equal(rows["direction"], name)) for name in names}


def bleu(hypotheses: Mapping[str, pa.Table]) -> dict[str, float]:
    """BLEU of every direction, including transcription, so that it can be compared with dev BLEU during training.

    Args:
        hypotheses: rows of HYPOTHESIS by direction.
    """
    return {
        name: metrics.bleu(rows["hypothesis"].to_pylist(), rows["reference"].to_pylist(), Direction.parse(name).target)
        for name, rows in hypotheses.items()
    }


def detected(hypotheses: Iterable[pa.Table]) -> dict[str, dict[str, float]] | None:
    """The fraction of each detected language, by direction, most frequent first.

    Args:
        hypotheses: rows of HYPOTHESIS, with the metadata of each file from `Translator.translate`.

    Returns:
        None if prompts named the source language, so nothing was detected.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for table in hypotheses:
        for direction, found in json.loads((table.schema.metadata or {}).get(DETECTED, "{}")).items():
            counts[direction].update(found)
    return {direction: _shares(found) for direction, found in counts.items()} or None


def _shares(counts: Counter[str]) -> dict[str, float]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {code: count / counts.total() for code, count in ordered}


def summarise(hypotheses: Mapping[str, pa.Table], spellings: Mapping[str, str]) -> Figures:
    """Scores of every direction, and their unweighted means by target. `comet` and `kept` are added later.

    Args:
        hypotheses: rows of HYPOTHESIS by direction (`fr-zh`).
        spellings: British to American, for English transcripts (`metrics.english_spellings`).
    """
    directions = {name: _scores(Direction.parse(name), rows, spellings) for name, rows in hypotheses.items()}
    return {"directions": directions, "means": _means(directions), "comet": None, "baseline": None, "kept": None}


def _scores(direction: Direction, rows: pa.Table, spellings: Mapping[str, str]) -> Figures:
    hypotheses, wanted = rows["hypothesis"].to_pylist(), rows["reference"].to_pylist()
    if not _is_translation(direction):
        num_empty = sum(not text.strip() for text in hypotheses)
        rate = metrics.error_rate(hypotheses, wanted, direction.target, spellings)
        return {**rate, "num": len(hypotheses), "empty_rate": num_empty / len(hypotheses)}
    scores = metrics.score(hypotheses, wanted, direction.target)
    sentences = rows["sentence_id"].to_pylist()
    return {
        **scores,
        "bleu_ci95": list(metrics.interval(hypotheses, wanted, direction.target, sentences=sentences)),
        "comet": None,
        "wer": None,
    }


def _is_translation(direction: Direction) -> bool:
    return direction.source != direction.target


def _means(directions: Mapping[str, Figures]) -> Figures:
    targets, rates = defaultdict(list), defaultdict(list)
    for name, scores in directions.items():
        if "measure" not in scores:
            targets[Direction.parse(name).target].append(scores)
        elif scores[scores["measure"]] is not None:
            rates[scores["measure"]].append(scores[scores["measure"]])
    means: Figures = {
        target: {
            **{key: fmean(score[key] for score in all_of) for key in ("bleu", "chrf")},
            "num_directions": len(all_of),
        }
        for target, all_of in targets.items()
    }
    if rates:
        counts = {"num_directions": sum(map(len, rates.values()))}
        means["transcription"] = {measure: fmean(values) for measure, values in rates.items()} | counts
    return means


def comet_rows(hypotheses: Mapping[str, pa.Table]) -> tuple[pa.Table, int]:
    """Translations with a source text for COMET, and the number of those without."""
    rows = [table for name, table in hypotheses.items() if _is_translation(Direction.parse(name))]
    table = pa.concat_tables([HYPOTHESIS.empty_table(), *rows])
    known = table.filter(pc.is_valid(table["text"]))
    return known, table.num_rows - known.num_rows


def add_comet(figures: Figures, directions: Sequence[str], scores: CometScores, num_without_text: int) -> None:
    """Add COMET's mean of every direction; null and the reason if it could not score.

    Scores that are there, of another model, outlive one that could not score.

    Args:
        figures: from `summarise`; modified in place.
        directions: (num,) direction of each scored row.
        scores: scores of these rows.
        num_without_text: number of translations that could not be scored because the source has no text.
    """
    if scores.reason and figures["comet"] and figures["comet"]["reason"] is None:
        return
    segments = defaultdict(list)
    for direction, segment in zip(directions, scores.segments or (), strict=scores.segments is not None):
        segments[direction].append(segment)
    for name, score in figures["directions"].items():
        if "measure" not in score:
            score["comet"] = fmean(segments[name]) if name in segments else None
    described = {key: getattr(scores, key) for key in ("model", "version", "reason")}
    figures["comet"] = {**described, "num_without_text": num_without_text}


def compare(after: Mapping[str, pa.Table], before: Mapping[str, pa.Table], spellings: Mapping[str, str]) -> Figures:
    """Retention and gain of a run compared with an earlier one, on the utterances that both have.

    `retained` is the fraction of BLEU that is left in a direction into English, which Whisper was trained on. The mean
    difference in these directions is backward transfer (Lopez-Paz and Ranzato 2017), negative if the model forgot;
    `gain` is the mean difference in the other directions.

    Args:
        after: rows of HYPOTHESIS by direction.
        before: rows of the earlier run.
        spellings: as in `summarise`.
    """
    directions: Figures = {}
    for name in after:
        if name in before and (shared := _shared(after[name], before[name])).num_rows:
            directions[name] = _compare(Direction.parse(name), shared, spellings)
    differences = defaultdict(list)
    for name, score in directions.items():
        if score["measure"] == "bleu":
            differences[Direction.parse(name).is_native].append(score["difference"])
    return {
        "directions": directions,
        "backward_transfer": fmean(differences[True]) if differences[True] else None,
        "gain": fmean(differences[False]) if differences[False] else None,
    }


def _shared(after: pa.Table, before: pa.Table) -> pa.Table:
    """Rows of `after` that are also in `before`, with the earlier hypothesis as column `before`."""
    earlier = dict(zip(before["utterance_id"].to_pylist(), before["hypothesis"].to_pylist(), strict=True))
    ids = after["utterance_id"].to_pylist()
    rows = after.filter(pa.array([name in earlier for name in ids], pa.bool_()))
    return rows.append_column("before", pa.array([earlier[name] for name in ids if name in earlier], pa.string()))


def _compare(direction: Direction, rows: pa.Table, spellings: Mapping[str, str]) -> Figures:
    hypotheses, hypotheses_before, wanted = (rows[name].to_pylist() for name in ("hypothesis", "before", "reference"))
    if not _is_translation(direction):
        now, then = (
            metrics.error_rate(texts, wanted, direction.target, spellings) for texts in (hypotheses, hypotheses_before)
        )
        measure = now["measure"]
        known = now[measure] is not None
        difference = now[measure] - then[measure] if known else None
        compared = {"measure": measure, "before": then[measure], "after": now[measure], "difference": difference}
        return {**compared, "num": len(wanted)}
    sentences = rows["sentence_id"].to_pylist()
    test = metrics.paired_bootstrap(hypotheses, hypotheses_before, wanted, direction.target, sentences=sentences)
    then, now = test["baseline_bleu"], test["bleu"]
    return {
        "measure": "bleu",
        "before": then,
        "after": now,
        "difference": test["difference"],
        "difference_ci95": test["difference_ci95"],
        "p_value": test["p_value"],
        "retained": now / then if direction.is_native and then else None,
        "num": len(wanted),
    }
