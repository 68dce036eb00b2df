"""SeqSim on one CPU thread, beside torch.mm and the other ways to score all pairs in both directions.

    python benchmarks/seqsim.py        # about two minutes; bert-score and fast-maxsim join in where they are installed

Every way is first checked against float64, then timed in rounds that take turns, in CPU seconds, so that a neighbour on
the machine counts little. GF/s counts 2 T_x T_y D per pair ONCE, for both directions together, and only real frames: a
second pass and padding are work that does not count. At last SeqSim runs beside busy processes, on the wall clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from xlt_ray.retrieval.seqsim import Frames, seqsim

NUM_UTTERANCES, DIM, ROUNDS = 12, 512, 9
TOLERANCE = 1e-6  # of every score against float64; the goal is set for SeqSim
ALIGNED = 16  # fp32 numbers in 64 bytes: rows of a product that start there are written fastest

Both = tuple[torch.Tensor, torch.Tensor]
Score = Callable[[Frames, Frames], Both]


@dataclasses.dataclass(frozen=True)
class Goal:
    """A ratio of the speed of SeqSim to that of something else."""

    name: str
    over: str
    at_least: float


def per_pair(x: Frames, y: Frames) -> Both:
    """One product and two maxima a pair, with `max`, which also finds where they are."""
    return _each_pair(x, y, lambda product, dim: product.max(dim=dim).values)


def per_pair_amax(x: Frames, y: Frames) -> Both:
    """The same with `amax`, which does not."""
    return _each_pair(x, y, lambda product, dim: product.amax(dim=dim))


def _each_pair(x: Frames, y: Frames, best: Callable[[torch.Tensor, int], torch.Tensor]) -> Both:
    recall, precision = (torch.empty(len(x.lengths), len(y.lengths), dtype=x.data.dtype) for _ in range(2))
    for i, rows in enumerate(x.data.split(x.lengths)):
        for j, columns in enumerate(y.data.split(y.lengths)):
            product = rows @ columns.T
            recall[i, j], precision[i, j] = best(product, 1).mean(), best(product, 0).mean()
    return recall, precision


def two_passes(x: Frames, y: Frames) -> Both:
    """Each direction on its own: every utterance times all the others, without padding."""
    return _one_way(x, y), _one_way(y, x).T


def _one_way(x: Frames, y: Frames) -> torch.Tensor:
    found = []
    for rows in x.data.split(x.lengths):
        found.append(torch.stack([part.amax(dim=1).mean() for part in (rows @ y.data.T).split(y.lengths, dim=1)]))
    return torch.stack(found)


def padded_one_pass(x: Frames, y: Frames) -> Both:
    """One einsum over padded frames, of which both maxima are taken."""
    (x_frames, x_real), (y_frames, y_real) = _padded(x), _padded(y)
    products = torch.einsum("ntd,msd->nmts", x_frames, y_frames)
    products.masked_fill_(~(x_real[:, None, :, None] & y_real[None, :, None, :]), -torch.inf)
    recall = _mean_of_real(products.amax(dim=3), x_real[:, None])
    return recall, _mean_of_real(products.amax(dim=2), y_real[None])


def padded_two_passes(x: Frames, y: Frames) -> Both:
    """The late interaction of ColBERT, `einsum`, maximum and mean over padded frames, called once each way."""
    return _late_interaction(x, y), _late_interaction(y, x).T


def _late_interaction(x: Frames, y: Frames) -> torch.Tensor:
    (x_frames, x_real), (y_frames, y_real) = _padded(x), _padded(y)
    products = torch.einsum("ntd,msd->nmts", x_frames, y_frames)
    products.masked_fill_(~y_real[None, :, None, :], -torch.inf)
    return _mean_of_real(products.amax(dim=3), x_real[:, None])


def _padded(frames: Frames) -> Both:
    parts = frames.data.split(frames.lengths)
    real = pad_sequence([part.new_ones(len(part), dtype=torch.bool) for part in parts], batch_first=True)
    return pad_sequence(list(parts), batch_first=True), real


def _mean_of_real(best: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return best.masked_fill(~real, 0).sum(dim=2) / real.sum(dim=2)


def bert_score(x: Frames, y: Frames) -> Both:
    """`bert_score.utils.greedy_cos_idf` with equal weights, every utterance paired with all the others."""
    from bert_score.utils import greedy_cos_idf

    y_frames, y_real = _padded(y)
    y_frames[~y_real] = 1  # it divides by the norm of padded frames too
    found = []
    for rows in x.data.split(x.lengths):
        mine = rows.expand(len(y_frames), -1, -1).clone()  # it changes its arguments in place
        ones = torch.ones(mine.shape[:2])
        found.append(greedy_cos_idf(y_frames.clone(), y_real.float(), y_real.float(), mine, ones, ones.clone())[:2])
    recall, precision = zip(*found, strict=True)
    return torch.stack(recall), torch.stack(precision)


def fast_maxsim(x: Frames, y: Frames) -> Both:
    """fast-maxsim, called once each way."""
    return _fast_one_way(x, y), _fast_one_way(y, x).T


def _fast_one_way(x: Frames, y: Frames) -> torch.Tensor:
    import fast_maxsim as library

    candidates = y.data.numpy()
    if len(set(y.lengths)) == 1:  # a copy-free view, for the faster of its two functions
        score = partial(library.maxsim_scores, docs=candidates.reshape(len(y.lengths), -1, DIM))
    else:
        parts = np.split(candidates, y.offsets[1:-1])
        score = partial(library.maxsim_scores_variable, docs=parts)
    rows = x.data.split(x.lengths)
    return torch.stack([torch.from_numpy(score(part.numpy())) / len(part) for part in rows])


def ways() -> dict[str, Score]:
    """Every way to score, by the name that is printed."""
    found: dict[str, Score] = {
        "xlt_ray seqsim": seqsim,
        "loop over pairs, max": per_pair,
        "loop over pairs, amax": per_pair_amax,
        "two passes, ragged": two_passes,
        "padded einsum, one pass": padded_one_pass,
        "padded einsum, two passes": padded_two_passes,
    }
    peers: dict[str, Score] = {"bert_score": bert_score, "fast_maxsim": fast_maxsim}
    return found | {name: score for name, score in peers.items() if importlib.util.find_spec(name)}


def ragged(lengths: list[int], seed: int) -> Frames:
    generator = torch.Generator().manual_seed(seed)
    return Frames.of([torch.randn(length, DIM, generator=generator) for length in lengths])


def error(score: Score, x: Frames, y: Frames, truth: Both) -> float:
    """Largest difference from float64, in either direction."""
    return max((mine.double() - true).abs().max().item() for mine, true in zip(score(x, y), truth, strict=True))


def products(x: Frames, y: Frames) -> dict[str, Callable[[], object]]:
    """torch.mm of all frames of `x` with all frames of `y`, into a matrix as it is, and into one with aligned rows."""
    rows, columns = len(x.data), len(y.data)
    plain = torch.empty(rows, columns)
    aligned = torch.empty(rows, -(-columns // ALIGNED) * ALIGNED)[:, :columns]
    return {
        "torch.mm, aligned rows": lambda: torch.mm(x.data, y.data.T, out=aligned),
        "torch.mm": lambda: torch.mm(x.data, y.data.T, out=plain),
    }


def rounds(
    runs: dict[str, Callable[[], object]], num_rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every run in every round; all of them take turns in a round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_rounds):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def compare(title: str, x: Frames, y: Frames, goals: list[Goal]) -> None:
    """Check every way, time every way that is right, print the table and the goals."""
    num_pairs, gflop = len(x.lengths) * len(y.lengths), 2e-9 * len(x.data) * len(y.data) * DIM
    print(f"\n{title}: {len(x.lengths)} x {len(y.lengths)} utterances, D={DIM}, {gflop:.1f} GF")
    truth = per_pair(*(Frames(frames.data.double(), frames.lengths) for frames in (x, y)))
    errors = {name: error(score, x, y, truth) for name, score in ways().items()}
    right = {name: score for name, score in ways().items() if errors[name] <= TOLERANCE}
    runs = {name: lambda score=score: score(x, y) for name, score in right.items()}
    seconds = rounds(products(x, y) | runs, ROUNDS, time.process_time)
    ceiling = min(seconds["torch.mm, aligned rows"]), statistics.median(seconds["torch.mm, aligned rows"])
    print(f"{'':27}{'GF/s of min':>12}{'median':>8}{'of torch.mm':>13}{'median':>8}{'pairs/s':>9}{'error':>9}")
    for name, taken in seconds.items():
        least, middle = min(taken), statistics.median(taken)
        speed = f"{gflop / least:12.1f}{gflop / middle:8.1f}{ceiling[0] / least:13.2f}{ceiling[1] / middle:8.2f}"
        print(f"{name:27}{speed}" + (f"{num_pairs / middle:9.0f}{errors[name]:9.0e}" if name in errors else ""))
    for name in errors.keys() - right.keys():
        print(f"{name:27}not timed: wrong by {errors[name]:.0e}")
    for goal in goals:
        judge(goal, min(seconds[goal.over]) / min(seconds["xlt_ray seqsim"]))


def judge(goal: Goal, ratio: float) -> None:
    verdict = "met" if ratio >= goal.at_least else "MISSED"
    print(f"{goal.name} {verdict}: {ratio:.2f} of the speed of {goal.over}, goal {goal.at_least:.2f}")


_BUSY = """
import time, numpy
a, end = numpy.ones((400, 400), numpy.float32), time.monotonic() + 60
print("busy", flush=True)
while time.monotonic() < end:
    a @ a
"""


@contextlib.contextmanager
def busy(num_processes: int) -> Iterator[None]:
    """Other processes multiply matrices meanwhile, for a minute at most."""
    command = [sys.executable, "-c", _BUSY]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(num_processes)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def speed_and_share(x: Frames, y: Frames) -> tuple[float, float]:
    """Runs of SeqSim in a wall-clock second, and the share of a CPU that this process had."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        seqsim(x, y)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return ROUNDS / wall, cpu / wall


def guard(x: Frames, y: Frames) -> None:
    """A busy process a CPU beside SeqSim: it may lose the share of the CPU they take, and half of the rest at most."""
    free_speed, free_share = speed_and_share(x, y)
    with busy(os.cpu_count() or 1):
        speed, share = speed_and_share(x, y)
    print(f"\nbeside {os.cpu_count()} busy processes: {speed / free_speed:.2f} of its speed, CPU share {share:.2f}")
    judge(Goal("guard", "what its CPU share leaves", 0.5), (speed / free_speed) / (share / free_share))


def main() -> None:
    torch.set_num_threads(1)
    os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read when peers load
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}, 1 thread")
    x, y = (ragged([250] * NUM_UTTERANCES, seed) for seed in (0, 1))
    lengths = torch.randint(50, 501, (2, NUM_UTTERANCES), generator=torch.Generator().manual_seed(0)).tolist()
    uneven_x, uneven_y = (ragged(lengths[seed], seed) for seed in (0, 1))
    with torch.inference_mode():
        goals = [("torch.mm, aligned rows", 0.90), ("loop over pairs, max", 1.4), ("two passes, ragged", 2.1)]
        compare("T=250", x, y, [Goal("C1", *goal) for goal in goals])
        compare("T=50-500", uneven_x, uneven_y, [Goal("C2", "torch.mm, aligned rows", 0.82)])
        guard(x, y)


if __name__ == "__main__":
    main()
