"""Generates hypotheses from frames: loads the weights and forms the batches. Pure torch, no Ray."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn.functional import one_hot

from xlt_ray.languages import Direction
from xlt_ray.models.decoder import (
    FrameDecoder,
    generate,
    interpolate,
    language_probabilities,
    load_decoder,
    read_weights,
    set_weights,
)
from xlt_ray.models.prompts import Prompter, Scheme
from xlt_ray.store import shards
from xlt_ray.store.schema import DETECTED, HYPOTHESIS
from xlt_ray.translate import unseen
from xlt_ray.translate.config import TranslateConfig


def load(model_dir: Path, checkpoint_dir: Path | None, alpha: float, device: str) -> FrameDecoder:
    """The decoder of a model, a checkpoint, or an interpolation of both, in float32.

    Args:
        model_dir: Hugging Face directory of the model.
        checkpoint_dir: directory of the model tuned from it; None: the model itself.
        alpha: 0 is the model, 1 the checkpoint.
        device: `cpu` or `cuda`.
    """
    decoder = load_decoder(checkpoint_dir or model_dir, device)
    if checkpoint_dir is not None and alpha != 1.0:
        between = interpolate(read_weights(model_dir, device), read_weights(checkpoint_dir, device), alpha)
        set_weights(decoder, between)
    return decoder


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """The hypotheses of a batch.

    Attributes:
        tokens: tokens of each row, by row number.
        detected: direction and language of each row of Whisper's own directions, if languages are detected.
    """

    tokens: dict[int, list[int]]
    detected: list[tuple[Direction, str]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Translator:
    """Translates rows of TASK.

    Attributes:
        decoder: from `load`.
        prompter: for the same model.
        scheme: prompt for directions that Whisper was not trained on.
        source_prompt: as `--translate.source-prompt`, for directions that Whisper was trained on.
        hidden: language tokens that must not be detected.
        num_beams: beam size; 1 is greedy.
        max_tokens: maximum number of tokens per hypothesis.
        batch_size: texts to generate at a time.
    """

    decoder: FrameDecoder
    prompter: Prompter
    scheme: Scheme
    source_prompt: str | None
    hidden: Sequence[int]
    num_beams: int
    max_tokens: int
    batch_size: int

    def translate(self, rows: pa.Table) -> pa.Table:
        """Translate rows of TASK that have a reference into rows of HYPOTHESIS, in the same order.

        If languages are detected, the metadata of the table counts them (DETECTED). It is stored with the rows, so a
        resumed run has the counts of finished units.
        """
        return self.joined(rows, [self.write(rows, batch) for batch in self.batches(rows)])

    def batches(self, rows: pa.Table) -> list[list[int]]:
        """Row numbers of each batch: recordings of similar length, to reduce padding."""
        lengths = rows["num_frames"].to_pylist()
        order = sorted(range(rows.num_rows), key=lengths.__getitem__)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def write(self, rows: pa.Table, batch: list[int]) -> Written:
        """Tokens of some rows, and which languages were detected in Whisper's own directions."""
        chosen = rows.take(pa.array(batch, pa.int64()))
        frames = shards.read_frames(list(zip(chosen["shard"].to_pylist(), chosen["row"].to_pylist(), strict=True)))
        directions = [Direction.parse(text) for text in chosen["direction"].to_pylist()]
        tokens, detected = self._detecting(directions, frames) if self._detects else self._naming(directions, frames)
        return Written(dict(zip(batch, tokens, strict=True)), detected)

    def joined(self, rows: pa.Table, batches: Sequence[Written]) -> pa.Table:
        """Rows of HYPOTHESIS from all batches."""
        tokens = {row: written for batch in batches for row, written in batch.tokens.items()}
        detected: dict[str, Counter[str]] = {}
        for direction, language in (pair for batch in batches for pair in batch.detected):
            detected.setdefault(str(direction), Counter())[language] += 1
        new = {
            "hypothesis": [self.prompter.text(tokens[i]) for i in range(rows.num_rows)],
            "num_tokens": [len(tokens[i]) for i in range(rows.num_rows)],
        }
        columns = [new[name] if name in new else rows[name] for name in HYPOTHESIS.names]
        metadata = {DETECTED: json.dumps(detected)} if self._detects else None
        return pa.table(columns, schema=HYPOTHESIS.with_metadata(metadata))

    @property
    def _detects(self) -> bool:
        return self.source_prompt in TranslateConfig.DETECTED

    def _naming(
        self, directions: Sequence[Direction], frames: Sequence[npt.NDArray[np.float16]]
    ) -> tuple[list[list[int]], list[tuple[Direction, str]]]:
        """Generate with prompts that name the spoken language; nothing is detected."""
        named = [(direction, unseen.spoken(direction.source, self.source_prompt)) for direction in directions]
        prompts = [self.prompter.prompt(direction, self.scheme, language) for direction, language in named]
        return self._generate(frames, prompts, None), []

    def _detecting(
        self, directions: Sequence[Direction], frames: Sequence[npt.NDArray[np.float16]]
    ) -> tuple[list[list[int]], list[tuple[Direction, str]]]:
        """Generate with prompts from language detection: the most probable language, or a mix of all.

        Directions that Whisper was not trained on keep the language of their scheme in both cases.
        """
        probabilities = language_probabilities(self.decoder, frames, self.hidden)
        found = [self.prompter.language(token) for token in probabilities.argmax(dim=-1).tolist()]
        pairs = list(zip(directions, found, strict=True))
        prompts = [self.prompter.prompt(direction, self.scheme, language) for direction, language in pairs]
        mix = None
        if self.source_prompt == "soft":
            device, num_tokens = probabilities.device, probabilities.shape[1]
            named = one_hot(torch.tensor([prompt[1] for prompt in prompts], device=device), num_tokens).float()
            native = torch.tensor([direction.is_native for direction in directions], device=device)
            mix = torch.where(native[:, None], probabilities, named)
        detected = [(direction, language) for direction, language in pairs if direction.is_native]
        return self._generate(frames, prompts, mix), detected

    def _generate(
        self, frames: Sequence[npt.NDArray[np.float16]], prompts: list[list[int]], mix: torch.Tensor | None
    ) -> list[list[int]]:
        search = {"num_beams": self.num_beams, "max_tokens": self.max_tokens}
        return generate(self.decoder, frames, prompts, languages=mix, **search)
