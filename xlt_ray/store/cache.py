"""The user's cache: files that are downloaded or made once per machine, and can be downloaded or made again."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from xlt_ray.errors import UserError


def home() -> Path:
    """The directory of this package in the user's cache, which may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlt_ray"


def folder(kind: str) -> Path:
    """The directory of one kind of files in the user's cache, which is created if needed.

    Raises:
        UserError: if it can't be written; the message names the variable that moves the cache.
    """
    place = home() / kind
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise UserError(
            f"the cache {place} can't be written ({error.strerror}); set XDG_CACHE_HOME to a writable directory"
        ) from error


def made_once(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """The directory of `key` in the user's cache, filled by `write`. It appears whole or not at all.

    One process writes, and the others wait for it. Files of a killed run are replaced, those of a failed run are
    removed.

    Raises:
        UserError: if the cache can't be written.
    """
    target = folder(kind) / hashlib.sha256(key.encode()).hexdigest()[:16]
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            whole_or_nothing(target, write)
    return target


def whole_or_nothing(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory beside `target`, and rename it to `target` afterwards."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def stamp(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of each file, which show whether files have changed without reading them."""
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
