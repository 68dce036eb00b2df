"""Checks files that a crash left behind before they are used: a disk may have kept a file's name but lost its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import ray

from xlt_ray.errors import Damaged
from xlt_ray.job import room
from xlt_ray.store import manifest, reading, storage, sums
from xlt_ray.store.artifact import Artifact

_HERE_BYTES = 64 << 20  # so much the driver reads itself: a worker takes seconds to start
_TASK_BYTES = 1 << 30
_TASK_CPUS = 0.1


def drop_damaged(artifact: Artifact) -> None:
    """Delete damaged files of unfinished work, so that they are made again.

    Files that a manifest lists are left alone. Every byte of the others is read once; if there are many, by tasks on
    all nodes. Needs a running Ray, and `Artifact.begin`.
    """
    committed = manifest.listed(artifact.read_json(manifest.NAME)) if artifact.is_committed else {}
    sizes, noted = storage.sizes(artifact.uri), sums.noted(artifact.uri)
    fresh = [path for path in sizes if "/" in path and path not in committed]
    written = {path: noted[path] for path in fresh if path in noted}
    unknown = (path for path in fresh if path not in noted and f"{sums.FOLDER}/{path}.json" in sizes)
    artifact.discard({path: "has a damaged checksum" for path in unknown if _has_damaged_sum(artifact, path)})
    if sum(found.bytes for found in written.values()) <= _HERE_BYTES:
        artifact.discard(sums.differing(artifact.uri, written))
        return
    print(f"{artifact.stage}: checking the {len(written)} files that an earlier run has written", flush=True)
    room.wait(artifact.stage, [{"CPU": _TASK_CPUS}])
    check = ray.remote(num_cpus=_TASK_CPUS)(sums.differing)
    for problems in ray.get([check.remote(artifact.uri, share) for share in shares(written, _TASK_BYTES)]):
        artifact.discard(problems)


def _has_damaged_sum(artifact: Artifact, path: str) -> bool:
    """Whether a crash damaged the checksum of a file, and so perhaps the file; not if the store fails."""
    try:
        reading.json_of(artifact.path(sums.FOLDER, f"{path}.json"))
    except Damaged:
        return True
    return False


def shares(files: Mapping[str, sums.Sum], most_bytes: int) -> Iterator[dict[str, sums.Sum]]:
    """The files in groups of this many bytes; a larger file is a group of its own."""
    share: dict[str, sums.Sum] = {}
    size = 0
    for path, found in files.items():
        if share and size + found.bytes > most_bytes:
            yield share
            share, size = {}, 0
        share[path] = found
        size += found.bytes
    if share:
        yield share
