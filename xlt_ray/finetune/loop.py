"""The training loop: plain torch, the same in one process and under Ray Train.

The loss of a step is divided by the number of target tokens in the whole batch, over all workers. So one worker and
many take the same step, and every target token has the same weight.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xlt_ray.finetune.batch import Batch
from xlt_ray.finetune.context import Context
from xlt_ray.finetune.ewc import Consolidation
from xlt_ray.finetune.learner import Learner

if TYPE_CHECKING:
    from xlt_ray.finetune.config import FinetuneConfig

_STATE, _BEST, _PROGRESS = "state.safetensors", "best.safetensors", "progress.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step of one worker.

    Attributes:
        batches: this worker's share, in micro-batches.
        weight: weight of their loss: 0 for a worker that has no example of its own.
        num_tokens: target tokens of the whole batch, over all workers.
        num_examples: examples of the whole batch.
    """

    batches: list[Batch]
    weight: float
    num_tokens: int
    num_examples: int


def learning_rate(step: int, num_steps: int, warmup: float, peak: float) -> float:
    """The rate of step 0, 1, ...: linear increase in the warm-up, then linear decay to nearly 0 at the last step."""
    num_warm = math.ceil(warmup * num_steps)
    if step < num_warm:
        return peak * (step + 1) / num_warm
    return peak * (num_steps - step) / max(1, num_steps - num_warm)


class Training:
    """A training run that can be stopped and resumed at any checkpoint.

    Args:
        learner: the decoder and its loss.
        config: settings.
        num_steps: steps of the whole run.
        context: the worker and its exchange with others.
        consolidation: EWC, or None.
        evaluate: computes dev BLEU of the current weights by direction; None: no evaluation. All workers call it.
    """

    def __init__(
        self,
        learner: Learner,
        config: FinetuneConfig,
        num_steps: int,
        context: Context,
        consolidation: Consolidation | None = None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self._learner, self._config, self._num_steps, self._context = learner, config, num_steps, context
        self._consolidation, self._evaluate = consolidation, evaluate
        self._wrapped = context.wrap(learner)
        self._trained = learner.trained
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        self._best: dict[str, Tensor] = {}
        self.step = 0
        self.log: list[dict[str, float]] = []
        """One row per step. The row of an evaluation also has `dev_bleu`, the mean over the learned directions, and
        `dev_bleu/es-en` for every evaluated direction."""

    def run(self, steps: Iterable[Step]) -> None:
        """Train the remaining steps, with checkpoints on the way and one at the end."""
        started = time.perf_counter()
        for step in steps:
            if self.is_over:
                break
            row = {"step": self.step + 1, "num_examples": step.num_examples, **self.take(step)}
            row["seconds"] = time.perf_counter() - started
            self.step += 1
            self.log.append(row)
            if self._evaluate and self._is_due():
                self._measure(self._evaluate(), row)
            self._context.progress(row)
            if self.step % self._config.checkpoint_every == 0 and self.step < self._num_steps:
                self.save()
            started = time.perf_counter()
        self.save()

    def _is_due(self) -> bool:
        return self.step % self._config.evaluate_every == 0 or self.step == self._num_steps

    @property
    def is_over(self) -> bool:
        """Whether the last step is done, or dev BLEU has not improved for too long."""
        scores = [row["dev_bleu"] for row in self.log if "dev_bleu" in row]
        patience = self._config.patience
        stale = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return self.step >= self._num_steps or (patience is not None and stale >= patience)

    def take(self, step: Step) -> dict[str, float]:
        """Take one optimizer step. Returns its figures."""
        torch.manual_seed((self._config.seed * 1_000_003 + self.step) * 1009 + self._context.rank)
        rate = learning_rate(self.step, self._num_steps, self._config.warmup, self._config.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        total = torch.zeros((), device=self._context.device)
        for i, batch in enumerate(step.batches):
            with self._alone(i < len(step.batches) - 1), self._precision():
                loss = step.weight * self._wrapped(batch)
            # DDP takes the mean over workers, and the step needs the sum.
            (loss * self._context.world_size / step.num_tokens).backward()
            total += loss.detach()
        figures = {"loss": float(self._context.total(total)) / step.num_tokens, "learning_rate": rate}
        if self._consolidation:
            figures["penalty"] = self._consolidation.pull()
        figures["grad_norm"] = float(nn.utils.clip_grad_norm_(self._trained.values(), self._config.clip))
        self._optimizer.step()
        return figures

    def _alone(self, is_partial: bool) -> contextlib.AbstractContextManager[Any]:
        """Skip the exchange of gradients before the last micro-batch of a step."""
        if is_partial and isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            return self._wrapped.no_sync()
        return contextlib.nullcontext()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._context.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def _measure(self, scores: Mapping[str, float], row: dict[str, float]) -> None:
        bleu = fmean(scores[direction] for direction in self._config.directions)
        is_best = all(bleu > before.get("dev_bleu", -1.0) for before in self.log)
        if is_best and self._context.rank == 0:  # the only one that saves
            self._best = {name: parameter.detach().cpu().clone() for name, parameter in self._trained.items()}
        row["dev_bleu"] = bleu
        row.update({f"dev_bleu/{direction}": score for direction, score in scores.items()})

    def save(self) -> None:
        """Hand a checkpoint to the context."""
        measured = [row for row in self.log if "dev_bleu" in row]
        if self._context.rank != 0:
            self._context.checkpoint(None, measured)
            return
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder, "checkpoint")
            inside.mkdir()
            save_file(self._state(), inside / _STATE)
            if self._best:
                save_file(self._best, inside / _BEST)
            (inside / _PROGRESS).write_text(json.dumps({"step": self.step, "log": self.log}))
            self._context.checkpoint(inside, measured)

    def _state(self) -> dict[str, Tensor]:
        moments = self._optimizer.state
        state = {f"weights/{name}": parameter.detach() for name, parameter in self._trained.items()}
        for moment in ("exp_avg", "exp_avg_sq"):
            state |= {
                f"{moment}/{name}": moments[parameter][moment]
                for name, parameter in self._trained.items()
                if parameter in moments
            }
        return {name: tensor.cpu().contiguous() for name, tensor in state.items()}

    def restore(self, folder: Path) -> None:
        """Go back to a checkpoint."""
        progress = json.loads((folder / _PROGRESS).read_text())
        self.step, self.log = progress["step"], progress["log"]
        state = load_file(folder / _STATE, device=str(self._context.device))
        # On the device, where the fused optimizer keeps it.
        step = torch.tensor(float(self.step), device=self._context.device)
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(state[f"weights/{name}"])
                if f"exp_avg/{name}" in state:
                    moments = {moment: state[f"{moment}/{name}"] for moment in ("exp_avg", "exp_avg_sq")}
                    self._optimizer.state[parameter] = {"step": step.clone(), **moments}
        if (folder / _BEST).exists() and self._context.rank == 0:
            self._best = load_file(folder / _BEST)


def read_trained(folder: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The best weights of a finished run, or else its last weights, and its log, from the last checkpoint."""
    best = folder / _BEST
    if best.exists():
        weights = load_file(best)
    else:
        state = load_file(folder / _STATE)
        weights = {
            name.removeprefix("weights/"): weight for name, weight in state.items() if name.startswith("weights/")
        }
    return weights, json.loads((folder / _PROGRESS).read_text())["log"]
