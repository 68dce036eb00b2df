"""A search before it starts: its trials, and the checks of user input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from xlt_ray.embed import plan as embed
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.finetune import plan as finetune
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.finetune.plan import FinetunePlan
from xlt_ray.job.settings import flag, identity
from xlt_ray.languages import Direction
from xlt_ray.store import artifacts, shards
from xlt_ray.store.artifact import Artifact
from xlt_ray.translate import plan as translate
from xlt_ray.translate.config import TranslateConfig, TranslateJob
from xlt_ray.translate.plan import TranslatePlan
from xlt_ray.tune import space
from xlt_ray.tune.config import TuneJob
from xlt_ray.tune.space import Settings


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TunePlan:
    """A search that has been checked and can start.

    Attributes:
        embeddings: of the splits train, dev and test.
        trials: the settings of each trial.
        fisher: shared by all trials with EWC: the run that would estimate it, and the artifact, finished or planned.
        before: the translation runs of the untouched model, by split: `dev` and `test`.
    """

    artifact: Artifact
    embeddings: Embeddings
    fisher: tuple[FinetuneJob, Artifact] | None
    trials: tuple[Settings, ...]
    before: dict[str, TranslatePlan]
    model_dir: Path
    job: TuneJob


TEST = "test"
"""The split on which the chosen trials are scored once."""


def splits_of(job: TuneJob) -> tuple[str, ...]:
    """The splits that the search reads."""
    return (*job.finetune.splits, TEST)


def prepare(job: TuneJob) -> TunePlan:
    """Check all user input before any work. Nothing is written.

    Raises:
        UserError: names the mistake and what to do.
    """
    trials = space.draw(job.tune)
    configs = [config_of(job, settings) for settings in trials]  # a combination that can't be is refused here
    embeddings = embed.prepare(job, job.embed, splits_of(job), name=job.finetune.embeddings, divide=True)
    embed.warn_of_loops(embeddings)
    _warn_of_replaced(job)
    # What trials read of train and dev. Those with EWC or replay also read what they preserve. No run has the name of
    # the search: another job may have made one.
    largest = max(configs, key=lambda config: len(config.keep))
    model_dir = finetune.require_possible(_finetune_job(job, job.name, largest), embeddings)
    shards.require_references(embeddings.rows(TEST), _scored(job), TEST)
    ewc = next((config for config in configs if config.ewc_lambda), None)
    dev, test = _before(job, f"{job.name}-dev", job.finetune.dev_split), _before(job, f"{job.name}-{TEST}", TEST)
    fisher = _plan_fisher(job, ewc, embeddings) if ewc else None
    return TunePlan(
        fisher=fisher,
        before={"dev": translate.planned(dev, embeddings), "test": translate.planned(test, embeddings)},
        artifact=_artifact(job, embeddings, fisher[1] if fisher and job.finetune.fisher else None),
        embeddings=embeddings,
        trials=tuple(trials),
        model_dir=model_dir,
        job=job,
    )


def _warn_of_replaced(job: TuneJob) -> None:
    """Say which settings of fine-tuning no trial has."""
    for name, axis in job.tune.space.items():
        value = getattr(job.finetune, name)
        if value != getattr(FinetuneConfig(), name):
            print(f"warning: --finetune.{flag(name)} {value} has no effect: trials have --tune.{flag(name)} {axis}")


def config_of(job: TuneJob, settings: Settings) -> FinetuneConfig:
    """The settings with which a trial trains.

    Raises:
        UserError: if its settings can't be combined.
    """
    return space.applied(job.finetune, settings, job.kept, job.finetune.fisher or job.name)


def trial_plan(plan: TunePlan, number: int) -> FinetunePlan:
    """The trial as a run of fine-tuning; its Fisher must be finished."""
    config = config_of(plan.job, plan.trials[number])
    return finetune.planned(_finetune_job(plan.job, trial_name(plan.job, number), config), plan.embeddings)


def test_plan(plan: TunePlan, number: int) -> TranslatePlan:
    """The translation run of a finished trial on the test split, compared with the untouched model."""
    name = trial_name(plan.job, number)
    job = _before(plan.job, name, TEST)
    config = dataclasses.replace(job.translate, checkpoint=name, baseline=plan.before["test"].artifact.name)
    return translate.planned(dataclasses.replace(job, translate=config), plan.embeddings)


def trial_name(job: TuneJob, number: int) -> str:
    """The name of a trial's artifacts."""
    return f"{job.name}-{number:03d}"


def _finetune_job(job: TuneJob, name: str, config: FinetuneConfig) -> FinetuneJob:
    return FinetuneJob(**_shared(job, name), embed=job.embed, finetune=config)


def _scored(job: TuneJob) -> list[Direction]:
    """Directions whose BLEU is gain or kept."""
    return [Direction.parse(direction) for direction in (*job.finetune.directions, *job.kept)]


def _before(job: TuneJob, name: str, split: str) -> TranslateJob:
    directions = _scored(job)
    translations = [direction for direction in directions if direction.source != direction.target]
    config = TranslateConfig(
        targets=tuple(dict.fromkeys(direction.target for direction in translations)),
        transcribe=len(translations) < len(directions),
        prompt=job.finetune.prompt,
        split=split,
        num_gpus=job.finetune.num_gpus,
    )
    return TranslateJob(**_shared(job, name), embed=job.embed, translate=config)


def _shared(job: TuneJob, name: str) -> dict[str, Any]:
    kept = ("preset", "root", "corpus", "columns", "languages", "model")
    return {field: getattr(job, field) for field in kept} | {"name": name}


def _plan_fisher(job: TuneJob, config: FinetuneConfig, embeddings: Embeddings) -> tuple[FinetuneJob, Artifact]:
    """The Fisher that `--finetune.fisher` names, else one of the search's own."""
    run = _finetune_job(job, job.name, dataclasses.replace(config, fisher=job.finetune.fisher))
    return run, finetune.plan_fisher(run, run.finetune.keep, embeddings)


def _artifact(job: TuneJob, embeddings: Embeddings, named_fisher: Artifact | None) -> Artifact:
    what: dict[str, Any] = {
        "languages": sorted(job.languages),
        "embeddings": embeddings.identity,
        "model": embeddings.identity["model"],
        "finetune": identity(job.finetune),
        "kept": list(job.kept),
        "tune": identity(job.tune),
    }
    if named_fisher:  # the search's own follows from the rest
        what["fisher"] = named_fisher.fingerprint
    settings = dataclasses.asdict(job) | embeddings.settings
    return artifacts.plan(job.root, "tune", job.name, what, settings)
