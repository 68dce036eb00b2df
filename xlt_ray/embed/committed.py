"""Reads the last committed state of an embed artifact, even if a later run was killed while it changed the artifact."""

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
"""Folder with the committed versions of the tables that a run replaces at its end."""


def read_index(artifact: Artifact) -> pa.Table:
    """The usable rows of INDEX of an artifact; none if it was never finished.

    Rows of a missing or damaged shard are left out, so a job that needs them encodes them again. Rejected rows are left
    out if their reasons are lost.
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
    """A table of a committed artifact as listed in its manifest, or its copy; None if neither is intact.

    A run that adds rows replaces index.parquet and rejected.parquet before the manifest, and may be killed in between.
    """
    content = artifact.read_json(manifest.NAME)
    for path in (name, f"{FOLDER}/{name}"):
        with contextlib.suppress(Damaged):
            return reading.table_of(artifact.path(path), manifest.listed(content).get(name))
    was_replaced = artifact.read_json(manifest.NAME) != content  # meanwhile, and the copy was deleted
    return table(artifact, name) if was_replaced else None


def keep(artifact: Artifact) -> None:
    """Copy the tables that a run will replace. The copy of a table that was already replaced is kept."""
    for name in ("index.parquet", "rejected.parquet") if artifact.is_committed else ():
        with contextlib.suppress(Damaged):
            artifact.write_bytes(f"{FOLDER}/{name}", artifact.read_bytes(name))


def units(artifact: Artifact) -> set[str]:
    """Names of the units of a finished artifact, including those that were damaged later.

    Raises:
        Damaged: if the manifest can't be read; `Artifact.begin` deletes one that is damaged.
    """
    return {Path(file).stem for file in artifact.files()} if artifact.is_committed else set()
