"""Settings of retrieval: the score, its baselines, the protocol."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import ClassVar, Literal

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.job.settings import EXECUTION, Job, at_least

MODES = ("f1", "mean", "recall", "precision")

POOL_FRAMES = 5
"""Frames (20 ms each) pooled into one to find candidates: 5 find 92 % of the ten nearest where 10 find 82 %."""

PROTOCOLS = ("multi_positive", "one_per_sentence")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalConfig:
    """How translations are found: the score, its baselines, the protocol."""

    split: str = "test"
    """Rows used as queries and candidates: a split, or all. A corpus without splits is used whole."""
    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to read; none: the one with this corpus, model and encoding."""
    mode: Literal["f1", "mean", "recall", "precision"] = field(default="f1", metadata=EXECUTION)
    """SeqSim mode shown in the tables. The other three are stored too."""
    baselines: tuple[Literal["mean_pool", "max_pool", "dtw", "random"], ...] = ("mean_pool", "max_pool", "random")
    """Baseline scores to compute as well. dtw takes several times as long as all others together."""
    protocol: Literal["multi_positive", "one_per_sentence"] = field(default="multi_positive", metadata=EXECUTION)
    """multi_positive: any recording of the sentence, or of the same words under another sentence_id, is a hit.
    one_per_sentence: one recording of each sentence is sampled with the seed, and only that one is a hit."""
    layers: tuple[int, ...] = ()
    """Hidden layers to score as well. The embeddings must contain them (--embed.layers)."""
    candidates: int | None = None
    """For large sets: score only this many candidates per recording, found by frames pooled in time, in both
    directions; none: score every pair. A query without a hit among its candidates ranks last. Baselines are ranked
    among all recordings."""
    top_k: int = field(default=10, metadata=EXECUTION)
    """Candidates to store per query. A finished run can show fewer without scoring again, but not more."""
    seed: int = 0
    """Seed for the bootstrap, the random baseline and one_per_sentence."""
    strip_utterances: int = field(default=256, metadata=EXECUTION)
    """Utterances to read and score at a time. A unit of work is a block of such strips."""
    keep_scores: bool = field(default=False, metadata=EXECUTION)
    """Store the full score matrices (scores/*.parquet): 4 bytes per score and pair, thousands of GB for large sets."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs per scoring actor; none: 1 if the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Maximum number of scoring actors; none: as for the encoder."""

    SHOWN: ClassVar[tuple[str, ...]] = ("mode", "protocol", "top_k")
    """Settings that select from stored results. A finished run accepts other values without scoring again."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("--retrieval.top-k", self.top_k, 1)
        at_least("--retrieval.candidates", self.candidates, 1)
        at_least("--retrieval.seed", self.seed, 0)
        at_least("--retrieval.strip-utterances", self.strip_utterances, 1)
        at_least("--retrieval.num-gpus", self.num_gpus, 0)
        at_least("--retrieval.max-actors", self.max_actors, 1)
        for name, what in (("baselines", "score"), ("layers", "layer")):
            if len(set(named := getattr(self, name))) < len(named):
                raise UserError(f"--retrieval.{name} names a {what} twice: {' '.join(map(str, named))}")
        if self.candidates is not None and ("dtw" in self.baselines or self.layers):
            flag, what = (
                ("baselines", "dtw") if "dtw" in self.baselines else ("layers", ",".join(map(str, self.layers)))
            )
            raise UserError(
                f"--retrieval.{flag} {what} would be ranked among the --retrieval.candidates of SeqSim alone; "
                "leave out one of the two"
            )

    def covers(self, sizes: tuple[int, int]) -> bool:
        """Whether every pair of two sets of these sizes is scored, so that no candidate search is needed."""
        return self.candidates is None or self.candidates >= min(sizes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalJob(Job):
    """Settings of jobs/retrieval.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)

    def __post_init__(self) -> None:
        """Check that there are two languages, and that the layers to score are kept."""
        Job.__post_init__(self)
        if len(self.languages) < 2:
            raise UserError(f"retrieval needs two languages or more; --languages is {self.languages[0]!r}")
        missing = sorted(set(self.retrieval.layers) - set(self.embed.layers))
        if missing and self.retrieval.embeddings is None:
            raise UserError(f"--retrieval.layers {missing} are not kept; add them to --embed.layers")
