"""Settings of a study: which source languages are compared."""

from __future__ import annotations

import dataclasses
from dataclasses import field

from xlt_ray import languages
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.job.settings import Codes, Job, at_least, read_distinct_codes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Which source languages are compared, and which predictors of transfer are tested."""

    target: str = "zh"
    """Target language of every run."""
    sources: Codes = ()
    """Source languages. Each is trained on in its own run, and tested in all runs; none: all --languages."""
    retrieval: str | None = None
    """Name of the retrieval artifact whose R@1 is tested as a predictor of transfer; none: NAME-test, made if it is
    missing."""
    seed: int = 0
    """Seed for the bootstrap, and for sampling permutations if there are too many to try all."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("--study.seed", self.seed, 0)
        object.__setattr__(self, "target", languages.read_as(self.target))
        read_distinct_codes(self, "sources", "--study.sources")
        if self.target in self.sources:
            raise UserError(f"--study.target {self.target} is among --study.sources; drop it there")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StudyJob(FinetuneJob):
    """Settings of jobs/study.py. --finetune has the settings that all runs share, except the direction."""

    study: StudyConfig = field(default_factory=StudyConfig)

    def __post_init__(self) -> None:
        """Check that there are two sources, that no direction is preserved, and no model uploaded over another."""
        Job.__post_init__(self)
        if beyond := sorted(set(self.study.sources) - set(self.languages)):
            raise UserError(
                f"--study.sources names {beyond[0]}, which is not in --languages {','.join(self.languages)}"
            )
        if len(self.sources) < 2:
            raise UserError(f"a study compares two sources or more; given: {','.join(self.sources) or 'none'}")
        self._check_training()
        self._require_one_upload(str(len(self.sources)), "drop it")
        if self.finetune.keep:
            raise UserError("a study does not support --finetune.keep: another run could learn that direction; drop it")

    @property
    def learned(self) -> tuple[str, ...]:
        """The direction of each run; --finetune.directions is ignored."""
        return tuple(f"{source}-{self.study.target}" for source in self.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        """Languages to train on, in sorted order."""
        chosen = self.study.sources or tuple(code for code in self.languages if code != self.study.target)
        return tuple(sorted(chosen))
