"""The figures of a mining run as MLflow keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AGAINST = ("precision", "recall", "f1")


def keys(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of metrics.json for MLflow, keyed so that two runs line up: `mine/num_mined/en-fr`."""
    values: dict[str, float] = {}
    for pair, figures in metrics["pairs"].items():
        values[f"mine/num_mined/{pair}"] = figures["num_mined"]
        if figures["against_corpus"]:
            values |= {f"mine/{key}/{pair}": figures["against_corpus"][key] for key in _AGAINST}
        for direction, recall in figures["candidate_recall"].items():
            if recall:
                values[f"mine/candidate_recall/{direction}"] = recall["first"]
    return values


def table_columns(metrics: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What was mined of every pair of languages, as columns."""
    shown = ("num_first", "num_second", "num_found", "num_mined")
    rows = [{"pair": pair, **{key: figures[key] for key in shown}} for pair, figures in metrics["pairs"].items()]
    return {key: [row[key] for row in rows] for key in rows[0]}
