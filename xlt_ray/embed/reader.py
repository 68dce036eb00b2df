"""What the jobs share that read embeddings: one Ray, on which what is missing is encoded first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.embed.pipeline import embed
from xlt_ray.job import cluster, pools
from xlt_ray.job.settings import Job

_Made = TypeVar("_Made")


def on_embeddings(job: Job, embeddings: Embeddings, make: Callable[[], _Made], with_state_api: bool = False) -> _Made:
    """Start or join Ray, refuse resources that can never be had, encode what is missing, and return what `make` makes.

    Args:
        job: its settings name the resources.
        embeddings: finished or planned.
        make: works on the finished embeddings.
        with_state_api: whether a Ray of this machine starts its dashboard, which a search needs.
    """
    with cluster.cluster(with_state_api=with_state_api):
        pools.require(job)
        embed(embeddings)
        return make()
