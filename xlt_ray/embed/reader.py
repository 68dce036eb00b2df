"""Shared by all jobs that read embeddings: starts or joins Ray, and encodes missing recordings first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.embed.pipeline import embed
from xlt_ray.job import cluster, pools
from xlt_ray.job.settings import Job

_Made = TypeVar("_Made")


def on_embeddings(job: Job, embeddings: Embeddings, make: Callable[[], _Made], with_state_api: bool = False) -> _Made:
    """Start or join Ray, refuse impossible resources, encode missing recordings, and return the result of `make`.

    Args:
        job: the job, whose settings name the resources.
        embeddings: finished or planned.
        make: the work that needs the finished embeddings.
        with_state_api: whether a local Ray starts its dashboard, which a search needs.
    """
    with cluster.cluster(with_state_api=with_state_api):
        pools.require(job)
        embed(embeddings)
        return make()
