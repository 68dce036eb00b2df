"""How fast does the decoder learn? Training from shards against transformers' Seq2SeqTrainer with a frozen encoder.

Real Whisper base, real English speech with Chinese text, the same batches in the same order, one thread, rounds
interleaved. The trainer runs the encoder in every step; ours reads what the encoder has made once. The time to encode
once is printed beside it. What EWC adds to a step is measured too.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from xlt_ray import corpora
from xlt_ray.corpora import audio
from xlt_ray.embed.encoder import SpeechEncoder
from xlt_ray.errors import RejectedRow
from xlt_ray.finetune.batch import collate
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.context import LocalContext
from xlt_ray.finetune.ewc import Consolidation
from xlt_ray.finetune.learner import Learner
from xlt_ray.finetune.loop import Step, Training
from xlt_ray.languages import Direction
from xlt_ray.models import whisper
from xlt_ray.models.decoder import load_decoder
from xlt_ray.models.prompts import Prompter

MODEL = "wheels:whisper-base"
BATCH = 10
STEPS = 3
ROUNDS = 3
LEARNING_RATE = 1e-5


@dataclasses.dataclass(frozen=True)
class Example:
    """One recording as each of the two needs it."""

    mel: np.ndarray
    frames: dict[str, np.ndarray]
    prompt: list[int]
    target: list[int]


def read_examples() -> tuple[list[Example], dict[str, float]]:
    """The first recordings of the demo's English, and the seconds it took to encode them once."""
    torch.set_num_threads(1)
    model_dir = whisper.resolve_model(MODEL)
    rows = list(corpora.read("asterisk", ["en"], "train"))[: BATCH * STEPS]
    read = audio.read_recordings([audio.Place(row.audio, row.member) for row in rows])
    sound = [
        audio.decode(data, row.audio) for data, row in zip(read, rows, strict=True) if not isinstance(data, RejectedRow)
    ]
    assert len(sound) == len(rows)
    seconds, frames = {}, {}
    for kind, margin in (("all", None), ("200", 200)):
        started = time.perf_counter()
        encoded = SpeechEncoder(model_dir, keep_margin=margin).encode(sound)
        seconds[kind] = time.perf_counter() - started
        frames[kind] = [recording.final for recording in encoded]
    extractor, prompter = WhisperFeatureExtractor.from_pretrained(model_dir), Prompter(model_dir)
    prompt = prompter.prompt(Direction("en", "zh"), "tgt_translate")
    examples = [
        Example(
            mel=extractor(wave, sampling_rate=16_000, return_tensors="np").input_features[0],
            frames={kind: encoded_frames[i] for kind, encoded_frames in frames.items()},
            prompt=prompt,
            target=prompter.target(row.translations["zh"], "zh"),
        )
        for i, (row, wave) in enumerate(zip(rows, sound, strict=True))
    ]
    return examples, seconds


Run = Callable[[list[Example]], tuple[list[float], list[float]]]
"""Seconds and losses of the steps on some examples."""


class Rows(Dataset):
    """The examples, in their order."""

    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i: int) -> Example:
        return self._examples[i]


def collate_mels(examples: list[Example]) -> dict[str, torch.Tensor]:
    """What the usual recipe feeds: mels of 30 s, labels padded to the longest, prompt and padding without loss."""
    longest = max(len(example.prompt) + len(example.target) - 1 for example in examples)
    tokens, labels = torch.zeros(len(examples), longest, dtype=torch.long), torch.full((len(examples), longest), -100)
    for i, example in enumerate(examples):
        given = [*example.prompt, *example.target[:-1]]
        tokens[i, : len(given)] = torch.tensor(given)
        labels[i, len(example.prompt) - 1 : len(given)] = torch.tensor(example.target)
    mels = torch.from_numpy(np.stack([example.mel for example in examples]))
    return {"input_features": mels, "decoder_input_ids": tokens, "labels": labels}


class Stopwatch(TrainerCallback):
    """Seconds and losses of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Start."""
        self._started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._started)

    def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
        """Keep the loss."""
        if "loss" in logs:
            self.losses.append(logs["loss"])


class InOrder(Seq2SeqTrainer):
    """The trainer as it is, but for the order of its examples."""

    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def seq2seq_trainer(examples: list[Example]) -> tuple[list[float], list[float]]:
    """Seconds and losses of the steps of the peer."""
    model = WhisperForConditionalGeneration.from_pretrained(whisper.resolve_model(MODEL), dtype=torch.float32)
    model.freeze_encoder()
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=LEARNING_RATE,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = InOrder(model, arguments, train_dataset=Rows(examples), data_collator=collate_mels, callbacks=[watch])
        trainer.train()
    return watch.seconds, watch.losses


def ours(
    kind: str, *, train_embeddings: bool, ewc: bool = False
) -> Callable[[list[Example]], tuple[list[float], list[float]]]:
    """The same steps from cached frames: `all` 1500 of them, or the speech and `200` of silence behind it."""

    def measure(examples: list[Example]) -> tuple[list[float], list[float]]:
        config = FinetuneConfig(learning_rate=LEARNING_RATE, warmup=0.0, train_embeddings=train_embeddings)
        learner = Learner(load_decoder(whisper.resolve_model(MODEL)), config)
        consolidation = None
        if ewc:
            anchor = {name: weight.detach().clone() for name, weight in learner.trained.items()}
            consolidation = Consolidation(learner.trained, anchor, anchor, 1.0)
        with tempfile.TemporaryDirectory() as folder:
            training = Training(learner, config, STEPS, LocalContext(Path(folder)), consolidation)
            training.run(steps(examples, kind))
        return [row["seconds"] for row in training.log], [row["loss"] for row in training.log]

    return measure


def steps(examples: list[Example], kind: str) -> Iterator[Step]:
    for first in range(0, len(examples), BATCH):
        part = examples[first : first + BATCH]
        batch = collate(
            [example.prompt for example in part],
            [example.target for example in part],
            [example.frames[kind] for example in part],
        )
        yield Step([batch], 1.0, len(batch.targets), len(part))


RUNS = {
    "Seq2SeqTrainer, frozen encoder": seq2seq_trainer,
    "ours, 1500 frames": ours("all", train_embeddings=True),
    "ours, default margin": ours("200", train_embeddings=True),
    "ours, default margin, embeddings frozen (default)": ours("200", train_embeddings=False),
    "the same with EWC": ours("200", train_embeddings=False, ewc=True),
}


def main() -> None:
    """Measure and print."""
    examples, seconds = read_examples()
    times: dict[str, list[float]] = {name: [] for name in RUNS}
    losses: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, run in RUNS.items():
            taken, losses[name] = run(examples)
            times[name] += taken[1:]  # the first step warms up
    show(times, losses, seconds, len(examples))


def show(
    times: dict[str, list[float]], losses: dict[str, list[float]], seconds: dict[str, float], num_examples: int
) -> None:
    middle = {name: statistics.median(values) for name, values in times.items()}
    peer = next(iter(RUNS))
    table = Table(title=f"fine-tuning Whisper base, batch {BATCH}, 1 thread, medians of {len(times[peer])} steps")
    for column in ("", "samples/s", "times the peer", "loss by step", "largest difference"):
        table.add_column(column, justify="left" if not column else "right")
    for name, step in middle.items():
        apart = max(abs(x - y) / y for x, y in zip(losses[name], losses[peer], strict=True))
        curve = " ".join(f"{loss:.4f}" for loss in losses[name])
        table.add_row(name, f"{BATCH / step:.2f}", f"{middle[peer] / step:.2f}", curve, f"{apart:.1e}")
    Console(width=140).print(table)
    *_, plain, consolidated = middle.values()
    print(f"EWC adds {100 * (consolidated / plain - 1):.1f} % to a step")
    print(
        "encoded once: "
        + ", ".join(f"{1000 * duration / num_examples:.0f} ms a recording" for duration in seconds.values())
    )


if __name__ == "__main__":
    main()
