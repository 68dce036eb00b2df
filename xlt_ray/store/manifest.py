"""manifest.json: the files of an artifact, each with size and checksum, and a checksum of the manifest itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from xlt_ray.store import reading, storage, sums

NAME = "manifest.json"
CONFIG = "config.json"

_ALWAYS = (CONFIG, "metrics.json", "rejected.parquet")
_CHECKED_BYTES = 1 << 20  # of the files beside the data, those up to this size are read whenever they are relied on


def read(artifact: str) -> dict[str, Any]:
    """The content of an artifact's manifest.

    Raises:
        Damaged: if it is missing, cut, or changed.
    """
    uri = storage.join(artifact, NAME)
    content = reading.json_of(uri)
    if not isinstance(content, dict) or content.get("checksum", _checksum(content)) != _checksum(content):
        raise reading.damaged(uri, "is not what was written: its checksum differs")
    if not all(map(_is_entry, [*_several(content.get("files")), *_several(content.get("others", []))])):
        raise reading.damaged(uri, "names a file outside the artifact, or a file without its size")
    return content


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_entry(entry: Any) -> bool:
    """Whether an entry names a file inside the artifact, because damaged files are deleted by these paths."""
    if not isinstance(entry, dict) or not isinstance(path := entry.get("path"), str):
        return False
    is_inside = not path.startswith("/") and ".." not in path.split("/") and "://" not in path and path.isprintable()
    return is_inside and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256", ""), str)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of its content."""
    return {**content, "checksum": _checksum(content)}


def _checksum(content: Any) -> str:
    rest = {key: value for key, value in content.items() if key != "checksum"} if isinstance(content, dict) else content
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def listed(content: Mapping[str, Any]) -> dict[str, sums.Sum]:
    """Checksums of all files of an artifact, by path."""
    return sums.in_entries([*content["files"], *content.get("others", ())])


def names(others: Iterable[str], sizes: Mapping[str, int]) -> list[str]:
    """Files of a result without rows: those that a stage names, plots, and those that every stage writes."""
    plots = [path for path in sizes if path.startswith("plots/")]
    return sorted({*others, *plots, *(name for name in _ALWAYS if name in sizes)})


def entries(
    artifact: str, files: Mapping[str, int | None], sizes: Mapping[str, int], known: Mapping[str, sums.Sum]
) -> list[dict[str, Any]]:
    """Path, bytes, checksum and rows of files, sorted by path.

    Args:
        artifact: its path or URI.
        files: number of rows of each file, by path inside; None: read it from the file.
        sizes: bytes of existing files.
        known: known checksums; files without one are read.

    Raises:
        RuntimeError: if a file is missing or damaged.
    """
    described = []
    for path, rows in sorted(files.items()):
        uri = storage.join(artifact, path)
        if path not in sizes:
            raise RuntimeError(f"{artifact}: {path} is missing, so the work is not finished")
        found = known.get(path) or sums.of_file(uri)
        if found.bytes != sizes[path]:
            raise RuntimeError(f"{artifact}: {path} has {sizes[path]} bytes, and {found.bytes} were written")
        entry: dict[str, Any] = {"path": path, **found._asdict()}
        if path.endswith(".parquet"):
            entry["rows"] = reading.num_rows(uri) if rows is None else rows
        described.append(entry)
    return described


def damage(artifact: str, content: Mapping[str, Any]) -> dict[str, str]:
    """The problems of an artifact's files, by path. Sizes come from one listing, and only small files are read.

    Files with rows are checked when they are read: page by page, or as a whole.
    """
    expected = listed(content)
    problems = sums.wrong_sizes(expected, storage.sizes(artifact))
    small = {
        path: found
        for path, found in expected.items()
        if "/" not in path and path not in problems and found.bytes <= _CHECKED_BYTES
    }
    return problems | sums.differing(artifact, small)


def damaged_bytes(artifact: str, content: Mapping[str, Any]) -> dict[str, str]:
    """The same after reading every byte of every file."""
    return sums.differing(artifact, listed(content))
