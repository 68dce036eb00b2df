"""Settings of retrieval: the score, its baselines, the protocol."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import ClassVar, Literal

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.job.settings import EXECUTION, Job, at_least

MODES = ("f1", "mean", "recall", "precision")

POOL_FRAMES = 10
"""Frames (20 ms each) that become one where candidates are found, unless somebody says another number."""

PROTOCOLS = ("multi_positive", "one_per_sentence")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalConfig:
    """How translations are found: the score, its baselines, the protocol."""

    split: str = "test"
    """Rows that are queries and candidates: a split of the corpus, or all. A corpus without splits is taken whole."""
    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to read; none: the one with this corpus, model and encoding."""
    mode: Literal["f1", "mean", "recall", "precision"] = field(default="f1", metadata=EXECUTION)
    """Which SeqSim leads the tables; the other three are kept beside it."""
    baselines: tuple[Literal["mean_pool", "max_pool", "dtw", "random"], ...] = ("mean_pool", "max_pool", "random")
    """Simpler scores computed beside it. dtw takes several times as long as all others together."""
    protocol: Literal["multi_positive", "one_per_sentence"] = field(default="multi_positive", metadata=EXECUTION)
    """multi_positive: a hit is any recording of the sentence, or of the same words under another sentence_id.
    one_per_sentence: one recording of each sentence is drawn by the seed, and only that one is a hit."""
    layers: tuple[int, ...] = ()
    """Hidden layers to score as well; the embeddings must keep them (--embed.layers)."""
    candidates: int | None = None
    """Score only this many candidates of each recording, found by frames pooled in time, both ways; none: every pair.
    A query whose hits are none of them ranks last. It is for large sets; jobs/mine.py says more."""
    top_k: int = field(default=10, metadata=EXECUTION)
    """Candidates written down for each query. A finished run shows fewer without scoring again, but not more."""
    seed: int = 0
    """Of the bootstrap, of the random baseline and of one_per_sentence."""
    strip_utterances: int = field(default=256, metadata=EXECUTION)
    """Utterances that are read and scored at a time; a unit of work is a block of some such strips on each side."""
    keep_scores: bool = field(default=False, metadata=EXECUTION)
    """Keep every score of every pair of recordings (scores/*.parquet): 4 bytes each, thousands of GB for large sets."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs a scoring actor takes; none: 1 where the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Most scoring actors at a time; none: as for the encoder."""

    SHOWN: ClassVar[tuple[str, ...]] = ("mode", "protocol", "top_k")
    """Settings that choose among what a run has kept: a finished run takes other values of them without scoring."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("--retrieval.top-k", self.top_k, 1)
        at_least("--retrieval.candidates", self.candidates, 1)
        at_least("--retrieval.seed", self.seed, 0)
        at_least("--retrieval.strip-utterances", self.strip_utterances, 1)
        at_least("--retrieval.num-gpus", self.num_gpus, 0)
        at_least("--retrieval.max-actors", self.max_actors, 1)

    def covers(self, sizes: tuple[int, int]) -> bool:
        """Whether every pair of so many recordings is scored, so that no candidates have to be found."""
        return self.candidates is None or self.candidates >= min(sizes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalJob(Job):
    """Settings of jobs/retrieval.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)

    def __post_init__(self) -> None:
        """Retrieval is between two languages, over layers that are kept."""
        Job.__post_init__(self)
        if len(self.languages) < 2:
            raise UserError(f"retrieval needs two languages or more; --languages is {self.languages[0]!r}")
        missing = sorted(set(self.retrieval.layers) - set(self.embed.layers))
        if missing and self.retrieval.embeddings is None:
            raise UserError(f"--retrieval.layers {missing} are not kept; add them to --embed.layers")
