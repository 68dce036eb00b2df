"""Where a table of figures comes from: commit, machine and date, for its title."""

from __future__ import annotations

import os
import platform
import time

from xlt_ray.store.provenance import provenance


def origin() -> str:
    """In words."""
    git = provenance()["git"]
    commit = f"{str(git['sha'])[:7]}{', with changes' if git['dirty'] else ''}"
    return f"commit {commit}, {platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
