"""Which machines computed: every worker notes its own in the artifact that it works on, and the manifest counts them.

The driver often runs on a small head that computes nothing, so its hardware says little about a result.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections import Counter
from typing import Any

from xlt_ray.store import storage
from xlt_ray.store.provenance import hardware

FOLDER = "workers"


@functools.cache
def note(uri: str, device: str) -> None:
    """Write down that this machine computes for the artifact at `uri`; a second time costs nothing.

    Args:
        uri: of the artifact, that is being worked on.
        device: `cpu` or `cuda`: GPUs that a worker has not booked are not noted.
    """
    described = hardware()
    if device == "cpu":
        described["gpus"] = []
    text = json.dumps({"node": platform.node(), "hardware": described}, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    storage.write_bytes(storage.join(uri, FOLDER, f"{name}.json"), text.encode())


def noted(uri: str) -> list[dict[str, Any]]:
    """What workers of all runs have noted: hardware, and `nodes`: on how many machines; most first."""
    notes = [json.loads(storage.read_bytes(file)) for file in storage.list_files(storage.join(uri, FOLDER))]
    counts = Counter(json.dumps(each["hardware"]) for each in notes)
    return [{**json.loads(text), "nodes": num} for text, num in counts.most_common()]
