"""Settings of fine-tuning: what is learned, how, and what is kept."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import field
from typing import Literal

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.job.settings import EXECUTION, Codes, Job, at_least, flag, read_directions


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """How the decoder learns a new direction, and what it should keep."""

    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to train on; none: the one with this corpus, model and encoding."""
    directions: Codes = ("en-zh",)
    """What is learned, source-target, with commas between: en-zh."""
    prompt: Literal["src_translate", "tgt_transcribe", "tgt_translate"] = "tgt_transcribe"
    """Language and task of the prompt for new targets. X-en and X-X always keep the prompt of Whisper's training;
    tgt_transcribe leaves them best in peace, because it gives the task token translate no second meaning."""
    split: str = "train"
    """Split to train on, or all for every row."""
    dev_split: str = "dev"
    """Split on which dev BLEU is measured, where --finetune.evaluate-every asks for it."""
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
    fisher: str | None = field(default=None, metadata=EXECUTION)
    """Name of the fisher artifact that EWC uses; none: the job's own name, estimated first where it is missing."""
    fisher_labels: Literal["empirical", "sampled"] = "empirical"
    """Gradients of the references, or of texts drawn token by token from the model itself."""
    fisher_examples: int = 200
    """Most examples of each kept direction that the Fisher is estimated on."""
    fisher_dtype: Literal["float32", "bfloat16"] = "float32"
    """How EWC holds the Fisher: bfloat16 takes half the memory."""
    ewc_on_cpu: bool = field(default=False, metadata=EXECUTION)
    """Hold Fisher and anchor in the memory of the CPU, at the price of copying them to the GPU in each step."""
    evaluate_every: int = 0
    """Steps between two measurements of dev BLEU; the best weights are kept. 0: none, the last weights are kept."""
    evaluate: Codes = ()
    """Directions measured beside --finetune.directions, such as es-en: to see what is forgotten, and when."""
    patience: int | None = None
    """Stop after so many measurements without a better dev BLEU."""
    micro_batch_size: int | None = field(default=None, metadata=EXECUTION)
    """Examples a worker computes at a time, for less memory; none: all of its share of a batch."""
    gradient_checkpointing: bool = field(default=False, metadata=EXECUTION)
    """Compute activations twice rather than keep them."""
    checkpoint_every: int = field(default=200, metadata=EXECUTION)
    """Steps between two checkpoints: what a killed run may have to do again."""
    num_workers: int | None = field(default=None, metadata=EXECUTION)
    """Training processes (DDP); none: one a GPU, else one."""
    num_gpus: Literal[0, 1] | None = field(default=None, metadata=EXECUTION)
    """GPUs a worker takes; none: 1 where the cluster has a GPU now. Say 1 where GPUs scale up from zero."""
    max_failures: int = field(default=3, metadata=EXECUTION)
    """Lost workers or nodes after which the job gives up; each time it goes on from the last checkpoint."""
    export: str = field(default="none", metadata=EXECUTION)
    """Where else the model goes: none; ctranslate2, as faster-whisper reads it; hub:USER/NAME, a repository of the
    Hugging Face Hub. A finished run is exported too, by the same command."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that a run reads."""
        return tuple(dict.fromkeys((self.split, *([self.dev_split] if self.evaluate_every else []))))

    def __post_init__(self) -> None:
        """Refuse values out of range, and combinations without effect."""
        for name in ("batch_size", "epochs", "fisher_examples", "checkpoint_every"):
            at_least(f"--finetune.{flag(name)}", getattr(self, name), 1)
        for name in ("lora_rank", "patience", "micro_batch_size", "num_workers"):
            at_least(f"--finetune.{flag(name)}", getattr(self, name), 1)
        for name in ("seed", "ewc_lambda", "evaluate_every", "max_failures", "warmup"):
            at_least(f"--finetune.{flag(name)}", getattr(self, name), 0)
        for name in ("learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise UserError(f"--finetune.{flag(name)} is {getattr(self, name)}; give more than 0")
        if not 0 <= self.replay_fraction < 1:
            raise UserError(f"--finetune.replay-fraction is {self.replay_fraction}; give 0 or more, below 1")
        if self.warmup > 1:
            raise UserError(f"--finetune.warmup is {self.warmup}; give a share of the steps, 0 to 1")
        if not re.fullmatch(r"none|ctranslate2|hub:[^/]+/[^/]+", self.export):
            raise UserError(f"--finetune.export is {self.export}; give none, ctranslate2 or hub:USER/NAME")
        if not self.directions:
            raise UserError("--finetune.directions is empty; give source-target, for example en-zh")
        for name in ("directions", "keep", "evaluate"):
            read_directions(self, name, f"--finetune.{name}")
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
class FinetuneJob(Job):
    """Settings of jobs/finetune.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        """What is heard in training must be among the languages."""
        Job.__post_init__(self)
        for name in ("directions", "keep", "evaluate"):
            sources = {direction.split("-")[0] for direction in getattr(self.finetune, name)}
            if beyond := sorted(sources - set(self.languages)):
                there = ",".join(self.languages)
                raise UserError(f"--finetune.{name} hears {beyond[0]}, which is not in --languages {there}")
