"""Runs a job in this process, and writes down what its driver costs: memory, files it opens, objects in the store.

python -m benchmarks.rehearsal.watch REPORT.json jobs/retrieval.py --preset ...
"""

from __future__ import annotations

import collections
import json
import os
import re
import runpy
import sys
import threading
import time
from typing import Any

import psutil
import ray

from xlt_ray.store import storage


class Watch:
    """Peaks of a job, by a thread that looks twice a second."""

    def __init__(self) -> None:
        self.opened: collections.Counter[str] = collections.Counter()
        self.driver_mb = self.worker_mb = self.store_mb = 0.0
        self.started = time.monotonic()
        self.work_began: float | None = None
        self._over = threading.Event()

    def count_opens(self) -> None:
        """Count the places that the driver asks a file system for, by what they are."""
        locate = storage.locate

        def counted(uri: str) -> Any:
            self.opened[_kind(uri)] += 1
            return locate(uri)

        storage.locate = counted

    def follow(self) -> None:
        """Look until the job is over."""
        own = psutil.Process()
        while not self._over.wait(0.5):
            self.driver_mb = max(self.driver_mb, own.memory_info().rss / 1e6)
            self.worker_mb = max([self.worker_mb, *map(_private_mb, _ray_workers(own))])
            if ray.is_initialized():
                self.work_began = self.work_began or time.monotonic()
                self.store_mb = max(self.store_mb, _store_mb())

    def over(self) -> None:
        """End the thread."""
        self._over.set()

    def figures(self) -> dict[str, Any]:
        """Peaks and counts, as plain JSON."""
        now = time.monotonic()
        return {
            "seconds": round(now - self.started, 1),
            "seconds_planning": round((self.work_began or now) - self.started, 1),
            "driver_mb": round(self.driver_mb),
            "worker_mb": round(self.worker_mb),
            "store_mb": round(self.store_mb, 1),
            "opened": dict(self.opened.most_common()),
        }


def _kind(uri: str) -> str:
    name = os.path.basename(uri)
    if re.search(r"/embed/[^/]+/data/.*\.parquet$", uri):
        return "shard"
    return re.sub(r"[\d-]+", "N", name) if "/" in uri else name


def _ray_workers(own: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in own.children(recursive=True) if child.name().startswith("ray::")]
    except psutil.Error:
        return []


def _private_mb(process: psutil.Process) -> float:
    try:
        info = process.memory_info()
        return float(info.rss - info.shared) / 1e6
    except psutil.Error:
        return 0.0


def _store_mb() -> float:
    try:
        total = ray.cluster_resources().get("object_store_memory", 0.0)
        return float(total - ray.available_resources().get("object_store_memory", total)) / 1e6
    except Exception:  # Ray is on its way down
        return 0.0


def main() -> None:
    """Run the job, then write the report; the exit code is the job's."""
    report, script, *words = sys.argv[1:]
    watch = Watch()
    watch.count_opens()
    thread = threading.Thread(target=watch.follow, daemon=True)
    thread.start()
    sys.argv = [script, *words]
    code: Any = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        watch.over()
        thread.join()
        with open(report, "w", encoding="utf-8") as file:
            json.dump(watch.figures(), file)
    sys.exit(code)


if __name__ == "__main__":
    main()
