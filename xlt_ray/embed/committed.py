"""What an embed artifact had when it was last committed, whatever a run that was killed since has left in it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from xlt_ray.errors import Damaged
from xlt_ray.store import manifest, reading
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import INDEX

FOLDER = "committed"
"""Folder with the tables that a run replaces at its end, as they were committed before."""


def read_index(artifact: Artifact) -> pa.Table:
    """The rows of INDEX of an artifact that are there; none where it was never finished.

    Rows of a shard that is missing or damaged are not there, so a job that needs them encodes them again; nor are the
    rejected ones, where nobody knows their reason any more.
    """
    if not artifact.is_committed:
        return INDEX.empty_table()
    damage = artifact.damage()
    rows = None if manifest.NAME in damage else table(artifact, "index.parquet")
    if rows is None:
        return INDEX.empty_table()
    lost = [path.removeprefix("data/").removesuffix(".parquet") for path in damage if path.startswith("data/")]
    rows = rows.filter(pc.invert(pc.is_in(rows["unit"], pa.array(lost, pa.string()))))
    is_known = not rows["row"].null_count or table(artifact, "rejected.parquet") is not None
    return rows if is_known else rows.filter(pc.is_valid(rows["row"]))


def table(artifact: Artifact, name: str) -> pa.Table | None:
    """A table of a committed artifact as its manifest has it, or its copy; None where neither is whole.

    A run that adds rows replaces index.parquet and rejected.parquet before the manifest; it may be killed between.
    """
    content = artifact.read_json(manifest.NAME)
    for path in (name, f"{FOLDER}/{name}"):
        with contextlib.suppress(Damaged):
            return reading.table_of(artifact.path(path), manifest.listed(content).get(name))
    was_replaced = artifact.read_json(manifest.NAME) != content  # meanwhile, and the copy was deleted
    return table(artifact, name) if was_replaced else None


def keep(artifact: Artifact) -> None:
    """Copy the tables that a run is going to replace; those that one has replaced already are left to their copies."""
    for name in ("index.parquet", "rejected.parquet") if artifact.is_committed else ():
        with contextlib.suppress(Damaged):
            artifact.write_bytes(f"{FOLDER}/{name}", artifact.read_bytes(name))


def units(artifact: Artifact) -> set[str]:
    """Names of the units of an artifact that was finished, also of those that are damaged since.

    Raises:
        Damaged: if the manifest can't be read; `Artifact.begin` deletes one that is damaged.
    """
    return {Path(file).stem for file in artifact.files()} if artifact.is_committed else set()
