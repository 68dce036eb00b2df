"""COMET scores (Rei et al. 2020), computed by unbabel-comet in an environment of its own.

unbabel-comet needs numpy<2, transformers<5, protobuf<5 and huggingface-hub<1, so it cannot be installed with this
package. Its environment is created on first use, on the machine of the caller, in the user's cache (1.4 GB with the CPU
build of torch, two minutes), with the user's own pip settings: index, proxy and mirror.

Scores are computed in float32, by the Python interface; `comet-score` of the same version computes in float16.

**Checkpoints** of COMET are pickles. They are loaded with `weights_only=True`, which creates only tensors and plain
values and runs no code of the file. COMET 2.2.7 leaves the choice to torch, and TORCH_FORCE_WEIGHTS_ONLY_LOAD enforces
it. A checkpoint that contains anything else is refused, with the reason.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlt_ray.store import cache

VERSION = "2.2.7"

_REQUIREMENTS = (
    f"unbabel-comet=={VERSION}",
    # The version of this environment: where that one could be installed, there is a build for the machine's devices.
    f"torch=={importlib.metadata.version('torch').split('+')[0]}",
    # All that the numbers depend on, or that COMET does not run without (setuptools 82 has no pkg_resources).
    "entmax==1.3",
    "huggingface-hub==0.36.2",
    "numpy==1.26.4",
    "protobuf==4.25.9",
    "pytorch-lightning==2.6.6",
    "sentencepiece==0.2.3",
    "setuptools==81.0.0",
    "tokenizers==0.22.2",
    "torchmetrics==0.10.3",
    "transformers==4.57.6",
)
"""The tested versions; for Python 3.11 or 3.12, for which numpy 1 has wheels."""

_SCRIPT = Path(__file__).with_name("comet_scoring.py")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CometScores:
    """COMET scores of translations, or the reason why there are none: `reason` is set if the scores are None."""

    model: str
    version: str
    system: float | None
    """Mean over the translations; the scale is the model's, 0 to 1 for wmt22-comet-da."""
    segments: tuple[float, ...] | None
    """(num,) score of each translation, in their order."""
    reason: str | None


class _CometError(Exception):
    """COMET cannot score. The message is the reason, on one line."""


def score(
    model: str,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    batch_size: int = 16,
    num_gpus: int = 0,
) -> CometScores:
    """Score translations with a COMET model.

    Every call loads the model (2.3 GB for wmt22-comet-da), so pass the rows of all directions at once. Empty hypotheses
    are scored like others, although their scores have no meaning.

    Args:
        model: Hub id such as `Unbabel/wmt22-comet-da`, or a local `.ckpt` file with COMET's `hparams.yaml` in the
            folder above its own. The tokenizer that the checkpoint names (`xlm-roberta-large`) comes from the Hub too,
            or from its cache: HF_HUB_OFFLINE, HF_HOME and HF_ENDPOINT mean what they mean elsewhere.
        sources: (num,) transcripts in the source language.
        hypotheses: (num,) its translations.
        references: (num,) correct translations.
        batch_size: rows a step; 16 is COMET's own default.
        num_gpus: 1 to compute on a GPU, 0 on the CPU, whatever the machine has.

    Returns:
        The scores, or None for them and the reason: no such model, no way to make the environment, a failure in it.

    Raises:
        ValueError: nothing to score, uneven lengths, or a row without one of its texts.
    """
    rows = _rows(sources, hypotheses, references)
    try:
        scores = _predict(_located(model), rows, batch_size, num_gpus)
    except _CometError as error:
        return CometScores(model=model, version=VERSION, system=None, segments=None, reason=str(error))
    return CometScores(
        model=model, version=VERSION, system=scores["system"], segments=tuple(scores["segments"]), reason=None
    )


def _rows(sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> list[dict[str, str]]:
    """The rows with COMET's field names. COMET would score a missing text as the word `None`."""
    lengths = len(sources), len(hypotheses), len(references)
    if not hypotheses or len(set(lengths)) != 1:
        raise ValueError(
            f"{lengths} sources, hypotheses and references; COMET needs one of each per row, and at least one row"
        )
    texts = zip(sources, hypotheses, references, strict=True)
    rows = [{"src": source, "mt": hypothesis, "ref": reference} for source, hypothesis, reference in texts]
    if incomplete := [row for row in rows if None in row.values()]:
        raise ValueError(f"{len(incomplete)} of {len(rows)} rows lack a text, the first is {incomplete[0]}")
    return rows


def absolute(model: str) -> str:
    """A checkpoint's path as an absolute path; a Hub id unchanged. The file need not exist."""
    return os.path.abspath(os.path.expanduser(model)) if model.endswith(".ckpt") else model


def misnamed(model: str) -> str | None:
    """Why this cannot be the name of a model, or None if it can. Whether the model exists is not checked."""
    if _HUB_ID.fullmatch(model) or (model.endswith(".ckpt") and "\0" not in model):
        return None
    return f"{model!r} is neither a .ckpt file nor a Hub id such as Unbabel/wmt22-comet-da"


def _located(model: str) -> str:
    """The model in the form of the script, checked as far as possible without the environment."""
    if problem := misnamed(model):
        raise _CometError(problem)
    if not model.endswith(".ckpt"):
        return model
    path = Path(absolute(model))
    for needed in (path, path.parents[1] / "hparams.yaml"):
        if not os.path.isfile(needed):  # False also for what can be no path
            raise _CometError(f"no COMET checkpoint {model!r}: there is no file {str(needed)!r}")
    return str(path)


def _predict(model: str, rows: list[dict[str, str]], batch_size: int, num_gpus: int) -> dict[str, Any]:
    """The output of the script: `system` and `segments`."""
    python = _environment()
    environment = os.environ | {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    environment.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # torch takes only one of the two
    with tempfile.TemporaryDirectory(prefix="comet-") as folder:
        questions, answers = Path(folder) / "rows.json", Path(folder) / "scores.json"
        questions.write_text(json.dumps(rows), encoding="utf-8")
        # -I: neither this file, which lies beside the script, nor the PYTHONPATH of a Ray worker may be in the way of
        # `import comet`.
        settings = [model, str(questions), str(answers), str(batch_size), str(num_gpus)]
        command = [str(python), "-I", str(_SCRIPT), *settings]
        _call(command, environment, f"COMET cannot score with {model}", num_lines=1)
        scores: dict[str, Any] = json.loads(answers.read_text(encoding="utf-8"))
    return scores


def _environment() -> Path:
    """The Python of COMET's environment, created if it does not exist.

    The folder is complete or does not exist. If two processes need it, one creates it while the other waits.
    """
    # An environment points to the Python that made it, which another machine with the same home may not have.
    key = json.dumps([*_REQUIREMENTS, sys.version, sys.base_prefix])
    return cache.made_once("comet", key, _make_environment) / "bin" / "python"


def _make_environment(folder: Path) -> None:
    print(f"comet: making its environment in {folder}: once, some minutes", flush=True)
    problem = f"cannot make the environment of COMET {VERSION}"
    _call([sys.executable, "-m", "venv", str(folder)], os.environ, problem, num_lines=1)
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--no-input"]
    _call([*pip, "--disable-pip-version-check", *_REQUIREMENTS], os.environ, problem, num_lines=2)


def _call(command: Sequence[str], environment: Mapping[str, str], problem: str, num_lines: int) -> None:
    """Run a command without output. If it fails, its last lines are the reason."""
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode < 0:
        raise _CometError(f"{problem}: killed by signal {-done.returncode}; signal 9 usually means out of memory")
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _CometError(f"{problem}: {' '.join(lines[-num_lines:])}")
