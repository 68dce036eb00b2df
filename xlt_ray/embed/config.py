"""Settings of embedding: which recordings, which encoding, what a shard keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Literal

from xlt_ray.errors import UserError
from xlt_ray.job.settings import EXECUTION, Codes, Job, at_least, identity


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig:
    """How speech becomes frames: which recordings, which encoding, what a shard keeps."""

    num_sentences: int | None = field(default=None, metadata=EXECUTION)
    """Use only the first N sentences of each split, sorted by id, that all languages share."""
    encoding: Literal["exact", "trimmed"] = "exact"
    """exact: pad to 30 s, as in Whisper's training. trimmed: encode only the speech and context-margin; faster."""
    context_margin: int = 100
    """trimmed: frames of silence (20 ms each) to encode after the speech."""
    keep_margin: int | Literal["all"] = 200
    """Frames of silence to keep after the speech for the decoder, if they were encoded; all: keep every frame."""
    layers: tuple[int, ...] = ()
    """Hidden layers to keep in addition to the final one; 0 is the input of the first block."""
    split_long: bool = False
    """Split recordings longer than 30 s at pauses instead of rejecting them."""
    refresh: bool = field(default=False, metadata=EXECUTION)
    """Encode recordings again if their file or segment has changed."""
    max_rejected: float = field(default=0.05, metadata=EXECUTION)
    """Maximum fraction of recordings that may be rejected. Above it, nothing is committed."""
    rows_per_shard: int = field(default=32, metadata=EXECUTION)
    """Recordings per Parquet shard. A killed run repeats at most the shards in progress."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs per encoder actor; none: 1 if the cluster has a GPU now. Set 1 if GPU nodes scale up from zero."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Maximum number of encoder actors; none: one per GPU or CPU; on a cluster, as many as its nodes can hold."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("--embed.num-sentences", self.num_sentences, 1)
        at_least("--embed.context-margin", self.context_margin, 0)
        if self.encoding == "exact" and self.context_margin != 100:
            raise UserError("--embed.context-margin has no effect with exact encoding; add --embed.encoding trimmed")
        if self.keep_margin != "all":
            at_least("--embed.keep-margin", self.keep_margin, 0)
        for layer in self.layers:
            at_least("--embed.layers", layer, 0)
        if len(set(self.layers)) < len(self.layers):
            raise UserError(f"--embed.layers names a layer twice: {' '.join(map(str, self.layers))}")
        if not 0 <= self.max_rejected <= 1:
            raise UserError(f"--embed.max-rejected is {self.max_rejected}; give a fraction, 0 to 1")
        at_least("--embed.rows-per-shard", self.rows_per_shard, 1)
        at_least("--embed.num-gpus", self.num_gpus, 0)
        at_least("--embed.max-actors", self.max_actors, 1)

    @property
    def encoding_identity(self) -> dict[str, Any]:
        """The settings that determine the frames of a recording. The kept hidden layers do not."""
        return {name: value for name, value in identity(self).items() if name != "layers"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EmbedJob(Job):
    """Settings of jobs/embed.py."""

    splits: Codes = field(default=(), metadata=EXECUTION)
    """Comma-separated splits to encode, such as train,dev; none: every row of the corpus."""
    check: bool = field(default=False, metadata=EXECUTION)
    """Check the corpus (missing, undecodable, silent, too long, duplicate, mis-paired) and exit without encoding."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
