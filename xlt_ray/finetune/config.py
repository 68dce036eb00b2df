"""Settings of fine-tuning: directions to learn, training, directions to preserve."""

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
    """How the decoder learns a new direction, and which ones it should preserve."""

    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to train on; none: the one with this corpus, model and encoding."""
    directions: Codes = ("en-zh",)
    """Comma-separated directions to learn, as source-target: en-zh."""
    prompt: Literal["src_translate", "tgt_transcribe", "tgt_translate"] = "tgt_transcribe"
    """Language and task token of the prompt for new targets. X-en and X-X always use the prompt of Whisper's training.
    tgt_transcribe best preserves X-en, because it does not give the token translate a second meaning."""
    split: str = "train"
    """Split to train on; all: every row."""
    dev_split: str = "dev"
    """Split for dev BLEU, used with --finetune.evaluate-every."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW, reached after the warm-up; then linear decay to 0."""
    warmup: float = 0.1
    """Fraction of the steps in which the learning rate rises."""
    batch_size: int = 10
    """Examples per step, over all workers."""
    epochs: int = 3
    """Number of passes over the examples of --finetune.directions."""
    clip: float = 1.0
    """Maximum L2 norm of the gradient, over all weights."""
    seed: int = 0
    """Seed for example order, LoRA initialisation and the sampled Fisher."""
    train_embeddings: bool = False
    """Also train the token embeddings, which are tied to the output layer: half of the decoder of Whisper base."""
    lora_rank: int | None = None
    """Train LoRA adapters of this rank instead of the decoder's own weights. They are merged at the end."""
    keep: Codes = ()
    """Directions to preserve with EWC and replay: es-en,fr-en."""
    replay_fraction: float = 0.0
    """Fraction of every batch taken from --finetune.keep."""
    ewc_lambda: float = 0.0
    """Strength of elastic weight consolidation (EWC) on --finetune.keep: loss + lambda/2 sum F (theta - theta0)^2."""
    fisher: str | None = field(default=None, metadata=EXECUTION)
    """Name of the Fisher artifact for EWC; none: NAME, estimated first if it is missing."""
    fisher_labels: Literal["empirical", "sampled"] = "empirical"
    """Gradients of the references (empirical), or of texts sampled token by token from the model (sampled)."""
    fisher_examples: int = 200
    """Maximum number of examples per preserved direction for the Fisher estimate."""
    fisher_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the Fisher in memory. bfloat16 halves it."""
    ewc_on_cpu: bool = field(default=False, metadata=EXECUTION)
    """Keep Fisher and anchor in CPU memory and copy them to the GPU in each step: slower, less GPU memory."""
    evaluate_every: int = 0
    """Steps between evaluations of dev BLEU; the best weights are kept. 0: no evaluation, the last weights are kept."""
    evaluate: Codes = ()
    """Directions to evaluate besides --finetune.directions, such as es-en, to track forgetting."""
    patience: int | None = None
    """Stop after this many evaluations without a better dev BLEU."""
    micro_batch_size: int | None = field(default=None, metadata=EXECUTION)
    """Examples per forward pass of a worker, to save memory; none: its whole share of a batch."""
    gradient_checkpointing: bool = field(default=False, metadata=EXECUTION)
    """Recompute activations in the backward pass to save memory."""
    checkpoint_every: int = field(default=200, metadata=EXECUTION)
    """Steps between checkpoints. A killed run repeats at most this many."""
    num_workers: int | None = field(default=None, metadata=EXECUTION)
    """Training processes (DDP); none: one per GPU, or one without GPUs."""
    num_gpus: Literal[0, 1] | None = field(default=None, metadata=EXECUTION)
    """GPUs per worker; none: 1 if the cluster has a GPU now. Set 1 if GPU nodes scale up from zero."""
    max_failures: int = field(default=3, metadata=EXECUTION)
    """Lost workers or nodes before the job fails. After each it resumes from the last checkpoint."""
    export: str = field(default="none", metadata=EXECUTION)
    """Also export the model: none; ctranslate2, for faster-whisper; hub:USER/NAME, a repository of the Hugging Face
    Hub. The same command also exports a finished run."""

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
            raise UserError(f"--finetune.warmup is {self.warmup}; give a fraction of the steps, 0 to 1")
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
            raise UserError("--finetune.evaluate has no effect without --finetune.evaluate-every STEPS; add it")
        if both := sorted(set(self.directions) & set(self.evaluate)):
            raise UserError(f"{both[0]} of --finetune.evaluate is in --finetune.directions, so it is measured anyway")

    def _check_keeping(self) -> None:
        if self.ewc_lambda and self.lora_rank:
            raise UserError(
                "--finetune.ewc-lambda penalises weights that --finetune.lora-rank does not train; drop one"
            )
        if self.ewc_lambda and not self.keep:
            raise UserError("--finetune.ewc-lambda needs directions to preserve; add --finetune.keep es-en,fr-en")
        if self.replay_fraction and not self.keep:
            raise UserError("--finetune.replay-fraction needs --finetune.keep, such as es-en,fr-en")
        if self.replay_fraction and not 0 < round(self.replay_fraction * self.batch_size) < self.batch_size:
            raise UserError(
                f"--finetune.replay-fraction {self.replay_fraction} of a batch of {self.batch_size} is "
                f"{round(self.replay_fraction * self.batch_size)} examples; change one so that a batch has both kinds"
            )
        if both := sorted(set(self.directions) & set(self.keep)):
            raise UserError(f"{both[0]} is in --finetune.directions and in --finetune.keep; keep it in one")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneJob(Job):
    """Settings of jobs/finetune.py."""

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        """Check that all sources are among the languages, and that --finetune.keep has an effect."""
        Job.__post_init__(self)
        self._check_training()

    def _check_training(self) -> None:
        if self.finetune.keep and not (self.uses("ewc_lambda") or self.uses("replay_fraction")):
            raise UserError(
                "--finetune.keep alone does nothing; add --finetune.ewc-lambda or --finetune.replay-fraction"
            )
        if self.finetune.fisher and not self.uses("ewc_lambda"):
            raise UserError("--finetune.fisher has no effect without --finetune.ewc-lambda")
        asked = {"directions": self.learned, "keep": self.finetune.keep, "evaluate": self.finetune.evaluate}
        for name, directions in asked.items():
            sources = {direction.split("-")[0] for direction in directions}
            if beyond := sorted(sources - set(self.languages)):
                listed = ",".join(self.languages)
                raise UserError(f"--finetune.{name} has source {beyond[0]}, which is not in --languages {listed}")

    def _require_one_upload(self, num_models: str, advice: str) -> None:
        """Refuse to upload several models: each would replace the one before."""
        if self.finetune.export.startswith("hub:"):
            raise UserError(
                f"--finetune.export {self.finetune.export} would upload {num_models} models to one repository, each "
                f"over the one before; {advice}"
            )

    @property
    def learned(self) -> tuple[str, ...]:
        """Directions that the runs of this job learn."""
        return self.finetune.directions

    def uses(self, name: str) -> bool:
        """Whether a run of this job sets the setting to anything but 0."""
        return bool(getattr(self.finetune, name))
