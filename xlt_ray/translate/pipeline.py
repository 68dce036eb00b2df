"""The translate stage: from shards of frames to hypotheses and their scores.

    rows of TASK -> TranslateUnit (actors, on GPUs if there are any) -> a file of HYPOTHESIS per unit -> metrics.json

One row of Ray Data is one unit of work. The actor reads the frames from the shards itself, and writes the file.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from xlt_ray import metrics
from xlt_ray.finetune import exported
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.tracking import Model, Tracker, track
from xlt_ray.models import whisper
from xlt_ray.models.prompts import Prompter, Scheme
from xlt_ray.models.size import model_size
from xlt_ray.store import reading, shards, workers
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.schema import from_ipc, to_ipc
from xlt_ray.translate import comet, cost, results, scores
from xlt_ray.translate.comet import CometScores
from xlt_ray.translate.config import TranslateConfig
from xlt_ray.translate.plan import TranslatePlan


def translate(plan: TranslatePlan) -> Artifact:
    """Translate missing units, score and commit; finished work is not repeated. Needs a running Ray."""
    artifact, config = plan.artifact, plan.job.translate
    if artifact.is_complete:
        print(f"translate: {artifact.uri} is complete, nothing to translate")
        _score_again(plan)
        return artifact
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    cluster.require_shared_model(plan.job.model)
    resume.drop_damaged(artifact)
    recordings = plan.embeddings.require_left(plan.directions, config.split)
    with _track(plan) as tracker:
        started = time.monotonic()
        rows = shards.tasks(plan.embeddings.artifact.uri, recordings, plan.directions)
        good, rejected = shards.without_reference(rows)
        # The cut of the run that began it: another one would give the units' names to other rows.
        units = cut(good, artifact.settings["translate"]["rows_per_unit"])
        _translate_missing(plan, units)
        _score(plan, units, tracker)
        artifact.merge_rejected([rejected])
        inputs = {"embed": plan.embeddings.artifact.named, "finetune": _named(plan.checkpoint)}
        seconds = time.monotonic() - started
        counts = {unit: table.num_rows for unit, table in units.items()}
        artifact.commit(units=counts, num_rows_in=rows.num_rows, inputs=inputs, seconds=seconds)
    return artifact


def _track(plan: TranslatePlan) -> AbstractContextManager[Tracker]:
    """The run in MLflow, whose parameters name its inputs."""
    job, stages = (
        plan.job,
        {"embeddings": plan.embeddings.artifact, "checkpoint": plan.checkpoint, "baseline": plan.baseline},
    )
    names = {key: artifact.name for key, artifact in stages.items() if artifact}
    words = {"corpus": plan.embeddings.settings["corpus"], "model": job.model, "prompt": plan.scheme, **names}
    read = plan.embeddings.artifact
    return track(job.root, "translate", job.name, plan.artifact.identity, words, read=read, model=_model(plan))


def _model(plan: TranslatePlan) -> Model | None:
    """The tuned model that translates; None for the untouched model."""
    return Model(artifact=plan.checkpoint, alpha=plan.job.translate.alpha) if plan.checkpoint else None


def _named(artifact: Artifact | None) -> dict[str, str] | None:
    return artifact.named if artifact else None


def cut(rows: pa.Table, rows_per_unit: int) -> dict[str, pa.Table]:
    """The rows of each unit of work, by name: consecutive rows of one direction."""
    units: dict[str, pa.Table] = {}
    start = 0
    for direction, group in itertools.groupby(rows["direction"].to_pylist()):
        num_rows = sum(1 for _ in group)
        for k, offset in enumerate(range(0, num_rows, rows_per_unit)):
            size = min(rows_per_unit, num_rows - offset)
            units[f"{direction}-{k:05d}"] = rows.slice(start + offset, size)
        start += num_rows
    return units


def _translate_missing(plan: TranslatePlan, units: Mapping[str, pa.Table]) -> None:
    """Write the file of every unit without one."""
    done = plan.artifact.done()
    missing = {unit: rows for unit, rows in units.items() if unit not in done}
    total = sum(rows.num_rows for rows in units.values())
    num_done = total - sum(rows.num_rows for rows in missing.values())
    if num_done:
        print(f"translate: {num_done} of {total} texts are done, resuming")
    if not missing:
        return
    config = plan.job.translate
    longest = max(pc.max(rows["num_frames"]).as_py() for rows in missing.values())
    needed = functools.partial(cost.writing_memory, model_size(plan.job.model), longest, config)
    pool = pools.pool("translate", config.num_gpus, config.max_actors, len(missing), needed)
    blocks = ({"unit": unit, "rows": to_ipc(rows)} for unit, rows in missing.items())
    settings = {"setup": _setup(plan), "device": pool.device}
    written = pools.stream(pools.one_by_one(blocks), TranslateUnit, settings, pool.options)
    with progress.Bar("translate", total, num_done) as bar:
        for row in written.iter_rows():
            bar.advance(row["num_rows"])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """The input of an actor; small, because every actor gets a copy."""

    artifact: Artifact
    checkpoint: Artifact | None
    model: str
    scheme: Scheme
    hidden: tuple[int, ...]
    config: TranslateConfig


def _setup(plan: TranslatePlan) -> Setup:
    return Setup(
        artifact=plan.artifact,
        checkpoint=plan.checkpoint,
        model=plan.job.model,
        scheme=plan.scheme,
        hidden=plan.hidden,
        config=plan.job.translate,
    )


class TranslateUnit:
    """An actor with the decoder that writes a file of HYPOTHESIS for each unit of TASK rows, and yields counts."""

    def __init__(self, setup: Setup, device: str) -> None:
        # Imported here: it imports transformers, and the driver need not wait for it.
        import torch

        from xlt_ray.translate import decode

        torch.set_num_threads(1)  # one thread an actor, as in the embed stage
        workers.note(setup.artifact.uri, device)
        config, model_dir = setup.config, whisper.resolve_model(setup.model)
        tuned_dir = exported.local_model(setup.checkpoint) if setup.checkpoint else None
        self._artifact = setup.artifact
        self._translator = decode.Translator(
            decoder=decode.load(model_dir, tuned_dir, config.alpha, device),
            prompter=Prompter(model_dir),
            scheme=setup.scheme,
            source_prompt=config.source_prompt,
            hidden=setup.hidden,
            num_beams=config.num_beams,
            max_tokens=config.max_tokens,
            batch_size=config.batch_size,
        )

    def __call__(self, units: pa.Table) -> Iterator[pa.Table]:
        """Translate the unit in a batch of one, and yield a count after each batch of texts; its file comes last."""
        (unit,) = units["unit"].to_pylist()
        rows = from_ipc(units["rows"][0].as_buffer())
        written = []
        for batch in self._translator.batches(rows):
            written.append(self._translator.write(rows, batch))
            yield pa.table({"num_rows": [len(batch)]})
        self._artifact.write_table(f"data/{unit}.parquet", self._translator.joined(rows, written))


def _score(plan: TranslatePlan, units: Iterable[str], tracker: Tracker) -> None:
    files = [plan.artifact.path("data", f"{unit}.parquet") for unit in units]
    written = [reading.table_of(file) for file in files]
    hypotheses = scores.by_direction(written)
    figures = scores.summarise(hypotheses, metrics.english_spellings(plan.model_dir))
    figures |= {
        "prompt": plan.scheme,
        "source_prompt": plan.job.translate.source_prompt,
        "detected": scores.detected(written),
        "checkpoint": _named(plan.checkpoint),
        "alpha": plan.job.translate.alpha if plan.checkpoint else None,
    }
    _complete(plan, figures, hypotheses, tracker)
    plan.artifact.write_json("metrics.json", figures)


def _score_again(plan: TranslatePlan) -> None:
    """Add the COMET scores and the comparison that are requested but missing in metrics.json."""
    figures = plan.artifact.read_json("metrics.json")
    if not any(_missing(plan, figures)):
        return
    plan.artifact.begin()
    hypotheses = scores.by_direction(plan.artifact.tables())
    with _track(plan) as tracker:
        _complete(plan, figures, hypotheses, tracker)
    plan.artifact.amend("metrics.json", figures)


def _missing(plan: TranslatePlan, figures: scores.Figures) -> tuple[bool, bool]:
    """Whether COMET and the comparison are requested but missing."""
    asked, there = plan.job.translate.comet, figures["comet"]
    scored = bool(there) and there["model"] == asked and there["reason"] is None
    return asked is not None and not scored, plan.baseline is not None and figures["baseline"] != _named(plan.baseline)


def _complete(
    plan: TranslatePlan, figures: scores.Figures, hypotheses: Mapping[str, pa.Table], tracker: Tracker
) -> None:
    """Add COMET and the comparison if requested, and log everything."""
    needs_comet, needs_comparison = _missing(plan, figures)
    if needs_comet:
        _add_comet(plan.job.translate, figures, hypotheses)
    if plan.baseline and needs_comparison:
        before = scores.by_direction(plan.baseline.tables())
        figures["baseline"] = _named(plan.baseline)
        figures["kept"] = scores.compare(hypotheses, before, metrics.english_spellings(plan.model_dir))
    model = _model(plan)
    results.log(tracker, figures, hypotheses, plan.job.translate.split, model.learned if model else ())
    tracker.describe(f"{results.sentence(figures)}\n\nArtifact: `{plan.artifact.uri}`")


def _add_comet(config: TranslateConfig, figures: scores.Figures, hypotheses: Mapping[str, pa.Table]) -> None:
    rows, num_without_text = scores.comet_rows(hypotheses)
    model = str(config.comet)
    found = _comet_scores(config, model, rows)
    if found.reason:
        print(f"comet: no scores: {found.reason}")
    if num_without_text:
        print(f"comet: {num_without_text} translations are not scored, because their source has no text")
    scores.add_comet(figures, rows["direction"].to_pylist(), found, num_without_text)


def _comet_scores(config: TranslateConfig, model: str, rows: pa.Table) -> CometScores:
    """COMET scores, from a task on the cluster, with all rows at once, because each call loads the model."""
    if not rows.num_rows:
        reason = "no translation has the text of its source"
        return CometScores(model=model, version=comet.VERSION, system=None, segments=None, reason=reason)
    pool = pools.pool("comet", config.num_gpus, 1, 1)
    place = comet.absolute(model)  # workers have another working directory
    texts = [rows[name].to_pylist() for name in ("text", "hypothesis", "reference")]
    # What the task prints stays with its worker.
    print(
        f"comet: scoring {rows.num_rows} translations with {model}; a machine that never did makes COMET's environment "
        "first, some minutes",
        flush=True,
    )
    scored = pool.task(comet.score).remote(place, *texts, num_gpus=int(pool.num_gpus > 0))
    found: CometScores = ray.get(scored)
    return dataclasses.replace(found, model=model)
