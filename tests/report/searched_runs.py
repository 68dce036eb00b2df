"""Tune and study artifacts in the form that the jobs leave them, with figures that a test can choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tuned_runs import write_artifact

DEV = {"name": "search-dev", "new_bleu": 0.4, "old_bleu": 8.0}
TEST = {"name": "search-test", "new_bleu": 0.2, "old_bleu": 7.5}

TRIALS: list[tuple[str, dict[str, float], float | None, float | None]] = [
    ("finished", {"learning_rate": 1e-5, "ewc_lambda": 0.0, "replay_fraction": 0.0, "lora_rank": 0.0}, 6.4, 4.0),
    ("finished", {"learning_rate": 1e-5, "ewc_lambda": 1e4, "replay_fraction": 0.0, "lora_rank": 0.0}, 5.1, 6.0),
    ("stopped", {"learning_rate": 3e-5, "ewc_lambda": 1e6, "replay_fraction": 0.0, "lora_rank": 0.0}, 1.2, 7.6),
    ("finished", {"learning_rate": 3e-5, "ewc_lambda": 0.0, "replay_fraction": 0.25, "lora_rank": 0.0}, 8.9, 6.8),
    ("failed", {"learning_rate": 1e-3, "ewc_lambda": 0.0, "replay_fraction": 0.0, "lora_rank": 0.0}, None, None),
    ("finished", {"learning_rate": 3e-5, "ewc_lambda": 0.0, "replay_fraction": 0.0, "lora_rank": 8.0}, 4.3, 5.2),
    ("finished", {"learning_rate": 3e-5, "ewc_lambda": 0.0, "replay_fraction": 0.0, "lora_rank": 0.0}, 9.6, 3.2),
    ("stopped", {"learning_rate": 1e-5, "ewc_lambda": 0.0, "replay_fraction": 0.0, "lora_rank": 4.0}, 0.9, 7.9),
    ("finished", {"learning_rate": 1e-5, "ewc_lambda": 1e2, "replay_fraction": 0.5, "lora_rank": 0.0}, 6.1, 7.4),
]
"""Status, settings, new and old BLEU on dev; those of the baseline are in DEV."""

FRONT, CHOSEN = (3, 6, 8), (3, 8)
REASON = 'loss is <b>nan</b> at step 3 & "gone"'


def trial_of(number: int) -> dict[str, Any]:
    """The trial as metrics.json has it; on test the chosen are one BLEU worse in both figures."""
    status, settings, new, old = TRIALS[number]
    row: dict[str, Any] = {"trial": number, "name": f"search-{number:03d}", "settings": settings, "status": status}
    row |= {"on_front": number in FRONT, "chosen": number in CHOSEN, "test": None}
    if new is None or old is None:
        nothing = dict.fromkeys(("num_steps", "seconds", "new_bleu", "old_bleu", "gain", "kept"))
        return row | nothing | {"reason": REASON, "bleu": {}, "curve": []}
    num_steps = 42 if status == "finished" else 14
    steps = range(14, num_steps + 1, 14)
    curve = [
        {
            "step": step,
            "new_bleu": new * step / num_steps,
            "old_bleu": DEV["old_bleu"] + (old - DEV["old_bleu"]) * step / num_steps,
        }
        for step in steps
    ]
    row |= {"reason": None, "num_steps": num_steps, "seconds": 200.1 + number, "new_bleu": new, "old_bleu": old}
    row |= {"bleu": {"en-zh": new, "es-en": old + 1, "fr-en": old - 1}, "curve": curve}
    row |= {"gain": new - DEV["new_bleu"], "kept": old / DEV["old_bleu"]}
    if row["chosen"]:
        figures = {"gain": new - 1 - TEST["new_bleu"], "kept": (old - 1) / TEST["old_bleu"]}
        row["test"] = {"translate": row["name"], "new_bleu": new - 1, "old_bleu": old - 1, **figures}
    return row


def search_figures() -> dict[str, Any]:
    """metrics.json of a search with trials of every status."""
    return {
        "objective": "pareto",
        "gain_weight": None,
        "split": "dev",
        "gain_directions": ["en-zh"],
        "kept_directions": ["es-en", "fr-en"],
        "space": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"},
            "ewc_lambda": [0.0, 1e2, 1e4, 1e6],
            "replay_fraction": [0.0, 0.25, 0.5],
            "lora_rank": [0.0, 4.0, 8.0],
        },
        "baseline": {"dev": DEV, "test": TEST},
        "trials": [trial_of(number) for number in range(len(TRIALS))],
        "best": "search-003",
        "importance": {
            "learning_rate": {"gain": 0.29, "kept": -0.44},
            "ewc_lambda": {"gain": -0.21, "kept": 0.62},
            "replay_fraction": {"gain": 0.38, "kept": 0.93},
            "lora_rank": {"gain": None, "kept": -0.13},
        },
    }


def write_search(root: Path, name: str = "search", **figures: Any) -> None:
    """A finished search; `figures` replace those of `search_figures`."""
    write_artifact(root, "tune", name, {"tune": name}, {}, search_figures() | figures)


UNTOUCHED = {"en": 1.6, "es": 1.2, "fr": 2.1, "it": 1.1, "ru": 1.0}
SOURCES = tuple(UNTOUCHED)
MEANS = {"it": 3.1, "es": 2.9, "fr": 2.2, "en": 1.4, "ru": 0.1}
"""Mean gain of each source over the other languages."""


def cell_of(trained: str, heard: str) -> dict[str, Any]:
    """Four gains around the mean of the source, so that their mean is that; 5 BLEU more on the source itself."""
    others = [language for language in SOURCES if language != trained]
    gain = MEANS[trained] + (5.0 if heard == trained else (-0.9, -0.3, 0.3, 0.9)[others.index(heard)])
    bleu = UNTOUCHED[heard] + gain
    figures = {"gain": gain, "gain_ci95": [gain - 0.6, gain + 1.0], "p_value": 0.002 if abs(gain) > 0.8 else 0.41}
    return {"bleu": bleu, "bleu_ci95": [bleu - 1.2, bleu + 1.3], **figures, "num": 40}


def study_figures() -> dict[str, Any]:
    """metrics.json of a study of five languages, of which one cell is missing."""
    rng = np.random.default_rng(3)
    transfer = {trained: {heard: cell_of(trained, heard) for heard in SOURCES} for trained in SOURCES}
    del transfer["ru"]["it"]
    pairs = [(trained, heard) for trained in SOURCES for heard in SOURCES if trained != heard]
    r1: dict[str, dict[str, float]] = {trained: {} for trained in SOURCES}
    distance: dict[str, dict[str, float]] = {trained: {} for trained in SOURCES}
    for trained, heard in pairs:
        gain = cell_of(trained, heard)["gain"]
        r1[trained][heard] = float(np.clip(0.35 + 0.12 * gain + rng.normal(0, 0.08), 0.02, 0.99))
        distance[trained][heard] = float(np.clip(0.5 - 0.08 * gain + rng.normal(0, 0.06), 0.01, 0.99))
    permuted = {"num_cells": 19, "num_permutations": 120}
    return {
        "target": "zh",
        "sources": list(SOURCES),
        "split": "test",
        "prompt": "tgt_translate",
        "before": {heard: {"bleu": bleu, "bleu_ci95": [bleu - 0.4, bleu + 0.5]} for heard, bleu in UNTOUCHED.items()},
        "transfer": transfer,
        "ranking": [
            {
                "source": source,
                "mean_gain": mean,
                "mean_gain_ci95": [mean - 0.4, mean + 0.4],
                "own_gain": cell_of(source, source)["gain"],
            }
            for source, mean in MEANS.items()
        ],
        "predictors": {"r1": r1, "fisher_distance": distance},
        "correlations": {
            "r1": {"spearman": 0.7412, "ci95": [0.51, 0.86], "p_permutation": 1 / 30, **permuted},
            "fisher_distance": {"spearman": -0.55, "ci95": [-0.74, -0.28], "p_permutation": 0.1, **permuted},
        },
        "runs": {s: dict.fromkeys(("finetune", "translate", "fisher"), f"study-{s}-zh") for s in SOURCES},
        "baseline": "study-base",
        "retrieval": "study",
    }


def write_study(root: Path, name: str = "study", **figures: Any) -> None:
    """A finished study; `figures` replace those of `study_figures`."""
    write_artifact(root, "study", name, {"study": name}, {}, study_figures() | figures)
