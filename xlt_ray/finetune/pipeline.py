"""The finetune stage: writes the examples, trains the weights and saves the model.

embedding shards -> examples -> (fisher) -> Ray Train -> model/, for transformers and faster-whisper
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import ray
import ray.train

from xlt_ray import corpora
from xlt_ray.finetune import batch as batches
from xlt_ray.finetune import cost, exported, fisher, results, trainer
from xlt_ray.finetune import examples as rows_of
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.examples import Examples
from xlt_ray.finetune.parameters import count_parameters
from xlt_ray.finetune.plan import FinetunePlan
from xlt_ray.finetune.work import Work
from xlt_ray.job import cluster, pools
from xlt_ray.job.settings import identity
from xlt_ray.job.tracking import Model, Tracker, track
from xlt_ray.models import export, whisper
from xlt_ray.models.prompts import Prompter
from xlt_ray.models.size import model_size
from xlt_ray.store import artifacts, reading
from xlt_ray.store.artifact import Artifact
from xlt_ray.store.provenance import provenance


def finetune(plan: FinetunePlan) -> Artifact:
    """Train, or resume a killed run, then commit and export the model. Needs a running Ray."""
    artifact = plan.artifact
    if artifact.is_complete:
        print(f"finetune: {artifact.uri} is complete, nothing to train")
        artifact.remove("train")  # a run that was killed right after its manifest left it
    else:
        _train(plan)
    _export(artifact, plan.job.finetune.export, plan.job.model)
    return artifact


def export_finished(runs: Sequence[Artifact], place: str, model: str) -> None:
    """Export the models of a finished search or study, whose `--finetune.export` was given later.

    Args:
        runs: fine-tuning runs; a deleted one is named and skipped.
        place: value of `--finetune.export`.
        model: the model that they were trained from.
    """
    if place == "none":
        return
    for artifact in runs:
        if artifact.is_complete:
            _export(artifact, place, model)
        else:
            print(f"finetune: {artifact.uri} is not complete any more, so its model is not exported")


def _export(artifact: Artifact, place: str, model: str) -> None:
    if place == exported.CTRANSLATE2 and not exported.is_converted(artifact):
        # As it stands now: by the plan, a worker would take the manifest that this process wrote for another job's.
        finished = artifacts.find(artifact.root, artifact.stage, artifact.name)
        needed = cost.converting_memory(model_size(model))
        pool = pools.pool("ctranslate2", 0, 1, 1, lambda _: needed)
        ray.get(pool.task(exported.add_ctranslate2).remote(finished))
    if place.startswith(exported.HUB):
        exported.upload(artifact, place.removeprefix(exported.HUB))


def _train(plan: FinetunePlan) -> None:
    artifact, job = plan.artifact, plan.job
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    cluster.require_shared_model(job.model)
    needed = memory_needed(plan, longest(plan))
    workers = pools.workers("finetune", job.finetune.num_workers, job.finetune.num_gpus, needed)
    saving = _saving(job.model)  # before the training, which would be in vain without it
    work, examples = begin(plan, Collected())
    _announce(plan, work, examples)
    if plan.fisher:
        fisher.estimate(job, plan.embeddings, plan.fisher)
    inputs = {"corpus": artifact.settings["corpus"], "model": job.model, "embed": plan.embeddings.name}
    read, model = plan.embeddings.artifact, Model(artifact=artifact)
    with track(job.root, "finetune", artifact.name, artifact.identity, inputs, read=read, model=model) as tracker:
        started = time.monotonic()
        checkpoint = trainer.train(work, workers)
        files, log, sha256 = ray.get(saving.task(_save).remote(checkpoint, work))
        figures = {**results.summarise(log, examples.table), "weights_sha256": sha256}
        _finish(plan, examples, files, log, figures, tracker, time.monotonic() - started)


def _saving(model: str) -> pools.Pool:
    """Room for the task that writes the model."""
    needed = cost.saving_memory(model_size(model))
    return pools.pool("finetune model", 0, 1, 1, lambda _: needed)


def longest(plan: FinetunePlan) -> int:
    """Frames of the longest recording of a run; the embeddings must be complete."""
    lengths = [plan.embeddings.recordings(split)["num_frames"] for split in plan.job.finetune.splits]
    return max((pc.max(each).as_py() for each in lengths if len(each)), default=0)


def memory_needed(plan: FinetunePlan, num_frames: int) -> pools.Needed:
    """The memory of a worker, by device, for recordings of this many frames."""
    num_trained, _ = count_parameters(plan.model_dir, plan.job.finetune)
    size = model_size(plan.job.model)
    return functools.partial(cost.training_memory, size, plan.job.finetune, num_trained, num_frames)


class Collected:
    """Examples that runs on the same rows share, because 289,000 take half a minute to tokenise."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Examples] = {}

    def collect(self, plan: FinetunePlan, role: str, directions: Sequence[str], split: str) -> Examples:
        """The examples of a role, with the schema EXAMPLE."""
        scheme = plan.job.finetune.prompt
        key = (plan.embeddings.artifact.uri, scheme, role, tuple(directions), split)
        if key not in self._found:
            prompter = Prompter(plan.model_dir)
            self._found[key] = rows_of.collect(plan.embeddings, prompter, scheme, role, directions, split)
        return self._found[key]


def begin(plan: FinetunePlan, collected: Collected) -> tuple[Work, Examples]:
    """Write the examples into the artifact. Returns the input of the workers, and the examples."""
    artifact, job = plan.artifact, plan.job
    artifact.begin()
    examples = _examples(plan, collected)
    artifact.write_table("data/examples.parquet", examples.table)
    artifact.merge_rejected([examples.rejected])
    num_trained, _ = count_parameters(plan.model_dir, job.finetune)
    num_steps = len(batches.plan_of(examples.table, job.finetune))
    return Work(artifact, job.model, job.finetune, plan.fisher, num_trained, num_steps), examples


def _examples(plan: FinetunePlan, collected: Collected) -> Examples:
    config = plan.job.finetune
    asked = [("learn", config.directions, config.split)]
    if config.replay_fraction:
        asked.append(("keep", config.keep, config.split))
    if config.evaluate_every:
        asked.append(("dev", (*config.directions, *config.evaluate), config.dev_split))
    return rows_of.joined([collected.collect(plan, *part) for part in asked])


def _announce(plan: FinetunePlan, work: Work, examples: Examples) -> None:
    """Print which weights will train, and the memory of EWC."""
    config, trained = work.config, work.num_trained
    _, of_decoder = count_parameters(plan.model_dir, config)
    kind = f"LoRA of rank {config.lora_rank}: " if config.lora_rank else ""
    print(f"finetune: {kind}training {trained:,} weights; the decoder has {of_decoder:,}; the encoder is not loaded")
    counts = results.count_roles(examples.table)
    print("finetune: examples: " + ", ".join(f"{role} {count}" for role, count in counts.items()))
    if config.ewc_lambda:
        sizes = [trained * width / 1e6 for width in (2 if config.fisher_dtype == "bfloat16" else 4, 4)]
        where = "the CPU" if config.ewc_on_cpu else "the device that trains"
        print(f"finetune: EWC adds a Fisher of {sizes[0]:.0f} MB and an anchor of {sizes[1]:.0f} MB on {where}")


def _save(checkpoint: ray.train.Checkpoint, work: Work) -> tuple[list[str], list[dict[str, float]], str]:
    """Write the model into the artifact. Returns its files, the log of the training, and the hash of the weights."""
    # Imported here: they import transformers, and the driver need not wait for it.
    from xlt_ray.finetune.learner import tuned_weights
    from xlt_ray.finetune.loop import read_trained

    model_dir = whisper.resolve_model(work.model)
    with checkpoint.as_directory() as last:
        trained, log = read_trained(Path(last))
    weights = tuned_weights(model_dir, work.config, trained)
    work.artifact.remove("model")  # a run that was killed here left parts of it
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        export.save_model(model, model_dir, weights)
        (model / "README.md").write_text(export.model_card(_card(work, log), model_dir), encoding="utf-8")
        files = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
        for path in files:
            work.artifact.copy_file(str(path), Path(folder, path))
        return [str(path) for path in files], log, whisper.weights_sha256(model)


def _card(work: Work, log: list[dict[str, float]]) -> export.Card:
    config = work.config
    chosen = {name: value for name, value in identity(config).items() if name not in ("directions", "prompt")}
    if work.fisher:
        chosen["fisher"] = work.fisher.name
    return export.Card(
        name=work.artifact.name,
        base_model=_public(work.model),
        directions=config.directions,
        scheme=config.prompt,
        frozen=("encoder",) if config.train_embeddings else ("encoder", "token embeddings"),
        hyperparameters={name: _word(value) for name, value in chosen.items() if value not in (None, [])},
        corpus=work.artifact.settings["corpus"].split(":")[0],
        num_examples=results.count_roles(reading.table_of(work.artifact.path("data/examples.parquet")))["learn"],
        attribution=corpora.attribution(work.artifact.settings["corpus"]),
        metrics=_scores(config, log),
        limits=_NOT_MEASURED,
        commit=provenance()["git"]["sha"],
    )


def _public(model: str) -> str:
    """The name of a model without the path on the user's disk."""
    return Path(model).name if os.path.isdir(os.path.expanduser(model)) else model


def _scores(config: FinetuneConfig, log: list[dict[str, float]]) -> tuple[export.Metric, ...]:
    """Dev BLEU of the final weights, if only one direction was evaluated."""
    scores = [row["dev_bleu"] for row in log if "dev_bleu" in row]
    if not scores or len(config.directions) > 1:
        return ()
    return (export.Metric(direction=config.directions[0], name="bleu", value=max(scores), split=config.dev_split),)


def _word(value: Any) -> str | int | float | bool:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _finish(
    plan: FinetunePlan,
    examples: Examples,
    files: list[str],
    log: list[dict[str, float]],
    figures: dict[str, Any],
    tracker: Tracker,
    seconds: float,
) -> None:
    """Write the figures, log them, and commit the artifact."""
    artifact, embeddings = plan.artifact, plan.embeddings
    artifact.write_json("metrics.json", figures)
    artifact.write_json("log.json", log)
    results.log(tracker, artifact, figures, log, seconds)
    artifact.commit(
        units={"examples": examples.table.num_rows},
        num_rows_in=examples.num_in,
        inputs={"embed": embeddings.artifact.named},
        seconds=seconds,
        others=[*files, "log.json"],
        working=["train"],
    )


_NOT_MEASURED = (
    "Translation quality on held-out speech; jobs/translate.py --translate.checkpoint measures it.",
    "The full 30 s of frames: training saw the speech and the silence that the embeddings keep behind it.",
)
