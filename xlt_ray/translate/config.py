"""Settings of translation: which weights, which directions, which prompt, which scores."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import ClassVar, Literal

from xlt_ray import languages
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.errors import UserError
from xlt_ray.job.settings import EXECUTION, Codes, Job, at_least, flag, read_codes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TranslateConfig:
    """Weights, directions, prompt and scores of a translation."""

    embeddings: str | None = field(default=None, metadata=EXECUTION)
    """Name of the embed artifact to read; none: the one with this corpus, model and encoding."""
    checkpoint: str | None = field(default=None, metadata=EXECUTION)
    """Name of the finetune artifact whose decoder translates; none: the decoder of --model."""
    alpha: float = 1.0
    """Interpolate weights between --model (0) and the checkpoint (1): theta0 + alpha (theta1 - theta0). No training."""
    targets: Codes = ()
    """Target languages; none: en and the targets that the checkpoint was trained on."""
    transcribe: bool = True
    """Also transcribe every language, for WER or CER."""
    prompt: Literal["src_translate", "tgt_transcribe", "tgt_translate"] | None = None
    """Prompt for new targets, see --finetune.prompt; none: the checkpoint's prompt, or tgt_transcribe without one."""
    source_prompt: str | None = None
    """Source language in the prompt of X-en and X-X, for languages without a token: auto (detected by Whisper), soft
    (mean of all language embeddings, weighted by detection), related (a related language, from a table) or a
    language code; none: the source language."""
    hide: Codes = ()
    """Languages excluded from detection by auto and soft, to simulate unseen languages: it,es."""
    split: str = "test"
    """Split to translate; all: every row. A corpus without splits is translated whole, or with --translate.checkpoint
    only its held-out test rows."""
    num_beams: int = 1
    """Beam size; 1 is greedy."""
    max_tokens: int = 224
    """Maximum number of tokens per hypothesis."""
    baseline: str | None = field(default=None, metadata=EXECUTION)
    """Name of the translate artifact to compare with: gain, retention and significance."""
    comet: str | None = field(default=None, metadata=EXECUTION)
    """COMET model: a Hub id such as Unbabel/wmt22-comet-da, or a checkpoint file; none: no COMET. It can be added to a
    finished run without translating again."""
    rows_per_unit: int = field(default=64, metadata=EXECUTION)
    """Hypotheses per output file. A killed run repeats at most the files in progress."""
    batch_size: int = field(default=16, metadata=EXECUTION)
    """Recordings to decode at a time."""
    num_gpus: float | None = field(default=None, metadata=EXECUTION)
    """GPUs per translation actor; none: 1 if the cluster has a GPU now."""
    max_actors: int | None = field(default=None, metadata=EXECUTION)
    """Maximum number of translation actors; none: as for the encoder."""

    DETECTED: ClassVar[tuple[str, ...]] = ("auto", "soft")
    """Values of source_prompt that follow what Whisper detects."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and combinations without effect."""
        for name in ("num_beams", "max_tokens", "rows_per_unit", "batch_size", "max_actors"):
            at_least(f"--translate.{flag(name)}", getattr(self, name), 1)
        at_least("--translate.num-gpus", self.num_gpus, 0)
        if self.alpha != 1.0 and self.checkpoint is None:
            raise UserError("--translate.alpha needs a checkpoint to interpolate; add --translate.checkpoint NAME")
        read_codes(self, "targets")
        read_codes(self, "hide")
        if self.source_prompt is not None:
            object.__setattr__(self, "source_prompt", _read_prompt(self.source_prompt))


def _read_prompt(prompt: str) -> str:
    """A source prompt with its language in our code."""
    if prompt in ("related", *TranslateConfig.DETECTED):
        return prompt
    try:
        return languages.read_as(prompt)
    except UserError as error:
        raise UserError(f"source prompt {prompt!r} is neither auto, soft nor related: {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TranslateJob(Job):
    """Settings of jobs/translate.py."""

    source_prompts: Codes = field(default=(), metadata=EXECUTION)
    """Run --translate.source-prompt with each of these, under NAME-PROMPT, and compare: auto,soft,en."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    translate: TranslateConfig = field(default_factory=TranslateConfig)

    def __post_init__(self) -> None:
        """Refuse prompts named twice, and hidden languages without detection."""
        Job.__post_init__(self)
        object.__setattr__(self, "source_prompts", tuple(_read_prompt(prompt) for prompt in self.source_prompts))
        asked, single = self.source_prompts, self.translate.source_prompt
        if len(set(asked)) < len(asked):
            raise UserError(f"--source-prompts {','.join(asked)} names a prompt twice")
        if asked and single:
            raise UserError(f"--source-prompts and --translate.source-prompt {single} exclude each other; drop one")
        if self.translate.hide and not set(asked or [single]) & set(TranslateConfig.DETECTED):
            raise UserError(
                f"--translate.hide {','.join(self.translate.hide)} has no effect without detection; add "
                "--translate.source-prompt auto or soft"
            )
