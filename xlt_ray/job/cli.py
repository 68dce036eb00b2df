"""How a job starts and ends: its command line, its errors, its exit codes."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import select
import signal
import sys
import tempfile
import traceback
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from xlt_ray.errors import Damaged, Unreachable, Unwritable, UserError
from xlt_ray.job import environment, stopping
from xlt_ray.job.parsing import Help, JobT, Presets
from xlt_ray.job.parsing import parse as parse
from xlt_ray.job.secrets import redacted, refuse_passwords
from xlt_ray.job.settings import Job
from xlt_ray.store import storage

_NO_SPACE = os.strerror(errno.ENOSPC)


def run(
    main: Callable[[JobT], None], presets: Presets, argv: Sequence[str] | None = None, about: Help | None = None
) -> None:
    """Read the settings of `main` from the command line, and run it. Signals end it as described in `stopping`.

    A job that fails ends with one line on stderr and an exit code: 2 for a user error, 3 if too many recordings are
    rejected, 4 if the cluster can't provide the resources, 1 for everything else; in that case the line names the file
    with the traceback.
    """
    with stopping.armed():
        _run(main, presets, list(sys.argv[1:] if argv is None else argv), about)


def _run(main: Callable[[JobT], None], presets: Presets, words: list[str], about: Help | None) -> None:
    (job_type,) = (hint for name, hint in typing.get_type_hints(main).items() if name != "return")
    try:
        job = parse(job_type, words, presets, about)
        refuse_passwords(job)
        environment.prepare(job)
        main(_placed(job, os.getcwd()))
    except UserError as error:
        _stop(_cause(error, UserError) or str(error), error.exit_code)
    except BrokenPipeError as error:
        if _is_read():
            _stop_for_a_fault(error)
        # As a program that heeds SIGPIPE: `jobs/retrieval.py --help | head` is no fault.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        _stop_for_a_fault(error)


def _is_read() -> bool:
    """Whether somebody reads the output of this process."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return not any(event & select.POLLERR for _, event in watch.poll(0))


def _stop_for_a_fault(error: Exception) -> NoReturn:
    """End with one line about the error, which may come from a worker."""
    if line := _cause(error, Unreachable):
        _stop(f"{line}; nothing is lost: run the same command again", 1)
    if line := _cause(error, Damaged):
        _stop(line, 1)
    if (line := _cause(error, Unwritable)) or _NO_SPACE in str(error):
        _stop(f"{line or _no_space_line(error)}; make room, then run the same command again: finished work is kept", 1)
    if line := _cause(error, UserError):
        _stop(line, UserError.exit_code)
    if advice := environment.advice(error):
        _stop(advice, UserError.exit_code)
    file = _write_traceback(error)
    _stop(_summary(error) + (f"; the traceback is in {file}" if file else ""), 1)


def _cause(error: BaseException | None, kind: type[Exception]) -> str | None:
    """The message of the error of this kind behind an error.

    Ray wraps the error of a worker, with its stack. Ray Train keeps the errors of its workers by rank. Ray Data passes
    on only the text of the stack of a function that failed.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        wrapped = getattr(error, "cause", None)
        if isinstance(error, kind) and not isinstance(wrapped, kind):
            return str(error)
        if failures := getattr(error, "worker_failures", None):
            return next(filter(None, (_cause(failure, kind) for failure in failures.values())), None)
        if line := re.search(rf"^{re.escape(kind.__module__)}\.{kind.__name__}: (.+)", str(error), re.MULTILINE):
            return line[1]
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__ or error.__context__
    return None


def _no_space_line(error: Exception) -> str:
    return next(line.strip() for line in str(error).splitlines() if _NO_SPACE in line)[:300]


def _stop(line: str, code: int) -> NoReturn:
    """End the process with one line, without passwords."""
    print(f"error: {redacted(line)}", file=sys.stderr)
    sys.exit(code)


def _summary(error: Exception) -> str:
    """The type of an error and the last line of its message, which for Ray is the error in the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__


def _write_traceback(error: Exception) -> str | None:
    """Write the traceback to a file. Returns its name; None if there is no space for it."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="xlt_ray-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(redacted("".join(traceback.format_exception(error))))
    except OSError:
        return None
    return file.name


def _placed(job: Any, working_directory: str) -> Any:
    """The settings with places that mean the same everywhere: workers of a cluster work in another directory."""
    changes = {"root": lasting(job.root, working_directory)}
    if isinstance(job, Job) and not _is_submitted(working_directory):
        path = storage.local(job.model)
        changes |= {"model": str(path)} if os.path.isdir(path) else {}
    return dataclasses.replace(job, **changes)


def _is_submitted(working_directory: str) -> bool:
    """Whether the job works in a copy that Ray has made for it and its workers, and deletes at its end."""
    return "/runtime_resources/working_dir_files/" in working_directory


def lasting(root: str, working_directory: str) -> str:
    """The root as a path or URI that does not depend on the working directory, which is deleted after a submitted job.

    A relative root is below the working directory; for a submitted job, below the user's home.
    """
    is_relative = not storage.is_remote(root) and not root.startswith(("/", "~"))
    if is_relative and _is_submitted(working_directory):
        return storage.absolute(os.path.join("~", "xlt_ray", root))
    return storage.absolute(root)
