"""Describes the decoder of a translate run: its method, its dials, and all other settings that determine it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

PLAIN, NOT_TUNED, UNKNOWN = "plain", "not tuned", "unknown"


def general(number: float, digits: int = 6) -> str:
    """A number in its shortest form: 10000, 0.5, 1e6, 3e-5."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{number:.{digits}g}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dial:
    """One method to preserve old directions, and its strength.

    Attributes:
        key: its key among the settings.
        method: name of a run that uses it.
        show: its value as text.
        off: the value without effect; None if only its absence has no effect.
    """

    key: str
    method: str
    show: Callable[[float], str]
    off: float | None


DIALS = (
    Dial(key="finetune.ewc_lambda", method="EWC", show=lambda value: f"λ {general(value)}", off=0.0),
    Dial(key="finetune.replay_fraction", method="replay", show=lambda value: f"{general(100 * value)}%", off=0.0),
    Dial(key="finetune.lora_rank", method="LoRA", show=lambda value: f"rank {general(value)}", off=None),
    Dial(key="translate.alpha", method="interpolation", show=lambda value: f"α {general(value)}", off=1.0),
)
_OF_FISHER = ("finetune.fisher", "finetune.fisher_labels", "finetune.fisher_examples", "finetune.fisher_dtype")
# Known from the compared directions, or only part of the identity.
_ELSEWHERE = ("translate.targets", "translate.transcribe", "translate.prompt")


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """The settings that determine a decoder and its output, except the seed: `finetune.*` and `translate.*`."""

    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Equal for two runs that differ only in their seed, or in settings without effect."""
        return _canonical(self._effective())

    @property
    def dials(self) -> tuple[Dial, ...]:
        """The dials that are on."""
        return tuple(dial for dial in DIALS if self.settings.get(dial.key) not in (None, dial.off))

    @property
    def method(self) -> str:
        """Names of the methods that are on, such as `EWC + replay`; otherwise whether anything was tuned at all."""
        if "checkpoint" in self.settings:
            return UNKNOWN
        if "finetune.directions" not in self.settings:
            return NOT_TUNED
        return " + ".join(dial.method for dial in self.dials) or PLAIN

    @property
    def dial_text(self) -> str:
        """The dials that are on with their values: `λ 100, 25%`."""
        return ", ".join(dial.show(self.settings[dial.key]) for dial in self.dials)

    def beside(self, dial: Dial) -> str:
        """Like `key`, but without one dial: equal for the points of one sweep."""
        return _canonical({name: value for name, value in self._effective().items() if name != dial.key})

    def without(self, dial: Dial) -> Recipe | None:
        """The recipe with this dial off, the end of its sweep. None if the dial has no such value."""
        return None if dial.off is None else Recipe({**self.settings, dial.key: dial.off})

    def _effective(self) -> dict[str, Any]:
        """Settings that have an effect: directions to preserve count only if a method preserves them."""
        idle: list[str] = []
        if not self.settings.get("finetune.ewc_lambda"):
            idle += _OF_FISHER
            if not self.settings.get("finetune.replay_fraction"):
                idle.append("finetune.keep")
        return {name: value for name, value in self.settings.items() if name not in idle}


def read_recipe(
    identity: Mapping[str, Any],
    metrics: Mapping[str, Any],
    tuned: Mapping[str, Any] | None,
    fisher: Mapping[str, Any] | None,
) -> Recipe:
    """The recipe of a translate run.

    Args:
        identity: of the translate artifact (`config.json`).
        metrics: its metrics.json.
        tuned: identity of the finetune artifact that it names as its checkpoint; None if it does not exist.
        fisher: identity of the fisher artifact that `tuned` used; None without EWC, or if it does not exist.
    """
    settings = {f"translate.{name}": value for name, value in identity["translate"].items()}
    settings = {name: value for name, value in settings.items() if name not in _ELSEWHERE}
    settings |= {"prompt": metrics["prompt"], "model": identity["model"]}
    if metrics["checkpoint"] is None:
        return Recipe(settings)
    if tuned is None:
        return Recipe({**settings, "checkpoint": metrics["checkpoint"]["fingerprint"]})
    settings |= {f"finetune.{name}": value for name, value in tuned["finetune"].items() if name != "seed"}
    settings["finetune.embeddings"] = tuned["embeddings"]
    settings["finetune.keep"] = sorted(tuned["finetune"]["keep"])
    # A Fisher of another seed is the same Fisher to a reader, so its own settings stand here, not its fingerprint.
    settings["finetune.fisher"] = _seedless(fisher["fisher"]) if fisher else tuned["fisher"]
    return Recipe(settings)


def _seedless(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
