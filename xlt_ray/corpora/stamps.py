"""Size and date of files, without opening them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from xlt_ray.store import storage


class Stamp(NamedTuple):
    """What tells whether a file is still the one that was read."""

    size: int
    modified: str


def stamps(uris: Iterable[str]) -> dict[str, Stamp]:
    """Size and date of each file that is there."""
    found = {}
    for uri in set(uris):
        if not storage.is_remote(uri):
            try:
                stat = os.stat(uri)
            except OSError:
                continue
            found[uri] = Stamp(stat.st_size, str(stat.st_mtime_ns))
        elif storage.exists(uri):
            filesystem, path = storage.locate(uri)
            info = filesystem.get_file_info(path)
            found[uri] = Stamp(info.size, str(info.mtime_ns))
    return found
