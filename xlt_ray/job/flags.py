"""The flags of a job: one for each setting, with a dot between a group and its setting."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from xlt_ray.job.settings import flag


def flags_of(config_type: type, prefix: str = "--") -> dict[str, Any]:
    """The type of every setting by its flag, without the `no-` of switches."""
    hints = typing.get_type_hints(config_type, include_extras=True)  # what has its own syntax is one flag
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config_type):
        name, hint = prefix + flag(field.name), hints[field.name]
        is_group = dataclasses.is_dataclass(hint)
        found |= flags_of(typing.cast(type, hint), f"{name}.") if is_group else {name: hint}
    return found


def spellings(flags: Mapping[str, Any]) -> set[str]:
    """Every flag that can be typed; switches also with `no-`."""
    return {*flags, *(off(name) for name, hint in flags.items() if hint is bool)}


def off(name: str) -> str:
    """The flag that turns a switch off."""
    head, dot, last = name.removeprefix("--").rpartition(".")
    return f"--{head}{dot}no-{last}"


def nearest(name: str, valid: Collection[str]) -> str | None:
    """The flag that a misspelt one probably means: one of that name or these initials, else the closest spelling."""
    last = _last(name)
    same = [other for other in valid if _last(other) == last]
    short = [other for other in valid if "".join(word[:1] for word in _last(other).split("-")) == last]
    return next(iter(same or short or difflib.get_close_matches(name, valid, n=1)), None)


def _last(name: str) -> str:
    """A flag without its group."""
    return name.removeprefix("--").rpartition(".")[2]


def values(hint: Any, mark: str = "") -> str:
    """What a user may write for a type.

    Args:
        hint: type of a setting.
        mark: put around a word that is typed literally, such as a backtick.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return str(inner[1].metavar)
    if origin is typing.Literal:
        return ", ".join(f"{mark}{value}{mark}" for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(values(part, mark) for part in inner)
    if origin is tuple:
        each = values(inner[0], mark)
        several = f"any of {each}" if typing.get_origin(inner[0]) else f"several {each}s"
        return f"{several}, with spaces between"
    names = {int: "whole number", float: "number", str: "text", bool: "switch", types.NoneType: f"{mark}None{mark}"}
    return names[hint]
