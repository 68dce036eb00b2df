"""A miniature corpus, a tiny model, and the jobs that run on them: each of about 20 s, most of it the start of Ray."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import soundfile

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
from ray_speech import RATE, row, tone, write_rows  # noqa: E402
from tiny import tiny_whisper  # noqa: E402

SPLITS = {"train": 12, "dev": 4, "test": 8}
"""Sentences of each split, in each language."""
NAME = "chaos"

_TRAIN = (
    "--finetune.directions en-zh --finetune.batch-size 4 --finetune.checkpoint-every 2 --finetune.learning-rate 1e-3"
)
_KEEP = "--finetune.keep fr-en --finetune.ewc-lambda 10 --finetune.replay-fraction 0.25 --finetune.evaluate-every 4"
STAGES = {
    "embed": "",
    "retrieval": "--retrieval.strip-utterances 3 --retrieval.baselines mean_pool random",
    "mine": "--mine.strip-utterances 3 --mine.candidates 6 --mine.neighbours 2",
    "translate": "--translate.targets zh --translate.rows-per-unit 2 --translate.max-tokens 24",
    "finetune": f"{_TRAIN} {_KEEP} --finetune.epochs 10 --finetune.learning-rate 1e-3 --finetune.num-workers 2",
    "tune": f"{_TRAIN} --finetune.keep fr-en --finetune.epochs 2 --tune.learning-rate 1e-3,1e-2 --tune.ewc-lambda 10",
    "study": "--study.target zh --finetune.epochs 1 --finetune.batch-size 4",
}
"""Flags of the job of each stage; all but the first read embeddings that are there."""


def environment() -> dict[str, str]:
    """Of a job that is nobody else's: no cluster, no server, no network."""
    foreign = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


@dataclasses.dataclass(frozen=True)
class World:
    """Where the corpus, the model and the logs are."""

    folder: Path
    root: Path = ROOT
    environment: Mapping[str, str] = dataclasses.field(default_factory=environment)

    def start(self, stage: str, root: str, log: str, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the job of a stage; what it says is appended to a log."""
        return subprocess.Popen(
            self.words(stage, root),
            cwd=ROOT,
            env={**self.environment, **(more or {})},
            stdout=(self.folder / log).open("ab"),
            stderr=subprocess.STDOUT,
        )

    def words(self, stage: str, root: str) -> list[str]:
        """The command of a stage."""
        corpus = f"--corpus manifest:{self.folder / 'manifest.jsonl'} --languages en,fr --model {self.folder / 'model'}"
        flags = f"{corpus} --embed.rows-per-shard 1 --root {root} --name {NAME} {STAGES[stage]}"
        return [sys.executable, f"jobs/{stage}.py", *flags.split()]


def build(folder: Path) -> World:
    """Write the corpus and the model."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    for number, language in enumerate(("en", "fr")):
        for sentence, split in enumerate(splits):
            name = f"{language}-{sentence:03d}.wav"
            soundfile.write(folder / name, tone(sentence, number, 0.4 + 0.1 * (sentence % 5)), RATE)
            translations = {"zh": f"{sentence}号", "en": f"number {sentence}"}
            rows.append({**row(language, sentence, name), "translations": translations, "split": split})
    write_rows(folder, rows)
    tiny_whisper(folder / "model")
    return World(folder)
