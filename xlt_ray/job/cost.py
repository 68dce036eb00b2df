"""Estimates the cost of a run before it starts, from the sizes of the model and the corpus.

Hours are operations divided by rates (`RATES`) that were measured on one GPU and one core, or are assumed. They show
which stage is large, and whether a run takes minutes or days. They are estimates, not measurements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rich.table import Table

TOKENS_PER_SECOND = 4.0
"""Tokens of text per second of speech; assumed. English has 2.5 to 3 words per second, of 1.3 tokens each."""

PROCESS_BYTES = 560_000_000
"""Memory of an actor without its model: Python with torch, transformers, pyarrow and Ray; measured 563 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """Operations per second of one GPU and of one core of a CPU."""

    gpu: float
    cpu: float


_CORE_FP32 = 80e9  # torch.mm on one core with AVX2, measured: 74 to 90


RATES = {
    "encode": Rate(468e12, 0.95 * _CORE_FP32),
    "score": Rate(377e12, 0.90 * _CORE_FP32),  # at 512 dimensions; 497 at 1280
    "train": Rate(75e12, 0.50 * _CORE_FP32),  # batches of 32 with 350 frames, where launching kernels takes longest
    # Token by token, weights are read for few operations each. On the Open ASR leaderboard (A100) large-v3 in
    # transformers transcribes 145 s of speech a second: about 1 TFLOP/s.
    "write": Rate(0.936e12, 0.10 * _CORE_FP32),
}
"""Rate of each kind of work, on a GPU and on a core. The rates of an H100 (large-v2, benchmarks/gpu.py, 2026-11-26) and
of the encoder and SeqSim on a CPU were measured. Those of writing, and of training on a core, are assumed."""


ASSUMED = (
    f"GPU hours are for one H100 at {RATES['encode'].gpu / 1e12:.0f} TFLOP/s for encoding, "
    f"{RATES['score'].gpu / 1e12:.0f} for scoring and {RATES['train'].gpu / 1e12:.0f} for training (measured with "
    f"large-v2), and {RATES['write'].gpu / 1e12:.1f} for generating text (assumed). CPU hours are for one core without "
    f"GPU. Speech has {TOKENS_PER_SECOND:g} tokens of text per second (assumed). Not included: reading and decoding "
    "audio, starting Ray, copying the model, dtw, COMET."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Speech:
    """The amount of speech.

    Attributes:
        num_recordings: by language and split.
        num_missing: recordings that must still be encoded, by language.
        mean_seconds: by language.
        source: where the numbers come from.
    """

    num_recordings: Mapping[tuple[str, str], int]
    num_missing: Mapping[str, int]
    mean_seconds: Mapping[str, float]
    source: str

    def count(self, language: str, split: str | None = None) -> int:
        """Recordings of a language in a split; None: in all."""
        return sum(
            num
            for (code, its_split), num in self.num_recordings.items()
            if code == language and split in (None, its_split)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """The cost of work. Costs can be added: `sum(costs, Cost())` is their total.

    Attributes:
        num_rows: recordings or texts processed; repetitions count.
        audio_hours: hours of speech in them.
        gpu_hours: hours of one H100.
        cpu_hours: hours of one core, without a GPU.
        num_bytes: bytes written.
    """

    num_rows: int = 0
    audio_hours: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    num_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Field by field."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(mine + theirs for mine, theirs in pairs))


def estimate(kind: str, flops: float, num_rows: int, seconds: float, num_bytes: float) -> Cost:
    """The cost of work of one kind (a key of RATES).

    Args:
        kind: kind of work.
        flops: operations; a multiply-add is two.
        num_rows: recordings or texts.
        seconds: seconds of speech in them.
        num_bytes: bytes written.
    """
    rate = RATES[kind]
    return Cost(num_rows, seconds / 3600, flops / rate.gpu / 3600, flops / rate.cpu / 3600, round(num_bytes))


def as_table(name: str, found: Mapping[str, Cost], source: str) -> Table:
    """Costs by stage, and their total.

    Args:
        name: of the run.
        found: cost of each stage.
        source: where the size of the corpus comes from.
    """
    table = Table(title=f"dry run of {name}: nothing was started or written", title_justify="left")
    table.caption, table.caption_justify = f"recordings {source}. {ASSUMED}", "left"
    table.add_column("stage")
    for column in ("recordings or texts", "hours of audio", "GPU hours", "CPU hours", "written"):
        table.add_column(column, justify="right")
    for stage, cost in found.items():
        table.add_row(stage, f"{cost.num_rows:,}", f"{cost.audio_hours:,.1f}", *_hours(cost))
    table.add_row("in all", "", "", *_hours(sum(found.values(), Cost())), style="bold")
    return table


def _hours(cost: Cost) -> tuple[str, str, str]:
    return _number(cost.gpu_hours), _number(cost.cpu_hours), _amount(cost.num_bytes)


def _number(value: float) -> str:
    """Two significant digits; more only before the decimal point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _amount(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if round(num_bytes) < 1000:
            return f"{_number(num_bytes)} {unit}"
        num_bytes /= 1000
    return f"{_number(num_bytes)} TB"
