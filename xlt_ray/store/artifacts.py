"""The artifacts under a root: plans new ones, and finds existing ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlt_ray.errors import UserError
from xlt_ray.store import lease, storage
from xlt_ray.store.artifact import Artifact, to_be_made
from xlt_ray.store.schema import versions_of


def plan(root: str, stage: str, name: str, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> Artifact:
    """Plan an artifact to make or resume. Nothing is written before `Artifact.begin`.

    Args:
        root: directory or URI with all artifacts.
        stage: name of the stage.
        name: name of the run.
        identity: nested settings and hashes that determine the result.
        settings: all settings, for the reader of `config.json`.

    Raises:
        UserError: if the name is taken by another identity (with the fields that differ), or the root can't be written.
        Damaged: if config.json is damaged, and the manifest does not have the same identity.
    """
    artifact = Artifact.at(root, stage, name)
    asked = json.loads(json.dumps({"identity": {"schema": versions_of(stage), **identity}, "settings": settings}))
    if not artifact.is_begun:
        _require_writable(root)
    else:
        artifact.require_same(asked["identity"])
    return artifact.planned(asked)


def _require_writable(root: str) -> None:
    """Refuse a local root that can't be made or written."""
    if storage.is_remote(root):
        return
    place = Path(storage.absolute(root))
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(f"--root {root!r} can't be written ({there} is no folder that you may write); choose another")


def require_free() -> None:
    """Refuse to start if another job on this machine is making an artifact that this process has planned.

    Raises:
        UserError: naming that job.
    """
    for uri in sorted(to_be_made):
        lease.require_free(uri)


def all_of(root: str, stage: str) -> list[Artifact]:
    """All artifacts of a stage, finished or not, sorted by name. Only their folders are listed, not their files."""
    names = storage.list_folders(storage.join(storage.absolute(root), stage))
    return [Artifact.at(root, stage, name) for name in names]


def find(root: str, stage: str, name: str) -> Artifact:
    """A finished artifact.

    Raises:
        UserError: if there is none of this name; the message lists those that exist.
        Damaged: if one of its files is missing or damaged.
    """
    artifact = Artifact.at(root, stage, name)
    if artifact.is_committed:
        artifact.require_whole()
    else:
        names = ", ".join(other.name for other in all_of(root, stage) if other.is_complete) or "none"
        raise UserError(f"no finished {stage} artifact {name!r} under {root}; finished ones: {names}")
    return artifact
