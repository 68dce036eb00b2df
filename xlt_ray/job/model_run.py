"""Describes a tuned model for its MLflow run."""

from __future__ import annotations

import dataclasses
from typing import Any

from xlt_ray.store.artifact import Artifact


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A tuned model, whose fine-tuning and translations are runs inside one run with its settings and its scores.

    Attributes:
        artifact: of the stage finetune.
        alpha: interpolation between the untouched model and the tuned one; another alpha is another model.
    """

    artifact: Artifact
    alpha: float = 1.0

    @property
    def key(self) -> str:
        """The key that distinguishes it from other models."""
        return f"{self.artifact.fingerprint}{self._suffix}"

    @property
    def name(self) -> str:
        """Name of its run."""
        return f"{self.artifact.name}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return "" if self.alpha == 1 else f" alpha {self.alpha:g}"

    @property
    def words(self) -> dict[str, Any]:
        """Its inputs, besides its identity."""
        settings = self.artifact.settings
        named: dict[str, Any] = {name: settings[name] for name in ("corpus", "model") if name in settings}
        return {**named, "alpha": self.alpha}

    @property
    def learned(self) -> tuple[str, ...]:
        """The directions that it was trained on."""
        return tuple(self.artifact.settings["finetune"]["directions"])
