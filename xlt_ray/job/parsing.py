"""Parses the command line of a job into its settings: preset, file, flags and help."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import io
import itertools
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from xlt_ray.errors import UserError
from xlt_ray.job import config_file
from xlt_ray.job.flags import flags_of, nearest, spellings, values

JobT = TypeVar("JobT")
Presets = Mapping[str, Callable[[], dict[str, Any]]]

_HELP = {"-h", "--help", "--help-all"}
_MORE = "--help-all shows every setting. --config FILE reads the settings of an earlier run; other flags override them."
_RARE = ("columns",)
_HIDDEN: Any = tyro.conf.Suppress


@dataclasses.dataclass(frozen=True, slots=True)
class Help:
    """The content of `--help` of a job.

    Attributes:
        about: description of the job, with examples.
        prog: the program as typed.
        basic: the basic settings of groups, without `--`.
        presets: names of the presets for this job.
    """

    about: str = ""
    prog: str = ""
    basic: Sequence[str] = ()
    presets: Sequence[str] = ()


def parse(job_type: type[JobT], argv: list[str], presets: Presets, about: Help | None = None) -> JobT:
    """Settings from a preset, a file and flags. A file overrides the preset, and flags override both.

    Args:
        job_type: the dataclass of a job.
        argv: words of the command line.
        presets: by name.
        about: content of `--help`.

    Raises:
        UserError: on an unknown flag, preset or value; the message names the valid ones.
        SystemExit: after `--help` and `--help-all`.
    """
    flags = flags_of(job_type)
    _refuse_unknown(argv, spellings(flags))
    place = _asked(argv).config
    words = [*(config_file.words(place, flags) if place else []), *argv]
    default = _from_preset(job_type, _preset_of(words), presets)
    if not _HELP.isdisjoint(argv):
        _show_help(default, presets, about or Help(), everything="--help-all" in argv)
    if stray := _stray(words, flags):
        raise UserError(
            f"unexpected arguments: {' '.join(stray)}; give each setting as --flag VALUE, see --help; several values "
            "have a comma between and no space, such as en,fr"
        )
    try:
        return _read(job_type, default, words)
    except SystemExit:
        raise UserError(_complaint(job_type, default, words, flags)) from None


def _stray(words: Sequence[str], flags: Mapping[str, Any]) -> list[str]:
    """The words that belong to no flag, such as a second language after a space.

    They are found before the settings are checked: what a check finds wrong without them would mislead.
    """
    found = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
    for name, given in _one_by_one(words):
        name, equals, _ = name.partition("=")
        hint = flags.get(name.replace("_", "-"))  # None for a switch that is turned off
        if equals or typing.get_origin(hint) is not tuple:
            found += given[0 if equals or hint in (bool, None) else 1 :]
    return found


def _refuse_unknown(argv: Sequence[str], valid: set[str]) -> None:
    for word in argv:
        name = word.split("=", 1)[0]
        if name.startswith("--") and name.replace("_", "-") not in valid | _HELP:
            near = nearest(name.replace("_", "-"), sorted(valid))
            hint = f"did you mean {near}? " if near else ""
            raise UserError(f"unknown flag {name}; {hint}valid: {' '.join(sorted(valid))}")


def _asked(words: Sequence[str]) -> argparse.Namespace:
    """The flags that set the starting point for the others; None for a flag that is not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--corpus", "--config"):
        parser.add_argument(name, nargs="?")
    return parser.parse_known_args(words)[0]


def _preset_of(words: Sequence[str]) -> str:
    """The requested preset. With a corpus of the user's own, `demo` would silently limit it to 50 sentences."""
    asked = _asked(words)
    return asked.preset or ("demo" if asked.corpus is None else "plain")


def _from_preset(job_type: type[JobT], preset: str, presets: Presets) -> JobT:
    if preset not in presets:
        raise UserError(f"unknown preset {preset!r}; valid: {', '.join(presets)}")
    names = {field.name for field in dataclasses.fields(job_type)}  # type: ignore[arg-type]
    settings = {"preset": preset, "name": preset, **presets[preset]()}
    return job_type(**{name: value for name, value in settings.items() if name in names})


def _read(job_type: type[JobT], default: JobT, words: Sequence[str]) -> JobT:
    """The job.

    Raises:
        UserError: from a dataclass; tyro would report it as an unreadable value.
        SystemExit: if a value can't be read.
    """
    try:
        # tyro draws a box around what dataclasses refuse, also without console outputs.
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(job_type, default=default, args=words, console_outputs=False, add_help=False)
    except SystemExit as stop:
        cause = stop.__context__
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__context__
        raise


def _complaint(job_type: type[JobT], default: JobT, words: Sequence[str], flags: Mapping[str, Any]) -> str:
    """Which flag has an unreadable value, and which values it takes. Each flag is read without the others."""
    for name, given in _one_by_one(words):
        try:
            _read(job_type, default, [name, *given])
        except UserError:
            continue  # it goes with others
        except SystemExit:
            name, equals, value = name.partition("=")
            what = f"invalid choice {' '.join([value, *given] if equals else given)!r} for {name}"
            return f"{what}; valid: {values(flags[name.replace('_', '-')])}"
    return f"the command line can't be read: {' '.join(words)}"


def _one_by_one(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words after it."""
    starts = [place for place, word in enumerate(words) if word.startswith("--")]
    for start, end in itertools.pairwise([*starts, len(words)]):
        yield words[start], list(words[start + 1 : end])


def _show_help(default: Any, presets: Presets, about: Help, *, everything: bool) -> NoReturn:
    """Print the help of a job, with the values of its preset as defaults."""
    lines = [f"  {name:<27} {(inspect.getdoc(presets[name]) or '').splitlines()[0]}" for name in about.presets]
    parts = [about.about, "\n".join(["Presets", *lines]) if lines else "", "" if everything else _MORE]
    text = "\n\n".join(filter(None, parts))
    shown = None if everything else frozenset(about.basic)
    tyro.cli(_shown(default, shown), prog=about.prog or None, description=text, args=["--help"])
    raise SystemExit(0)  # tyro has left already


def _shown(default: Any, basic: frozenset[str] | None, prefix: str = "") -> type:
    """The type of some settings with their values as defaults; group settings that are not basic are hidden."""
    fields: list[Any] = []
    hints = typing.get_type_hints(type(default), include_extras=True)
    for field in dataclasses.fields(default):
        name, hint, value = field.name, hints[field.name], getattr(default, field.name)
        flag = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            fields.append((name, _shown(value, basic, f"{flag}.")))
            continue
        is_hidden = basic is not None and flag not in basic and (bool(prefix) or name in _RARE)
        fields.append((name, _HIDDEN[hint] if is_hidden else hint, dataclasses.field(default=value)))
    base = type(default)
    return dataclasses.make_dataclass(
        base.__name__, fields, bases=(base,), namespace={"__doc__": base.__doc__}, frozen=True, kw_only=True
    )
