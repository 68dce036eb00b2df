"""Prepares the environment of a job of any stage.

Processes of one machine must not use a proxy to reach each other. If a library can't write to the home directory, the
message names the variable that moves its files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from xlt_ray.job import address
from xlt_ray.job.settings import Job
from xlt_ray.store import cache

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def prepare(job: object) -> None:
    """Prepare this process, and the workers that it starts, for a job. Called before any work.

    Raises:
        NoResources: if the job would join a cluster that does not answer.
    """
    keep_direct([*_LOOPBACK, *address.hosts()])
    if isinstance(job, Job) and not job.dry_run:
        address.require_answer()


def keep_direct(hosts: list[str]) -> None:
    """Never use a proxy for these hosts: it can't reach Ray's state API or a tracking server on loopback."""
    there = {name: os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")}
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        # Where one is empty, its readers would have gone by the other.
        words = [word.strip() for word in (there[name] or there[other]).split(",") if word.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*words, *hosts]))


def advice(error: BaseException) -> str | None:
    """Which variable to set if an error comes from an unwritable directory below home; None for other errors."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _NOT_WRITABLE and isinstance(cause.filename, str):
            variable = _variable_of(Path(cause.filename))
            if variable:
                return f"{cause.filename} can't be written ({cause.strerror}); set {variable} to a directory that can"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _variable_of(path: Path) -> str | None:
    """The variable that moves a file to another directory; None if there is none."""
    hub = Path(os.environ.get("HF_HOME") or cache.home().parent / "huggingface")
    places = {hub: "HF_HOME", cache.home().parent: "XDG_CACHE_HOME", Path.home(): "HOME"}
    return next((variable for place, variable in places.items() if path.is_relative_to(place)), None)
