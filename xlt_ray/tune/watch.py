"""Watches the trials of a search: writes the file of each finished trial, and logs it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import ray.tune

from xlt_ray.job import progress
from xlt_ray.job.tracking import track
from xlt_ray.store.schema import REJECTED, TRIAL, as_values
from xlt_ray.tune import plan as plans
from xlt_ray.tune import results
from xlt_ray.tune.plan import TunePlan
from xlt_ray.tune.results import Figures
from xlt_ray.tune.scheduler import HalvingScheduler
from xlt_ray.tune.trial import reason_of


class Watch(ray.tune.Callback):  # type: ignore[misc]
    """Writes the file of every finished trial."""

    def __init__(self, plan: TunePlan, before: Figures, scheduler: HalvingScheduler, bar: progress.Bar) -> None:
        self._plan, self._before, self._scheduler, self._bar = plan, before, scheduler, bar
        self._started: dict[int, float] = {}
        self._measured: dict[int, list[Mapping[str, float]]] = {}
        self._reasons: dict[int, str] = {}  # of trials whose training failed

    def __getstate__(self) -> dict[str, Any]:
        """Save no state in Tune's snapshots, because a search resumes from its own files."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Record the time of the first start. A trial that was lost with its node is started again."""
        self._started.setdefault(trial.config["trial"], time.monotonic())

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Record the evaluation, or why the training failed."""
        number = trial.config["trial"]
        if "failed" in result:
            self._reasons[number] = result["failed"]
        else:
            self._measured[number] = result["measured"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Write the file of a trial that has finished, was stopped, or whose training failed."""
        number = trial.config["trial"]
        if number in self._reasons:
            self._record_failure(number, self._reasons[number])
            return
        row = self._row(number)
        cells = {**row, "settings": as_values(row["settings"]), "bleu": as_values(row["bleu"])}
        self._plan.artifact.write_table(f"data/{number:03d}.parquet", pa.Table.from_pylist([cells], schema=TRIAL))
        log(self._plan, row, self._before)
        gained = results.against(row, self._before)
        kept = "" if gained["kept"] is None else f", kept {100 * gained['kept']:.0f} %"
        settings = results.words(row["settings"])
        outcome = f"gain {gained['gain']:+.1f}{kept}"
        print(f"tune: {row['name']} {row['status']} at step {row['num_steps']}: {settings}: {outcome}")
        self._bar.advance(1)

    def _row(self, number: int) -> dict[str, Any]:
        kept, measured = self._plan.job.kept, self._measured[number]
        best = results.outcome(measured, kept)
        return {
            "trial": number,
            "name": plans.trial_name(self._plan.job, number),
            "status": "stopped" if number in self._scheduler.stopped else "finished",
            "settings": self._plan.trials[number],
            "num_steps": int(measured[-1]["step"]),
            "seconds": time.monotonic() - self._started[number],
            **{name: best[name] for name in ("new_bleu", "old_bleu", "bleu")},
            "curve": results.curve(measured, kept),
        }

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Record a trial that was lost more often than it may be restarted. The others continue."""
        self._record_failure(trial.config["trial"], reason_of(trial.get_error()))

    def _record_failure(self, number: int, reason: str) -> None:
        name = plans.trial_name(self._plan.job, number)
        row = {"utterance_id": name, "language": ",".join(self._plan.job.finetune.directions), "audio": ""}
        table = pa.Table.from_pylist([{**row, "reason": reason}], schema=REJECTED)
        self._plan.artifact.write_table(f"rejected/{number:03d}.parquet", table)
        print(f"tune: {name} failed: {reason}")
        self._bar.advance(1)


def log(plan: TunePlan, row: Mapping[str, Any], before: Figures) -> None:
    """Log the trial as a child run of the search, with the same keys as every other run.

    Its parameters are the searched settings only; the run of the search has those that all trials share. So the
    parallel coordinates plot of the UI shows the searched settings by default.
    """
    what = {"trial": row["trial"], "search": plan.artifact.fingerprint}
    tried, seconds = row["settings"], row["seconds"]
    with track(plan.job.root, "trial", row["name"], what, tried, seconds, shows_identity=False) as tracker:
        found = results.against(row, before)
        totals = {"new_bleu": row["new_bleu"], "old_bleu": row["old_bleu"], "kept/gain": found["gain"]}
        if found["kept"] is not None:
            totals["kept/share"] = found["kept"]
        tracker.metrics(totals | {"finetune/num_steps": row["num_steps"]})
        tracker.table({"direction": list(row["bleu"]), "bleu": list(row["bleu"].values())}, "bleu.json")
        for key in ("new_bleu", "old_bleu"):
            tracker.curve(f"dev/{key}", [(measured["step"], measured[key]) for measured in row["curve"]])
        tracker.describe(f"{row['status']} at step {row['num_steps']}: {results.words(row['settings'])}")
