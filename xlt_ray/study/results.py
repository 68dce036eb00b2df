"""The results of a study: metrics.json, tables, MLflow. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from xlt_ray.job.tracking import Tracker
from xlt_ray.study.matrix import Cell

Figures = Mapping[str, Any]

PREDICTORS = {"r1": "R@1", "fisher_distance": "Fisher distance"}


def transfer(scores: Mapping[str, Figures], sources: Sequence[str], target: str) -> dict[str, Any]:
    """The cells of the matrix, from the metrics.json of each source's translations."""
    return {
        trained: {tested: _cell(run, f"{tested}-{target}") for tested in sources} for trained, run in scores.items()
    }


def _cell(scores: Figures, direction: str) -> dict[str, Any]:
    score, compared = scores["directions"][direction], scores["kept"]["directions"][direction]
    return {
        "bleu": score["bleu"],
        "bleu_ci95": score["bleu_ci95"],
        "gain": compared["difference"],
        "gain_ci95": compared["difference_ci95"],
        "p_value": compared["p_value"],
        "num": compared["num"],
    }


def nested(values: Mapping[Cell, float]) -> dict[str, dict[str, float]]:
    """Values by training language, then by test language."""
    found: dict[str, dict[str, float]] = {}
    for (trained, tested), value in values.items():
        found.setdefault(trained, {})[tested] = value
    return found


def rows(figures: Figures) -> list[dict[str, Any]]:
    """A row of CELL for each cell."""
    pairs = itertools.product(figures["sources"], repeat=2)
    return [
        {
            "trained": trained,
            "heard": tested,
            **{key: figures["transfer"][trained][tested][key] for key in ("bleu", "gain", "p_value", "num")},
            **{name: figures["predictors"][name].get(trained, {}).get(tested) for name in PREDICTORS},
        }
        for trained, tested in pairs
    ]


def log(tracker: Tracker, figures: Figures, uri: str) -> None:
    """Log the figures to MLflow: means as metrics, cells and sources as tables."""
    cells, ranking = rows(figures), figures["ranking"]
    tracker.metrics(dict(keys(figures)))
    tracker.table({name: [row[name] for row in cells] for name in cells[0]}, "cells.json")
    tracker.table({name: [row[name] for row in ranking] for name in ("source", "mean_gain")}, "ranking.json")
    tracker.describe(f"{sentence(figures)}\n\nArtifact: `{uri}`")


def keys(figures: Figures) -> Iterator[tuple[str, float]]:
    """Numbers for MLflow: mean gains on the training language and on others, that of the best source, correlations."""
    cells = rows(figures)
    yield "gain/trained", fmean(row["gain"] for row in cells if row["trained"] == row["heard"])
    yield "gain/others", fmean(row["gain"] for row in cells if row["trained"] != row["heard"])
    yield "gain/best_source", figures["ranking"][0]["mean_gain"]
    for name, found in figures["correlations"].items():
        if found["spearman"] is not None:
            yield f"correlation/{name}", found["spearman"]


def sentence(figures: Figures) -> str:
    """The outcome in one sentence or two."""
    best = figures["ranking"][0]
    low, high = best["mean_gain_ci95"]
    correlations = [
        f"{PREDICTORS[name]} {found['spearman']:+.2f} (p {found['p_permutation']:.2f})"
        for name, found in figures["correlations"].items()
        if found["spearman"] is not None
    ]
    gain = f"{best['mean_gain']:+.1f} BLEU ({low:+.1f} to {high:+.1f})"
    return (
        f"Into {figures['target']}, training on {best['source']} gains most on the others: {gain}. "
        f"Rank correlation with the gains: {', '.join(correlations) or 'none'}."
    )


def as_table(figures: Figures) -> Table:
    """The transfer matrix: gains in BLEU, the BLEU of the untouched model, and the mean over other languages."""
    sources = figures["sources"]
    table = Table(title=f"Gain in BLEU into {figures['target']} over the untouched model", title_justify="left")
    table.caption = "Rows: trained on; columns: tested on. *: the 95% interval excludes 0. " + _caption(figures)
    table.caption_justify = "left"
    table.add_column("trained on")
    for tested in sources:
        table.add_column(f"on {tested}", justify="right")
    table.add_column("mean of the others", justify="right")
    before = [f"{figures['before'][tested]['bleu']:.1f}" for tested in sources]
    table.add_row("(BLEU before)", *before, "", end_section=True)
    for row in figures["ranking"]:
        low, high = row["mean_gain_ci95"]
        cells = [_text(figures["transfer"][row["source"]][tested]) for tested in sources]
        table.add_row(row["source"], *cells, f"{row['mean_gain']:+.1f} ({low:+.1f} to {high:+.1f})")
    return table


def _text(cell: Figures) -> str:
    low, high = cell["gain_ci95"]
    return f"{cell['gain']:+.1f}{'*' if low > 0 or high < 0 else ''}"


def _caption(figures: Figures) -> str:
    lines = []
    for name, found in figures["correlations"].items():
        if found["spearman"] is not None:
            low, high = found["ci95"]
            lines.append(
                f"{PREDICTORS[name]}: Spearman {found['spearman']:+.2f} ({low:+.2f} to {high:+.2f}), permutation p "
                f"{found['p_permutation']:.2f}, {found['num_cells']} cells of {len(figures['sources'])} languages."
            )
    return " ".join(lines)
