"""The results of a finetune run: metrics.json, curves in MLflow, the table at the end of the job."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.job.commands import command
from xlt_ray.job.tracking import Tracker
from xlt_ray.store.artifact import Artifact

_CURVES = {
    "train/loss": "loss",
    "train/learning_rate": "learning_rate",
    "train/grad_norm": "grad_norm",
    "ewc/penalty": "penalty",
    "dev/bleu": "dev_bleu",
}


def count_roles(examples: pa.Table) -> dict[str, int]:
    """The number of examples to learn, to preserve and for dev BLEU."""
    return dict(sorted(Counter(examples["role"].to_pylist()).items()))


def log(
    tracker: Tracker, artifact: Artifact, figures: dict[str, Any], steps: list[dict[str, float]], seconds: float
) -> None:
    """Log the curves and figures of a run to MLflow.

    Args:
        tracker: of the run.
        artifact: of the run.
        figures: content of metrics.json.
        steps: the log of the training, one row per step.
        seconds: duration of the run.
    """
    for key, name in _CURVES.items():
        tracker.curve(key, [(int(row["step"]), row[name]) for row in steps if name in row])
    tracker.metrics({"finetune/samples_per_s": figures["samples_per_s"], "finetune/wall_time_s": seconds})
    if (dev := dev_columns(steps))["step"]:
        tracker.table(dev, "dev_bleu.json")
    best = {"dev/bleu": figures["dev_bleu"]["best"]} if figures["dev_bleu"] else {}
    tracker.of_model(best | {"train/loss": figures["loss"]["last"]})
    tracker.describe(f"{sentence(figures)}\n\nArtifact: `{artifact.uri}`")
    tracker.checkpoint(artifact.path("model"))


def dev_columns(steps: list[dict[str, float]]) -> dict[str, list[Any]]:
    """Dev BLEU of every direction at every evaluated step, as columns."""
    found = [
        (int(row["step"]), name.removeprefix("dev_bleu/"), value)
        for row in steps
        for name, value in row.items()
        if name.startswith("dev_bleu/")
    ]
    return {name: [cells[at] for cells in found] for at, name in enumerate(("step", "direction", "bleu"))}


def summarise(log: list[dict[str, float]], examples: pa.Table) -> dict[str, Any]:
    """The content of metrics.json: examples by role, steps, first and last loss, dev BLEU, speed.

    First and last loss are means over a tenth of the steps, because the loss of one step is of only a few sentences.
    """
    tenth = max(1, len(log) // 10)
    dev = [row["dev_bleu"] for row in log if "dev_bleu" in row]
    pace = [row["num_examples"] / row["seconds"] for row in log]
    return {
        "num_examples": count_roles(examples),
        "num_steps": len(log),
        "loss": {
            "first": float(np.mean([row["loss"] for row in log[:tenth]])),
            "last": float(np.mean([row["loss"] for row in log[-tenth:]])),
        },
        "dev_bleu": {"best": max(dev), "last": dev[-1]} if dev else None,
        "penalty": log[-1].get("penalty"),
        "samples_per_s": float(np.median(pace)),
    }


def sentence(figures: dict[str, Any]) -> str:
    """The outcome in one sentence."""
    loss = figures["loss"]
    dev = f", best dev BLEU {figures['dev_bleu']['best']:.1f}" if figures["dev_bleu"] else ""
    return f"{figures['num_steps']} steps, loss {loss['first']:.3f} to {loss['last']:.3f}{dev}."


def as_table(figures: dict[str, Any]) -> Table:
    """The figures of a run."""
    table = Table(title="fine-tuned", title_justify="left")
    for column in ("examples", "steps", "loss, first tenth", "last tenth", "best dev BLEU", "samples/s"):
        table.add_column(column, justify="right")
    counts = ", ".join(f"{count} {role}" for role, count in figures["num_examples"].items())
    dev = f"{figures['dev_bleu']['best']:.1f}" if figures["dev_bleu"] else "not measured"
    losses = [f"{figures['loss'][end]:.3f}" for end in ("first", "last")]
    table.add_row(counts, str(figures["num_steps"]), *losses, dev, f"{figures['samples_per_s']:.1f}")
    return table


def next_command(job: FinetuneJob) -> str:
    """The next command for a user: translation with the weights of the run, on the same speech."""
    embeddings = job.finetune.embeddings
    return command("translate", job, translate__checkpoint=job.name, translate__embeddings=embeddings)
