"""Commands that a job prints. Each runs as printed, from the current directory of the user."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlt_ray.job.settings import Job, flag

_SHARED = ("root", "name", "corpus", "languages", "model")


def command(script: str, job: Job, **flags: Any) -> str:
    """The command of another job on the same root, corpus, languages, model and encoding.

    Args:
        script: name of the other job.
        job: the job whose settings are reused, with its `embed`.
        flags: other settings, by flag name with `_` for `-` and `__` for a dot; None is left out.
    """
    values = {name: getattr(job, name) for name in _SHARED} | ({"columns": job.columns} if job.columns else {})
    shown = [*_words(values), *_changed("embed", getattr(job, "embed", None))]
    extra = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return shlex.join([*_job(script), *shown, *_words(extra)])


def report_command(root: str, name: str) -> str:
    """The command that renders the report of a root."""
    return shlex.join([*_job("report"), *_words({"root": root, "name": name})])


def log_command(root: str) -> str:
    """The command that logs the finished artifacts of a root without a run."""
    return shlex.join([*_job("report"), "--root", root, "--log"])


def program(name: str) -> list[str]:
    """A program of this environment, as the user would type it: only its name, if the shell finds it by that."""
    found, own = shutil.which(name), Path(sys.executable).with_name(name)
    if found and _same_prefix(found):
        return [name]
    return [_near(own)] if own.is_file() else [*_interpreter(), "-m", name]


def _changed(prefix: str, config: Any) -> Iterator[str]:
    """Flags of the settings that differ from their defaults."""
    if config is None:
        return
    default = type(config)()
    changed = {
        f"{prefix}.{field.name}": getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(default, field.name)
    }
    yield from _words(changed)


def _words(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        head, _, last = name.rpartition(".")
        if isinstance(value, bool):
            last = flag(last) if value else f"no-{flag(last)}"
            yield f"--{head}.{last}" if head else f"--{last}"
            continue
        name = f"--{head}.{flag(last)}" if head else f"--{flag(last)}"
        if isinstance(value, tuple) and not (value and isinstance(value[0], str)):
            yield from (name, *map(str, value))
            continue
        word = ",".join(value) if isinstance(value, tuple) else str(value)
        # A value that looks like a flag must hang on its own.
        yield from (f"{name}={word}",) if word.startswith("-") else (name, word)


def _interpreter() -> list[str]:
    """`python` if that runs this interpreter, else its path."""
    found = shutil.which("python")
    if found and os.path.realpath(found) == os.path.realpath(sys.executable) and _same_prefix(found):
        return ["python"]
    return [_near(Path(sys.executable))]


def _same_prefix(found: str) -> bool:
    """Whether an interpreter belongs to this environment; links of two environments may lead to the same file."""
    return Path(found).parent == Path(sys.executable).parent


def _job(name: str) -> list[str]:
    """The command of a job, started like this one: with `xlt-ray`, or as a script in jobs/."""
    own = Path(sys.argv[0]).absolute()
    if own.name == "xlt-ray":
        return [*program("xlt-ray"), name]
    folder = own.parent if own.parent.name == "jobs" else Path("jobs").absolute()
    return [*_interpreter(), _near(folder / f"{name}.py")]


def _near(path: Path) -> str:
    """A path as the user would type it: relative if it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
