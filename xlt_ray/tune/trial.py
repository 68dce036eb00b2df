"""One trial: a run of fine-tuning under Ray Train that tells the search what it measures; a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

from xlt_ray.finetune.trainer import trainer_of
from xlt_ray.finetune.work import Work
from xlt_ray.job.pools import Workers


def run_trial(settings: dict[str, Any], works: Sequence[Work], workers: Workers) -> None:
    """Train, from the last checkpoint of a killed search where there is one.

    Args:
        settings: `trial`, its number.
        works: what the workers of every trial are told.
        workers: how many train together, and what each takes.
    """
    result = trainer_of(works[settings["trial"]], workers, None, [TuneReportCallback()]).fit()
    # A trial whose training was over when the search was killed reports nothing on its way.
    ray.tune.report(result.metrics)
