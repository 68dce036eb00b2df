r"""Rehearses the paper's programme at its real row counts on this machine, with short clips and a tiny random model.

    python -m benchmarks.rehearsal                    # everything, at full size: hours on 2 cores
    python -m benchmarks.rehearsal --scale 0.02       # a fiftieth of the rows of every corpus
    python -m benchmarks.rehearsal --only transfer --folder /data/rehearsal

Writes {folder}/rehearsal.json and prints a table: rows, seconds, memory of the driver, of the largest worker, objects
in Ray's store, files that the driver opened, bytes written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._origin import origin
from benchmarks.rehearsal import corpora

ROOT = Path(__file__).parents[2]
FAST = ["--embed.encoding", "trimmed", "--embed.context-margin", "0", "--embed.keep-margin", "0"]
"""Encoding of a step: 30 s of padding would be 30 to 100 times the work of the clip itself."""

STEPS: dict[str, tuple[str, str, list[str]]] = {
    "pairs": ("retrieval", "fleurs", ["--preset", "fleurs_large_v2"]),
    "verses": ("retrieval", "mass", ["--preset", "mass_large_v2"]),
    "transfer": ("finetune", "covost2", ["--preset", "transfer_large_v2", "--embed.rows-per-shard", "256"]),
    "transfer_test": ("translate", "fleurs", ["--preset", "transfer_test_large_v2", "--translate.max-tokens", "8"]),
    "ja_zh": ("finetune", "fleurs", ["--preset", "ja_zh_large_v2"]),
    "ja_zh_test": ("translate", "fleurs", ["--preset", "ja_zh_test_large_v2", "--translate.max-tokens", "8"]),
    "search": (
        "tune",
        "fleurs",
        [
            *("--preset", "plain", "--name", "search", "--languages", "en,fr,zh", "--finetune.epochs", "1"),
            *("--finetune.evaluate-every", "200", "--tune.learning-rate", "1e-4,1e-3", "--tune.ewc-lambda", "0,10"),
        ],
    ),
    "search_covost": (
        "tune",
        "covost2",
        [
            *("--preset", "plain", "--name", "search_covost", "--languages", "en", "--finetune.directions", "en-zh"),
            *("--finetune.batch-size", "64", "--finetune.epochs", "1", "--finetune.evaluate-every", "2000"),
            *("--finetune.evaluate", "en-en", "--tune.learning-rate", "1e-4,1e-3", "--tune.ewc-lambda", "0"),
        ],
    ),
    "study": (
        "study",
        "fleurs",
        ["--preset", "plain", "--name", "study", "--languages", "en,fr,de,zh", "--study.target", "zh"],
    ),
    "report": ("report", "", ["--name", "rehearsal"]),
}


def main() -> None:
    """Build the corpora, run the steps, print the table."""
    options = _options()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="rehearsal-"))
    _build(folder, options.scale)
    names = options.only or list(STEPS)
    found = {name: _run(name, folder) for name in names}
    (folder / "rehearsal.json").write_text(json.dumps({"scale": options.scale, "steps": found}, indent=1))
    _show(found, options.scale)
    if not options.folder:
        shutil.rmtree(folder)
    sys.exit(any(step["code"] for step in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the real row counts (1)")
    parser.add_argument("--only", nargs="+", choices=STEPS, help="steps to run (all)")
    parser.add_argument("--folder", help="where everything goes; kept (a temporary one, deleted)")
    return parser.parse_args()


def _build(folder: Path, scale: float) -> None:
    done = folder / "built"
    if done.exists():
        return
    wavs = corpora.cut_clips(folder / "clips", "wav")
    mp3s = corpora.cut_clips(folder / "clips", "mp3")
    for name, write, clips in (
        ("fleurs", corpora.write_fleurs, wavs),
        ("covost2", corpora.write_covost2, mp3s),
        ("mass", corpora.write_mass, wavs),
    ):
        started = time.monotonic()
        shutil.rmtree(folder / name, ignore_errors=True)
        write(folder / name, clips, scale)
        print(f"rehearsal: {name} built in {time.monotonic() - started:.0f} s", flush=True)
    sys.path.append(str(ROOT / "tests"))
    from tiny import tiny_whisper

    tiny_whisper(folder / "model")
    done.touch()


def _run(name: str, folder: Path) -> dict[str, Any]:
    job, corpus, words = STEPS[name]
    report = folder / f"{name}.json"
    flags = [*words, "--root", str(folder / "runs")]
    if corpus:
        flags += ["--corpus", f"{corpus}:{folder / corpus}", "--model", str(folder / "model"), *FAST]
    print(f"rehearsal: {name}: jobs/{job}.py {' '.join(flags)}", flush=True)
    before = _bytes(folder / "runs")
    command = [sys.executable, "-m", "benchmarks.rehearsal.watch", str(report), f"jobs/{job}.py", *flags]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    figures = json.loads(report.read_text())
    return {"job": job, "code": done.returncode, **figures, "bytes": _bytes(folder / "runs") - before}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _show(found: dict[str, dict[str, Any]], scale: float) -> None:
    table = Table(title=f"rehearsal: scale {scale:g}, {origin()}", title_justify="left")
    columns = (
        "seconds",
        "planning s",
        "driver MB",
        "worker MB",
        "store MB",
        "shards opened",
        "files opened",
        "MB written",
    )
    for column in ("step", "exit", *columns):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, step in found.items():
        opened = step["opened"]
        table.add_row(
            *(name, str(step["code"]), f"{step['seconds']:.0f}", f"{step['seconds_planning']:.0f}"),
            *(str(step[key]) for key in ("driver_mb", "worker_mb", "store_mb")),
            *(str(opened.get("shard", 0)), str(sum(opened.values())), f"{step['bytes'] / 1e6:.1f}"),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
