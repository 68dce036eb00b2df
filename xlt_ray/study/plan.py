"""A study before it starts: every run that it needs, and everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from xlt_ray.errors import UserError
from xlt_ray.finetune import plan as finetune
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.job.settings import identity
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.store import artifacts
from xlt_ray.store.artifacts import Artifact
from xlt_ray.study.config import StudyJob
from xlt_ray.translate import plan as translate
from xlt_ray.translate.config import TranslateConfig, TranslateJob


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A study that has been checked and can start.

    Attributes:
        runs: the fine-tuning on each source.
        fishers: the Fisher of what each source's run learns, of the untouched model.
        before: how the untouched model translates.
    """

    artifact: Artifact
    embeddings: Artifact
    runs: dict[str, finetune.Plan]
    fishers: dict[str, Artifact]
    before: translate.Plan
    job: StudyJob


def prepare(job: StudyJob, embeddings: Artifact, index: pa.Table | None) -> Plan:
    """Everything that can go wrong by the user's hand, before any work.

    Args:
        job: settings.
        embeddings: an embed artifact, finished or begun.
        index: the rows of the corpus (UTTERANCE), where the embeddings are not finished yet.

    Raises:
        UserError: with what is wrong and what to do.
    """
    if missing := sorted(set(job.sources) - set(embeddings.identity["languages"])):
        there = ",".join(embeddings.identity["languages"])
        raise UserError(f"embed artifact {embeddings.name!r} has no {missing[0]}; --study.sources can be of {there}")
    every = tuple(f"{source}-{job.study.target}" for source in job.sources)
    # All of them before the first is begun: what a mistake in the last left behind would be in the way of the next try.
    finetune.check(
        dataclasses.replace(
            _finetune_job(job, job.sources[0]), finetune=dataclasses.replace(job.finetune, directions=every)
        ),
        embeddings,
        index,
    )
    runs = {source: finetune.prepare(_finetune_job(job, source), embeddings, index) for source in job.sources}
    fishers = {source: _begin_fisher(job, source, run) for source, run in runs.items()}
    return Plan(
        before=translate.prepare(_translate_job(job, f"{job.name}-base", None, None), embeddings, index),
        artifact=_begin(job, embeddings),
        embeddings=embeddings,
        runs=runs,
        fishers=fishers,
        job=job,
    )


def retrieval_job(job: StudyJob) -> RetrievalJob:
    """The run of retrieval whose R@1 is held against the transfer, where none is named."""
    config = RetrievalConfig(embeddings=job.finetune.embeddings or job.name)
    return RetrievalJob(**_shared(job, job.name), embed=job.embed, retrieval=config)


def find_retrieval(job: StudyJob, embeddings: Artifact) -> Artifact | None:
    """The finished retrieval artifact that `--study.retrieval` names, else that of the job's name; None: none yet.

    Raises:
        UserError: if the named one is not there; if it is of other embeddings, or lacks a pair.
    """
    name = job.study.retrieval or job.name
    if not job.study.retrieval and not Artifact.at(job.root, "retrieval", name).is_complete:
        return None
    found = artifacts.find(job.root, "retrieval", name)
    if found.identity["embeddings"] != embeddings.fingerprint:
        raise UserError(f"retrieval artifact {found.name!r} is of other embeddings than {embeddings.name!r}")
    if missing := sorted(set(job.sources) - set(found.identity["languages"])):
        raise UserError(f"retrieval artifact {found.name!r} has no pair with {missing[0]}; choose another")
    return found


def translation(plan: Plan, source: str) -> translate.Plan:
    """How the weights of a finished run translate, against the untouched model."""
    name = run_name(plan.job, source)
    job = _translate_job(plan.job, name, name, plan.before.artifact.name)
    return translate.prepare(job, plan.embeddings, None)


def run_name(job: StudyJob, source: str) -> str:
    """The name of the artifacts of one source."""
    return f"{job.name}-{source}-{job.study.target}"


def _finetune_job(job: StudyJob, source: str) -> FinetuneJob:
    embeddings = job.finetune.embeddings or job.name
    config = dataclasses.replace(job.finetune, directions=(f"{source}-{job.study.target}",), embeddings=embeddings)
    return FinetuneJob(**_shared(job, run_name(job, source)), embed=job.embed, finetune=config)


def _begin_fisher(job: StudyJob, source: str, run: finetune.Plan) -> Artifact:
    sha256 = run.artifact.identity["model"]["sha256"]
    return finetune.begin_fisher(run.job, run.job.finetune.directions, run.embeddings, sha256)


def _translate_job(job: StudyJob, name: str, checkpoint: str | None, baseline: str | None) -> TranslateJob:
    config = TranslateConfig(
        embeddings=job.finetune.embeddings or job.name,
        targets=(job.study.target,),
        transcribe=False,
        prompt=job.finetune.prompt,
        checkpoint=checkpoint,
        baseline=baseline,
        num_gpus=job.finetune.num_gpus,
    )
    return TranslateJob(**_shared(job, name) | {"languages": job.sources}, embed=job.embed, translate=config)


def _shared(job: StudyJob, name: str) -> dict[str, Any]:
    kept = ("preset", "root", "corpus", "languages", "model")
    return {field: getattr(job, field) for field in kept} | {"name": name}


def _begin(job: StudyJob, embeddings: Artifact) -> Artifact:
    what = {
        "sources": list(job.sources),
        "embeddings": embeddings.fingerprint,
        "model": embeddings.identity["model"],
        "finetune": {name: value for name, value in identity(job.finetune).items() if name != "directions"},
        "study": {name: value for name, value in identity(job.study).items() if name != "sources"},
    }
    settings = dataclasses.asdict(job) | {key: embeddings.settings[key] for key in ("corpus", "embed")}
    return artifacts.start(job.root, "study", job.name, what, settings)
