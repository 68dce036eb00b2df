"""The figures of a retrieval run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlt_ray.job.tracking import Tracker

_OVER_PAIRS = ("r1", "r5", "r10", "mrr", "chance_r1")


def log(tracker: Tracker, metrics: Mapping[str, Any]) -> None:
    """Log the means, and tables of every pair and every score."""
    tracker.metrics(keys(metrics))
    for file, columns in tables(metrics).items():
        tracker.table(columns, file)


def keys(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The means over pairs, with chance and mean pooling: `retrieval/r1/mean`."""
    values = {f"retrieval/{key}/mean": metrics["mean"][key] for key in _OVER_PAIRS}
    if pooled := metrics["baselines"].get("mean_pool"):
        values["retrieval/mean_pool/r1/mean"] = pooled["mean"]["r1"]
    return values


def tables(metrics: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """The figures of every pair, and the means of every score, as columns, by file."""
    lead = f"{metrics['score']}-{metrics['mode']}" if metrics.get("mode") else metrics["score"]
    scored = {lead: metrics, **metrics["baselines"]}
    pairs = [
        {"pair": pair, **{key: value for key, value in figures.items() if key != "lead_ci95"}}
        for pair, figures in metrics["pairs"].items()
    ]
    scores = [{"score": name, **{key: found["mean"][key] for key in _OVER_PAIRS}} for name, found in scored.items()]
    return {"retrieval.json": _columns(pairs), "scores.json": _columns(scores)}


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}
