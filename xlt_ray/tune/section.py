"""The section of a `tune` artifact in the report: its trials, their gain and retention, and their curves."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xlt_ray.charts import plane
from xlt_ray.charts.curves import Curve, curves
from xlt_ray.charts.labels import label_marks
from xlt_ray.charts.style import LIGHT
from xlt_ray.charts.svg import tag
from xlt_ray.translate.recipe import general

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

STATUSES = ("finished", "stopped", "failed")
OBJECTIVES = {
    "pareto": "gain and kept together",
    "gain": "gain",
    "kept": "kept",
    "mix": "a weighted mean of new and old BLEU",
}
_NAMES = {"learning_rate": "lr", "ewc_lambda": "EWC λ", "replay_fraction": "replay", "lora_rank": "LoRA rank"}
STYLES = {"finished": 1, "stopped": 3}
"""The mark of a trial in the plot."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """One search.

    Attributes:
        figures: metrics.json.
        trials: finished, then stopped, then failed trials, each group with the largest gain first.
    """

    figures: Row
    trials: tuple[Row, ...]

    @property
    def settings(self) -> list[str]:
        """Names of the searched settings."""
        return list(self.figures["space"])

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by status, only for statuses that occur."""
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
        """The last step of the longest curve."""
        return max((point["step"] for trial in self.drawn for point in trial["curve"]), default=1)

    @property
    def highest(self) -> float:
        """The largest BLEU of all curves and of the baseline, so that all can share a scale; 1 if all are 0."""
        scored = [self.figures["baseline"]["dev"], *(point for trial in self.drawn for point in trial["curve"])]
        return max(max(trial["new_bleu"], trial["old_bleu"]) for trial in scored) or 1.0

    def curves(self, trial: Row) -> Figure:
        """New and old BLEU of a trial by step, on the scale of all trials, with those of the untouched model."""
        return curves([self._curve(trial, kind) for kind in ("new", "old")], self.last_step, self.highest)

    def _curve(self, trial: Row, kind: str) -> Curve:
        points = [(point["step"], point[f"{kind}_bleu"]) for point in trial["curve"]]
        title = f"{kind}: {points[-1][1]:.1f} at step {points[-1][0]:,}"
        return Curve(kind=kind, points=points, title=title, level=self.figures["baseline"]["dev"][f"{kind}_bleu"])

    @property
    def chance(self) -> float | None:
        """The bound within which 95% of the rank correlations of unrelated figures lie, for this number of trials.

        1.96 / sqrt(n - 1), because a rank correlation of unrelated figures has the variance 1 / (n - 1). None if this
        exceeds 1, so that even a perfect order could be chance.
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
    """The column name of a setting: `ewc_lambda` is EWC λ."""
    return _NAMES.get(setting, setting)


def setting_value(value: float | None, setting: str) -> str:
    """The value of a setting: 3e-5, 25% of replay; a LoRA rank of 0 or none is the whole decoder."""
    if setting == "lora_rank":
        return general(value) if value else "whole decoder"
    if value is None:
        return "–"
    return f"{general(100 * value)}%" if setting == "replay_fraction" else general(value)


def trial_plane(search: Search) -> Figure | None:
    """All trials with both figures, the front of the finished ones, and rings around chosen ones; None without any."""
    trials = [trial for trial in search.trials if trial["gain"] is not None and trial["kept"] is not None]
    if not trials:
        return None
    kept = ", ".join(search.figures["kept_directions"])
    figure, axes = plane.new_plane(f"kept of {kept}, % of the untouched model's mean BLEU")
    plane.origin(axes, (100, 0), f"{search.figures['baseline']['dev']['name']}, the untouched model")
    for trial in trials:
        plane.mark(axes, _place(trial), STYLES[trial["status"]], _title(trial))
    chosen = [trial for trial in trials if trial["chosen"]]
    for trial in chosen:
        ring = axes.plot(*_place(trial), "o", markersize=13.6, color="none", markeredgecolor=LIGHT["ours"], zorder=3)
        tag(ring[0], "ring")
    if best := [_place(trial) for trial in trials if trial["on_front"]]:
        plane.front(axes, best)
    label_marks(axes, [(_place(trial), trial["name"]) for trial in chosen])
    return figure


def _place(trial: Row) -> plane.Place:
    return 100 * trial["kept"], trial["gain"]


def _title(trial: Row) -> str:
    settings = ", ".join(
        f"{setting_name(name)} {setting_value(value, name)}" for name, value in trial["settings"].items()
    )
    figures = f"kept {100 * trial['kept']:.1f}%, gain {trial['gain']:+.2f} BLEU"
    return f"{trial['name']}, {trial['status']}: {settings}; {figures}"
