"""Collects the artifacts under a root: finished ones with tables and metrics, unfinished ones by name.

Reads `{root}/{stage}/{name}/` through `storage`, so a root can be in an object store. An artifact is finished once it
has `manifest.json`, which is written last. An artifact with a missing or damaged file is named, but not shown.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from xlt_ray.embed.section import Speech, read_speech
from xlt_ray.errors import Damaged, UserError
from xlt_ray.finetune.section import Training, read_training
from xlt_ray.job.secrets import redacted
from xlt_ray.mine.section import Mining, read_mining
from xlt_ray.report.artifact import Artifact as Artifact
from xlt_ray.report.artifact import read_artifact
from xlt_ray.report.clips import NO_CLIPS, Clips, read_clips
from xlt_ray.report.culprits import without_culprits
from xlt_ray.retrieval.section import Retrieval, read_retrieval
from xlt_ray.store import artifacts, reading, storage
from xlt_ray.store.schema import versions_of
from xlt_ray.store.stored import StoredArtifact
from xlt_ray.study.section import Study, read_study
from xlt_ray.translate.recipe import read_recipe
from xlt_ray.translate.samples import Samples, read_samples
from xlt_ray.translate.scores import by_direction
from xlt_ray.translate.section import Group, Run, group_runs
from xlt_ray.tune.section import Search, read_search

_FIGURES = {"embed": "speech", "retrieval": "retrieval", "translate": "samples", "mine": "mining"}
_FIGURES |= {"finetune": "training", "tune": "searches", "study": "studies"}
"""The field of `Results` for each stage whose figures are read."""

STAGES = ("embed", "retrieval", "mine", "fisher", "finetune", "tune", "translate", "study")
"""Folders of a root with artifacts, in the order of the data flow."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """The content of the page.

    Attributes:
        root: absolute path or URI.
        created: when this was read, ISO time in UTC.
        artifacts: finished ones, by stage in the order of the data flow, then by name.
        unfinished: `{stage}/{name}` of directories without `manifest.json`.
        damaged: the problems of finished artifacts, by `{stage}/{name}`, with the command that makes them again.
        speech: of each finished `embed` artifact, by name.
        retrieval: of each finished `retrieval` artifact, by name.
        samples: translations of each finished `translate` artifact, by name.
        clips: recordings of the examples.
        mining: of each finished `mine` artifact, by name.
        training: of each finished `finetune` artifact, by name.
        searches: of each finished `tune` artifact, by name.
        studies: of each finished `study` artifact, by name.
        keeping: the `translate` artifacts that were compared with a baseline, by that baseline.
        not_placed: names of those among them that have no direction into English or no other direction, and that no
            study shows.
    """

    root: str
    created: str
    artifacts: tuple[Artifact, ...]
    unfinished: tuple[str, ...]
    damaged: dict[str, str]
    speech: dict[str, Speech]
    retrieval: dict[str, Retrieval]
    samples: dict[str, Samples]
    clips: Clips
    mining: dict[str, Mining]
    training: dict[str, Training]
    searches: dict[str, Search]
    studies: dict[str, Study]
    keeping: tuple[Group, ...]
    not_placed: tuple[str, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The values of --model of all artifacts."""
        return self._asked("model")

    @property
    def corpora(self) -> tuple[str, ...]:
        """The values of --corpus of all artifacts."""
        return self._asked("corpus")

    def _asked(self, name: str) -> tuple[str, ...]:
        found = (artifact.config.get("settings", {}).get(name) for artifact in self.artifacts)
        return tuple(dict.fromkeys(redacted(str(value)) for value in found if value))

    def only(self, labels: Collection[str]) -> Results:
        """Only these finished artifacts (`{stage}/{name}`), without anything that joins several."""
        shown = tuple(artifact for artifact in self.artifacts if artifact.label in labels)
        kept: dict[str, Any] = {
            field: {name: found for name, found in getattr(self, field).items() if f"{stage}/{name}" in labels}
            for stage, field in _FIGURES.items()
        }
        return dataclasses.replace(self, artifacts=shown, keeping=(), not_placed=(), **kept)

    def of(self, stage: str) -> list[Artifact]:
        """Finished artifacts of one stage."""
        return [artifact for artifact in self.artifacts if artifact.stage == stage]


def collect(root: str, *, verify: bool = False) -> Results:
    """Read every artifact under `root`.

    Args:
        root: directory or URI.
        verify: whether to read every byte of every artifact, and compare checksums.

    Raises:
        UserError: if `root` does not exist.
    """
    root = storage.absolute(root)
    if not storage.exists(root):
        raise UserError(f"root {root!r} does not exist; pass the --root that the other jobs wrote to")
    there = [artifact for stage in STAGES for artifact in artifacts.all_of(root, stage)]
    finished = [artifact for artifact in there if artifact.is_committed]
    read, damaged = _read_all(finished, verify)
    (results, recordings), wrong = without_culprits(read, lambda some: (_joined(root, some), list(_recordings(some))))
    damaged |= {artifact.label: not_shown(root, artifact.label, error) for (artifact, _), error in wrong}
    unfinished = tuple(artifact.label for artifact in there if artifact not in finished)
    return dataclasses.replace(results, unfinished=unfinished, damaged=damaged, clips=read_clips(root, recordings))


def not_shown(root: str, label: str, error: Exception) -> str:
    """What is wrong with an artifact: the error for a damaged file, or content that no job writes."""
    if isinstance(error, Damaged):
        return str(error)
    return str(reading.damaged(storage.join(root, label), f"can't be read ({error!r:.200})"))


def _joined(root: str, read: Sequence[tuple[Artifact, Any]]) -> Results:
    """The results of some artifacts, without clips."""
    shown = tuple(artifact for artifact, _ in read)
    keeping, not_placed = group_runs(_runs(shown))

    def figures(stage: str) -> dict[str, Any]:
        return {artifact.name: found for artifact, found in read if artifact.stage == stage}

    studies = figures("study")
    studied = {run["translate"] for study in studies.values() for run in study.figures["runs"].values()}
    return Results(
        root=root,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        artifacts=shown,
        unfinished=(),
        damaged={},
        speech=figures("embed"),
        retrieval=figures("retrieval"),
        samples=figures("translate"),
        clips=NO_CLIPS,
        mining=figures("mine"),
        training=figures("finetune"),
        searches=figures("tune"),
        studies=studies,
        keeping=keeping,
        not_placed=tuple(name for name in not_placed if name not in studied),
    )


def _read_all(finished: Sequence[StoredArtifact], verify: bool) -> tuple[list[tuple[Artifact, Any]], dict[str, str]]:
    """Artifacts with the figures of their stage, and the problems of the others, by `{stage}/{name}`."""
    read, damaged = [], {}
    for stored in finished:
        try:
            stored.require_whole(verify=verify)
            artifact = read_artifact(stored)
            # Whatever a reader meets in a file that changed without growing or shrinking is damage too.
            with reading.reading(stored.uri):
                read.append((artifact, _figures(stored, artifact)))
        except Exception as error:  # whole files may still hold anything
            if storage.is_at_fault(error):
                raise
            damaged[stored.label] = not_shown(stored.root, stored.label, error)
    return read, damaged


def _figures(stored: StoredArtifact, artifact: Artifact) -> Any:
    """The figures of an artifact, read by its stage; None if metrics.json is shown unchanged."""
    match artifact.stage:
        case "embed":
            return read_speech(artifact.metrics)
        case "retrieval":
            # Figures of an earlier version of the tables are shown without examples.
            is_known = artifact.manifest.get("schema") == versions_of("retrieval")
            files = [file for file in stored.files() if file.endswith(".parquet")] if is_known else []
            return read_retrieval(artifact.metrics, files)
        case "translate":
            is_known = artifact.manifest.get("schema") == versions_of("translate")
            return read_samples(by_direction(stored.tables()) if is_known else {})
        case "mine":
            return read_mining(artifact.metrics)
        case "finetune":
            settings = artifact.config["settings"]["finetune"]
            return read_training(artifact.name, settings, artifact.metrics, stored.read_json("log.json"))
        case "tune":
            return read_search(artifact.metrics)
        case "study":
            return read_study(artifact.metrics)
    return None


def _recordings(read: Sequence[tuple[Artifact, Any]]) -> Iterator[tuple[dict[str, str], str]]:
    """The recordings that the page plays, once for each occurrence, by their embed artifact."""
    for artifact, found in read:
        if not artifact.embedded:
            continue
        if artifact.stage == "retrieval":
            names = [name for item in (*found.worst, *found.best) for name in item.recordings]
        else:
            samples = (*found.worst, *found.best) if artifact.stage == "translate" else ()
            names = [sample.utterance_id for sample in samples]
        yield from ((artifact.embedded, name) for name in names)


def _runs(artifacts: Sequence[Artifact]) -> Iterator[Run]:
    """Translate artifacts that were compared with a baseline, each with the settings of its checkpoint.

    An artifact may have been replaced under the same name after the run read it, so fingerprints are compared.
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
