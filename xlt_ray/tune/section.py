"""One `tune` artifact as the page shows it: its trials in order, their plane, and their curves."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlt_ray.charts.plane import PLANE, Axis, Frame, Label, Place, axes, curve, cut, path, place_labels, staircase
from xlt_ray.translate.recipe import general

Row = Mapping[str, Any]

STATUSES = ("finished", "stopped", "failed")
OBJECTIVES = {
    "pareto": "gain and kept together",
    "gain": "gain",
    "kept": "kept",
    "mix": "a weighted mean of new and old BLEU",
}
_NAMES = {"learning_rate": "lr", "ewc_lambda": "EWC λ", "replay_fraction": "replay", "lora_rank": "LoRA rank"}
_STYLES = {"finished": 1, "stopped": 3}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrialMark:
    """A trial in the plane: where it is, the style of its status, and its label, if it was chosen and found room."""

    trial: Row
    style: int
    x: float
    y: float
    title: str
    label: Label | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlane:
    """The plane of a search, in SVG units. x is kept in percent, y is gain in BLEU.

    Attributes:
        front: corners of the staircase of the finished trials; empty where none finished.
    """

    frame: Frame
    x: Axis
    y: Axis
    marks: list[TrialMark]
    front: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """One search.

    Attributes:
        figures: metrics.json.
        trials: finished, then stopped, then failed ones, each with the largest gain first.
    """

    figures: Row
    trials: tuple[Row, ...]

    @property
    def settings(self) -> list[str]:
        """Names of the settings that were searched."""
        return list(self.figures["space"])

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by status, without those that no trial has."""
        counts = Counter(trial["status"] for trial in self.trials)
        return {status: counts[status] for status in STATUSES if counts[status]}

    @property
    def chosen(self) -> list[Row]:
        """Trials that were scored on the test split."""
        return [trial for trial in self.trials if trial["chosen"]]

    @property
    def drawn(self) -> list[Row]:
        """Trials with a curve."""
        return [trial for trial in self.trials if trial["curve"]]

    @property
    def last_step(self) -> int:
        """The end of the longest curve."""
        return max((point["step"] for trial in self.drawn for point in trial["curve"]), default=1)

    @property
    def highest(self) -> float:
        """The largest BLEU of all curves and of the baseline, so that all can share a scale; 1 where all is 0."""
        scored = [self.figures["baseline"]["dev"], *(point for trial in self.drawn for point in trial["curve"])]
        return max(max(trial["new_bleu"], trial["old_bleu"]) for trial in scored) or 1.0

    def curve(self, trial: Row, figure: str, width: float, height: float) -> list[Place]:
        """Places of `new_bleu` or `old_bleu` by step, in the scale that all trials share."""
        points = [(point["step"], point[figure]) for point in trial["curve"]]
        return curve(points, self.last_step, self.highest, width, height)

    @property
    def chance(self) -> float | None:
        """Between unrelated figures, 95% of the rank correlations over as many trials are not farther from 0.

        1.96 / sqrt(n - 1), since a rank correlation of unrelated figures has the variance 1 / (n - 1). None where that
        is more than 1, so that even a perfect order could be chance.
        """
        num = self.counts.get("finished", 0)
        return 1.96 / math.sqrt(num - 1) if num > 4 else None


def read_search(figures: Row) -> Search:
    """The search whose metrics.json this is."""
    return Search(figures=figures, trials=tuple(sorted(figures["trials"], key=_order)))


def _order(trial: Row) -> tuple[int, float, int]:
    gain = trial["gain"]
    return STATUSES.index(trial["status"]), -gain if gain is not None else 0.0, trial["trial"]


def objective_name(objective: str) -> str:
    """Display name of the objective."""
    return OBJECTIVES.get(objective, objective)


def setting_name(setting: str) -> str:
    """A setting as the head of a column: `ewc_lambda` is EWC λ."""
    return _NAMES.get(setting, setting)


def setting_value(value: float | None, setting: str) -> str:
    """The value of a setting: 3e-5, 25% of replay; a LoRA rank of 0 or none is the whole decoder."""
    if setting == "lora_rank":
        return general(value) if value else "whole decoder"
    if value is None:
        return "–"
    return f"{general(100 * value)}%" if setting == "replay_fraction" else general(value)


def trial_plane(search: Search) -> TrialPlane | None:
    """Lay out all trials that have both figures; None where none has."""
    trials = [trial for trial in search.trials if trial["gain"] is not None and trial["kept"] is not None]
    if not trials:
        return None
    x, y = axes(PLANE, [100 * trial["kept"] for trial in trials] + [100.0], [t["gain"] for t in trials] + [0.0])
    placed = [(x.place(100 * trial["kept"]), y.place(trial["gain"])) for trial in trials]
    best = [at for trial, at in zip(trials, placed, strict=True) if trial["on_front"]]
    stairs = staircase(best, PLANE) if best else []
    labels = _labels(trials, placed, (x.place(100), y.place(0)), stairs)
    marks = [
        TrialMark(trial=trial, style=_STYLES[trial["status"]], x=at[0], y=at[1], title=_title(trial), label=label)
        for trial, at, label in zip(trials, placed, labels, strict=True)
    ]
    return TrialPlane(frame=PLANE, x=x, y=y, marks=marks, front=path(stairs))


def _labels(
    trials: Sequence[Row], placed: Sequence[Place], baseline: Place, stairs: Sequence[Place]
) -> list[Label | None]:
    """Names beside the chosen trials; None for the others."""
    named = [k for k, trial in enumerate(trials) if trial["chosen"]]
    others = [at for k, at in enumerate(placed) if k not in named]
    texts = [cut(trials[k]["name"]) for k in named]
    labels = place_labels([placed[k] for k in named], texts, [baseline, *others], [stairs])
    found = dict(zip(named, labels, strict=True))
    return [found.get(k) for k in range(len(trials))]


def _title(trial: Row) -> str:
    settings = ", ".join(
        f"{setting_name(name)} {setting_value(value, name)}" for name, value in trial["settings"].items()
    )
    figures = f"kept {100 * trial['kept']:.1f}%, gain {trial['gain']:+.2f} BLEU"
    return f"{trial['name']}, {trial['status']}: {settings}; {figures}"
