"""A search before it starts: every trial it will run, and everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa

from xlt_ray.finetune import plan as finetune
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.settings import identity
from xlt_ray.store import artifacts
from xlt_ray.store.artifacts import Artifact
from xlt_ray.translate import plan as translate
from xlt_ray.translate.config import TranslateConfig, TranslateJob
from xlt_ray.tune import space
from xlt_ray.tune.config import TuneJob
from xlt_ray.tune.space import Settings


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A search that has been checked and can start.

    Attributes:
        trials: the settings of each trial.
        fisher: what the trials with EWC share: the run that would estimate it, and the artifact, finished or begun.
        before: how the untouched model translates, by split: `dev` and `test`.
    """

    artifact: Artifact
    embeddings: Artifact
    fisher: tuple[FinetuneJob, Artifact] | None
    trials: tuple[Settings, ...]
    before: dict[str, translate.Plan]
    model_dir: Path
    job: TuneJob


def prepare(job: TuneJob, embeddings: Artifact, index: pa.Table | None) -> Plan:
    """Everything that can go wrong by the user's hand, before any work.

    Args:
        job: settings.
        embeddings: an embed artifact, finished or begun.
        index: the rows of the corpus (UTTERANCE), where the embeddings are not finished yet.

    Raises:
        UserError: with what is wrong and what to do.
    """
    trials = space.draw(job.tune)
    configs = [config_of(job, settings) for settings in trials]  # a combination that can't be is refused here
    shared = _finetune_job(job, job.name, config_of(job, {}), embeddings)
    model_dir, sha256 = finetune.check(shared, embeddings, index)
    ewc = next((config for config in configs if config.ewc_lambda), None)
    return Plan(
        fisher=_begin_fisher(job, ewc, embeddings, sha256) if ewc else None,
        before={
            "dev": translate.prepare(_before(job, f"{job.name}-dev", job.finetune.dev_split), embeddings, index),
            "test": translate.prepare(_before(job, f"{job.name}-base", "test"), embeddings, index),
        },
        artifact=_begin(job, embeddings, sha256),
        embeddings=embeddings,
        trials=tuple(trials),
        model_dir=model_dir,
        job=job,
    )


def config_of(job: TuneJob, settings: Settings) -> FinetuneConfig:
    """How a trial trains.

    Raises:
        UserError: if its settings can't be combined.
    """
    return space.applied(job.finetune, settings, job.kept, job.finetune.fisher or job.name)


def trial_plan(plan: Plan, number: int) -> finetune.Plan:
    """The trial as a run of fine-tuning; its Fisher must be finished."""
    config = config_of(plan.job, plan.trials[number])
    job = _finetune_job(plan.job, trial_name(plan.job, number), config, plan.embeddings)
    return finetune.prepare(job, plan.embeddings, None)


def test_plan(plan: Plan, number: int) -> translate.Plan:
    """How the weights of a finished trial translate the test split, against the untouched model."""
    name = trial_name(plan.job, number)
    job = _before(plan.job, name, "test")
    config = dataclasses.replace(job.translate, checkpoint=name, baseline=plan.before["test"].artifact.name)
    return translate.prepare(dataclasses.replace(job, translate=config), plan.embeddings, None)


def trial_name(job: TuneJob, number: int) -> str:
    """The name of a trial's artifacts."""
    return f"{job.name}-{number:03d}"


def _finetune_job(job: TuneJob, name: str, config: FinetuneConfig, embeddings: Artifact) -> FinetuneJob:
    config = dataclasses.replace(config, embeddings=embeddings.name)
    return FinetuneJob(**_shared(job, name), embed=job.embed, finetune=config)


def _before(job: TuneJob, name: str, split: str) -> TranslateJob:
    directions = (*job.finetune.directions, *job.kept)
    config = TranslateConfig(
        embeddings=job.finetune.embeddings or job.name,
        targets=tuple(dict.fromkeys(direction.split("-")[1] for direction in directions)),
        transcribe=False,
        prompt=job.finetune.prompt,
        split=split,
        num_gpus=job.finetune.num_gpus,
    )
    return TranslateJob(**_shared(job, name), embed=job.embed, translate=config)


def _shared(job: TuneJob, name: str) -> dict[str, Any]:
    kept = ("preset", "root", "corpus", "languages", "model")
    return {field: getattr(job, field) for field in kept} | {"name": name}


def _begin_fisher(
    job: TuneJob, config: FinetuneConfig, embeddings: Artifact, sha256: str
) -> tuple[FinetuneJob, Artifact]:
    """The Fisher that `--finetune.fisher` names, else one of the search's own."""
    run = _finetune_job(job, job.name, dataclasses.replace(config, fisher=job.finetune.fisher), embeddings)
    return run, finetune.begin_fisher(run, run.finetune.keep, embeddings, sha256)


def _begin(job: TuneJob, embeddings: Artifact, sha256: str) -> Artifact:
    what = {
        "languages": sorted(job.languages),
        "embeddings": embeddings.fingerprint,
        "model": {"sha256": sha256},
        "finetune": identity(job.finetune),
        "kept": list(job.kept),
        "tune": identity(job.tune),
    }
    settings = dataclasses.asdict(job) | {key: embeddings.settings[key] for key in ("corpus", "embed")}
    return artifacts.start(job.root, "tune", job.name, what, settings)
