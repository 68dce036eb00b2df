"""Reads files of artifacts. Errors name the missing, cut or changed file, and the command that makes it again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_ray.errors import Damaged
from xlt_ray.store import storage, sums
from xlt_ray.store.patience import patient

_KEEP_COMMAND = ("config.json", "manifest.json")
_DEEPEST = 4  # folders between a file and its artifact


def json_of(uri: str) -> Any:
    """The content of a JSON file.

    Raises:
        Damaged: if it is missing, or not JSON.
    """
    with reading(uri):
        return json.loads(storage.read_bytes(uri))


def bytes_of(uri: str, expected: sums.Sum | None) -> bytes:
    """The content of a file.

    Args:
        uri: of the file.
        expected: its checksum, if known.

    Raises:
        Damaged: if it is missing or has changed.
    """
    with reading(uri):
        data = storage.read_bytes(uri)
    if expected and expected.sha256 not in ("", sums.of_bytes(data).sha256):
        raise damaged(uri, "is not what was written: its checksum differs")
    return data


@patient
def table_of(uri: str, expected: sums.Sum | None = None, **options: Any) -> pa.Table:
    """Read one Parquet file; `options` go to pyarrow's `read_table`.

    Args:
        uri: of the file.
        expected: its checksum, if known: then the whole file is read and checked, else each page that is read.
        options: of pyarrow's `read_table`.

    Raises:
        Damaged: if it is missing or has changed.
    """
    filesystem, path = storage.locate(uri)
    options = {"partitioning": None, "page_checksum_verification": True, **options}
    with reading(uri):
        if expected is None:
            return pq.read_table(path, filesystem=filesystem, **options)
        return pq.read_table(pa.BufferReader(bytes_of(uri, expected)), **options)


@patient
def num_rows(uri: str) -> int:
    """The number of rows of a Parquet file, from its footer.

    Raises:
        Damaged: if it is missing, or damaged.
    """
    filesystem, path = storage.locate(uri)
    with reading(uri):
        return int(pq.read_metadata(path, filesystem=filesystem).num_rows)


@contextlib.contextmanager
def reading(uri: str) -> Iterator[None]:
    """While inside, turn errors from reading a file of an artifact into `Damaged`.

    Raises:
        Damaged: naming the file, and the command that makes it again.
    """
    try:
        yield
    except Damaged:
        raise
    except FileNotFoundError as error:
        raise damaged(uri, "is missing") from error
    except (pa.ArrowException, ValueError, OSError, MemoryError, RecursionError) as error:
        if storage.is_at_fault(error):
            raise
        raise damaged(uri, f"is damaged ({_short(error)})") from error


def damaged(uri: str, problem: str) -> Damaged:
    """The error for a file of an artifact, at any depth in it."""
    return Damaged(f"{uri} {problem}; {_again(uri)}")


def _again(uri: str) -> str:
    """How to make a file again: with the command of its artifact, which the artifact stores."""
    folder = uri
    for _ in range(_DEEPEST):
        for name in _KEEP_COMMAND:
            with contextlib.suppress(Exception):  # that file may be the damaged one
                command = json.loads(storage.read_bytes(storage.join(folder, name)))["command"]
                return f"make it again: {command}"
        folder = folder.rpartition("/")[0]
    return "make it again with the job and the settings that made it"


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:120] if lines else type(error).__name__
