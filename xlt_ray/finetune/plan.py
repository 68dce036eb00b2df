"""A finetune run before it starts: what is asked for, and everything that can be wrong with it."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.settings import identity
from xlt_ray.models import whisper
from xlt_ray.models.decoder import Prompter
from xlt_ray.store import artifacts, shards
from xlt_ray.store.artifacts import Artifact
from xlt_ray.store.schema import Direction


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A finetune run that has been checked and can start.

    Attributes:
        fisher: the fisher artifact that EWC needs, finished or begun; None without EWC.
    """

    artifact: Artifact
    embeddings: Artifact
    fisher: Artifact | None
    model_dir: Path
    job: FinetuneJob


def prepare(job: FinetuneJob, embeddings: Artifact, index: pa.Table | None) -> Plan:
    """Everything that can go wrong by the user's hand, before any work.

    Args:
        job: settings.
        embeddings: an embed artifact, finished or begun.
        index: the rows of the corpus (UTTERANCE), where the embeddings are not finished yet.

    Raises:
        UserError: with what is wrong and what to do.
    """
    model_dir, sha256 = check(job, embeddings, index)
    fisher = begin_fisher(job, job.finetune.keep, embeddings, sha256) if job.finetune.ewc_lambda else None
    return Plan(
        artifact=_begin(job, embeddings, fisher, sha256),
        embeddings=embeddings,
        fisher=fisher,
        model_dir=model_dir,
        job=job,
    )


def check(job: FinetuneJob, embeddings: Artifact, index: pa.Table | None) -> tuple[Path, str]:
    """What can go wrong with a run before anything of it is written; the model, and the hash of its weights.

    Raises:
        UserError: as `prepare`.
    """
    model_dir = whisper.resolve_model(job.model)
    sha256 = whisper.weights_sha256(model_dir)
    shards.require_model(embeddings, sha256, job.model)
    shards.warn_of_loops(embeddings)
    _require_directions(job, model_dir, shards.utterances(embeddings) if index is None else index)
    _require_exporter(job.finetune)
    return model_dir, sha256


def _require_directions(job: FinetuneJob, model_dir: Path, rows: pa.Table) -> None:
    config = job.finetune
    asked = (config.directions, config.keep, config.evaluate)
    learn, keep, measured = ([Direction.parse(text) for text in of] for of in asked)
    prompter = Prompter(model_dir)
    for direction in (*learn, *keep, *measured):
        prompter.prompt(direction, config.prompt)
    shards.require_references(rows, [*learn, *keep], config.split)
    if config.evaluate_every:
        shards.require_references(rows, [*learn, *measured], config.dev_split)


def _require_exporter(config: FinetuneConfig) -> None:
    if config.export == "ctranslate2" and importlib.util.find_spec("ctranslate2") is None:
        raise UserError('--finetune.export ctranslate2 needs the package; pip install "xlt_ray[ctranslate2]"')


def _begin(job: FinetuneJob, embeddings: Artifact, fisher: Artifact | None, sha256: str) -> Artifact:
    what = {
        "embeddings": embeddings.fingerprint,
        "model": {"sha256": sha256},
        "finetune": identity(job.finetune),
        "fisher": fisher.fingerprint if fisher else None,
    }
    made_with = embeddings.settings
    # What is recorded of the embeddings is how they were made, not what flags of this job would make.
    settings = dataclasses.asdict(job) | {key: made_with[key] for key in ("corpus", "embed")}
    return artifacts.start(job.root, "finetune", job.name, what, settings)


def begin_fisher(job: FinetuneJob, tasks: Sequence[str], embeddings: Artifact, sha256: str) -> Artifact:
    """The fisher artifact of some tasks: the finished one that `--finetune.fisher` names, else one of the job's name.

    Args:
        job: how it is estimated.
        tasks: directions, such as those that EWC keeps.
        embeddings: what it is estimated on.
        sha256: hash of the weights of the model.

    Raises:
        UserError: if the one that is named was made otherwise.
    """
    config = job.finetune
    if config.fisher is None:
        model = {"sha256": sha256}
        what = {"embeddings": embeddings.fingerprint, "model": model, "fisher": _fisher_settings(config, tasks)}
        return artifacts.start(job.root, "fisher", job.name, what, dataclasses.asdict(job))
    found = artifacts.find(job.root, "fisher", config.fisher)
    shards.require_model(found, sha256, job.model)
    there = found.identity["fisher"]
    asked = _fisher_settings(config, tasks)
    # Another seed draws other examples of the same tasks: runs that differ in it may share a Fisher.
    for key in sorted(asked.keys() - {"seed"}):
        if asked[key] != there[key]:
            flag = {"labels": "fisher-labels", "examples": "fisher-examples"}.get(key, key)
            raise UserError(
                f"--finetune.fisher {config.fisher} was made with {_word(there[key])}, and --finetune.{flag} is "
                f"{_word(asked[key])}; give the same"
            )
    return found


def _fisher_settings(config: FinetuneConfig, tasks: Sequence[str]) -> dict[str, Any]:
    """What decides a Fisher, as part of its artifact's identity."""
    return {
        "keep": sorted(tasks),
        "split": config.split,
        "labels": config.fisher_labels,
        "examples": config.fisher_examples,
        "prompt": config.prompt,
        "seed": config.seed,
    }


def _word(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)
