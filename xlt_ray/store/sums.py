"""Checksums of the files of an artifact, computed by the process that writes a file, while it has the bytes.

    {artifact}/sums/{path}.json    {"bytes", "sha256"} of {artifact}/{path}; until they are in manifest.json

They are in separate files until the artifact is committed, so that a resumed run has the checksums of existing files
and no data is read only for its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from xlt_ray.store import storage
from xlt_ray.store.patience import patient

FOLDER = "sums"

_THREADS = 16  # an object store takes 10 to 50 ms for each small file
_PIECE = 1 << 24


class Sum(NamedTuple):
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


def of_bytes(data: bytes | memoryview) -> Sum:
    """Checksum and size of data in memory."""
    return Sum(len(data), hashlib.sha256(data).hexdigest())


@patient
def of_file(uri: str) -> Sum:
    """Checksum and size of a file, read in pieces.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    filesystem, path = storage.locate(uri)
    digest, size = hashlib.sha256(), 0
    with filesystem.open_input_stream(path, compression=None) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return Sum(size, digest.hexdigest())


def note(artifact: str, relative: str, found: Sum) -> None:
    """Store the checksum of a file before it is written, so that a file without one comes from somebody else."""
    storage.write_bytes(storage.join(artifact, FOLDER, f"{relative}.json"), json.dumps(found._asdict()).encode())


def noted(artifact: str) -> dict[str, Sum]:
    """All stored checksums, by path inside the artifact; unreadable ones are left out."""
    prefix = storage.join(artifact, FOLDER) + "/"
    files = [uri for uri in storage.list_files(prefix.rstrip("/"), recursive=True) if _is_whole(uri)]
    with ThreadPoolExecutor(_THREADS) as threads:
        found = dict(zip(files, threads.map(_read, files), strict=True))
    return {uri.removeprefix(prefix).removesuffix(".json"): value for uri, value in found.items() if value}


def differing(artifact: str, expected: Mapping[str, Sum]) -> dict[str, str]:
    """The problems of files, by path, found by reading all files; files without a problem are left out."""
    with ThreadPoolExecutor(_THREADS // 4) as threads:
        problems = threads.map(lambda item: _difference(storage.join(artifact, item[0]), item[1]), expected.items())
        return {path: problem for path, problem in zip(expected, problems, strict=True) if problem}


def wrong_sizes(expected: Mapping[str, Sum], sizes: Mapping[str, int]) -> dict[str, str]:
    """The problems of files, by path, found by the sizes in a listing; files without a problem are left out."""
    return {path: problem for path, found in expected.items() if (problem := _wrong_size(found, sizes.get(path)))}


def in_entries(entries: Iterable[Mapping[str, object]]) -> dict[str, Sum]:
    """Checksums in the entries of a manifest, by path; older manifests have no hashes."""
    return {str(entry["path"]): Sum(int(str(entry["bytes"])), str(entry.get("sha256", ""))) for entry in entries}


def _difference(uri: str, expected: Sum) -> str | None:
    try:
        found = of_file(uri)
    except FileNotFoundError:
        return "is missing"
    if problem := _wrong_size(expected, found.bytes):
        return problem
    return "is not what was written: its checksum differs" if expected.sha256 not in ("", found.sha256) else None


def _wrong_size(expected: Sum, size: int | None) -> str | None:
    if size is None:
        return "is missing"
    return f"has {size} bytes, and {expected.bytes} were written" if size != expected.bytes else None


def _is_whole(uri: str) -> bool:
    return uri.endswith(".json") and not Path(uri).name.startswith(".")


def _read(uri: str) -> Sum | None:
    try:
        content = json.loads(storage.read_bytes(uri))
        return Sum(int(content["bytes"]), str(content["sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
