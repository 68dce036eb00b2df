"""Model directories that are made once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(key: str, write: Callable[[Path], None]) -> Path:
    """The directory of `key` in the user's cache, which `write` fills: there as a whole or not at all.

    What a killed run left is replaced, what a failed one left is removed.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlt_ray" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            whole_or_nothing(target, write)
    return target


def whole_or_nothing(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory beside `target` that becomes `target` when it is done."""
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
    """What tells that files have changed, without reading them: path, size and time of each."""
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
