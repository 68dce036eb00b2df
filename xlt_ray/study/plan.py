"""A study before it starts: its runs, and the checks of user input."""

from __future__ import annotations

import dataclasses
from typing import Any

from xlt_ray.embed import index
from xlt_ray.embed import plan as embed
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.errors import UserError
from xlt_ray.finetune import plan as finetune
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.finetune.plan import FinetunePlan
from xlt_ray.job.settings import identity
from xlt_ray.languages import Direction
from xlt_ray.retrieval import plan as retrieval
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.plan import RetrievalPlan
from xlt_ray.store import artifacts, shards
from xlt_ray.store.artifact import Artifact
from xlt_ray.study.config import StudyJob
from xlt_ray.translate import plan as translate
from xlt_ray.translate.config import TranslateConfig, TranslateJob
from xlt_ray.translate.plan import TranslatePlan


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """A study that has been checked and can start.

    Attributes:
        embeddings: of the splits for training and test.
        runs: the fine-tuning run on each source.
        fishers: the Fisher of each source's task, for the untouched model.
        before: the translation run of the untouched model.
        retrieval: the run whose R@1 is compared with the transfer, finished or planned; None if two of the languages
            share no sentence, so that nothing can be retrieved.
    """

    artifact: Artifact
    embeddings: Embeddings
    runs: dict[str, FinetunePlan]
    fishers: dict[str, Artifact]
    before: TranslatePlan
    retrieval: Artifact | RetrievalPlan | None
    job: StudyJob


TEST = "test"
"""The split on which every run is scored."""


def splits_of(job: StudyJob) -> tuple[str, ...]:
    """The splits that the study reads."""
    return (*job.finetune.splits, TEST)


def prepare(job: StudyJob) -> StudyPlan:
    """Check all user input before any work. Nothing is written.

    Raises:
        UserError: names the mistake and what to do.
    """
    embeddings = embed.prepare(job, job.embed, splits_of(job), name=job.finetune.embeddings, divide=True)
    embed.warn_of_loops(embeddings)
    if job.finetune.directions not in (FinetuneConfig().directions, job.learned):
        print(
            f"warning: --finetune.directions {','.join(job.finetune.directions)} has no effect: the runs learn "
            f"{','.join(job.learned)}, by --study.sources and --study.target"
        )
    runs = {source: finetune.planned(_finetune_job(job, source), embeddings) for source in job.sources}
    tested = [Direction(source, job.study.target) for source in job.sources]
    shards.require_references(embeddings.rows(TEST), tested, TEST)  # the runs check train and dev
    fishers = {
        source: finetune.plan_fisher(run.job, run.job.finetune.directions, embeddings) for source, run in runs.items()
    }
    before = translate.planned(_translate_job(job, f"{job.name}-base", None, None), embeddings)
    found = _retrieval(job, embeddings)
    return StudyPlan(
        before=before,
        retrieval=found,
        artifact=_artifact(job, embeddings, found if isinstance(found, Artifact) else None),
        embeddings=embeddings,
        runs=runs,
        fishers=fishers,
        job=job,
    )


def _retrieval(job: StudyJob, embeddings: Embeddings) -> Artifact | RetrievalPlan | None:
    """The finished retrieval artifact that `--study.retrieval` names, else a run of the job's own.

    Raises:
        UserError: if the named artifact does not exist, has another model or encoding, or lacks a pair.
    """
    if job.study.retrieval:
        return _named_retrieval(job, job.study.retrieval, embeddings)
    run = retrieval_job(job)
    try:
        index.require_parallel(embeddings.rows(TEST), run.languages)
    except UserError as error:
        print(f"study: R@1 can't be compared with the transfer: {error}")
        return None
    return retrieval.planned(run, embeddings.only(TEST))


def retrieval_job(job: StudyJob) -> RetrievalJob:
    """The retrieval run whose R@1 is compared with the transfer, if none is named.

    It has only the test split, so it can't have the name of the study: for a corpus without splits, jobs/retrieval.py
    uses all rows under that name.
    """
    return RetrievalJob(**_shared(job, f"{job.name}-{TEST}"), embed=job.embed, retrieval=RetrievalConfig(split=TEST))


def _named_retrieval(job: StudyJob, name: str, embeddings: Embeddings) -> Artifact:
    found = artifacts.find(job.root, "retrieval", name)
    made = found.identity["embeddings"]
    if any(made[key] != embeddings.identity[key] for key in ("model", "encoding")):
        raise UserError(f"retrieval artifact {found.name!r} was made from other embeddings than {embeddings.name!r}")
    if missing := sorted(set(job.sources) - set(found.identity["languages"])):
        raise UserError(f"retrieval artifact {found.name!r} has no pair with {missing[0]}; choose another")
    return found


def translation(plan: StudyPlan, source: str) -> TranslatePlan:
    """The translation run with the weights of a finished run, compared with the untouched model."""
    name = run_name(plan.job, source)
    return translate.planned(_translate_job(plan.job, name, name, plan.before.artifact.name), plan.embeddings)


def run_name(job: StudyJob, source: str) -> str:
    """The name of the artifacts of one source."""
    return f"{job.name}-{source}-{job.study.target}"


def _finetune_job(job: StudyJob, source: str) -> FinetuneJob:
    config = dataclasses.replace(job.finetune, directions=(f"{source}-{job.study.target}",))
    return FinetuneJob(**_shared(job, run_name(job, source)), embed=job.embed, finetune=config)


def _translate_job(job: StudyJob, name: str, checkpoint: str | None, baseline: str | None) -> TranslateJob:
    config = TranslateConfig(
        targets=(job.study.target,),
        transcribe=False,
        prompt=job.finetune.prompt,
        checkpoint=checkpoint,
        baseline=baseline,
        num_gpus=job.finetune.num_gpus,
    )
    return TranslateJob(**_shared(job, name) | {"languages": job.sources}, embed=job.embed, translate=config)


def _shared(job: StudyJob, name: str) -> dict[str, Any]:
    kept = ("preset", "root", "corpus", "columns", "languages", "model")
    return {field: getattr(job, field) for field in kept} | {"name": name}


def _artifact(job: StudyJob, embeddings: Embeddings, named_retrieval: Artifact | None) -> Artifact:
    what: dict[str, Any] = {
        "sources": list(job.sources),
        "embeddings": embeddings.identity,
        "model": embeddings.identity["model"],
        "finetune": {name: value for name, value in identity(job.finetune).items() if name != "directions"},
        "study": {name: value for name, value in identity(job.study).items() if name != "sources"},
    }
    if named_retrieval:  # the study's own follows from the rest
        # A finished run can be shown in another mode or by another protocol, and its R@1 is then another.
        metrics = named_retrieval.read_json("metrics.json")
        shown = {name: metrics[name] for name in ("mode", "protocol")}
        what["retrieval"] = {"fingerprint": named_retrieval.fingerprint, **shown}
    settings = dataclasses.asdict(job) | embeddings.settings
    return artifacts.plan(job.root, "study", job.name, what, settings)
