"""The script that `comet.py` runs in COMET's own environment: reads rows and writes COMET scores, as JSON files.

    python -I comet_scoring.py MODEL ROWS SCORES BATCH_SIZE NUM_GPUS

Imports nothing from xlt_ray, which is not installed there. After a failure, the last line on stderr is the reason.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from comet import load_from_checkpoint  # type: ignore[import-not-found]
from huggingface_hub import snapshot_download


def checkpoint(model: str) -> Path:
    """The checkpoint that a path or a Hub id names.

    `comet.download_model` is not used, because it reports every failure as an unsupported model.
    """
    return Path(model) if model.endswith(".ckpt") else Path(snapshot_download(model)) / "checkpoints" / "model.ckpt"


def main() -> None:
    """Score the rows in one file, and write the scores to another."""
    model, rows, scores, batch_size, num_gpus = sys.argv[1:]
    prediction = load_from_checkpoint(checkpoint(model)).predict(
        json.loads(Path(rows).read_text(encoding="utf-8")),
        batch_size=int(batch_size),
        gpus=int(num_gpus),
        progress_bar=False,
    )
    Path(scores).write_text(json.dumps({"system": prediction.system_score, "segments": prediction.scores}))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # whatever it is, it goes to the caller, on one line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
