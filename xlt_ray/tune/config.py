"""Settings of a search: search space, objective, early stopping."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Annotated, Literal

import tyro

from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.settings import EXECUTION, at_least, flag


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """The search space of one setting: a list of values, or a range to sample from.

    Attributes:
        values: values to try; empty for a range.
        bounds: lowest and highest value of a range; None for values.
    """

    values: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> Axis:
        """The axis in `text`: `1e-5,3e-5` or `1e-5..1e-4`; an empty axis for an empty text.

        Raises:
            ValueError: if a value is not a number.
        """
        if ".." in text:
            low, high = (float(end) for end in text.split(".."))
            return cls(bounds=(low, high))
        return cls(values=tuple(float(value) for value in text.split(",") if value))

    def __bool__(self) -> bool:
        """Whether the setting is searched."""
        return bool(self.values) or self.bounds is not None

    def __str__(self) -> str:
        """The axis in the syntax of the command line."""
        if self.bounds:
            return f"{self.bounds[0]:g}..{self.bounds[1]:g}"
        return ",".join(f"{value:g}" for value in self.values)


Searched = Annotated[
    Axis,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,C or LOW..HIGH",
        instance_from_str=lambda words: Axis.parse(words[0]),
        is_instance=lambda value: isinstance(value, Axis),
        str_from_instance=lambda axis: [str(axis)],
    ),
]


SCALES: dict[str, Literal["log", "linear"]] = {
    "learning_rate": "log",
    "ewc_lambda": "log",
    "replay_fraction": "linear",
    "epochs": "linear",
    "lora_rank": "log",
}
"""The settings that a search can vary, and the scale on which it samples from a range."""
WHOLE = ("epochs", "lora_rank")
"""The settings that take only whole numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """Search space, objective and early stopping."""

    learning_rate: Searched = Axis(values=(1e-5, 3e-5, 1e-4))
    """Comma-separated values of --finetune.learning-rate, or a range LOW..HIGH to sample from. Every combination of
    the lists is a trial. If empty, this setting is not searched and all trials use --finetune.learning-rate."""
    ewc_lambda: Searched = Axis(values=(0.0, 1.0, 10.0, 100.0))
    """Values of --finetune.ewc-lambda. All trials share one Fisher."""
    replay_fraction: Searched = Axis()
    """Values of --finetune.replay-fraction."""
    epochs: Searched = Axis()
    """Values of --finetune.epochs."""
    lora_rank: Searched = Axis()
    """Values of --finetune.lora-rank; 0: train the whole decoder."""
    num_trials: int | None = None
    """Number of trials; none: every combination of the lists, or 12 if there is a range."""
    objective: Literal["pareto", "gain", "kept", "mix"] = "pareto"
    """gain: dev BLEU of --finetune.directions. kept: dev BLEU of the directions to preserve (--finetune.evaluate, else
    --finetune.keep, else X-en). mix: a weighted mean. pareto: the Pareto front of both."""
    gain_weight: float = 0.5
    """mix: the weight of gain, 0 to 1. The rest is the weight of kept."""
    grace: int = 1
    """Evaluations of dev BLEU before a trial may be stopped."""
    reduction: int = 3
    """Reduction factor of successive halving. With 3, rungs are at the 1st, 3rd and 9th evaluation, and a trial
    continues if it is in the best third of those that have reached the rung; 1: no early stopping."""
    num_chosen: int = 3
    """Maximum number of trials to score on the test split after the search."""
    seed: int = 0
    """Seed for sampling and for the order of trials."""
    max_concurrent: int | None = field(default=None, metadata=EXECUTION)
    """Maximum number of concurrent trials; none: as many as the cluster can hold at its maximum size."""
    register: str | None = field(default=None, metadata=EXECUTION)
    """Name under which to register the best trial in MLflow's model registry, also after the search."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and an empty search space."""
        for name in ("num_trials", "grace", "reduction", "num_chosen", "max_concurrent"):
            at_least(f"--tune.{flag(name)}", getattr(self, name), 1)
        at_least("--tune.seed", self.seed, 0)
        if not 0 <= self.gain_weight <= 1:
            raise UserError(f"--tune.gain-weight is {self.gain_weight}; give 0 to 1")
        if self.objective != "mix" and self.gain_weight != 0.5:
            raise UserError("--tune.gain-weight has an effect only with --tune.objective mix; add that, or drop it")
        if not self.space:
            raise UserError("nothing is searched; give values, such as --tune.learning-rate 1e-5,3e-5")
        for name, axis in self.space.items():
            _check_axis(f"--tune.{flag(name)}", axis, SCALES[name])
            if name in WHOLE:
                _require_whole(f"--tune.{flag(name)}", axis)
        self._require_combination()

    def _require_combination(self) -> None:
        """Refuse a space in which every trial has LoRA and EWC: a range never gives 0."""
        rank, strength = self.lora_rank, self.ewc_lambda
        if rank and strength and 0 not in rank.values and 0 not in strength.values:
            raise UserError(
                f"every trial would have --tune.lora-rank {rank} and --tune.ewc-lambda {strength}, and EWC penalises "
                "weights that LoRA does not train; add 0 to one of them (a range has no 0, so list its values)"
            )

    @property
    def size(self) -> int:
        """Number of trials. By default all combinations of the lists, or 12 if there is a range."""
        if any(axis.bounds for axis in self.space.values()):
            return self.num_trials or 12
        num_combinations = math.prod(len(axis.values) for axis in self.space.values())
        return min(num_combinations, self.num_trials or num_combinations)

    @property
    def space(self) -> dict[str, Axis]:
        """The searched axes, by the name of the setting."""
        return {name: getattr(self, name) for name in SCALES if getattr(self, name)}


def _check_axis(flag: str, axis: Axis, scale: str) -> None:
    low, high = axis.bounds or (0.0, 1.0)
    if low >= high:
        raise UserError(f"{flag} {axis} is no range; give LOW..HIGH with LOW below HIGH")
    if axis.bounds and scale == "log" and low <= 0:
        raise UserError(f"{flag} {axis} is drawn on a log scale, which has no {low:g}; start above 0, or list values")
    if len(set(axis.values)) < len(axis.values):
        raise UserError(f"{flag} {axis} names a value twice")


def _require_whole(flag: str, axis: Axis) -> None:
    for value in axis.bounds or axis.values:
        if value % 1:  # also of inf
            raise UserError(f"{flag} {axis} has {value:g}; give whole numbers")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TuneJob(FinetuneJob):
    """Settings of jobs/tune.py. --finetune has the settings that all trials share, --tune those that vary."""

    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(evaluate_every=10))
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        """Check that dev BLEU is measured, that there is a direction to preserve, and one place for one model."""
        FinetuneJob.__post_init__(self)
        if not self.finetune.evaluate_every:
            raise UserError("a search compares trials by dev BLEU; give --finetune.evaluate-every 1 or more")
        if self.tune.num_chosen > 1:
            self._require_one_upload(f"up to {self.tune.num_chosen}", "add --tune.num-chosen 1")
        if not self.kept:
            raise UserError("no direction to preserve: --languages is en; add another, or give --finetune.evaluate")

    def uses(self, name: str) -> bool:
        """Whether a trial may set the setting to anything but 0."""
        return name in self.tune.space or FinetuneJob.uses(self, name)

    @property
    def kept(self) -> tuple[str, ...]:
        """Directions whose BLEU a trial should preserve: those evaluated, else those to keep, else all into English."""
        native = tuple(f"{code}-en" for code in sorted(self.languages) if code != "en")
        not_learned = tuple(direction for direction in native if direction not in self.finetune.directions)
        return self.finetune.evaluate or self.finetune.keep or not_learned
