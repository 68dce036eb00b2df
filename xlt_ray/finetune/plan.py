"""A finetune run before it starts: its inputs, and the checks of user input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlt_ray.embed import plan as embed
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.errors import UserError
from xlt_ray.finetune import exported
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.settings import identity
from xlt_ray.languages import Direction
from xlt_ray.models import whisper
from xlt_ray.models.prompts import Prompter
from xlt_ray.store import artifacts, shards
from xlt_ray.store.artifact import Artifact


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FinetunePlan:
    """A finetune run that has been checked and can start.

    Attributes:
        fisher: the fisher artifact that EWC needs, finished or planned; None without EWC.
    """

    artifact: Artifact
    embeddings: Embeddings
    fisher: Artifact | None
    model_dir: Path
    job: FinetuneJob


def prepare(job: FinetuneJob) -> FinetunePlan:
    """Check all user input before any work. Nothing is written.

    Raises:
        UserError: names the mistake and what to do.
    """
    config = job.finetune
    embeddings = embed.prepare(job, job.embed, config.splits, name=config.embeddings, divide=True)
    embed.warn_of_loops(embeddings)
    return planned(job, embeddings)


def planned(job: FinetuneJob, embeddings: Embeddings) -> FinetunePlan:
    """Plan the run on planned embeddings, which may have more splits than it reads.

    Raises:
        UserError: names the mistake and what to do.
    """
    config = job.finetune
    embeddings = embeddings.only(*config.splits)
    model_dir = require_possible(job, embeddings)
    fisher = plan_fisher(job, config.keep, embeddings) if config.ewc_lambda else None
    return FinetunePlan(
        artifact=_artifact(job, embeddings, fisher),
        embeddings=embeddings,
        fisher=fisher,
        model_dir=model_dir,
        job=job,
    )


def require_possible(job: FinetuneJob, embeddings: Embeddings) -> Path:
    """Check all that a run needs besides a name of its own; the directory of its model.

    Raises:
        UserError: for directions without a prompt or without references, and a place that nothing can be exported to.
    """
    model_dir = whisper.resolve_model(job.model)
    _require_directions(job, model_dir, embeddings)
    exported.require_possible(job.finetune.export)
    return model_dir


def _require_directions(job: FinetuneJob, model_dir: Path, embeddings: Embeddings) -> None:
    config = job.finetune
    asked = (config.directions, config.keep, config.evaluate)
    learn, keep, measured = ([Direction.parse(text) for text in texts] for texts in asked)
    prompter = Prompter(model_dir)
    for direction in (*learn, *keep, *measured):
        prompter.prompt(direction, config.prompt)
    shards.require_references(embeddings.rows(config.split), [*learn, *keep], config.split)
    if config.evaluate_every:
        shards.require_references(embeddings.rows(config.dev_split), [*learn, *measured], config.dev_split)


def _artifact(job: FinetuneJob, embeddings: Embeddings, fisher: Artifact | None) -> Artifact:
    what = {
        "embeddings": embeddings.identity,
        "finetune": identity(job.finetune),
        "fisher": fisher.fingerprint if fisher else None,
        "model": embeddings.identity["model"],
    }
    # What is recorded of the embeddings is how they were made, not what flags of this job would make.
    settings = dataclasses.asdict(job) | embeddings.settings
    return artifacts.plan(job.root, "finetune", job.name, what, settings)


def plan_fisher(job: FinetuneJob, tasks: Sequence[str], embeddings: Embeddings) -> Artifact:
    """The fisher artifact of some tasks: the finished one that `--finetune.fisher` names, else one with the job's name.

    Args:
        job: settings of the estimate.
        tasks: directions, such as those that EWC preserves.
        embeddings: the embeddings to estimate it on.

    Raises:
        UserError: if the named artifact was made with other settings.
    """
    config = job.finetune
    read = embeddings.only(config.split)
    if config.fisher is None:
        what = {
            "embeddings": read.identity,
            "model": read.identity["model"],
            "fisher": _fisher_settings(config, tasks),
        }
        return artifacts.plan(job.root, "fisher", job.name, what, dataclasses.asdict(job))
    found = artifacts.find(job.root, "fisher", config.fisher)
    embed.require_model(found, read.identity["model"]["sha256"], job.model)
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
    """The settings that determine a Fisher, as part of its artifact's identity."""
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
