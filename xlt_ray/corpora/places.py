"""Resolves the cell of a table to the path or URI of a recording.

A cell is a path, absolute or relative to its table, or a URI. Some cells cannot name a file here (a web address, a
Windows path). Others spell the path differently from the disk (composed and decomposed letters, a space at the end);
other spellings are tried only if the path as written does not exist.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
import unicodedata
import urllib.parse
from collections.abc import Iterator

from xlt_ray.errors import RejectedRow, Unreachable
from xlt_ray.store import storage

BAD_PATH = (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
"""Errors that are about the path of one recording, not about the machine."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def resolve(folder: str, cell: str) -> str:
    """The path or URI that a cell names; a relative one is relative to `folder`.

    `file://` addresses are unquoted (`%20`), and `~` is the user's home. A cell that cannot be a file stays unchanged.
    In an object store `..` and empty parts are resolved, as a disk does.
    """
    if cell.startswith("file:/"):
        return urllib.parse.unquote(urllib.parse.urlsplit(cell).path)
    if cell.startswith("~") and "\0" not in cell:
        return os.path.expanduser(cell)
    is_whole = _SCHEME.match(cell) or _WINDOWS.match(cell)
    path = cell if is_whole else posixpath.join(folder, cell.removeprefix("./"))
    return storage.absolute(path) if storage.is_remote(path) else path


def find(audio: str) -> str:
    """The file at a place, in the spelling that the disk has.

    Raises:
        RejectedRow: if there can't be a file at this place, or if there is something other than a file.
        Unreachable: if there is no such file.
    """
    if storage.is_remote(audio):
        return audio
    if _SCHEME.match(audio):
        raise RejectedRow("missing: a web address; only files and object stores (s3, gs, hf) are read")
    if _WINDOWS.match(audio):
        raise RejectedRow("missing: a Windows path, which this machine cannot open")
    try:
        path = next((path for path in (audio, *_spellings(audio)) if os.path.lexists(path)), audio)
        _check_kind(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        raise unreadable(audio, error) from error
    return path


def unreadable(audio: str, error: OSError | ValueError) -> RejectedRow | Unreachable:
    """Translate an error of the file system: either the path itself is wrong, or the file is out of reach."""
    if isinstance(error, ValueError):
        return RejectedRow(f"missing: not the path of a file: {error}")
    if not storage.is_remote(audio) and error.errno in BAD_PATH:
        return RejectedRow(f"missing: not the path of a file: {error.strerror}")
    return Unreachable(audio, error.strerror or str(error) or type(error).__name__)


def _check_kind(mode: int) -> None:
    """Refuse anything but a file. Reading a pipe would never end if nobody writes to it."""
    if stat.S_ISDIR(mode):
        raise RejectedRow("missing: a folder, not a file")
    if not stat.S_ISREG(mode):
        raise RejectedRow("missing: a pipe, a socket or a device, not a file")


def _spellings(path: str) -> Iterator[str]:
    """The path with each part as the disk spells it, if it exists; searched lazily."""
    if path.isascii() and path == path.strip():
        return
    here = "/"
    for part in os.path.abspath(path).split("/"):
        forms = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")), part.strip()]
        found = next((form for form in forms if os.path.lexists(os.path.join(here, form))), None)
        if found is None:
            return
        here = os.path.join(here, found)
    yield here
