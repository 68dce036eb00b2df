"""Records which machines computed: every worker notes its machine in the artifact, and the manifest counts them.

The driver often runs on a small head that computes nothing, so its hardware says little about a result.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections import Counter
from typing import Any

from xlt_ray.errors import UserError
from xlt_ray.store import manifest, storage
from xlt_ray.store.provenance import hardware

FOLDER = "workers"
_EARLIER = "earlier.json"


@functools.cache
def note(uri: str, device: str) -> None:
    """Record that this machine computes for the artifact at `uri`. Repeated calls cost nothing.

    Args:
        uri: URI of the artifact.
        device: `cpu` or `cuda`; GPUs that a worker has not requested are not recorded.

    Raises:
        UserError: if this machine does not see the artifact: it joined after the check, and has other disks.
    """
    if not storage.exists(storage.join(uri, manifest.CONFIG)):
        raise UserError(f"{platform.node()} does not see {uri}; give a --root that all nodes share, such as s3://...")
    described = hardware()
    if device == "cpu":
        described["gpus"] = []
    text = json.dumps({"node": platform.node(), "hardware": described}, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    storage.write_bytes(storage.join(uri, FOLDER, f"{name}.json"), text.encode())


def carry(uri: str, workers: list[dict[str, Any]]) -> None:
    """Keep the record of an earlier commit of the artifact, before its manifest is deleted."""
    storage.write_bytes(storage.join(uri, FOLDER, _EARLIER), json.dumps(workers).encode())


def noted(uri: str) -> list[dict[str, Any]]:
    """Hardware that computed, in this and earlier runs, with `nodes`, the number of such machines; most first.

    Machines of an earlier commit may be the same as now, so for equal hardware the larger number counts.
    """
    counts: Counter[str] = Counter()
    earlier: list[dict[str, Any]] = []
    for file in storage.list_files(storage.join(uri, FOLDER)):
        content = json.loads(storage.read_bytes(file))
        if file.endswith(f"/{_EARLIER}"):
            earlier = content
        else:
            counts[json.dumps(content["hardware"], sort_keys=True)] += 1
    for each in earlier:
        text = json.dumps({key: value for key, value in each.items() if key != "nodes"}, sort_keys=True)
        counts[text] = max(counts[text], each["nodes"])
    return [{**json.loads(text), "nodes": num} for text, num in counts.most_common()]
