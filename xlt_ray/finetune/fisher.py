"""Estimates the Fisher of the decoder, the importance of each weight for old tasks, as an artifact of its own.

    examples, 64 per unit -> EstimateUnit (actors): a file of summed squared gradients per unit -> their mean

The units do not depend on the number of actors, so the result is bitwise the same for any number.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
import torch
from safetensors.torch import load, save
from torch import Tensor

from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.finetune import cost
from xlt_ray.finetune import examples as rows_of
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.finetune.ewc import squared_gradients
from xlt_ray.job import cluster, pools, progress, resume
from xlt_ray.job.tracking import track
from xlt_ray.models import whisper
from xlt_ray.models.prompts import Prompter
from xlt_ray.models.size import model_size
from xlt_ray.store import reading, shards, storage, workers
from xlt_ray.store.artifact import Artifact

_UNIT = 64
_WEIGHTS = "fisher.safetensors"


def estimate(job: FinetuneJob, embeddings: Embeddings, artifact: Artifact) -> None:
    """Estimate missing units and commit the artifact; does nothing if it is complete. Needs a running Ray."""
    if artifact.is_complete:
        print(f"fisher: {artifact.uri} is complete, nothing to estimate")
        artifact.remove("partial")  # a run that was killed right after its manifest left them
        return
    artifact.begin()
    cluster.require_shared(artifact.path("config.json"))
    cluster.require_shared_model(job.model)
    resume.drop_damaged(artifact)
    inputs = {"corpus": embeddings.settings["corpus"], "model": job.model, "embed": embeddings.name}
    read = embeddings.artifact
    with track(job.root, "fisher", artifact.name, artifact.identity, inputs, read=read) as tracker:
        started = time.monotonic()
        chosen = _examples(job, embeddings, artifact.identity["fisher"]["keep"])
        artifact.write_table("data/examples.parquet", chosen.table)
        _estimate_missing(artifact, job, chosen.table.num_rows)
        metrics = _average(artifact, job, chosen.table.num_rows)
        artifact.write_json("metrics.json", metrics)
        tracker.metrics({f"fisher/{key}": value for key, value in metrics.items()})
        artifact.merge_rejected([chosen.rejected])
        artifact.commit(
            units={"examples": chosen.table.num_rows},
            num_rows_in=chosen.num_in,
            inputs={"embed": embeddings.artifact.named},
            seconds=time.monotonic() - started,
            others=[_WEIGHTS],
            working=["partial"],
        )


def _examples(job: FinetuneJob, embeddings: Embeddings, tasks: Sequence[str]) -> rows_of.Examples:
    prompter = Prompter(whisper.resolve_model(job.model))
    config = job.finetune
    kept = rows_of.collect(embeddings, prompter, config.prompt, "keep", tasks, config.split)
    return rows_of.sample(kept, config.fisher_examples, config.seed)


def _estimate_missing(artifact: Artifact, job: FinetuneJob, num_examples: int) -> None:
    done = {Path(uri).stem for uri in storage.list_files(artifact.path("partial")) if uri.endswith(".safetensors")}
    units = [
        {"unit": f"{first:08d}", "first": first, "count": min(_UNIT, num_examples - first)}
        for first in range(0, num_examples, _UNIT)
    ]
    missing = [unit for unit in units if unit["unit"] not in done]
    if not missing:
        return
    needed = cost.fisher_memory(model_size(job.model))
    pool = pools.pool("fisher", job.finetune.num_gpus, job.finetune.num_workers, len(missing), lambda _: needed)
    settings = {"artifact": artifact, "model": job.model, "config": job.finetune, "device": pool.device}
    estimated = pools.stream(pools.one_by_one(missing), EstimateUnit, settings, pool.options)
    num_left = sum(int(str(unit["count"])) for unit in missing)
    with progress.Bar("fisher examples", num_examples, num_examples - num_left) as bar:
        for row in estimated.iter_rows():
            bar.advance(row["count"])


class EstimateUnit:
    """An actor with the decoder that writes a file of summed squared gradients for each unit of examples."""

    def __init__(self, artifact: Artifact, model: str, config: FinetuneConfig, device: str) -> None:
        # Imported here: they import transformers, and the driver need not wait for it.
        from xlt_ray.finetune.learner import Learner
        from xlt_ray.models import decoder

        torch.set_num_threads(1)  # one thread an actor, as in the embed stage
        workers.note(artifact.uri, device)
        self._artifact, self._config = artifact, config
        self._device = device
        # All of the decoder, whatever a run trains: one Fisher serves every run.
        every = dataclasses.replace(config, train_embeddings=True, lora_rank=None)
        self._learner = Learner(decoder.load_decoder(whisper.resolve_model(model), self._device), every).eval()
        self._examples = reading.table_of(artifact.path("data/examples.parquet"))

    def __call__(self, units: pa.Table) -> pa.Table:
        """Estimate on the unit in a batch of one, and write its file."""
        for unit in units.to_pylist():
            losses = self._losses(range(unit["first"], unit["first"] + unit["count"]))
            sums, _ = squared_gradients(self._learner.trained, losses)
            data = save({name: total.cpu() for name, total in sums.items()})
            self._artifact.write_bytes(f"partial/{unit['unit']}.safetensors", data)
        return units.select(["unit", "count"])

    def _losses(self, rows: range) -> Iterator[Tensor]:
        places = rows_of.places(self._examples)
        for row in rows:
            batch = rows_of.to_batch(self._examples, [row], shards.read_frames([places[row]]), self._device)
            if self._config.fisher_labels == "sampled":
                # Seeded by the example, so that neither the unit nor the actor decides what is drawn.
                generator = torch.Generator(self._device).manual_seed(self._config.seed * 1_000_003 + row)
                batch = self._learner.sampled(batch, generator)
            yield self._learner(batch)


def _average(artifact: Artifact, job: FinetuneJob, num_examples: int) -> dict[str, float]:
    """Write the mean in a task on the cluster. Returns its figures."""
    needed = cost.averaging_memory(model_size(job.model))
    pool = pools.pool("fisher mean", 0, 1, 1, lambda _: needed)
    metrics: dict[str, float] = ray.get(pool.task(_reduce).remote(artifact, num_examples))
    return metrics


def _reduce(artifact: Artifact, num_examples: int) -> dict[str, float]:
    """Write the mean over all examples. Returns its figures."""
    files = [uri for uri in storage.list_files(artifact.path("partial")) if uri.endswith(".safetensors")]
    fisher: dict[str, Tensor] = {}
    for uri in sorted(files):
        for name, part in load(storage.read_bytes(uri)).items():
            fisher[name] = fisher[name] + part if name in fisher else part
    fisher = {name: total / num_examples for name, total in fisher.items()}
    artifact.write_bytes(_WEIGHTS, save(fisher))
    return {
        "num_examples": num_examples,
        "trace": sum(float(values.sum()) for values in fisher.values()),
        "largest": max(float(values.max()) for values in fisher.values()),
    }


def read(artifact: Artifact, names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """F of some weights of the decoder, by name; the others are not kept in memory.

    Raises:
        Damaged: if the file is missing or has changed.
    """
    fisher = load(artifact.read_bytes(_WEIGHTS))
    return {name: fisher[name].to(dtype) for name in names}


def distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Distance of two tasks by the weights that are important for them: 0 for the same, 1 for no weight in common.

    d^2 = 1/2 ||sqrt(F1) - sqrt(F2)||^2 with each F scaled to the sum 1 (Qian et al. 2024, arXiv 2407.06800), which is
    1 - sum sqrt(F1 F2).

    Args:
        first: Fisher of one task, by weight name.
        second: Fisher of the other task, for the same weights.

    Raises:
        ValueError: if one of them is 0 everywhere.
    """
    totals = [sum(float(values.double().sum()) for values in fisher.values()) for fisher in (first, second)]
    if not all(totals):
        raise ValueError("a Fisher that is 0 everywhere has no distance")
    shared = sum(float((values.double() * second[name].double()).sqrt().sum()) for name, values in first.items())
    return 1.0 - shared / math.sqrt(totals[0] * totals[1])
