"""Settings of a study: which source languages are compared."""

from __future__ import annotations

import dataclasses
from dataclasses import field

from xlt_ray import languages
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.job.settings import Codes, at_least, read_distinct_codes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Which languages are compared as sources of training, and what is held against the outcome."""

    target: str = "zh"
    """Language that every run learns to write."""
    sources: Codes = ()
    """Languages to train on, each in a run of its own, and each scored in all runs; none: all --languages."""
    retrieval: str | None = None
    """Name of the retrieval artifact whose R@1 may predict the transfer; none: NAME-test, made where it is
    missing."""
    seed: int = 0
    """Of the bootstrap, and of the permutations where there are too many languages to try all."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("--study.seed", self.seed, 0)
        object.__setattr__(self, "target", languages.read_as(self.target))
        read_distinct_codes(self, "sources", "--study.sources")
        if self.target in self.sources:
            raise UserError(
                f"--study.target {self.target} is among --study.sources; it can't be translated into itself"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StudyJob(FinetuneJob):
    """Settings of jobs/study.py: --finetune is what all runs share but the direction that they learn."""

    study: StudyConfig = field(default_factory=StudyConfig)

    def __post_init__(self) -> None:
        """A comparison needs two languages."""
        FinetuneJob.__post_init__(self)
        if beyond := sorted(set(self.study.sources) - set(self.languages)):
            raise UserError(
                f"--study.sources names {beyond[0]}, which is not in --languages {','.join(self.languages)}"
            )
        if len(self.sources) < 2:
            raise UserError(f"a study compares two sources or more; there is {','.join(self.sources) or 'none'}")
        if self.finetune.keep:
            raise UserError("--finetune.keep could hold what another run learns; a study trains without it")

    @property
    def sources(self) -> tuple[str, ...]:
        """Languages to train on, in sorted order."""
        chosen = self.study.sources or tuple(code for code in self.languages if code != self.study.target)
        return tuple(sorted(chosen))
