"""Size and date of the files of a corpus, to notice recordings that changed after they were encoded."""

from __future__ import annotations

import collections
import os
import posixpath
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow.fs as pafs

from xlt_ray.corpora import places
from xlt_ray.errors import RejectedRow, Unreachable
from xlt_ray.store import storage


class Stamp(NamedTuple):
    """Size in bytes, and the time of the last change in nanoseconds (as text, empty if a store does not report it)."""

    size: int
    modified: str


def stamps(uris: Iterable[str]) -> dict[str, Stamp]:
    """The stamp of each file that exists; a path without a file has none.

    A folder is listed once if several of its files are requested: an object store lists a thousand files as fast as it
    looks up one.

    Raises:
        Unreachable: if a folder exists but cannot be listed.
    """
    by_folder: dict[str, dict[str, None]] = collections.defaultdict(dict)
    for uri in uris:
        by_folder[posixpath.dirname(uri)][uri] = None
    with ThreadPoolExecutor(max_workers=16) as pool:
        remote = {folder: files for folder, files in by_folder.items() if storage.is_remote(folder)}
        listed = dict(zip(remote, pool.map(_remote, remote, remote.values()), strict=True))
    found: dict[str, Stamp] = {}
    for folder, files in by_folder.items():
        found |= listed[folder] if folder in listed else dict(_local(files))
    return found


def missing_folders(uris: Iterable[str], found: Mapping[str, Stamp]) -> list[str]:
    """Folders that do not exist, sorted: then a mount is missing, not a recording.

    Args:
        uris: the argument of `stamps`.
        found: its result.

    Raises:
        Unreachable: if a store does not answer.
    """
    folders = {posixpath.dirname(uri) for uri in uris if uri not in found}
    folders -= {posixpath.dirname(uri) for uri in found}
    return sorted(folder for folder in folders if not _exists(folder))


def _local(files: Iterable[str]) -> Iterator[tuple[str, Stamp]]:
    for file in files:
        try:
            status = os.stat(file)
        except (OSError, ValueError):
            try:
                status = os.stat(places.find(file))
            except (RejectedRow, Unreachable):
                continue
        if stat.S_ISREG(status.st_mode):
            yield file, Stamp(status.st_size, str(status.st_mtime_ns))


def _remote(folder: str, files: Collection[str]) -> dict[str, Stamp]:
    filesystem, path = storage.locate(folder)
    names = {posixpath.basename(file): file for file in files}
    try:
        if len(files) == 1:
            infos = filesystem.get_file_info([posixpath.join(path, name) for name in names])
        else:
            infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    except Exception as error:  # clients of stores raise any error of their dependencies
        raise Unreachable(folder, str(error) or type(error).__name__) from error
    files_only = (info for info in infos if info.type == pafs.FileType.File and info.base_name in names)
    return {names[info.base_name]: Stamp(info.size or 0, str(info.mtime_ns or "")) for info in files_only}


def _exists(folder: str) -> bool:
    try:
        return storage.exists(folder)
    except Exception as error:
        raise Unreachable(folder, str(error) or type(error).__name__) from error
