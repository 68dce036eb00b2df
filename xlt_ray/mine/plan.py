"""A mining run before it starts: its inputs, and the checks of user input."""

from __future__ import annotations

import dataclasses

from xlt_ray.embed import plan as embed
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.job.settings import identity
from xlt_ray.mine.config import MineJob
from xlt_ray.store import artifacts
from xlt_ray.store.artifact import Artifact


@dataclasses.dataclass(frozen=True, slots=True)
class MinePlan:
    """A mining run that has been checked and can start."""

    artifact: Artifact
    embeddings: Embeddings
    job: MineJob


def prepare(job: MineJob) -> MinePlan:
    """Check all user input before any work. Nothing is written.

    Raises:
        UserError: names the mistake and what to do.
    """
    config = job.mine
    embeddings = embed.prepare(job, job.embed, [config.split], name=config.embeddings)
    what = {
        "languages": sorted(job.languages),
        "embeddings": embeddings.identity,
        "mine": {name: value for name, value in identity(config).items() if name != "split"},
    }
    # What is recorded of the embeddings is how they were made, not what flags of this job would make.
    settings = dataclasses.asdict(job) | embeddings.settings
    return MinePlan(artifacts.plan(job.root, "mine", job.name, what, settings), embeddings, job)
