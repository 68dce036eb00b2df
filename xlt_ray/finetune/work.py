"""The input of a training process."""

from __future__ import annotations

import dataclasses

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.store.artifact import Artifact


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """The input of a worker; small, because every worker gets a copy.

    Attributes:
        artifact: the finetune artifact, whose examples have been written.
        model: as `--model`.
        config: settings.
        fisher: the finished fisher artifact, or None without EWC.
        num_trained: number of trained weights, as printed by the driver.
        num_steps: number of steps.
    """

    artifact: Artifact
    model: str
    config: FinetuneConfig
    fisher: Artifact | None
    num_trained: int
    num_steps: int
