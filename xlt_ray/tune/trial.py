"""One trial: a process that fine-tunes under Ray Train and reports its evaluations to the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray.train
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

from xlt_ray.finetune.trainer import trainer_of
from xlt_ray.finetune.work import Work
from xlt_ray.job.pools import Workers


def run_trial(settings: dict[str, Any], works: Sequence[Work], workers: Workers) -> None:
    """Train, from the last checkpoint of a killed search if there is one.

    A training that fails is reported as `failed`, with the reason: Ray Train has tried it again already, and Ray Tune
    would do all of that once more for a trial that raises.

    Args:
        settings: `trial`, its number.
        works: the input of the workers of every trial.
        workers: number of workers, and the resources of each.
    """
    try:
        result = trainer_of(works[settings["trial"]], workers, None, [TuneReportCallback()]).fit()
    except ray.train.TrainingFailedError as error:
        ray.tune.report({"measured": [], "failed": reason_of(error)})
        return
    # A trial whose training was over when the search was killed reports nothing on its way.
    ray.tune.report(result.metrics)


def reason_of(error: BaseException | None) -> str:
    """The last non-empty line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
