"""The figures of a retrieval run as MLflow keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def keys(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of metrics.json for MLflow, keyed so that two runs line up: `retrieval/r1/en-fr`."""
    values = {
        f"retrieval/{key}/{pair}": figures[key]
        for pair, figures in (*metrics["pairs"].items(), ("mean", metrics["mean"]))
        for key in ("r1", "r5", "r10", "mrr")
    }
    values["retrieval/chance_r1/mean"] = metrics["mean"]["chance_r1"]
    for name, figures in metrics["baselines"].items():
        values[f"retrieval/{name}/r1/mean"] = figures["mean"]["r1"]
    return values


def table_columns(metrics: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The figures of every pair as columns."""
    rows = [{"pair": pair, **figures} for pair, figures in metrics["pairs"].items()]
    return {key: [row[key] for row in rows] for key in rows[0]}
