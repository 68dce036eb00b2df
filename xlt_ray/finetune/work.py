"""What a training process is told."""

from __future__ import annotations

import dataclasses

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.store.artifact import Artifact


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What a worker is told; small, because every worker gets it.

    Attributes:
        artifact: the finetune artifact; its examples are written.
        model: as `--model`.
        config: settings.
        fisher: the finished fisher artifact, or None without EWC.
        num_trained: how many weights train, as the driver has announced it.
        num_steps: how many steps there are.
    """

    artifact: Artifact
    model: str
    config: FinetuneConfig
    fisher: Artifact | None
    num_trained: int
    num_steps: int
