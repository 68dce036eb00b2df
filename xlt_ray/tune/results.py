"""The results of a search: the best trials, the importance of settings, and the tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table

from xlt_ray.job.tracking import Tracker
from xlt_ray.metrics import rank_correlation
from xlt_ray.tune.config import SCALES, Axis, TuneConfig
from xlt_ray.tune.halving import Point, front

Row = Mapping[str, Any]
Figures = dict[str, Any]

_SHORT = {
    "learning_rate": "lr",
    "ewc_lambda": "λ",
    "replay_fraction": "replay",
    "epochs": "epochs",
    "lora_rank": "LoRA",
}


def outcome(measured: Sequence[Row], kept: Sequence[str]) -> Figures:
    """The scores of a trial if it ended now: those of the weights with the best dev BLEU so far.

    Args:
        measured: the rows of the log with dev BLEU.
        kept: directions to preserve.
    """
    best = max(measured, key=lambda row: row["dev_bleu"])
    bleu = {name.removeprefix("dev_bleu/"): row for name, row in best.items() if name.startswith("dev_bleu/")}
    return {
        "step": int(best["step"]),
        "new_bleu": best["dev_bleu"],
        "old_bleu": fmean(bleu[direction] for direction in kept),
        "bleu": bleu,
    }


def curve(measured: Sequence[Row], kept: Sequence[str]) -> list[Figures]:
    """The outcome after each evaluation."""
    outcomes = [outcome(measured[: count + 1], kept) for count in range(len(measured))]
    steps = [int(row["step"]) for row in measured]
    return [
        {"step": step, "new_bleu": outcome["new_bleu"], "old_bleu": outcome["old_bleu"]}
        for step, outcome in zip(steps, outcomes, strict=True)
    ]


def point(figures: Row, config: TuneConfig) -> Point:
    """The objectives of a trial; higher is better."""
    new, old = figures["new_bleu"], figures["old_bleu"]
    weight = config.gain_weight
    points: dict[str, Point] = {
        "gain": (new,),
        "kept": (old,),
        "mix": (weight * new + (1 - weight) * old,),
        "pareto": (new, old),
    }
    return points[config.objective]


def choose(trials: Iterable[Row], config: TuneConfig) -> list[int]:
    """Numbers of the trials to score on the test split, best first.

    If a front has more trials than requested, evenly spaced ones along it are chosen, including both ends.
    """
    points = {row["trial"]: point(row, config) for row in trials if row["status"] == "finished"}
    if config.objective != "pareto":
        return sorted(points, key=lambda trial: points[trial], reverse=True)[: config.num_chosen]
    best = sorted(front(points), key=lambda trial: points[trial], reverse=True)
    if config.num_chosen >= len(best):
        return best
    places = np.linspace(0, len(best) - 1, config.num_chosen) if config.num_chosen > 1 else [0]
    return [best[round(place)] for place in places]


def scores_of(bleu: Mapping[str, float], learned: Sequence[str], kept: Sequence[str]) -> Figures:
    """Mean BLEU of the learned directions and of those to preserve, from the BLEU of every direction."""
    return {
        "new_bleu": fmean(bleu[direction] for direction in learned),
        "old_bleu": fmean(bleu[direction] for direction in kept),
    }


def against(scores: Row, before: Row) -> Figures:
    """`gain` in BLEU, and `kept` as a fraction, null if there was nothing to preserve."""
    kept = scores["old_bleu"] / before["old_bleu"] if before["old_bleu"] else None
    return {"gain": scores["new_bleu"] - before["new_bleu"], "kept": kept}


def importance(trials: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Spearman's rank correlation of each searched setting with gain and with kept, over the finished trials.

    Null if a setting or a figure is the same in all of them.
    """
    done = [row for row in trials if row["status"] == "finished"]
    names = done[0]["settings"] if done else ()
    return {
        name: {
            figure: rank_correlation([row["settings"][name] for row in done], [row[figure] for row in done])
            for figure in ("gain", "kept")
        }
        for name in names
    }


def described(space: Mapping[str, Axis]) -> Figures:
    """The space as plain JSON: values, or the ends of a range and its scale."""
    return {
        name: list(axis.values)
        if axis.bounds is None
        else {"low": axis.bounds[0], "high": axis.bounds[1], "scale": SCALES[name]}
        for name, axis in space.items()
    }


def words(settings: Mapping[str, float]) -> str:
    """Settings as short text: `lr 3e-05, λ 10`."""
    return ", ".join(f"{_SHORT[name]} {value:g}" for name, value in settings.items())


def sentence(figures: Row) -> str:
    """The outcome in one sentence."""
    counts = {
        status: sum(trial["status"] == status for trial in figures["trials"]) for status in ("finished", "stopped")
    }
    num_failed = sum(trial["status"] == "failed" for trial in figures["trials"])
    failed = f", {num_failed} failed" if num_failed else ""
    chosen = [trial for trial in figures["trials"] if trial["chosen"]]
    best = "; ".join(
        f"{words(trial['settings'])}: gain {trial['gain']:+.1f}, kept {_percent(trial['kept'])}" for trial in chosen
    )
    return (
        f"{len(figures['trials'])} trials, {counts['finished']} finished, {counts['stopped']} stopped{failed}. "
        f"Best on dev by {figures['objective']}: {best}."
    )


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.0f} %"


def as_table(figures: Row) -> Table:
    """All trials, largest gain first; chosen trials with their scores on the test split."""
    before = figures["baseline"]
    table = Table(title="trials, scored on dev", title_justify="left", caption_justify="left")
    table.caption = (
        f"untouched model: new BLEU {before['dev']['new_bleu']:.1f}, old BLEU {before['dev']['old_bleu']:.1f} on dev; "
        f"{before['test']['new_bleu']:.1f} and {before['test']['old_bleu']:.1f} on test. *: Pareto front, >: chosen"
    )
    table.add_column("")
    table.add_column("trial")
    for name in figures["space"]:
        table.add_column(_SHORT[name], justify="right")
    table.add_column("status")
    for column in ("steps", "new BLEU", "gain", "old BLEU", "kept %", "test gain", "test kept %"):
        table.add_column(column, justify="right")
    for trial in sorted(
        figures["trials"], key=lambda trial: trial["gain"] if trial["gain"] is not None else -np.inf, reverse=True
    ):
        mark = ">" if trial["chosen"] else "*" if trial["on_front"] else ""
        settings = [f"{trial['settings'][name]:g}" for name in figures["space"]]
        table.add_row(mark, trial["name"], *settings, trial["status"], *_cells(trial))
    return table


def _cells(trial: Row) -> list[str]:
    if trial["status"] == "failed":
        return [""] * 7
    test = trial["test"] or {"gain": None, "kept": None}
    numbers = (trial["new_bleu"], trial["gain"], trial["old_bleu"])
    scores = [str(trial["num_steps"]), *(f"{number:.1f}" for number in numbers), _percent(trial["kept"])]
    return [*scores, "" if test["gain"] is None else f"{test['gain']:+.1f}", _percent(test["kept"])]


def log(tracker: Tracker, figures: Row, uri: str) -> None:
    """Log the figures of the chosen trials, and a table of all trials, to MLflow."""
    tracker.metrics(keys(figures))
    tracker.table(columns(figures), "trials.json")
    tracker.describe(f"{sentence(figures)}\n\nArtifact: `{uri}`")


def keys(figures: Row) -> dict[str, float]:
    """Numbers for MLflow: the number of trials, and gain and retention of the best one on the test split."""
    test = next(trial["test"] for trial in figures["trials"] if trial["name"] == figures["best"])
    kept = {} if test["kept"] is None else {"kept/share": test["kept"]}
    return {"kept/gain": test["gain"], "tune/num_trials": len(figures["trials"]), **kept}


def columns(figures: Row) -> dict[str, list[Any]]:
    """The trials as columns of plain values."""
    names = ("name", "status", "num_steps", "new_bleu", "gain", "old_bleu", "kept", "on_front", "chosen")
    table = {name: [trial[name] for trial in figures["trials"]] for name in names}
    return table | {name: [trial["settings"][name] for trial in figures["trials"]] for name in figures["space"]}
