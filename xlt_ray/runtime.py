"""How a job starts: its command line, its Ray, its errors. The only module that calls `ray.init`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import io
import logging
import os
import re
import secrets
import socket
import sys
import time
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
import ray.data
import ray.util.annotations
import tyro
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException, ServerUnavailable
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from xlt_ray import storage, tracking
from xlt_ray.artifacts import Artifact
from xlt_ray.errors import UserError
from xlt_ray.presets import PRESETS

JobT = TypeVar("JobT")

console = Console(highlight=False)


def run(main: Callable[[JobT], None], argv: Sequence[str] | None = None) -> None:
    """Read the command line into the settings that `main` takes, and run it.

    Exits with code 2 and one line on stderr when the user asked for something that can't be done.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    (job_type,) = (hint for name, hint in typing.get_type_hints(main).items() if name != "return")
    try:
        job = parse(job_type, words, description=inspect.getdoc(sys.modules[main.__module__]) or "")
        main(dataclasses.replace(job, root=lasting(job.root, os.getcwd())))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def lasting(root: str, working_directory: str) -> str:
    """The root as a path or URI that does not depend on the working directory, which a submitted job loses at its end.

    A relative root is one of the working directory, but of the user's home in a submitted job.
    """
    is_relative = not storage.is_remote(root) and not os.path.isabs(os.path.expanduser(root))
    if is_relative and "/runtime_resources/working_dir_files/" in working_directory:
        return storage.absolute(os.path.join("~", "xlt_ray", root))
    return storage.absolute(root)


def parse(job_type: type[JobT], argv: list[str], description: str = "") -> JobT:
    """Settings from a preset and flags.

    Raises:
        UserError: on an unknown flag, preset or value; the message names the valid ones.
    """
    default = _from_preset(job_type, _preset_of(argv))
    valid = set(_flags(job_type)) | {"--help", "-h"}
    for word in argv:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and flag.replace("_", "-") not in valid:
            near = difflib.get_close_matches(flag, valid, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"unknown flag {flag}; {hint}valid: {' '.join(sorted(valid - {'-h'}))}")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(job_type, default=default, description=f"{description}\n\n{_presets()}", args=argv)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(complaint.getvalue())) from None


def _presets() -> str:
    lines = (f"  {name:<16} {(inspect.getdoc(preset) or '').splitlines()[0]}" for name, preset in PRESETS.items())
    return "\n".join(["Presets", *lines])


def _preset_of(argv: list[str]) -> str:
    """The preset that is asked for. The demo's 50 sentences are no limit to set silently on somebody's own corpus."""
    asked = {flag: _value_of(flag, argv) for flag in ("--preset", "--corpus")}
    if asked["--preset"] is not None:
        return asked["--preset"]
    return "demo" if asked["--corpus"] is None else "plain"


def _value_of(flag: str, argv: list[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def _from_preset(job_type: type[JobT], preset: str) -> JobT:
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; valid: {', '.join(PRESETS)}")
    names = {field.name for field in dataclasses.fields(job_type)}  # type: ignore[arg-type]
    settings = {"preset": preset, "name": preset, **PRESETS[preset]()}
    return job_type(**{name: value for name, value in settings.items() if name in names})


def _flags(config_type: type, prefix: str = "--") -> Iterator[str]:
    hints = typing.get_type_hints(config_type, include_extras=True)  # what has its own syntax is one flag
    for field in dataclasses.fields(config_type):
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _flags(typing.cast(type, hints[field.name]), f"{name}.")
            continue
        yield name
        if hints[field.name] is bool:
            head, _, last = name.rpartition(".")
            yield f"{head}.no-{last}" if head else f"--no-{last.removeprefix('--')}"


def _one_line(box: str) -> str:
    """The sentence inside the frame that tyro draws around a complaint."""
    lines = [line.strip("│╭╰╮╯ ").strip() for line in box.splitlines()]
    body = [line for line in lines if line and not line.endswith("─")]
    sentence = " ".join(line for line in body if "full helptext" not in line)
    return re.sub(r"^Error parsing \w+: ", "", sentence) or "the command line could not be read"


@contextlib.contextmanager
def cluster(with_state_api: bool = False) -> Iterator[None]:
    """Ray for the length of a job: the cluster of RAY_ADDRESS (set by `ray job submit`), else this machine.

    Args:
        with_state_api: whether a Ray of this machine starts its dashboard, on loopback: what a search needs.
    """
    submitted = "RAY_ADDRESS" in os.environ
    print(f"ray: {'joining the cluster of RAY_ADDRESS' if submitted else 'starting on this machine'}", flush=True)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _no_stderr():  # Ray's core tells at which level it logs
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(**quiet) if submitted else _start_here(**_dashboard(with_state_api), **quiet)
    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False  # jobs draw their own, in rows of the corpus
    try:
        yield
    finally:
        ray.shutdown()


def _start_here(**options: Any) -> None:
    """A Ray of this job's own, behind a token of its own.

    Left alone, Ray writes a token to the user's home, and a `ray start --head` after that asks every
    `ray job submit` for it.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(address="local", **options)


def _dashboard(is_wanted: bool) -> dict[str, Any]:
    """Whether Ray starts its dashboard, and where: on loopback, at a free port.

    Ray Train asks it from its workers, which inherit the variable that names it. Without that they look for a Ray, and
    give up where they find the one of another job too.
    """
    if not is_wanted:
        return {"include_dashboard": False}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    return {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what native code writes to the standard error stream; exceptions pass as always."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def require_state_api() -> None:
    """Refuse a cluster that can't tell what runs on it.

    Ray Train frees the workers of a trial that was stopped by asking for its controller's state. Without an answer the
    workers stay, and the search waits for their places for ever.

    Raises:
        UserError: saying what to install.
    """
    try:
        list_nodes(timeout=10)
    except (ServerUnavailable, RayStateApiException, ConnectionError) as error:
        raise UserError(
            f"this Ray cluster has no dashboard ({type(error).__name__}), and a search needs it to stop trials; start "
            'the head with --include-dashboard=true, and install "ray[default]" there'
        ) from None


def require_shared(path: str) -> None:
    """Refuse a local root that some node does not see: its workers would write to disks that nobody reads.

    Args:
        path: a file that the driver has written under the root.

    Raises:
        UserError: naming the path and how many nodes lack it.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if storage.is_remote(path) or len(nodes) == 1:
        return
    sees = ray.remote(num_cpus=0)(os.path.exists)
    places = [sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)) for node in nodes]
    num_blind = ray.get([place.remote(path) for place in places]).count(False)
    if num_blind:
        raise UserError(
            f"{num_blind} of {len(nodes)} nodes do not see {path}; give a --root that all nodes share, such as s3://..."
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """What one actor of a stage takes, how many there may be, and what the tasks that feed them take.

    On CPUs an actor books 0.9 of one and a feeding task 0.1: with whole CPUs booked, a pool as large as the machine
    waits for its input for ever. `num_cpus` and `num_gpus` are an actor's, `feed_cpus` a task's.
    """

    num_cpus: float
    num_gpus: float
    feed_cpus: float
    initial_size: int
    max_size: int

    @property
    def options(self) -> dict[str, Any]:
        """The same as arguments of `map_batches`."""
        return {
            "compute": ray.data.ActorPoolStrategy(min_size=1, initial_size=self.initial_size, max_size=self.max_size),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            # Ray's default is to retry for ever, so one unit that kills its actor would never let the job end.
            "max_restarts": 4,
            "max_task_retries": 2,
        }


def pool(stage: str, num_gpus: float | None, max_actors: int | None, num_units: int) -> Pool:
    """One actor a GPU, or one a CPU where there is none; on a cluster more of them as nodes come. Says what it chose.

    Args:
        stage: what the actors do, for the line that is printed.
        num_gpus: GPUs an actor takes; None: 1 if the cluster has a GPU now, else 0.
        max_actors: most actors at a time; None: as many as there are units, or as this machine can hold.
        num_units: units of work; there are never more actors than these.
    """
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    gpus_each = num_gpus if num_gpus is not None else float(gpus > 0)
    fit = int(gpus / gpus_each if gpus_each else cpus)
    most = max_actors or (num_units if "RAY_ADDRESS" in os.environ else max(1, fit))
    max_size = max(1, min(most, num_units))
    initial_size = max(1, min(fit, max_size))
    device = f"{gpus_each:g} GPU each" if gpus_each else "CPUs"
    print(f"{stage}: on {device}, {initial_size} actors now, {max_size} at most", flush=True)
    if not gpus_each:
        return Pool(0.9, 0.0, 0.1, initial_size, max_size)
    # Actors on GPUs need little of a CPU: half of what the cluster has stays for the tasks that feed them.
    num_cpus = min(1.0, round(0.5 * cpus / initial_size, 2)) if cpus else 1.0
    return Pool(num_cpus, gpus_each, min(1.0, num_cpus), initial_size, max_size)


@dataclasses.dataclass(frozen=True, slots=True)
class Workers:
    """How many processes train together, and what each of them takes."""

    count: int
    num_cpus: float
    num_gpus: float


def workers(stage: str, count: int | None, num_gpus: int | None) -> Workers:
    """One training process a GPU, or one where there is none. Says what it chose.

    Args:
        stage: what the workers do, for the line that is printed.
        count: how many; None: one a GPU that the cluster has now, else one.
        num_gpus: GPUs a worker takes; None: 1 if the cluster has a GPU now, else 0.

    Raises:
        UserError: if this machine can't hold so many, or has no GPU; Ray would wait for ever.
    """
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    gpus_each = num_gpus if num_gpus is not None else float(gpus > 0)
    fit = int(gpus / gpus_each if gpus_each else cpus)
    chosen = count or (max(1, fit) if gpus_each else 1)
    if "RAY_ADDRESS" not in os.environ and gpus_each and not gpus:
        raise UserError(f"--{stage}.num-gpus {num_gpus}: this machine has no GPU; leave it out")
    if "RAY_ADDRESS" not in os.environ and chosen > fit:
        kind = "GPUs" if gpus_each else "CPUs"
        raise UserError(f"--{stage}.num-workers {chosen} needs more {kind} than this machine has; give {fit} or fewer")
    device = f"{gpus_each:g} GPU each" if gpus_each else "CPUs"
    print(f"{stage}: {chosen} {'worker' if chosen == 1 else 'workers'} on {device}", flush=True)
    # A tenth of each CPU stays for the tasks that feed the workers.
    num_cpus = 0.9 if not gpus_each else min(1.0, round(0.5 * cpus / chosen, 2)) or 1.0
    return Workers(chosen, num_cpus, gpus_each)


def fit(workers: Workers) -> int:
    """How many groups of such workers the cluster has room for now; 1 at least."""
    resources = ray.cluster_resources()
    each = {"CPU": workers.num_cpus, "GPU": workers.num_gpus}
    return max(1, min(int(resources.get(kind, 0) / (workers.count * of)) for kind, of in each.items() if of))


class Bar:
    """Progress of a stage: a bar on a terminal, a line every ten seconds in a log."""

    _LINE_EVERY_S = 10.0

    def __init__(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        # The rate counts from the first result on: before it, workers start, for 10 to 30 s.
        self._first: tuple[float, int] | None = None
        self._printed = 0.0
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._progress = Progress(TextColumn("{task.description}"), *columns, console=console)
        self._task = self._progress.add_task(what, total=total, completed=done)

    def __enter__(self) -> Bar:
        if console.is_terminal:
            self._progress.start()
        else:
            self._print()
        return self

    def advance(self, rows: int) -> None:
        """Count rows that are done."""
        self._done += rows
        self._first = self._first or (time.monotonic(), self._done)
        self._progress.advance(self._task, rows)
        due = time.monotonic() - self._printed > self._LINE_EVERY_S or self._done >= self._total
        if due and not console.is_terminal:
            self._print()

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._progress.stop()

    def _print(self) -> None:
        self._printed = time.monotonic()
        started, count = self._first or (self._printed, self._done)
        rate = (self._done - count) / (self._printed - started) if self._done > count else 0.0
        left = f", {rate:.1f}/s, {(self._total - self._done) / rate:.0f} s left" if rate else ""
        print(f"{self._what}: {self._done}/{self._total}{left}", flush=True)


def show(table: Table) -> None:
    """Print a table, at its full width also where the output is not a terminal."""
    wide = console if console.is_terminal else Console(highlight=False, width=140)
    wide.print(table)


def where_next(artifact: Artifact, root: str, command: str) -> None:
    """Say where the results are, and what a user would want to do with them."""
    print(f"results  {artifact.uri}")
    if num_rejected := artifact.read_json("manifest.json")["rows_rejected"]:
        print(f"rejected {num_rejected} rows, with reasons: {artifact.path('rejected.parquet')}")
    print(f"runs     {tracking.ui_command(root)}")
    print(f"next     {command}")
