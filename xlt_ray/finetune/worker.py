"""One training process under Ray Train: reads its share of every step with Ray Data, and runs the loop.

It reads only the data that it trains on, and never loads the encoder.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import ray.train.torch
import torch
import torch.distributed
from torch import Tensor, nn

from xlt_ray import metrics
from xlt_ray.finetune import batch as batches
from xlt_ray.finetune import examples as rows_of
from xlt_ray.finetune import fisher, reading
from xlt_ray.finetune.batch import Indices
from xlt_ray.finetune.ewc import Consolidation
from xlt_ray.finetune.learner import Learner
from xlt_ray.finetune.loop import Step, Training
from xlt_ray.finetune.work import Work
from xlt_ray.languages import Direction
from xlt_ray.models import decoder, whisper
from xlt_ray.models.prompts import Prompter
from xlt_ray.store import shards, workers
from xlt_ray.store.ahead import ahead
from xlt_ray.store.reading import table_of


class RayContext:
    """The context of a Ray Train worker."""

    def __init__(self, board: Any) -> None:
        self._board = board
        here = ray.train.get_context()
        self.rank: int = here.get_world_rank()
        self.world_size: int = here.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def wrap(self, module: nn.Module) -> nn.Module:
        """DDP, if there is more than one worker."""
        options = {"gradient_as_bucket_view": True}
        return ray.train.torch.prepare_model(module, parallel_strategy_kwargs=options)  # type: ignore[no-any-return]

    def total(self, value: Tensor) -> Tensor:
        """The sum over workers."""
        if self.world_size > 1:
            torch.distributed.all_reduce(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        """The value of every worker, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def resume(self) -> Iterator[Path | None]:
        """The folder of the last checkpoint."""
        last = ray.train.get_checkpoint()
        if last is None:
            yield None
            return
        with last.as_directory() as folder:
            yield Path(folder)

    def checkpoint(self, folder: Path | None, measured: list[dict[str, float]]) -> None:
        """Upload the folder; a barrier for all workers. Reports the measured rows to a search."""
        ray.train.report(
            {"measured": measured}, checkpoint=ray.train.Checkpoint.from_directory(folder) if folder else None
        )

    def progress(self, figures: dict[str, float]) -> None:
        """Report to the driver, without waiting."""
        if self.rank == 0 and self._board is not None:
            self._board.put.remote(figures)


def train_share(work: Work, board: Any) -> None:
    """Train to the end. Every worker runs this.

    Args:
        work: the input of the worker.
        board: an actor whose `put` takes the figures of each step from rank 0, or None.
    """
    torch.set_num_threads(1)  # one thread a worker, as in the embed stage
    context = RayContext(board)
    workers.note(work.artifact.uri, context.device.type)
    model_dir = whisper.resolve_model(work.model)
    learner = Learner(decoder.load_decoder(model_dir, context.device), work.config)
    num_trained = sum(parameter.numel() for parameter in learner.trained.values())
    if num_trained != work.num_trained:
        raise RuntimeError(f"{num_trained} weights train, but {work.num_trained} were announced")
    table = table_of(work.artifact.path("data/examples.parquet"))
    evaluate = _Evaluation(learner, table, context, str(model_dir)) if work.config.evaluate_every else None
    steps = batches.plan_of(table, work.config)
    training = Training(learner, work.config, len(steps), context, _consolidation(work, learner), evaluate)
    with context.resume() as folder:
        if folder is not None:
            training.restore(folder)
    following = _read_steps(table, steps, training.step, context, work.config.micro_batch_size)
    # A GPU is given the frames of a step while it computes the one before; a CPU would only share its core.
    training.run(ahead(following) if context.device.type == "cuda" else following)


def _consolidation(work: Work, learner: Learner) -> Consolidation | None:
    """EWC with the current weights as anchor, before any checkpoint is restored."""
    if work.fisher is None:
        return None
    anchor = {name: parameter.detach().clone() for name, parameter in learner.trained.items()}
    weights = fisher.read(work.fisher, learner.trained, getattr(torch, work.config.fisher_dtype))
    device = "cpu" if work.config.ewc_on_cpu else None
    return Consolidation(learner.trained, anchor, weights, work.config.ewc_lambda, device)


def _read_steps(
    table: pa.Table, steps: Sequence[Indices], first: int, context: RayContext, micro_batch_size: int | None
) -> Iterator[Step]:
    """This worker's share of every step from `first` on; Ray Data reads the frames ahead."""
    places = rows_of.places(table)
    sizes = pc.list_value_length(table["target"]).to_numpy()
    shares = [batches.share(step, context.rank, context.world_size) for step in steps[first:]]
    cut = [batches.micro_batches(own, micro_batch_size) for own, _ in shares]
    items = [
        {"shards": [places[i][0] for i in rows], "rows": [places[i][1] for i in rows], "examples": rows.tolist()}
        for micro in cut
        for rows in micro
    ]
    data = reading.in_order(items)
    for step, micro, (_, weight) in zip(steps[first:], cut, shares, strict=True):
        read = [
            rows_of.to_batch(table, row["examples"], reading.frames_of(row), context.device)
            for row in itertools.islice(data, len(micro))
        ]
        yield Step(read, weight, num_tokens=int(sizes[step].sum()), num_examples=len(step))


class _Evaluation:
    """Dev BLEU of the current weights, by direction. Every worker translates its share."""

    _BATCH = 16

    def __init__(self, learner: Learner, table: pa.Table, context: RayContext, model_dir: str) -> None:
        self._learner, self._context = learner, context
        dev = [i for i, role in enumerate(table["role"].to_pylist()) if role == "dev"]
        self._dev = table.take(pa.array(dev, pa.int64()))
        self._prompter = Prompter(model_dir)

    def __call__(self) -> dict[str, float]:
        """Translate, gather, score."""
        self._learner.eval()
        order = np.argsort(self._dev["num_frames"].to_numpy(), kind="stable")
        own = order[self._context.rank :: self._context.world_size]
        texts = {int(i): text for rows in batches.micro_batches(own, self._BATCH) for i, text in self._write(rows)}
        self._learner.train()
        gathered = {i: text for part in self._context.gather(texts) for i, text in part.items()}
        return self._bleu([gathered[i] for i in range(self._dev.num_rows)])

    def _write(self, rows: Indices) -> list[tuple[int, str]]:
        chosen = self._dev.take(pa.array(rows, pa.int64()))
        frames = shards.read_frames(rows_of.places(chosen))
        written = decoder.generate(self._learner.decoder, frames, chosen["prompt"].to_pylist())
        return [(int(i), self._prompter.text(tokens)) for i, tokens in zip(rows, written, strict=True)]

    def _bleu(self, texts: list[str]) -> dict[str, float]:
        directions = self._dev["direction"].to_pylist()
        references = [self._prompter.text(target) for target in self._dev["target"].to_pylist()]
        scores = {}
        for direction in sorted(set(directions)):
            at = [i for i, given in enumerate(directions) if given == direction]
            target = Direction.parse(direction).target
            scores[direction] = metrics.bleu([texts[i] for i in at], [references[i] for i in at], target)
        return scores
