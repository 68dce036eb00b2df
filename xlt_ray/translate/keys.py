"""The figures of a translate run in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from xlt_ray.languages import Direction

_COMPARED = ("gain", "backward_transfer")


def keys(figures: Mapping[str, Any]) -> dict[str, float]:
    """Means over the directions, with the same keys before and after tuning.

    BLEU into English and elsewhere, chrF and COMET of all translations, the error rate of transcription (WER if any
    language has it), the fraction of empty texts, and gain and loss compared with a baseline.
    """
    scored = figures["directions"]
    texts = {name: found for name, found in scored.items() if "measure" not in found}
    transcribed = figures["means"].get("transcription", {})
    measure = next((measure for measure in ("wer", "cer") if measure in transcribed), None)
    values = {
        "bleu/into_en": _mean(found["bleu"] for name, found in texts.items() if _is_native(name)),
        "bleu/elsewhere": _mean(found["bleu"] for name, found in texts.items() if not _is_native(name)),
        "chrf/mean": _mean(found["chrf"] for found in texts.values()),
        "comet/mean": _mean(found["comet"] for found in texts.values()),
        **({f"{measure}/mean": transcribed[measure]} if measure else {}),
        "empty_rate/mean": _mean(found["empty_rate"] for found in scored.values()),
        **{f"kept/{key}": (figures["kept"] or {}).get(key) for key in _COMPARED},
    }
    return {key: value for key, value in values.items() if value is not None}


def model_keys(figures: Mapping[str, Any], split: str, learned: Sequence[str]) -> dict[str, float]:
    """The metrics by which models are compared: BLEU of learned directions, into English, and of others (transfer).

    Args:
        figures: content of metrics.json.
        split: the translated split, as in `test/bleu_learned`.
        learned: directions that the model was trained on.
    """
    texts = {name: found for name, found in figures["directions"].items() if "measure" not in found}
    kinds = {name: _kind(name, learned) for name in texts}
    values = {
        f"bleu_{kind}": _mean(found["bleu"] for name, found in texts.items() if kinds[name] == kind)
        for kind in ("learned", "transfer", "into_en")
    }
    values |= {"comet": _mean(found["comet"] for found in texts.values())}
    values |= {key: (figures["kept"] or {}).get(key) for key in _COMPARED}
    return {f"{split}/{key}": value for key, value in values.items() if value is not None}


def _kind(name: str, learned: Sequence[str]) -> str:
    return "learned" if name in learned else "into_en" if _is_native(name) else "transfer"


def _is_native(name: str) -> bool:
    return Direction.parse(name).is_native


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of known values; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def columns(figures: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The scores of every direction, and the comparison with the baseline, as columns; null if unknown."""
    compared = (figures["kept"] or {"directions": {}})["directions"]
    rows = [_row(name, found, compared.get(name, {})) for name, found in figures["directions"].items()]
    return {key: [row[key] for row in rows] for key in rows[0]}


def _row(name: str, scores: Mapping[str, Any], compared: Mapping[str, Any]) -> dict[str, Any]:
    measure = scores.get("measure")
    low, high = scores.get("bleu_ci95") or (None, None)
    return {
        "direction": name,
        "bleu": scores.get("bleu"),
        "bleu_low": low,
        "bleu_high": high,
        **{key: scores.get(key) for key in ("chrf", "comet")},
        **{key: scores[key] if measure == key else None for key in ("wer", "cer")},
        **{key: scores[key] for key in ("empty_rate", "num")},
        **{key: compared.get(key) for key in ("before", "difference", "p_value", "retained")},
    }
