"""Mining of pairs in speech that is not parallel: precision, recall and F1, beside mean-pooled margin mining.

    python benchmarks/mining.py --root runs --name demo              # the embeddings of jobs/embed.py or retrieval.py
    python benchmarks/mining.py                                      # synthetic frames, seconds: only a trial

Of the sentences that two languages share, a third (drawn by a seed) loses its recordings in the one and another third
those in the other, so that half of the recordings of each side have no partner. What is left is mined by several ways:

    seqsim       SeqSim F1 of all frames, every pair
    candidates   the same of the best --candidates by pooled frames only
    mean_pool    cosine of the means of all frames: one vector an utterance, as SONAR and stopes mine

each with the margins ratio, distance and absolute, the union of forward and backward neighbours, one to one. A pair is
right if both have the same sentence_id. `best F1` is at the best threshold of each pair of languages and seed, which
nobody knows; `F1, held out` is at the threshold that is best on average for the other pairs of languages. The curves
of all ways are in the file of --json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import embedded  # noqa: E402

from xlt_ray.embed import committed  # noqa: E402
from xlt_ray.mine import figures, margins  # noqa: E402
from xlt_ray.mine.config import MineConfig  # noqa: E402
from xlt_ray.mine.margins import Pairs  # noqa: E402
from xlt_ray.retrieval import baselines, candidates, top, units  # noqa: E402
from xlt_ray.retrieval.candidates import Candidates, Keys  # noqa: E402
from xlt_ray.retrieval.seqsim import combine, seqsim  # noqa: E402
from xlt_ray.retrieval.units import Stored  # noqa: E402
from xlt_ray.store import artifacts  # noqa: E402
from xlt_ray.store.schema import Utterance  # noqa: E402

WAYS = ("seqsim", "candidates", "mean_pool")
MARGINS = ("ratio", "distance", "absolute")

Matrices = dict[str, np.ndarray]
Sentences = tuple[list[str], list[str]]


def main() -> None:
    """Mine by every way, print a table, write the curves."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, name = (options.root, options.name) if options.root else (folder, _synthetic(folder))
        found = measure(root, name, options)
    _show(found, options)
    if options.json:
        Path(options.json).write_text(json.dumps(found) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="root of the embed artifact; none: synthetic frames")
    parser.add_argument("--name", default="demo", help="its name (demo)")
    parser.add_argument("--languages", help="codes with commas between; none: all of the artifact")
    parser.add_argument("--seeds", type=int, default=5, help="draws of what is removed (5)")
    parser.add_argument("--neighbours", type=int, default=4, help="whose mean a margin is over (4)")
    parser.add_argument("--candidates", type=int, default=10, help="of each recording (10)")
    parser.add_argument("--pool-frames", type=int, default=5, help="frames that become one for candidates (5)")
    parser.add_argument("--device", default="cpu", help="that computes (cpu)")
    parser.add_argument("--json", help="file for all figures")
    return parser.parse_args()


def measure(root: str, name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each pair of languages, seed, way and margin."""
    artifact = artifacts.find(root, "embed", name)
    index = committed.read_index(artifact)
    index = index.filter(pc.is_valid(index["row"]))
    spoken = options.languages.split(",") if options.languages else sorted(pc.unique(index["language"]).to_pylist())
    recordings = {code: index.filter(pc.equal(index["language"], code)) for code in spoken}
    stored = {code: units.read_strip(artifact.uri, rows, None).to(options.device) for code, rows in recordings.items()}
    rows: list[dict[str, Any]] = []
    for pair in itertools.combinations(spoken, 2):
        started = time.process_time()
        matrices = _matrices(stored[pair[0]], stored[pair[1]], options.pool_frames)
        seconds = time.process_time() - started
        sentences = recordings[pair[0]]["sentence_id"].to_pylist(), recordings[pair[1]]["sentence_id"].to_pylist()
        for seed in range(options.seeds):
            left = remaining(sentences, seed)
            rows += _mined("-".join(pair), seed, matrices, sentences, left, options)
        print(f"{'-'.join(pair)}: {seconds:.1f} CPU s of scores, {len(left[0])} and {len(left[1])} recordings left")
    return rows


def _matrices(x: Stored, y: Stored, pool_frames: int) -> Matrices:
    exact = combine(*seqsim(x.frames, y.frames), "f1")
    coarse_x, coarse_y = (candidates.pooled(side, pool_frames).frames for side in (x, y))
    coarse = combine(*seqsim(coarse_x, coarse_y), "f1")
    mean_pool = baselines.mean_pool(x.frames, y.frames)
    named = {"seqsim": exact, "pooled": coarse, "mean_pool": mean_pool}
    return {name: matrix.cpu().numpy() for name, matrix in named.items()}


def remaining(sentences: Sentences, seed: int) -> tuple[list[int], list[int]]:
    """Places of the recordings that are left of each language: a third of the shared sentences is lost on each side."""
    shared = sorted(set(sentences[0]) & set(sentences[1]))
    order = np.random.default_rng(seed).permutation(len(shared))
    lost = [{shared[place] for place in part} for part in np.array_split(order, 3)[:2]]
    first, second = (
        [place for place, sentence in enumerate(named) if sentence not in gone]
        for named, gone in zip(sentences, lost, strict=True)
    )
    return first, second


def _mined(
    pair: str,
    seed: int,
    matrices: Matrices,
    sentences: Sentences,
    left: tuple[list[int], list[int]],
    options: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    there = {name: torch.from_numpy(matrix[np.ix_(*left)].copy()) for name, matrix in matrices.items()}
    named = tuple([every[place] for place in part] for every, part in zip(sentences, left, strict=True))
    few = Candidates.make(_both_ways(there["pooled"], options.candidates))
    wanted = few.wanted(range(len(left[0])), range(len(left[1])))
    there["candidates"] = there["seqsim"].masked_fill(torch.from_numpy(~wanted), torch.nan)
    for way, margin in itertools.product(WAYS, MARGINS):
        found = _against(_both_ways(there[way], options.neighbours), margin, (named[0], named[1]))
        yield {"pair": pair, "seed": seed, "way": way, "margin": margin, **found}


def _both_ways(matrix: torch.Tensor, num: int) -> tuple[Keys, Keys]:
    """Keys of the nearest of each row and of each column."""
    first, second = (
        top.best(torch.full((len(scores), num), top.NONE), top.keys(scores, range(scores.shape[1]))).numpy()
        for scores in (matrix, matrix.T.contiguous())
    )
    return first, second


def _against(keys: tuple[Keys, Keys], margin: str, sentences: Sentences) -> dict[str, Any]:
    found = Pairs.make(*keys)
    values = found.margins(margin)
    taken = margins.chosen(found.first, found.second, values, MineConfig(neighbours=1))
    named = (
        [sentences[0][place] for place in found.first[taken]],
        [sentences[1][place] for place in found.second[taken]],
    )
    return figures.against_corpus((named[0], named[1]), values[taken], set(sentences[0]) & set(sentences[1])) or {}


def f1_at(curve: list[dict[str, Any]], threshold: float) -> float:
    """F1 of the pairs of at least this margin."""
    above = [point for point in curve if point["threshold"] >= threshold]
    return float(above[-1]["f1"]) if above else 0.0


def held_out(rows: list[dict[str, Any]], pair: str) -> float:
    """Mean F1 of a pair of languages at the threshold that is best on average for the other pairs."""
    others = [row["curve"] for row in rows if row["pair"] != pair]
    known = [point["threshold"] for curve in others for point in curve]
    if not known:
        return float("nan")
    tried = np.quantile(known, np.linspace(0, 1, 101))
    best = max(tried, key=lambda threshold: np.mean([f1_at(curve, threshold) for curve in others]))
    return float(np.mean([f1_at(row["curve"], best) for row in rows if row["pair"] == pair]))


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    pairs = sorted({row["pair"] for row in rows})
    title = f"mining, {len(pairs)} pairs of languages, {options.seeds} seeds, {options.neighbours} neighbours, percent"
    table = Table(title=title, title_justify="left")
    for column in ("way", "margin", "precision", "recall", "best F1", "F1, held out", *pairs):
        table.add_column(column, justify="right")
    for way, margin in itertools.product(WAYS, MARGINS):
        mine = [row for row in rows if (row["way"], row["margin"]) == (way, margin)]
        best = {pair: [row["best"] for row in mine if row["pair"] == pair] for pair in pairs}
        every = [point for points in best.values() for point in points]
        shown = [np.mean([point[key] for point in every]) for key in ("precision", "recall", "f1")]
        shown.append(np.mean([held_out(mine, pair) for pair in pairs]))
        shown += [np.mean([point["f1"] for point in points]) for points in best.values()]
        table.add_row(way, margin, *(f"{100 * value:.1f}" for value in shown))
    Console(width=80 + 8 * len(pairs)).print(table)


def _synthetic(root: str, num: int = 30, dim: int = 16) -> str:
    """An embed artifact of three languages: a sentence is a path of frames, which each language hears with noise."""
    generator = np.random.default_rng(0)
    paths = generator.normal(0.3, 1, (num, 40, dim))
    rows = [
        Utterance(utterance_id=f"{code}{n}", sentence_id=f"s{n}", language=code, audio="/x.wav")
        for code in ("en", "fr", "it")
        for n in range(num)
    ]

    def frames_of(row: Utterance) -> dict[int | None, Any]:
        path = paths[int(row.sentence_id[1:])][: generator.integers(25, 41)]
        return {None: (path + generator.normal(0, 1.5, path.shape)).astype(np.float16)}

    return embedded.write(root, "synthetic", rows, frames_of).name


if __name__ == "__main__":
    main()
