"""The user's cache: what is fetched or made once on a machine, and can be had again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from xlt_ray.errors import UserError


def home() -> Path:
    """The directory of this package in the user's cache, whether it is there or not."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlt_ray"


def folder(kind: str) -> Path:
    """The directory of one kind of files in the user's cache, made where it is not there.

    Raises:
        UserError: if it can't be written; the message names the variable that puts the cache elsewhere.
    """
    place = home() / kind
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise UserError(
            f"the cache {place} can't be written ({error.strerror}); set XDG_CACHE_HOME to a directory that can"
        ) from error
