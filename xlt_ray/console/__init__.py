"""The command line: `xlt-ray JOB` of an installed package, and the scripts in jobs/ of a checkout.

Each job has a module with its help text and its `main`. Ray and torch are imported inside `main`, so `--help` and flag
errors do not load them.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.job.parsing import Help
from xlt_ray.presets import PRESETS, presets_of

JOBS = ("embed", "retrieval", "mine", "finetune", "translate", "tune", "study", "report")
"""The jobs, in the order in which a user needs them."""

_USAGE = """\
usage: xlt-ray JOB [OPTIONS]

{jobs}

xlt-ray JOB --help shows the basic settings and the presets of a job, --help-all every setting."""


def run(main: Callable[[Any], None], argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Run the `main` of a job on a command line.

    Args:
        main: the `main` of a module of this package.
        argv: the arguments, without the program; None: those of this process.
        prog: the program as the user typed it; None: the script.
    """
    module = sys.modules[main.__module__]
    job = module.__name__.rpartition(".")[2]
    about = inspect.getdoc(module) or ""
    if prog is not None:
        about = re.sub(r"(?<!-- )\bpython jobs/(\w+)\.py", r"xlt-ray \1", about)
    cli.run(main, PRESETS, argv, Help(about, prog or sys.argv[0], module.BASIC, presets_of(job)))


def main() -> None:
    """The program `xlt-ray`. Without a job, it lists the jobs."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE.format(jobs="\n".join(f"  {job:<10} {_first_line(_module(job))}" for job in JOBS)))
        return
    if words[0] not in JOBS:
        near = difflib.get_close_matches(words[0], JOBS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        print(f"error: unknown job {words[0]!r}; {hint}valid: {', '.join(JOBS)}", file=sys.stderr)
        sys.exit(UserError.exit_code)
    run(_module(words[0]).main, words[1:], prog=f"xlt-ray {words[0]}")


def _module(job: str) -> ModuleType:
    return importlib.import_module(f"xlt_ray.console.{job}")


def _first_line(module: ModuleType) -> str:
    return (inspect.getdoc(module) or "").splitlines()[0]
