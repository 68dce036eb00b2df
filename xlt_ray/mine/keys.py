"""The figures of a mining run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from xlt_ray.job.tracking import Tracker

_AGAINST = ("precision", "recall", "f1")
_COUNTS = ("num_first", "num_second", "num_found", "num_mined")


def log(tracker: Tracker, metrics: Mapping[str, Any]) -> None:
    """Log the means, and a table of every pair of languages."""
    tracker.metrics(keys(metrics))
    tracker.table(table_columns(metrics), "mine.json")


def keys(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The number of mined pairs over all pairs of languages, and the means of known figures."""
    pairs = metrics["pairs"].values()
    values: dict[str, float] = {"mine/num_mined": sum(figures["num_mined"] for figures in pairs)}
    known = [figures["against_corpus"] for figures in pairs if figures["against_corpus"]]
    if known:
        values |= {f"mine/{key}/mean": fmean(told[key] for told in known) for key in _AGAINST}
    held = [recall["first"] for figures in pairs for recall in figures["candidate_recall"].values() if recall]
    return values | ({"mine/candidate_recall/mean": fmean(held)} if held else {})


def candidates_hold(metrics: Mapping[str, Any], figures: Mapping[str, Any]) -> float | str:
    """The fraction of the nearest recordings that are candidates, mean of both directions; or why there is none.

    Args:
        metrics: of the run.
        figures: of two languages.
    """
    found = [recall["first"] for recall in figures["candidate_recall"].values() if recall]
    if found:
        return fmean(found)
    num = metrics["candidates"]
    is_exact = num == "all" or num >= min(figures["num_first"], figures["num_second"])
    return "all" if is_exact else "not measured"


def table_columns(metrics: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The results of every pair of languages, as columns; null for unknown figures."""
    rows = [{"pair": pair, **_row(pair, figures)} for pair, figures in metrics["pairs"].items()]
    return {key: [row[key] for row in rows] for key in rows[0]}


def _row(pair: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    told = figures["against_corpus"] or {}
    back = "-".join(reversed(pair.split("-", 1)))
    recall = {way: (figures["candidate_recall"].get(way) or {}).get("first") for way in (pair, back)}
    return {
        **{key: figures[key] for key in _COUNTS},
        **{key: told.get(key) for key in _AGAINST},
        "candidate_recall": recall[pair],
        "candidate_recall_back": recall[back],
    }
