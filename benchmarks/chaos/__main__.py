r"""Breaks running jobs in every way that a cluster knows, runs them again, and counts what is lost by it.

    python -m benchmarks.chaos                               # everything: over an hour on 2 cores
    python -m benchmarks.chaos --seed 7 --minutes 18         # other moments; the trials that begin in 18 minutes
    python -m benchmarks.chaos --only driver --stages tune --kills 10

The seed decides the moments and the order of the trials, so that short runs with other seeds come to try everything.
Each stage first runs undisturbed. Then it is disturbed at random moments until it is done, and its root must hold the
same rows, figures and weights. Writes {folder}/chaos.json and prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._origin import origin
from benchmarks.chaos import faults, trials, world


def main() -> None:
    """Run undisturbed, disturb, print the table; exit code 1 when anything is lost."""
    options = _options()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="chaos-"))
    cells = trials.plan(options.seed, options.stages, options.only)
    found = _attempt(cells, world.build(folder), options)
    (folder / "chaos.json").write_text(json.dumps([dataclasses.asdict(result) for result in found], indent=1))
    _show(found, options.seed)
    if left := [f"{fault} in {stage}" for fault, stage in cells[len(found) :]]:
        print(f"chaos: not tried in {options.minutes:g} minutes: {', '.join(left)}")
    is_well = all(result.is_equal for result in found)
    if is_well and not options.folder:
        shutil.rmtree(folder)
    else:
        print(f"chaos: what the jobs said is in {folder}/logs")
    sys.exit(not is_well)


def _attempt(cells: Sequence[tuple[str, str]], where: world.World, options: argparse.Namespace) -> list[trials.Result]:
    """The results of the trials that begin in time: one at least."""
    found: list[trials.Result] = []
    started = time.monotonic()
    with faults.Nodes() as nodes:
        laboratory = trials.Laboratory(where, random.Random(options.seed), options.kills, nodes)
        for fault, stage in cells:
            if found and options.minutes and time.monotonic() - started > 60 * options.minutes:
                break
            found.append(laboratory.attempt(fault, stage))
            print(f"chaos: {found[-1].line}", flush=True)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and of the order (0)")
    parser.add_argument("--kills", type=int, default=3, help="kills of each kind in each stage (3)")
    parser.add_argument("--minutes", type=float, help="begin no trial after so many (try everything)")
    parser.add_argument("--stages", nargs="+", choices=world.STAGES, default=list(world.STAGES), help="stages (all)")
    parser.add_argument("--only", nargs="+", choices=trials.FAULTS, default=list(trials.FAULTS), help="faults (all)")
    parser.add_argument("--folder", help="where everything goes; kept (a temporary one, deleted when all is well)")
    return parser.parse_args()


def _show(found: list[trials.Result], seed: int) -> None:
    title = f"chaos: seed {seed}, {origin()}"
    table = Table(title=title, title_justify="left")
    for column in ("fault", "stage"):
        table.add_column(column)
    for column in ("struck", "runs", "ended by it", "tracebacks", "rows lost", "rows more", "equal"):
        table.add_column(column, justify="right")
    for result in found:
        counts = (result.struck, result.runs, result.num_ended, result.num_tracebacks, result.num_lost, result.num_more)
        table.add_row(result.fault, result.stage, *map(str, counts), "yes" if result.is_equal else "NO")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
