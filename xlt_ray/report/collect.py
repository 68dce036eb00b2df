"""Reads what lies under a root: finished artifacts with their tables and figures, and the names of the unfinished ones.

Reads `{root}/{stage}/{name}/` through `storage`, so a root can be in an object store. Only `manifest.json` makes an
artifact a result, because it is written last.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from xlt_ray.embed.section import Speech, read_speech
from xlt_ray.errors import UserError
from xlt_ray.finetune.section import Training, read_training
from xlt_ray.retrieval.section import Retrieval, read_retrieval
from xlt_ray.store import storage
from xlt_ray.store.schema import versions_of
from xlt_ray.study.section import Study, read_study
from xlt_ray.translate.recipe import read_recipe
from xlt_ray.translate.section import Group, Run, group_runs
from xlt_ray.tune.section import Search, read_search

STAGES = ("embed", "retrieval", "fisher", "finetune", "tune", "translate", "study")
"""Directories of a root that hold artifacts, in the order of the data flow."""

MAX_REJECTED_ROWS = 200
"""Rejected rows shown of one artifact; the counts by reason are always complete."""


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
        metrics: `metrics.json`, {} where the stage writes none.
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that the page shows.

    Attributes:
        root: absolute path or URI.
        created: when this was read, ISO time in UTC.
        artifacts: finished ones, by stage in the order of the data flow, then by name.
        unfinished: `{stage}/{name}` of directories without `manifest.json`.
        speech: of each finished `embed` artifact, by name.
        retrieval: of each finished `retrieval` artifact, by name.
        training: of each finished `finetune` artifact, by name.
        searches: of each finished `tune` artifact, by name.
        studies: of each finished `study` artifact, by name.
        keeping: the `translate` artifacts that were compared with a baseline, by that baseline.
        not_placed: names of those among them that lack a direction into English, or another one, and that no study
            shows.
    """

    root: str
    created: str
    artifacts: tuple[Artifact, ...]
    unfinished: tuple[str, ...]
    speech: dict[str, Speech]
    retrieval: dict[str, Retrieval]
    training: dict[str, Training]
    searches: dict[str, Search]
    studies: dict[str, Study]
    keeping: tuple[Group, ...]
    not_placed: tuple[str, ...]

    def of(self, stage: str) -> list[Artifact]:
        """Finished artifacts of one stage."""
        return [artifact for artifact in self.artifacts if artifact.stage == stage]


def collect(root: str) -> Results:
    """Read every artifact under `root`.

    Raises:
        UserError: if `root` is not there.
    """
    root = storage.absolute(root)
    if not storage.exists(root):
        raise UserError(f"root {root!r} does not exist; pass the --root that the other jobs wrote to")
    found = [
        (stage, name, storage.join(root, stage, name))
        for stage in STAGES
        for name in storage.list_folders(storage.join(root, stage))
    ]
    finished = [row for row in found if storage.exists(storage.join(row[2], "manifest.json"))]
    artifacts = tuple(_read_artifact(stage, name, uri) for stage, name, uri in finished)
    keeping, not_placed = group_runs(_runs(artifacts))
    studies = {artifact.name: read_study(artifact.metrics) for artifact in artifacts if artifact.stage == "study"}
    studied = {run["translate"] for study in studies.values() for run in study.figures["runs"].values()}
    return Results(
        root=root,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        artifacts=artifacts,
        unfinished=tuple(f"{stage}/{name}" for stage, name, uri in found if (stage, name, uri) not in finished),
        speech={artifact.name: read_speech(artifact.metrics) for artifact in artifacts if artifact.stage == "embed"},
        retrieval={
            artifact.name: read_retrieval(artifact.metrics, _rankings(root, artifact))
            for artifact in artifacts
            if artifact.stage == "retrieval"
        },
        training={
            artifact.name: _read_training(root, artifact) for artifact in artifacts if artifact.stage == "finetune"
        },
        searches={artifact.name: read_search(artifact.metrics) for artifact in artifacts if artifact.stage == "tune"},
        studies=studies,
        keeping=keeping,
        not_placed=tuple(name for name in not_placed if name not in studied),
    )


def _read_artifact(stage: str, name: str, uri: str) -> Artifact:
    reasons, rejected = _read_rejected(storage.join(uri, "rejected.parquet"))
    return Artifact(
        stage=stage,
        name=name,
        config=_read_json(storage.join(uri, "config.json")),
        manifest=_read_json(storage.join(uri, "manifest.json")),
        metrics=_read_json(storage.join(uri, "metrics.json")),
        plots=tuple(_read_plots(storage.join(uri, "plots"))),
        reasons=reasons,
        rejected=rejected,
    )


def _read_json(uri: str) -> dict[str, Any]:
    """The object in a JSON file; {} where there is no such file."""
    return dict(json.loads(storage.read_bytes(uri))) if storage.exists(uri) else {}


def _read_rejected(uri: str) -> tuple[dict[str, int], tuple[dict[str, str], ...]]:
    if not storage.exists(uri):
        return {}, ()
    filesystem, path = storage.locate(uri)
    table = pq.read_table(path, filesystem=filesystem, partitioning=None)
    reasons = Counter(table["reason"].to_pylist())
    return dict(reasons.most_common()), tuple(table.slice(0, MAX_REJECTED_ROWS).to_pylist())


def _read_plots(uri: str) -> Iterator[Plot]:
    """PNG files, each with the caption in its `Description` text chunk."""
    for file in storage.list_files(uri):
        if file.endswith(".png"):
            png = storage.read_bytes(file)
            with Image.open(io.BytesIO(png)) as image:
                caption = str(image.info.get("Description", ""))
            yield Plot(name=file.rsplit("/", 1)[-1].removesuffix(".png"), png=png, caption=caption)


def _rankings(root: str, artifact: Artifact) -> list[str]:
    """URIs of the tables that the manifest lists, so that a left-over of an earlier attempt is never read.

    None where they are of an earlier version: its figures are shown without examples.
    """
    if artifact.manifest.get("schema") != versions_of("retrieval"):
        return []
    paths = [file["path"] for file in artifact.manifest["files"] if file["path"].startswith("data/")]
    return [storage.join(root, artifact.stage, artifact.name, path) for path in paths if path.endswith(".parquet")]


def _read_training(root: str, artifact: Artifact) -> Training:
    log = json.loads(storage.read_bytes(storage.join(root, artifact.stage, artifact.name, "log.json")))
    return read_training(artifact.name, artifact.config["settings"]["finetune"], artifact.metrics, log)


def _runs(artifacts: Sequence[Artifact]) -> Iterator[Run]:
    """Translate artifacts that were compared with a baseline, each with the settings of its checkpoint.

    An artifact that was made anew under its old name is not the one that the run read, so fingerprints decide.
    """
    identities = {artifact.manifest["fingerprint"]: artifact.config.get("identity") for artifact in artifacts}
    for artifact in artifacts:
        metrics = artifact.metrics
        if artifact.stage == "translate" and metrics.get("kept"):
            tuned = identities.get(metrics["checkpoint"]["fingerprint"]) if metrics["checkpoint"] else None
            fisher = identities.get(tuned["fisher"]) if tuned else None
            yield Run(
                name=artifact.name,
                baseline=metrics["baseline"],
                compared=metrics["kept"]["directions"],
                recipe=read_recipe(artifact.config["identity"], metrics, tuned, fisher),
                seed=tuned["finetune"]["seed"] if tuned else None,
            )
