"""Paths and URIs: access to files, whether local or in an object store.

Local paths are made absolute before Ray sees them, because a submitted job runs in a temporary directory. `s3://`,
`gs://` and `hf://` use the file systems of pyarrow and huggingface_hub.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import posixpath
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs

from xlt_ray.errors import Unreachable, Unwritable, UserError
from xlt_ray.store.patience import patient

REMOTE_SCHEMES = ("s3", "gs", "gcs", "hf")
_STORE_ERRORS = ("AWS Error", "google::cloud")
_STALE_S = 600


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store rather than a local path."""
    return uri.split("://", 1)[0] in REMOTE_SCHEMES if "://" in uri else False


def absolute(uri: str | os.PathLike[str]) -> str:
    """The same place as an absolute path or a URI, without `..`, `.` and empty parts; `~` is expanded.

    An object store takes such parts of a name as they are, so nothing is found there.
    """
    text = os.fspath(uri)
    if is_remote(text):
        scheme, rest = text.split("://", 1)
        return f"{scheme}://{posixpath.normpath(rest)}" if rest else text
    if "://" in text and not text.startswith("file://"):
        valid = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
        raise UserError(f"{text!r} has an unknown scheme; use a local path or one of {valid}")
    return str(local(text.removeprefix("file://")))


def local(text: str) -> Path:
    """The absolute path that a text names; `~` is expanded, and `..` left out unless it is behind a link.

    So a corpus or a root has the same path in every working directory.

    Raises:
        UserError: if it can't be a path on any disk.
    """
    if "\0" in text:
        raise UserError(f"{text!r} is no path: it has a NUL character")
    try:
        path = Path(text).expanduser().absolute()
        str(path).encode()
    except RuntimeError as error:
        raise UserError(f"{text!r} names a user unknown on this machine; give the path without ~") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{text!r} is no path: it is not UTF-8") from error
    if ".." not in path.parts:  # as nearly always: links are looked up only where they matter
        return path
    plain = os.path.normpath(path)
    return Path(plain) if os.path.realpath(plain) == os.path.realpath(path) else path


def join(base: str, *parts: str) -> str:
    """Append path parts; a part that is absolute or a URI replaces the parts before it."""
    for part in parts:
        base = part if is_remote(part) else posixpath.join(base, part.removeprefix("file://"))
    return base


def is_at_fault(error: BaseException) -> bool:
    """Whether a disk or a store failed. Then the file may be intact, even though it could not be read."""
    if isinstance(error, OSError):
        return bool(error.errno or any(word in str(error) for word in _STORE_ERRORS))
    return isinstance(error, Unreachable | Unwritable)


@functools.lru_cache(maxsize=64)
def _remote_filesystem(scheme: str, authority: str) -> pafs.FileSystem:
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return pafs.PyFileSystem(pafs.FSSpecHandler(HfFileSystem()))
    return pafs.FileSystem.from_uri(f"{scheme}://{authority}")[0]


def locate(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of `uri` and the path inside it.

    `AWS_ENDPOINT_URL` in the environment selects an S3-compatible server other than Amazon's.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    scheme, rest = uri.split("://", 1)
    return _remote_filesystem(scheme, rest.split("/", 1)[0]), rest.rstrip("/")


@patient
def exists(uri: str) -> bool:
    """Whether a file or directory exists."""
    filesystem, path = locate(uri)
    return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)


@patient
def read_bytes(uri: str) -> bytes:
    """The whole content of one file.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    filesystem, path = locate(uri)
    with filesystem.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


@patient
def list_files(uri: str, *, recursive: bool = False) -> list[str]:
    """Paths of the files in a directory, sorted, each in the form of `uri`; [] if it does not exist.

    Raises:
        UserError: if the Hub does not answer.
    """
    filesystem, path = locate(uri)
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=recursive)
    prefix = uri.split("://", 1)[0] + "://" if is_remote(uri) else ""
    try:
        found = filesystem.get_file_info(selector)
    except Exception as error:
        if not uri.startswith("hf://"):
            raise
        # The Hub client raises any error of its dependencies.
        raise UserError(
            f"{uri} can't be read ({type(error).__name__}); check that the Hub is reachable, or give a copy of your own"
        ) from error
    return sorted(prefix + info.path for info in found if info.type == pafs.FileType.File)


@patient
def list_folders(uri: str) -> list[str]:
    """Names of the directories in a directory, sorted; none if it does not exist."""
    filesystem, path = locate(uri)
    found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


@patient
def sizes(uri: str) -> dict[str, int]:
    """Bytes of every file in a directory and below it, by path inside; {} if it does not exist."""
    filesystem, path = locate(uri)
    found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    prefix = path.rstrip("/") + "/"
    return {info.path.removeprefix(prefix): info.size for info in found if info.type == pafs.FileType.File}


@patient
def write_bytes(uri: str, data: bytes | memoryview) -> None:
    """Write a file that appears whole or not at all: by a rename on disks, by one upload in object stores.

    Raises:
        Unwritable: if no space is left.
        OSError: if the place can't be written.
    """
    filesystem, path = locate(uri)
    with (
        _refused(uri),
        _placed(filesystem, path) as temporary,
        filesystem.open_output_stream(temporary, compression=None) as stream,
    ):
        stream.write(data)


@patient
def remove_file(uri: str) -> None:
    """Delete a file, if it exists."""
    filesystem, path = locate(uri)
    if filesystem.get_file_info(path).type == pafs.FileType.File:
        filesystem.delete_file(path)


@patient
def remove_folder(uri: str) -> None:
    """Delete a folder with its content, if it exists."""
    filesystem, path = locate(uri)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)


def remove_half_written(folder: str) -> None:
    """Delete half-written files of killed writers in a folder. Readers never see them.

    Only files older than ten minutes, because a newer one may belong to a running writer.
    """
    for uri in list_files(folder):
        if not Path(uri).name.startswith("."):
            continue  # an object store takes 10 to 50 ms to tell the date of each
        filesystem, path = locate(uri)
        if time.time() - filesystem.get_file_info(path).mtime.timestamp() > _STALE_S:
            filesystem.delete_file(path)


@patient
def copy_file(source: Path, uri: str) -> None:
    """Copy a local file of any size, in pieces; it appears whole or not at all.

    Raises:
        Unwritable: if no space is left.
        OSError: if the place can't be written.
    """
    filesystem, path = locate(uri)
    with _refused(uri), _placed(filesystem, path) as temporary:
        pafs.copy_files(
            str(source), temporary, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=filesystem
        )


@contextlib.contextmanager
def _placed(filesystem: pafs.FileSystem, path: str) -> Iterator[str]:
    """A path to write to, which is renamed to `path` at the end. After an error nothing remains."""
    if not isinstance(filesystem, pafs.LocalFileSystem):
        yield path
        return
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
    os.makedirs(folder, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


@contextlib.contextmanager
def _refused(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unwritable(uri, os.strerror(error.errno)) from error
        raise
