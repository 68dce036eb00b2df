"""What a crash left is read before it is relied on: a disk may have kept the name of a file and lost its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import ray

from xlt_ray.store import storage, sums
from xlt_ray.store.artifacts import Artifact

_HERE_BYTES = 64 << 20  # so much the driver reads itself: a worker takes seconds to start
_TASK_BYTES = 1 << 30


def drop_damaged(artifact: Artifact) -> None:
    """Delete the files of an unfinished artifact that are not what was written, so that they are made again.

    Every byte is read once: by tasks on all nodes where there is much. Needs a running Ray, and `Artifact.begin`.
    """
    if artifact.is_committed:
        return
    sizes = storage.sizes(artifact.uri)
    written = {path: found for path, found in sums.noted(artifact.uri).items() if path in sizes and "/" in path}
    if sum(found.bytes for found in written.values()) <= _HERE_BYTES:
        artifact.discard(sums.differing(artifact.uri, written))
        return
    print(f"{artifact.stage}: checking the {len(written)} files that an earlier run has written", flush=True)
    check = ray.remote(num_cpus=0.1)(sums.differing)
    for problems in ray.get([check.remote(artifact.uri, share) for share in shares(written, _TASK_BYTES)]):
        artifact.discard(problems)


def shares(files: Mapping[str, sums.Sum], most_bytes: int) -> Iterator[dict[str, sums.Sum]]:
    """The files in groups of so many bytes; a larger file is a group of its own."""
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
