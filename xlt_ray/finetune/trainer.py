"""Training under Ray Train, which resumes from checkpoints when workers are lost.

EXAMPLE rows -> plan of steps -> Ray Data reads the frames of each micro-batch -> loop.Training (DDP) -> checkpoints
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.exceptions
import ray.train
import ray.train.torch

from xlt_ray.finetune.board import Board
from xlt_ray.finetune.work import Work
from xlt_ray.job import pools, progress, room
from xlt_ray.store import storage

_RUN = "train"
_POLL_S = 0.5
_TELL_S = 30


def train(work: Work, workers: pools.Workers) -> ray.train.Checkpoint:
    """Train to the end, and return the last checkpoint. Needs a running Ray.

    Training survives lost workers, and resumes from the last checkpoint of a killed driver.
    """
    board = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
    trainer = trainer_of(work, workers, board)
    each = f"{workers.num_cpus:g} CPU" + (f" and {workers.num_gpus:g} GPU" if workers.num_gpus else "")
    asked = f"1 worker with {each}" if workers.count == 1 else f"{workers.count} workers with {each} each"
    with _watched(board, work.num_steps, asked):
        result = trainer.fit()
    assert result.checkpoint is not None, "the loop ends with a checkpoint"
    return result.checkpoint


def trainer_of(
    work: Work, workers: pools.Workers, board: Any, callbacks: Sequence[ray.train.UserCallback] = ()
) -> ray.train.torch.TorchTrainer:
    """The trainer that starts or resumes the run of an artifact.

    Args:
        work: the input of the workers.
        workers: their number, and the resources of each.
        board: an actor that shows each step, or None.
        callbacks: called for every checkpoint.
    """
    filesystem, path = storage.locate(work.artifact.uri)
    return ray.train.torch.TorchTrainer(
        _run_worker,
        train_loop_config={"work": work, "board": board},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.num_gpus > 0,
            resources_per_worker=workers.resources,
        ),
        run_config=ray.train.RunConfig(
            name=_RUN,  # inside the artifact, whose identity is fixed: the name can't meet other settings
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=work.config.max_failures),
            callbacks=list(callbacks),
        ),
    )


def _run_worker(settings: dict[str, Any]) -> None:
    # Imported here: Ray's controller also loads this function, and need not wait 5 s for transformers.
    from xlt_ray.finetune.worker import train_share

    train_share(settings["work"], settings["board"])


@contextlib.contextmanager
def _watched(board: Any, num_steps: int, wanted: str) -> Iterator[None]:
    """A progress bar that follows the board, and prints what the job waits for, because Ray waits without a message."""
    over = threading.Event()
    with progress.Bar("finetune steps", num_steps, 0) as bar:

        def follow() -> None:
            seen, quiet = 0, 0.0
            while not over.wait(_POLL_S):
                step = _step_of(board, seen)
                quiet = 0.0 if step > seen else quiet + _POLL_S
                if step > seen:
                    bar.advance(step - seen)
                    seen = step
                elif seen == 0 and quiet % _TELL_S == 0:
                    print(f"finetune: no step yet, {wanted} must start; the cluster has {room.there()}", flush=True)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _step_of(board: Any, seen: int) -> int:
    try:
        return int(ray.get(board.get.remote()).get("step", seen))
    except ray.exceptions.RayActorError:  # its node was lost; it comes back on another
        return seen
