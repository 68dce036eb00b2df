"""A retrieval run before it starts: its inputs, and the checks of user input."""

from __future__ import annotations

import dataclasses

from xlt_ray.embed import plan as embed
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.errors import UserError
from xlt_ray.job.settings import identity
from xlt_ray.retrieval.config import POOL_FRAMES, RetrievalConfig, RetrievalJob
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact


@dataclasses.dataclass(frozen=True, slots=True)
class RetrievalPlan:
    """A retrieval run that has been checked and can start."""

    artifact: Artifact
    embeddings: Embeddings
    job: RetrievalJob


def prepare(job: RetrievalJob) -> RetrievalPlan:
    """Check all user input before any work. Nothing is written.

    Raises:
        UserError: names the mistake and what to do.
    """
    config = job.retrieval
    embeddings = embed.prepare(job, job.embed, [config.split], name=config.embeddings, parallel=True)
    return planned(job, embeddings)


def planned(job: RetrievalJob, embeddings: Embeddings) -> RetrievalPlan:
    """Plan the run on planned embeddings.

    Raises:
        UserError: if they lack a layer, the name is taken, or the run of that name did not store the requested results.
    """
    kept = embeddings.artifact.identity["layers"]
    if missing := sorted(set(job.retrieval.layers) - set(kept)):
        raise UserError(f"embed artifact {embeddings.name!r} keeps layers {kept}, not {missing}")
    counted = {name: value for name, value in identity(job.retrieval).items() if name != "split"}
    if job.retrieval.candidates is not None:
        # No settings, yet they decide what comes out: how candidates are found, and what baselines are ranked among.
        counted |= {"pool_frames": POOL_FRAMES, "baselines_over": "all pairs"}
    what = {"languages": sorted(job.languages), "embeddings": embeddings.identity, "retrieval": counted}
    # What is recorded of the embeddings is how they were made, not what flags of this job would make.
    settings = dataclasses.asdict(job) | embeddings.settings
    artifact = artifacts.plan(job.root, "retrieval", job.name, what, settings)
    if artifact.is_begun:
        _require_kept(artifact, job.retrieval)
    return RetrievalPlan(artifact, embeddings, job)


def _require_kept(artifact: Artifact, config: RetrievalConfig) -> None:
    """Refuse to show results that the run did not store, because they would need scoring again."""
    kept, advice = artifact.settings["retrieval"], "score anew under another --name, or delete it"
    if config.top_k > kept["top_k"]:
        raise UserError(
            f"--retrieval.top-k {config.top_k}: {artifact.uri} keeps {kept['top_k']} candidates a query; {advice}"
        )
    if config.keep_scores and not kept["keep_scores"]:
        raise UserError(f"--retrieval.keep-scores: {artifact.uri} was started without it; {advice}")
