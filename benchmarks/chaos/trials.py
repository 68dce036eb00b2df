"""Each fault in each stage: a job is run and disturbed until it is done, and its root is compared with a calm one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.chaos import content, faults, store
from benchmarks.chaos.world import STAGES, World

FAULTS = {
    "driver": tuple(STAGES),
    "worker": tuple(STAGES),
    "node": ("embed", "retrieval", "translate", "finetune"),
    "head": ("finetune",),
    "all but the store": ("embed",),
    "store": ("embed", "retrieval", "finetune"),
    "disk": ("embed",),
    "clock": ("embed", "finetune"),
    "two jobs": ("embed", "finetune"),
}
"""The stages that each fault is tried in."""

HANGS_S = 600.0
MAX_RUNS = 40

Strike = Callable[[subprocess.Popen[bytes], random.Random], str]


@dataclasses.dataclass(frozen=True)
class Calm:
    """What an undisturbed run took and left."""

    seconds: float
    rows: Counter[str]


@dataclasses.dataclass
class Result:
    """What came of the faults.

    Attributes:
        struck_at: how often the fault met a job at work, by what it met.
        runs: how often the job was started.
        num_ended: how many runs ended with an error that was not the kill itself.
        num_lost: rows, figures and weights of the calm run that are missing.
        num_more: those that the calm run has not.
    """

    fault: str
    stage: str
    struck_at: dict[str, int] = dataclasses.field(default_factory=dict)
    runs: int = 0
    num_ended: int = 0
    num_tracebacks: int = 0
    num_lost: int = 0
    num_more: int = 0
    unfinished: list[str] = dataclasses.field(default_factory=list)
    note: str = ""

    @property
    def struck(self) -> int:
        """How often the fault met a job at work."""
        return sum(self.struck_at.values())

    def meet(self, what: str, times: int = 1) -> None:
        """Count the fault."""
        self.struck_at[what] = self.struck_at.get(what, 0) + times

    @property
    def is_equal(self) -> bool:
        """Whether the fault met a job, and nothing is lost, nothing doubled and nothing unfinished."""
        is_lost = self.num_lost or self.num_more or self.unfinished
        return self.struck > 0 and not (is_lost or self.note.startswith("FAILED"))

    @property
    def line(self) -> str:
        """The result in words."""
        met = ", ".join(f"{count} x {what}" for what, count in self.struck_at.items())
        parts = [f"{self.fault} in {self.stage}", f"struck {met or 'nothing'}", f"{self.runs} runs"]
        parts += [f"{self.num_ended} ended by it", f"lost {self.num_lost}, more {self.num_more}"]
        return "; ".join([*parts, *self.unfinished, *filter(None, [self.note])])


def plan(seed: int, stages: Sequence[str], only: Sequence[str]) -> list[tuple[str, str]]:
    """Each fault with each stage that it is tried in, in an order of the seed's."""
    cells = [(fault, stage) for stage in stages for fault in only if stage in FAULTS[fault]]
    random.Random(seed).shuffle(cells)
    return cells


def kill_one(_: subprocess.Popen[bytes], rng: random.Random) -> str:
    """SIGKILL for a worker of the cluster, which this process has started."""
    return faults.kill_worker(os.getpid(), rng)


class Laboratory:
    """Runs trials one after another; what a stage does undisturbed is found out before its first."""

    def __init__(self, world: World, rng: random.Random, num_kills: int, nodes: faults.Nodes) -> None:
        self.world, self.rng, self.num_kills, self.nodes = world, rng, num_kills, nodes
        (world.folder / "logs").mkdir(exist_ok=True)
        self._calm: dict[str, Calm] = {}
        self._number = 0

    def attempt(self, fault: str, stage: str) -> Result:
        """One fault in one stage."""
        calm = self.calm(stage)
        result = Result(fault, stage)
        log = f"logs/{fault.replace(' ', '-')}-{stage}.log"
        try:
            trials: dict[str, Callable[[Result, Calm, str], None]] = {
                "driver": partial(self._disturb, strike=faults.kill_driver, count=self.num_kills),
                "worker": partial(self._disturb, strike=kill_one, count=self.num_kills),
                "node": partial(self._disturb, strike=lambda _, rng: self.nodes.lose_one(rng), count=2),
                "head": self._without_a_head,
                "all but the store": self._without_all_but_the_store,
                "store": self._with_a_bad_store,
                "disk": self._on_a_full_disk,
                "clock": self._with_a_wrong_clock,
                "two jobs": self._twice,
            }
            trials[fault](result, calm, log)
        except Stuck as error:
            result.note = f"FAILED: {error}"
        text = (self.world.folder / log).read_text(errors="replace")
        result.num_tracebacks = text.count("Traceback (most recent call last)")
        return result

    def calm(self, stage: str) -> Calm:
        """The undisturbed run of a stage; its root stays, for the embeddings in it."""
        if stage not in self._calm:
            root = self.world.folder / "calm" / stage
            if stage != "embed":
                self.calm("embed")
                self._lay(root)
            started = time.monotonic()
            job = self.world.start(stage, str(root), f"logs/calm-{stage}.log", self.nodes.address)
            if self._end(job):
                raise SystemExit(f"chaos: {stage} fails undisturbed; see {self.world.folder}/logs/calm-{stage}.log")
            self._calm[stage] = Calm(time.monotonic() - started, content.rows(root))
            print(f"chaos: {stage} undisturbed, {self._calm[stage].seconds:.0f} s", flush=True)
        return self._calm[stage]

    def _lay(self, root: Path) -> None:
        """A root with embeddings alone."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.world.folder / "calm" / "embed" / "embed", root / "embed")

    def _root(self, stage: str) -> Path:
        """A root in which the stage has still to be run."""
        self._number += 1
        root = self.world.folder / "roots" / f"{self._number:03d}-{stage}"
        if stage == "embed":
            root.mkdir(parents=True)
        else:
            self._lay(root)
        return root

    def _compare(self, result: Result, calm: Calm, root: Path) -> None:
        rows = content.rows(root)
        lost, more = calm.rows - rows, rows - calm.rows
        result.num_lost += lost.total()
        result.num_more += more.total()
        result.unfinished += content.unfinished(root)
        if lost or more:
            examples = {"lost": sorted(lost)[:9], "more": sorted(more)[:9]}
            print(
                "\n".join(f"  {which}: {row[:300]}" for which, found in examples.items() for row in found), flush=True
            )
        else:
            shutil.rmtree(root)

    def _disturb(self, result: Result, calm: Calm, log: str, strike: Strike, count: int) -> None:
        """Strike at random moments, start again what has ended, and compare whatever is done."""
        root = self._root(result.stage)
        while result.runs < MAX_RUNS:
            job = self._start(result, str(root), log, self.nodes.address)
            while result.struck < count and self._lives_for(job, self.rng.uniform(0.1, 0.9) * calm.seconds):
                if met := strike(job, self.rng):
                    result.meet(met)
            code = self._end(job)
            if code == 0:
                self._compare(result, calm, root)
                if result.struck >= count:
                    return
                root = self._root(result.stage)
            elif code > 0:
                result.num_ended += 1
        raise Stuck(f"not done after {MAX_RUNS} runs")

    def _without_a_head(self, result: Result, calm: Calm, log: str) -> None:
        root = self._root(result.stage)
        with faults.Nodes() as nodes:
            job = self._start(result, str(root), log, nodes.address)
            if self._lives_for(job, 0.6 * calm.seconds):
                result.meet(nodes.lose_head())
            result.num_ended += self._end(job) != 0
        with faults.Nodes() as nodes:
            self._finish(result, str(root), log, nodes.address)
        self._compare(result, calm, root)

    def _without_all_but_the_store(self, result: Result, calm: Calm, log: str) -> None:
        """A cluster and every cache go, in the middle; another cluster goes on."""
        with store.bucket() as bucket:
            uri = bucket.put(self._root(result.stage), "lost")
            for is_first in (True, False):
                with self._scratch() as cache, faults.Nodes({**bucket.environment, "XDG_CACHE_HOME": cache}) as nodes:
                    environment = nodes.address | bucket.environment | {"XDG_CACHE_HOME": cache}
                    if not is_first:
                        self._finish(result, uri, log, environment)
                        continue
                    job = self._start(result, uri, log, environment)
                    if self._lives_for(job, 0.6 * calm.seconds):
                        result.meet("everything")
                        job.kill()
                    self._end(job)
            self._compare(result, calm, bucket.fetch("lost", self.world.folder / "roots" / "fetched"))

    def _with_a_bad_store(self, result: Result, calm: Calm, log: str) -> None:
        with store.bucket() as bucket:
            uri = bucket.put(self._root(result.stage), result.stage)
            door = store.Store(bucket.url, self.rng.randrange(10**6))
            self._finish(result, uri, log, door.environment)
            door.close()
            result.note = f"{door.faults.pop('requests')} requests"
            for name, times in door.faults.items():
                result.meet(name, times)
            self._compare(result, calm, bucket.fetch(result.stage, self.world.folder / "roots" / f"s3-{result.stage}"))

    def _on_a_full_disk(self, result: Result, calm: Calm, log: str) -> None:
        """A disk of half the size that is needed, which then gets room."""
        root = self._root(result.stage)
        needed = sum(path.stat().st_size for path in (self.world.folder / "calm" / "embed").rglob("*.parquet"))
        job = " ".join(self.world.words(result.stage, str(root)))
        script = f"mount -t tmpfs -o size={needed // 2} tmpfs {root} && {job}; echo exit $?; df {root}; "
        script += f"mount -o remount,size=1g {root} && {job}; code=$?; cp -r {root} {root}-kept; exit $code"
        with (self.world.folder / log).open("ab") as file:
            words = ["unshare", "-rm", "sh", "-c", script]
            done = subprocess.run(words, cwd=self.world.root, env=self.world.environment, stdout=file, stderr=file)
        result.runs += 2
        said = (self.world.folder / log).read_text(errors="replace")
        result.meet("full disk", said.count("No space left on device"))
        result.num_ended += "exit 0" not in said
        if done.returncode:
            raise Stuck(f"exit {done.returncode}")
        self._compare(result, calm, root.with_name(f"{root.name}-kept"))

    def _with_a_wrong_clock(self, result: Result, calm: Calm, log: str) -> None:
        root = self._root(result.stage)
        clock = f"{Path(__file__).parent / 'clock'}:{self.world.environment['PYTHONPATH']}"
        self._finish(result, str(root), log, {"PYTHONPATH": clock})
        result.meet("jump", 3)
        self._compare(result, calm, root)

    def _twice(self, result: Result, calm: Calm, log: str) -> None:
        """Two jobs of one name start together: one works, and the other is told so."""
        root = self._root(result.stage)
        jobs = [self._start(result, str(root), log, {}) for _ in range(2)]
        codes = sorted(self._end(job) for job in jobs)
        said = (self.world.folder / log).read_text(errors="replace")
        result.meet("second job")
        result.num_ended += sum(code != 0 for code in codes)
        if codes not in ([0, 0], [0, 2]) or (codes == [0, 2] and "is being written by another job" not in said):
            raise Stuck(f"exit {codes}")
        self._compare(result, calm, root)

    def _finish(self, result: Result, root: str, log: str, environment: Mapping[str, str]) -> None:
        """Run until it is done."""
        for _ in range(5):
            if self._end(self._start(result, root, log, environment)) == 0:
                return
            result.num_ended += 1
        raise Stuck("not done after 5 runs")

    def _start(self, result: Result, root: str, log: str, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        result.runs += 1
        return self.world.start(result.stage, root, log, more)

    def _lives_for(self, job: subprocess.Popen[bytes], seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(seconds)
        return job.poll() is None

    def _end(self, job: subprocess.Popen[bytes]) -> int:
        try:
            return job.wait(HANGS_S)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
            raise Stuck(f"no end after {HANGS_S:.0f} s") from None

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[str]:
        folder = self.world.folder / "scratch"
        folder.mkdir()
        yield str(folder)
        shutil.rmtree(folder)


class Stuck(Exception):  # noqa: N818 - as the state is called
    """A job does not come to its end."""
