"""One `finetune` artifact as the page shows it: what it trained, on what, and how the loss fell."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

MAX_KNOTS = 60
"""Points of a curve: more than that can't be told apart at its size."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One run of fine-tuning.

    Attributes:
        config: `settings.finetune` of config.json.
        metrics: metrics.json.
        curve: (step, loss): means over equal stretches of steps, each at the middle of its stretch.
        best_step: the step with the best dev BLEU, whose weights are kept; None where it was not measured.
        fisher: name of the fisher artifact; None without EWC.
    """

    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    curve: tuple[tuple[float, float], ...]
    num_steps: int
    best_step: int | None
    fisher: str | None

    @property
    def trained(self) -> str:
        """Which weights changed."""
        if rank := self.config["lora_rank"]:
            return f"LoRA, rank {rank}"
        return "decoder, token embeddings" if self.config["train_embeddings"] else "decoder"

    def polyline(self, width: float, height: float, highest: float) -> str:
        """The curve as SVG points: step 0 to the last over `width`, loss `highest` to 0 over `height`."""
        places = ((width * step / self.num_steps, height * (1 - loss / highest)) for step, loss in self.curve)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


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
        fisher=(config["fisher"] or name) if config["ewc_lambda"] else None,
    )


def _curve(log: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    num_knots = min(MAX_KNOTS, len(log))
    edges = [round(k * len(log) / num_knots) for k in range(num_knots + 1)]
    stretches = [log[start:end] for start, end in itertools.pairwise(edges)]
    return [(fmean(row["step"] for row in rows), fmean(row["loss"] for row in rows)) for rows in stretches]


def highest_loss(runs: Sequence[Training]) -> float:
    """The largest loss of all curves, so that all can share a scale; 1 where every loss is 0."""
    return max((loss for run in runs for _, loss in run.curve), default=0.0) or 1.0
