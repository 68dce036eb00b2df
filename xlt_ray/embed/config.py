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
    """Only the first N sentences of each split, sorted by id, that every chosen language has."""
    encoding: Literal["exact", "trimmed"] = "exact"
    """exact: padded to 30 s, as the model was trained. trimmed: the speech and context-margin only, cheaper."""
    context_margin: int = 100
    """trimmed: frames of silence (20 ms each) behind the speech that the encoder sees."""
    keep_margin: int | Literal["all"] = 200
    """Frames of silence kept behind the speech for the decoder, as far as they were encoded; all keeps all of them."""
    layers: tuple[int, ...] = ()
    """Hidden layers kept beside the final one: 0 is the input of the first block."""
    split_long: bool = False
    """Encode recordings longer than 30 s in pieces cut at pauses, rather than reject them."""
    refresh: bool = field(default=False, metadata=EXECUTION)
    """Encode recordings again whose file has changed since."""
    max_rejected: float = field(default=0.05, metadata=EXECUTION)
    """Share of the recordings that may be rejected; with more of them nothing is committed."""
    rows_per_shard: int = field(default=32, metadata=EXECUTION)
    """Recordings in one Parquet shard: what a killed run may have to do again."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs an encoder actor takes; none: 1 where the cluster has a GPU now. Say 1 where GPUs scale up from zero."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Most encoder actors at a time; none: one a GPU, else one a CPU; on a cluster as many as its nodes can hold."""

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
            raise UserError(f"--embed.max-rejected is {self.max_rejected}; give a share, 0 to 1")
        at_least("--embed.rows-per-shard", self.rows_per_shard, 1)
        at_least("--embed.num-gpus", self.num_gpus, 0)
        at_least("--embed.max-actors", self.max_actors, 1)

    @property
    def encoding_identity(self) -> dict[str, Any]:
        """What decides the frames of a recording; which hidden layers are kept beside them does not."""
        return {name: value for name, value in identity(self).items() if name != "layers"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EmbedJob(Job):
    """Settings of jobs/embed.py."""

    splits: Codes = field(default=(), metadata=EXECUTION)
    """Splits to encode, with commas between: train,dev; none: every row of the corpus."""
    check: bool = field(default=False, metadata=EXECUTION)
    """Only look the corpus over (missing, undecodable, silent, too long, duplicate, mis-paired), encode nothing."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
