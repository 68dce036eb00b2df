"""Settings of mining: the score, its candidates, the margin, what is taken."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import ClassVar, Literal

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.job.settings import EXECUTION, Job, at_least
from xlt_ray.retrieval.config import POOL_FRAMES


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MineConfig:
    """How pairs are mined: the score, its candidates, the margin, what is taken."""

    split: str = "all"
    """Rows that are mined: a split of the corpus, or all. sentence_id is not used, but to tell how good it is."""
    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to read; none: the one with this corpus, model and encoding."""
    mode: Literal["f1", "mean", "recall", "precision"] = "f1"
    """Which SeqSim scores a pair. recall: how well the frames of the language that sorts first are found."""
    candidates: int | Literal["all"] = 100
    """Recordings of the other language whose exact score is computed for each recording, found by pooled frames. all:
    every pair is scored exactly, as it is where there are no more recordings than this."""
    pool_frames: int = POOL_FRAMES
    """Frames (20 ms each) that become one where candidates are found; the square of it is what that saves."""
    neighbours: int = 4
    """Nearest recordings whose mean score the margin is over, on each side; only they can be mined."""
    margin: Literal["ratio", "distance", "absolute"] = field(default="ratio", metadata=EXECUTION)
    """ratio: score over the mean of the nearest of both (Artetxe and Schwenk, 2019). distance: score minus it.
    absolute: the score alone."""
    one_to_one: bool = field(default=True, metadata=EXECUTION)
    """A recording is in one pair of two languages at most, that of the highest margin which is left."""
    threshold: float | None = field(default=None, metadata=EXECUTION)
    """Least margin of a pair; none: no bound. metrics.json has the F1 by threshold where the corpus can tell it."""
    top_n: int | None = field(default=None, metadata=EXECUTION)
    """Most pairs of two languages, those of the highest margin; none: no bound."""
    sample: int = 100
    """Recordings of each language that are scored with all others, to measure how many of the nearest are candidates;
    0: none."""
    seed: int = 0
    """Of the sample."""
    strip_utterances: int = field(default=256, metadata=EXECUTION)
    """Utterances that are read and scored at a time; a unit of work is a block of some such strips on each side."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs a scoring actor takes; none: 1 where the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Most scoring actors at a time; none: as for the encoder."""

    SHOWN: ClassVar[tuple[str, ...]] = ("margin", "one_to_one", "threshold", "top_n")
    """Settings that choose among what a run has kept: a finished run takes other values of them without scoring."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("pool_frames", "neighbours", "top_n", "strip_utterances", "max_actors"):
            at_least(f"--mine.{name.replace('_', '-')}", getattr(self, name), 1)
        for name in ("sample", "seed", "num_gpus"):
            at_least(f"--mine.{name.replace('_', '-')}", getattr(self, name), 0)
        if self.candidates != "all" and self.candidates < self.neighbours:
            raise UserError(
                f"--mine.candidates {self.candidates} is fewer than --mine.neighbours {self.neighbours}; give as many "
                "or more, or all"
            )

    def covers(self, sizes: tuple[int, int]) -> bool:
        """Whether every pair of so many recordings is a candidate, so that none have to be found."""
        return self.candidates == "all" or self.candidates >= min(sizes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MineJob(Job):
    """Settings of jobs/mine.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    mine: MineConfig = field(default_factory=MineConfig)

    def __post_init__(self) -> None:
        """Pairs are of two languages."""
        Job.__post_init__(self)
        if len(self.languages) < 2:
            raise UserError(f"mining needs two languages or more; --languages is {self.languages[0]!r}")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every unordered pair of the languages; sorted, so that the order on the command line changes no file."""
        codes = sorted(self.languages)
        return [(first, second) for place, first in enumerate(codes) for second in codes[place + 1 :]]
