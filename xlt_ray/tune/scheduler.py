"""Successive halving as a scheduler for Ray Tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from xlt_ray.tune.halving import Halving, Point


class HalvingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in order, and stops those that fall behind.

    Args:
        halving: makes the decisions, and may know trials of an earlier run.
        point: computes the objectives of a trial from its evaluations.
        num_steps: steps of each trial; a trial that has reached its end is not stopped.
    """

    def __init__(
        self, halving: Halving, point: Callable[[list[Mapping[str, float]]], Point], num_steps: Sequence[int]
    ) -> None:
        super().__init__()
        self._halving, self._point, self._num_steps = halving, point, num_steps
        self.stopped: set[int] = set()
        """Numbers of the trials that were stopped."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop the trial, or continue."""
        number, measured = trial.config["trial"], result["measured"]
        # A trial that resumes after a kill first reports a later evaluation; its earlier rungs count too.
        self._halving.record(number, [self._point(measured[:count]) for count in range(1, len(measured))])
        goes_on = not measured or self._halving.goes_on(number, len(measured), self._point(measured))
        if goes_on or measured[-1]["step"] >= self._num_steps[number]:
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(number)
        return str(TrialScheduler.STOP)
