"""The output of a job: progress, tables, and where the results are."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import sys
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from xlt_ray.job import runs, stopping
from xlt_ray.store.artifact import Artifact

console = Console(highlight=False)


class Bar:
    """Progress of a stage: a bar on a terminal, or a line every ten seconds in a log. Rates are of the last minute."""

    _LINE_EVERY_S = 10.0
    _RATE_OF_S = 60.0

    def __init__(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        # When how many rows were done. The first entry is the first result: before it, workers start, for 10 to 30 s.
        self._seen: deque[tuple[float, int]] = deque()
        self._printed = 0.0
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._progress = Progress(
            TextColumn("{task.description}"), *columns, console=console, speed_estimate_period=self._RATE_OF_S
        )
        self._task = self._progress.add_task(what, total=total, completed=done)
        self._gauges = _gauges(what)
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Bar:
        self._ends.enter_context(stopping.counted(lambda: f"{self._what} at {self._done}/{self._total}"))
        self._ends.enter_context(stopping.last_word(self._progress.stop))  # it hides the cursor of a terminal
        if console.is_terminal:
            self._progress.start()
        else:
            self._print()
        return self

    def advance(self, rows: int) -> None:
        """Count rows that are done."""
        self._done += rows
        now = time.monotonic()
        self._seen.append((now, self._done))
        while now - self._seen[0][0] > self._RATE_OF_S and len(self._seen) > 2:
            self._seen.popleft()
        self._progress.advance(self._task, rows)
        self._measure()
        due = now - self._printed > self._LINE_EVERY_S or self._done >= self._total
        if due and not console.is_terminal:
            self._print()

    def _measure(self) -> None:
        for name, value in (("done", self._done), ("total", self._total), ("rate", self._rate(time.monotonic()))):
            if name in self._gauges:
                self._gauges[name].set(value)

    def _rate(self, now: float) -> float:
        """Rows per second; 0 if not known yet."""
        started, count = self._seen[0] if self._seen else (now, self._done)
        return (self._done - count) / (now - started) if self._done > count and now > started else 0.0

    def __exit__(self, *exception: Any) -> None:
        self._ends.__exit__(*exception)
        if console.is_terminal:
            self._progress.stop()

    def _print(self) -> None:
        self._printed = time.monotonic()
        rate = self._rate(self._printed)
        left = f", {rate:.1f}/s, {(self._total - self._done) / rate:.0f} s left" if rate else ""
        print(f"{self._what}: {self._done}/{self._total}{left}", flush=True)


def _gauges(stage: str) -> dict[str, Any]:
    """Ray metrics for its dashboard and Prometheus: `xlt_ray_rows_done` and so on, by stage."""
    # Ray is looked at only where the job has loaded it: costs are shown without it.
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        return {}
    Gauge = importlib.import_module("ray.util.metrics").Gauge  # noqa: N806 - a class

    told = {
        "done": Gauge("xlt_ray_rows_done", "Rows of a stage that are done, with those of earlier runs.", ("stage",)),
        "total": Gauge("xlt_ray_rows_total", "Rows of a stage in all.", ("stage",)),
        "rate": Gauge("xlt_ray_rows_per_second", "Rows a second over the last minute.", ("stage",)),
    }
    for gauge in told.values():
        gauge.set_default_tags({"stage": stage})
    return told


def show(table: Table) -> None:
    """Print a table, at full width even if the output is not a terminal."""
    wide = console if console.is_terminal else Console(highlight=False, width=140)
    wide.print(table)


def where_next(artifact: Artifact, root: str, command: str) -> None:
    """Print where the results are, and the next command."""
    print(f"results  {shlex.quote(artifact.uri)}")
    if num_rejected := artifact.read_json("manifest.json")["rows_rejected"]:
        print(f"rejected {num_rejected} rows, with reasons: {shlex.quote(artifact.path('rejected.parquet'))}")
    print(f"runs     {runs.where(root)}")
    print(f"next     {command}")
