"""How a job starts: its command line, its preset, its errors."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import inspect
import io
import itertools
import os
import re
import select
import signal
import sys
import tempfile
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from xlt_ray.errors import Damaged, Unreachable, Unwritable, UserError
from xlt_ray.job import environment, stopping
from xlt_ray.job.secrets import redacted, refuse_passwords
from xlt_ray.store import storage

_NO_SPACE = os.strerror(errno.ENOSPC)

JobT = TypeVar("JobT")
Presets = Mapping[str, Callable[[], dict[str, Any]]]


def run(main: Callable[[JobT], None], presets: Presets, argv: Sequence[str] | None = None) -> None:
    """Read the command line into the settings that `main` takes, and run it; a signal ends it as `stopping` says.

    A job that can't be done ends with one line on stderr, and a code: 2 for a mistake of the user, 3 where too many
    recordings are rejected, 4 where the cluster can't give what was asked, 1 for everything else; then the line names
    the file that holds the traceback.
    """
    with stopping.armed():
        _run(main, presets, list(sys.argv[1:] if argv is None else argv))


def _run(main: Callable[[JobT], None], presets: Presets, words: list[str]) -> None:
    (job_type,) = (hint for name, hint in typing.get_type_hints(main).items() if name != "return")
    try:
        job = parse(job_type, words, presets, description=inspect.getdoc(sys.modules[main.__module__]) or "")
        refuse_passwords(job)
        environment.prepare(job)
        main(dataclasses.replace(job, root=lasting(job.root, os.getcwd())))
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
    """Whether anybody reads what this process prints."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return not any(event & select.POLLERR for _, event in watch.poll(0))


def _stop_for_a_fault(error: Exception) -> NoReturn:
    """One line about what happened, also where it happened in a worker."""
    if said := _cause(error, Unreachable):
        _stop(f"{said}; nothing is lost: run the same command again", 1)
    if said := _cause(error, Damaged):
        _stop(said, 1)
    if (said := _cause(error, Unwritable)) or _NO_SPACE in str(error):
        _stop(f"{said or _no_space_line(error)}; make room, then run the same command again: what is done is kept", 1)
    if advice := environment.advice(error):
        _stop(advice, UserError.exit_code)
    file = _write_traceback(error)
    _stop(_summary(error) + (f"; the traceback is in {file}" if file else ""), 1)


def _cause(error: BaseException | None, kind: type[Exception]) -> str | None:
    """What the error of a kind says that an error stands for; Ray wraps that of a worker, with the worker's stack."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        wrapped = getattr(error, "cause", None)
        if isinstance(error, kind) and not isinstance(wrapped, kind):
            return str(error)
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__ or error.__context__
    return None


def _no_space_line(error: Exception) -> str:
    return next(line.strip() for line in str(error).splitlines() if _NO_SPACE in line)[:300]


def _stop(line: str, code: int) -> NoReturn:
    """End the process with one line, which shows no password."""
    print(f"error: {redacted(line)}", file=sys.stderr)
    sys.exit(code)


def _summary(error: Exception) -> str:
    """The kind of an error and the last line of its message, where Ray puts what happened in a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__


def _write_traceback(error: Exception) -> str | None:
    """The name of the file that the traceback is written to; None where there is no room for it."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="xlt_ray-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(redacted("".join(traceback.format_exception(error))))
    except OSError:
        return None
    return file.name


def lasting(root: str, working_directory: str) -> str:
    """The root as a path or URI that does not depend on the working directory, which a submitted job loses at its end.

    A relative root is one of the working directory, but of the user's home in a submitted job.
    """
    is_relative = not storage.is_remote(root) and not os.path.isabs(os.path.expanduser(root))
    if is_relative and "/runtime_resources/working_dir_files/" in working_directory:
        return storage.absolute(os.path.join("~", "xlt_ray", root))
    return storage.absolute(root)


def parse(job_type: type[JobT], argv: list[str], presets: Presets, description: str = "") -> JobT:
    """Settings from a preset and flags.

    Raises:
        UserError: on an unknown flag, preset or value; the message names the valid ones.
    """
    default = _from_preset(job_type, _preset_of(argv), presets)
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
            return tyro.cli(job_type, default=default, description=f"{description}\n\n{_described(presets)}", args=argv)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(complaint.getvalue())) from None


def _described(presets: Presets) -> str:
    lines = (f"  {name:<16} {(inspect.getdoc(preset) or '').splitlines()[0]}" for name, preset in presets.items())
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


def _from_preset(job_type: type[JobT], preset: str, presets: Presets) -> JobT:
    if preset not in presets:
        raise UserError(f"unknown preset {preset!r}; valid: {', '.join(presets)}")
    names = {field.name for field in dataclasses.fields(job_type)}  # type: ignore[arg-type]
    settings = {"preset": preset, "name": preset, **presets[preset]()}
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
    """The sentence inside the frame that tyro draws around a complaint: a box, or rules where there is no UTF-8."""
    lines = [line.strip("│╭╰╮╯ ") for line in box.splitlines()]
    first = next((number for number, line in enumerate(lines) if _is_rule(line)), -1)
    body = itertools.takewhile(lambda line: "full helptext" not in line, lines[first + 1 :])
    sentence = " ".join(line for line in body if line and not _is_rule(line))
    return re.sub(r"^Error parsing \w+: ", "", sentence) or "the command line could not be read"


def _is_rule(line: str) -> bool:
    return line.endswith("─") or (bool(line) and set(line) == {"-"})
