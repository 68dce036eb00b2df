"""Finetune and translate artifacts in the form that the jobs leave them, with figures that a test can choose."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.job.settings import identity
from xlt_ray.store.schema import REJECTED
from xlt_ray.translate.config import TranslateConfig

BEFORE = {
    "es-en": 12.2,
    "fr-en": 7.4,
    "it-en": 5.0,
    "ru-en": 5.2,
    "en-zh": 0.15,
    "es-zh": 0.16,
    "fr-zh": 0.1,
    "ru-zh": 0.2,
}
WER_BEFORE = {"en-en": 0.06, "es-es": 0.27, "fr-fr": 1.67}
KEEP = ("es-en", "fr-en")
MODEL = {"sha256": "2be218e4"}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def fingerprint(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def write_artifact(
    root: Path, stage: str, name: str, what: dict[str, Any], settings: dict[str, Any], metrics: Any
) -> str:
    """Write it; its fingerprint."""
    folder = root / stage / name
    write_json(folder / "config.json", {"identity": what, "settings": settings})
    write_json(folder / "metrics.json", metrics)
    pq.write_table(pa.table(REJECTED.empty_table()), folder / "rejected.parquet")
    write_json(folder / "manifest.json", {"stage": stage, "name": name, "fingerprint": fingerprint(what), "files": []})
    return fingerprint(what)


def log_of(num_steps: int, *, has_dev: bool = False) -> list[dict[str, float]]:
    """A loss that falls from 4 towards 1 and zigzags; dev BLEU is best at three quarters of the steps."""
    rows = []
    for step in range(1, num_steps + 1):
        loss = 1 + 3 * (1 - step / num_steps) ** 2 + (0.2 if step % 2 else -0.2)
        row = {"step": step, "num_examples": 10, "loss": loss, "learning_rate": 1e-5, "grad_norm": 1.0, "seconds": 0.5}
        if has_dev and step % (num_steps // 4) == 0:
            row["dev_bleu"] = 20 - abs(step - 3 * num_steps / 4)
        rows.append(row)
    return rows


def write_finetune(root: Path, name: str, config: FinetuneConfig, num_steps: int = 120) -> str:
    """A finished run of fine-tuning, with the Fisher that it needs; its fingerprint."""
    fisher = None
    if config.ewc_lambda:
        settings = {"keep": sorted(config.keep), "labels": "empirical", "examples": 200, "seed": config.seed}
        figures = {"num_examples": 200, "trace": 41234.5, "largest": 12.5}
        what = {"embeddings": "41ec", "model": MODEL, "fisher": settings}
        fisher = write_artifact(root, "fisher", config.fisher or name, what, {}, figures)
    log = log_of(num_steps, has_dev=bool(config.evaluate_every))
    write_json(root / "finetune" / name / "log.json", log)
    figures = {
        "num_examples": {"keep": 240, "learn": 1230},
        "num_steps": num_steps,
        "loss": {"first": 3.875, "last": 1.0625},
        "dev_bleu": {"best": 20.0, "last": 17.5} if config.evaluate_every else None,
        "penalty": None,
        "samples_per_s": 20.25,
    }
    what = {"embeddings": "41ec", "model": MODEL, "finetune": identity(config), "fisher": fisher}
    return write_artifact(root, "finetune", name, what, {"finetune": dataclasses.asdict(config)}, figures)


def figures_of(bleu: dict[str, float], wer: dict[str, float]) -> dict[str, Any]:
    scored = {
        name: {"bleu": score, "bleu_ci95": [score * 0.5, score * 1.5], "chrf": 2 * score, "comet": None, "wer": None}
        | {"num": 35, "empty_rate": 0.0286}
        for name, score in bleu.items()
    }
    rates = {name: {"measure": "wer", "wer": rate, "num": 35, "empty_rate": 0.0} for name, rate in wer.items()}
    return {
        "directions": scored | rates,
        "means": {"transcription": {"wer": sum(wer.values()) / len(wer), "num_directions": len(wer)}} if wer else {},
        "comet": None,
        "baseline": None,
        "kept": None,
        "prompt": "tgt_translate",
        "checkpoint": None,
        "alpha": None,
    }


def compared(after: dict[str, float], wer_after: dict[str, float] | None = None) -> dict[str, Any]:
    """`kept.directions` of metrics.json."""
    texts = {
        name: {"measure": "bleu", "before": BEFORE[name], "after": score, "difference": score - BEFORE[name], "num": 35}
        for name, score in after.items()
    }
    rates = {
        name: {
            "measure": "wer",
            "before": WER_BEFORE[name],
            "after": rate,
            "difference": rate - WER_BEFORE[name],
            "num": 35,
        }
        for name, rate in (wer_after or {}).items()
    }
    return texts | rates


def moved(kept: float, gain: float) -> dict[str, float]:
    """BLEU by direction of a run that keeps `kept` of X-en and gains `gain` BLEU elsewhere, not evenly."""
    after = {name: bleu * kept if name.endswith("en") else bleu + gain for name, bleu in BEFORE.items()}
    after["es-en"] -= 0.5 * kept
    after["fr-en"] += 0.5 * kept
    return after


def write_baseline(root: Path, name: str = "base") -> dict[str, str]:
    """The model as it is; what a run says of its baseline."""
    what = {"model": MODEL, "checkpoint": None, "translate": identity(TranslateConfig())}
    return {
        "name": name,
        "fingerprint": write_artifact(root, "translate", name, what, {}, figures_of(BEFORE, WER_BEFORE)),
    }


def write_translate(
    root: Path,
    name: str,
    baseline: dict[str, str],
    after: dict[str, float],
    checkpoint: dict[str, str] | None,
    alpha: float = 1.0,
    targets: Sequence[str] = (),
) -> None:
    """A finished run that was compared with `baseline`; it hears everything 10 % worse than before."""
    config = TranslateConfig(checkpoint=checkpoint["name"] if checkpoint else None, alpha=alpha, targets=tuple(targets))
    rates = {key: 1.1 * rate for key, rate in WER_BEFORE.items()}
    metrics = figures_of(after, rates) | {"checkpoint": checkpoint, "alpha": alpha if checkpoint else None}
    metrics |= {"baseline": baseline, "kept": {"directions": compared(after, rates), "gain": None}}
    tuned = checkpoint["fingerprint"] if checkpoint else None
    what = {"model": MODEL, "checkpoint": tuned, "translate": identity(config)}
    write_artifact(root, "translate", name, what, {"translate": dataclasses.asdict(config)}, metrics)


SWEEPS: list[tuple[str, dict[str, Any], float, float]] = [
    ("plain", {}, 0.31, 9.4),
    ("plain-1", {"seed": 1}, 0.27, 10.2),
    ("ewc-1e2", {"ewc_lambda": 100.0, "keep": KEEP}, 0.43, 9.1),
    ("ewc-1e4", {"ewc_lambda": 1e4, "keep": KEEP}, 0.71, 7.2),
    ("ewc-1e6", {"ewc_lambda": 1e6, "keep": KEEP}, 0.97, 1.6),
    ("replay-10", {"replay_fraction": 0.1, "keep": KEEP}, 0.78, 8.7),
    ("replay-30", {"replay_fraction": 0.3, "keep": KEEP}, 0.88, 8.1),
    ("replay-50", {"replay_fraction": 0.5, "keep": KEEP}, 0.93, 6.1),
    ("lora-4", {"lora_rank": 4, "evaluate_every": 30}, 0.62, 4.0),
    ("lora-16", {"lora_rank": 16, "evaluate_every": 30}, 0.51, 6.4),
    ("both", {"replay_fraction": 0.3, "ewc_lambda": 1e4, "keep": KEEP}, 0.95, 7.3),
    ("bad", {"learning_rate": 1e-3}, 0.02, -0.14),
]
"""Names, settings, kept and gain of a root with every method in it."""


def write_tuned_runs(root: Path) -> None:
    """A baseline, all of SWEEPS, and two interpolations between it and `plain`."""
    baseline = write_baseline(root)
    for name, settings, kept, gain in SWEEPS:
        checkpoint = {"name": name, "fingerprint": write_finetune(root, name, FinetuneConfig(**settings))}
        write_translate(root, name, baseline, moved(kept, gain), checkpoint)
    plain = {
        "name": "plain",
        "fingerprint": json.loads((root / "finetune/plain/manifest.json").read_text())["fingerprint"],
    }
    for alpha, kept, gain in ((0.3, 0.91, 2.9), (0.6, 0.69, 8.2)):
        write_translate(root, f"plain-{alpha}", baseline, moved(kept, gain), plain, alpha, targets=("en", "zh"))
