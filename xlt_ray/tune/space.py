"""The settings of every trial of a search, determined before the first one starts. Pure.

They depend only on the settings of the search, so a resumed search has the same trials.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.tune.config import SCALES, WHOLE, Axis, TuneConfig

Settings = dict[str, float]
"""The value of each searched setting; a `lora_rank` of 0 is the whole decoder."""


def draw(config: TuneConfig) -> list[Settings]:
    """The settings of all trials, in the order in which they run.

    With lists only: every combination, shuffled, so that an interrupted search covers the whole space. With a range:
    the requested number of draws, also from the lists. EWC penalises weights that LoRA does not train, so combinations
    of both are left out.
    """
    rng = np.random.default_rng(config.seed)
    if any(axis.bounds for axis in config.space.values()):
        drawn = _draws(config.space, rng)
        return list(itertools.islice(filter(_is_possible, drawn), config.size))
    names = list(config.space)
    combined = itertools.product(*(axis.values for axis in config.space.values()))
    possible = [settings for values in combined if _is_possible(settings := dict(zip(names, values, strict=True)))]
    order = rng.permutation(len(possible))
    return [possible[i] for i in order[: config.size]]


def _draws(space: dict[str, Axis], rng: np.random.Generator) -> Iterator[Settings]:
    while True:
        yield {name: _drawn(name, axis, rng) for name, axis in space.items()}


def _drawn(name: str, axis: Axis, rng: np.random.Generator) -> float:
    if axis.bounds is None:
        return float(rng.choice(axis.values))
    low, high = axis.bounds
    value = float(np.exp(rng.uniform(*np.log(axis.bounds)))) if SCALES[name] == "log" else float(rng.uniform(low, high))
    # Six digits say as much, and can be typed again.
    return float(round(value)) if name in WHOLE else float(f"{value:.6g}")


def _is_possible(settings: Settings) -> bool:
    return not (settings.get("lora_rank") and settings.get("ewc_lambda"))


def applied(base: FinetuneConfig, settings: Settings, kept: tuple[str, ...], fisher: str) -> FinetuneConfig:
    """The settings of one trial's training.

    Args:
        base: settings that all trials share.
        settings: settings of this trial.
        kept: directions to evaluate in addition to the learned ones, and to preserve if the trial has EWC or replay.
        fisher: name of the fisher artifact that all trials share.

    Raises:
        UserError: if the combination is not possible.
    """
    values: dict[str, Any] = {name: int(value) if name in WHOLE else value for name, value in settings.items()}
    if "lora_rank" in values:
        values["lora_rank"] = values["lora_rank"] or None
    ewc = values.get("ewc_lambda", base.ewc_lambda)
    keeps = ewc or values.get("replay_fraction", base.replay_fraction)
    return dataclasses.replace(
        base,
        **values,
        keep=(base.keep or kept) if keeps else (),
        fisher=fisher if ewc else None,
        evaluate=kept,
        # A trial shows itself to the search with its checkpoints.
        checkpoint_every=base.evaluate_every,
    )
