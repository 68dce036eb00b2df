"""Reads one finished artifact for the report: settings, provenance, figures, plots, rejected rows."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

from PIL import Image

from xlt_ray.job.secrets import redacted
from xlt_ray.store import reading, storage
from xlt_ray.store.stored import StoredArtifact

MAX_REJECTED_ROWS = 200
"""Maximum number of rejected rows to show per artifact; the counts by reason are always complete."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One figure of an artifact: its file name without ending, the PNG itself, and the caption the PNG carries."""

    name: str
    png: bytes
    caption: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One finished artifact.

    Attributes:
        config: settings of the run, nested.
        manifest: provenance: git, versions, hardware, wall time, inputs, files and row counts.
        metrics: `metrics.json`, {} if the stage writes none.
        reasons: number of rejected rows by reason, the most frequent first.
        rejected: the first MAX_REJECTED_ROWS rows of `rejected.parquet`.
    """

    stage: str
    name: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    plots: tuple[Plot, ...]
    reasons: dict[str, int]
    rejected: tuple[dict[str, str], ...]

    @property
    def label(self) -> str:
        """Stage and name."""
        return f"{self.stage}/{self.name}"

    @property
    def embedded(self) -> dict[str, str]:
        """Name and fingerprint of the embed artifact that it was made from; {} if it names none under its root."""
        found = dict((self.manifest.get("inputs") or {}).get("embed") or {})
        is_plain = isinstance(name := found.get("name"), str) and "/" not in name and name not in (".", "..")
        return found if is_plain and isinstance(found.get("fingerprint"), str) else {}


def read_artifact(stored: StoredArtifact) -> Artifact:
    """Read the files of the artifact, except the rows of its result."""
    reasons, rejected = _read_rejected(stored)
    return Artifact(
        stage=stored.stage,
        name=stored.name,
        config=_read_json(stored, "config.json"),
        manifest=_read_json(stored, "manifest.json"),
        metrics=_read_json(stored, "metrics.json"),
        plots=tuple(_read_plots(stored.path("plots"))),
        reasons=reasons,
        rejected=rejected,
    )


def _read_json(stored: StoredArtifact, name: str) -> dict[str, Any]:
    """The object in a JSON file; {} if there is no such file."""
    return dict(stored.read_json(name)) if stored.has(name) else {}


def _read_rejected(stored: StoredArtifact) -> tuple[dict[str, int], tuple[dict[str, str], ...]]:
    if not stored.has("rejected.parquet"):
        return {}, ()
    table = reading.table_of(stored.path("rejected.parquet"))
    reasons = Counter(table["reason"].to_pylist())
    rows = table.slice(0, MAX_REJECTED_ROWS).to_pylist()
    return dict(reasons.most_common()), tuple(row | {"audio": redacted(row["audio"])} for row in rows)


def _read_plots(uri: str) -> Iterator[Plot]:
    """PNG files, each with the caption in its `Description` text chunk."""
    for file in storage.list_files(uri):
        if file.endswith(".png"):
            png = storage.read_bytes(file)
            with reading.reading(file):
                caption = _caption(png)
            yield Plot(name=file.rsplit("/", 1)[-1].removesuffix(".png"), png=png, caption=caption)


def _caption(png: bytes) -> str:
    try:
        with Image.open(io.BytesIO(png)) as image:
            return str(image.info.get("Description", ""))
    except Image.DecompressionBombError as error:
        raise ValueError(f"it is not a plot: {error}") from error
