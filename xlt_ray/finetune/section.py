"""The section of a `finetune` artifact in the report: its weights, its data, and its loss curve."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from xlt_ray.charts.curves import Curve, curves
from xlt_ray.languages import Direction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_KNOTS = 60
"""Points of a curve; more cannot be distinguished at its size."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One run of fine-tuning.

    Attributes:
        config: `settings.finetune` of config.json.
        metrics: metrics.json.
        curve: (step, loss): means over intervals of equal length, each at the middle of its interval.
        best_step: the step with the best dev BLEU, whose weights are kept; None if it was not measured.
        dev: (step, BLEU) of each evaluated direction, the learned ones first.
        fisher: name of the fisher artifact; None without EWC.
    """

    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    curve: tuple[tuple[float, float], ...]
    num_steps: int
    best_step: int | None
    dev: dict[str, tuple[tuple[int, float], ...]]
    fisher: str | None

    @property
    def trained(self) -> str:
        """Which weights were trained."""
        if rank := self.config["lora_rank"]:
            return f"LoRA, rank {rank}"
        return "decoder, token embeddings" if self.config["train_embeddings"] else "decoder"

    def loss_curve(self, highest: float) -> Figure:
        """The loss by step, 0 to `highest`."""
        return curves([Curve(kind="new", points=self.curve, has_marks=False)], self.num_steps, highest, self.best_step)

    def dev_curves(self, highest: float) -> Figure:
        """The dev BLEU of each direction by step, 0 to `highest`, the learned ones on top."""
        lines = [self._dev_curve(direction) for direction in reversed(self.dev)]
        return curves(lines, self.num_steps, highest, self.best_step)

    def _dev_curve(self, direction: str) -> Curve:
        points = self.dev[direction]
        (first, before), (last, after) = points[0], points[-1]
        title = f"{direction.replace('-', ' → ')}: BLEU {before:.1f} at step {first:,}, {after:.1f} at step {last:,}"
        return Curve(kind=self.kind(direction), points=points, title=title)

    def kind(self, direction: str) -> str:
        """The kind of an evaluated direction: `new` is learned, `old` is into English, `other` is neither."""
        if direction in self.config["directions"]:
            return "new"
        return "old" if Direction.parse(direction).is_native else "other"


def read_training(
    name: str, config: Mapping[str, Any], metrics: Mapping[str, Any], log: Sequence[Mapping[str, Any]]
) -> Training:
    """The run whose files these are.

    Args:
        name: of the artifact.
        config: `settings.finetune` of its config.json.
        metrics: its metrics.json.
        log: its log.json, one row a step.
    """
    measured = [row for row in log if "dev_bleu" in row]
    return Training(
        config=config,
        metrics=metrics,
        curve=tuple(_curve(log)),
        num_steps=log[-1]["step"],
        best_step=max(measured, key=lambda row: row["dev_bleu"])["step"] if measured else None,
        dev=_dev(measured, config["directions"]),
        fisher=(config["fisher"] or name) if config["ewc_lambda"] else None,
    )


def _curve(log: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    num_knots = min(MAX_KNOTS, len(log))
    edges = [round(k * len(log) / num_knots) for k in range(num_knots + 1)]
    stretches = [log[start:end] for start, end in itertools.pairwise(edges)]
    return [(fmean(row["step"] for row in rows), fmean(row["loss"] for row in rows)) for rows in stretches]


def _dev(measured: Sequence[Mapping[str, Any]], learned: Sequence[str]) -> dict[str, tuple[tuple[int, float], ...]]:
    names = {key.partition("/")[2] for row in measured for key in row if key.startswith("dev_bleu/")}
    ordered = sorted(names, key=lambda name: (name not in learned, name))
    return {
        name: tuple((row["step"], row[f"dev_bleu/{name}"]) for row in measured if f"dev_bleu/{name}" in row)
        for name in ordered
    }


def highest_dev(runs: Sequence[Training]) -> float:
    """The largest dev BLEU of any direction of all runs; 1 where every one is 0."""
    return max((bleu for run in runs for points in run.dev.values() for _, bleu in points), default=0.0) or 1.0


def highest_loss(runs: Sequence[Training]) -> float:
    """The largest loss of all curves, so that all can share a scale; 1 where every loss is 0."""
    return max((loss for run in runs for _, loss in run.curve), default=0.0) or 1.0
