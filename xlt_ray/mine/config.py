"""Settings of mining: the score, its candidates, the margin, the selection."""

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
    """How pairs are mined: the score, its candidates, the margin, the selection."""

    split: str = "all"
    """Rows to mine: a split of the corpus, or all. sentence_id is used only to evaluate the result."""
    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to read; none: the one with this corpus, model and encoding."""
    mode: Literal["f1", "mean", "recall", "precision"] = "f1"
    """SeqSim mode that scores a pair. recall: mean best match of the frames of the alphabetically first language."""
    candidates: int | Literal["all"] = 100
    """Candidates per recording, found by pooled frames, that are scored exactly. all: score every pair exactly.
    Every pair is also scored exactly if a language has this many recordings or fewer."""
    pool_frames: int = POOL_FRAMES
    """Frames (20 ms each) pooled into one to find candidates. The cost of this search falls with its square."""
    neighbours: int = 4
    """Nearest neighbours per recording for the margin. Only these can be mined."""
    margin: Literal["ratio", "distance", "absolute"] = field(default="ratio", metadata=EXECUTION)
    """ratio: score divided by the mean score of the neighbours of both recordings (Artetxe and Schwenk, 2019).
    distance: score minus that mean. absolute: the score alone."""
    one_to_one: bool = field(default=True, metadata=EXECUTION)
    """Use each recording in at most one pair of two languages, chosen greedily by margin."""
    threshold: float | None = field(default=None, metadata=EXECUTION)
    """Minimum margin of a pair; none: no limit. If languages share sentence_ids, metrics.json has F1 by threshold."""
    top_n: int | None = field(default=None, metadata=EXECUTION)
    """Maximum number of pairs of two languages, by margin; none: no limit."""
    sample: int = 100
    """Recordings per language to score against all others, to measure the recall of the candidates; 0: do not
    measure it."""
    seed: int = 0
    """Seed for the sample."""
    strip_utterances: int = field(default=256, metadata=EXECUTION)
    """Utterances to read and score at a time. A unit of work is a block of such strips."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs per scoring actor; none: 1 if the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Maximum number of scoring actors; none: as for the encoder."""

    SHOWN: ClassVar[tuple[str, ...]] = ("margin", "one_to_one", "threshold", "top_n")
    """Settings that select from stored results. A finished run accepts other values without scoring again."""

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
        """Whether every pair of two sets of these sizes is a candidate, so that no search is needed."""
        return self.candidates == "all" or self.candidates >= min(sizes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MineJob(Job):
    """Settings of jobs/mine.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    mine: MineConfig = field(default_factory=MineConfig)

    def __post_init__(self) -> None:
        """Check that there are two languages."""
        Job.__post_init__(self)
        if len(self.languages) < 2:
            raise UserError(f"mining needs two languages or more; --languages is {self.languages[0]!r}")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every unordered pair of languages, sorted, so that file names do not depend on the order of --languages."""
        codes = sorted(self.languages)
        return [(first, second) for place, first in enumerate(codes) for second in codes[place + 1 :]]
