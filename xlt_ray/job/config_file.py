"""`--config FILE`: converts the settings of an earlier run, or of a YAML file, to the words of a command line.

So these settings are read and checked like every other flag.
"""

from __future__ import annotations

import json
import os
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from xlt_ray.errors import UserError
from xlt_ray.job.flags import nearest, off
from xlt_ray.job.settings import flag
from xlt_ray.store import storage

_OF_EMBEDDINGS = ("num_layers", "splits")
"""Keys in config.json of embeddings for which other jobs have no setting."""


class _Words(yaml.BaseLoader):
    """Reads each value as text, except `null` and `~`: YAML would read the language `no` as false, and 1e-5 as text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: with them, a short file can repeat one value a billion times, or contain itself."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a value by a name (*name); write the value out")
        return super().compose_node(parent, index)


_NULL = "tag:yaml.org,2002:null"
_Words.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null)$"), ["~", "n"])
_Words.add_constructor(_NULL, lambda *_: None)


def words(place: str, flags: Mapping[str, Any]) -> list[str]:
    """The settings of a file as flags.

    Args:
        place: path or URI of a config.json that a run wrote, or of a YAML file with the same nesting.
        flags: type of every setting of the job by its flag.

    Raises:
        UserError: if it can't be read, or has a key that is not a setting of the job.
    """
    return [word for name, value in _flat(_settings(place, flags)) for word in _words(place, name, value, flags)]


def _settings(place: str, flags: Mapping[str, Any]) -> Mapping[str, Any]:
    is_json = place.endswith(".json")
    try:
        text = storage.read_bytes(storage.absolute(place)).decode()
        found = json.loads(text) if is_json else yaml.load(text, Loader=_Words)
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, FileNotFoundError) or os.path.isdir(place):
            raise UserError(f"--config {place} is no file; give the config.json of a run, or a YAML file") from None
        raise UserError(f"--config {place} can't be read as {'JSON' if is_json else 'YAML'}: {_line(error)}") from None
    if isinstance(found, dict) and {"identity", "settings"} <= found.keys():
        found = found["settings"]
        if isinstance(found, dict):
            unknown = {key for key in _OF_EMBEDDINGS if f"--{flag(key)}" not in flags}
            found = {key: value for key, value in found.items() if key not in {"config", *unknown}}
    if not isinstance(found, dict):
        raise UserError(f"--config {place} holds no settings; write one on each line, such as corpus: fleurs")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _flat(settings: Mapping[str, Any], prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """Each setting by its flag, including axes of a search, which are recorded as mappings."""
    for key, value in settings.items():
        name = prefix + flag(str(key))
        if isinstance(value, Mapping) and value.keys() != {"values", "bounds"}:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _words(place: str, name: str, value: Any, flags: Mapping[str, Any]) -> list[str]:
    if name not in flags:
        near = nearest(name, flags.keys())
        hint = f"did you mean {_key(near)}? " if near else ""
        raise UserError(f"--config {place}: unknown key {_key(name)}; {hint}valid: {' '.join(map(_key, flags))}")
    hint = flags[name]
    if hint is bool:
        if (chosen := {"true": name, "false": off(name)}.get(str(value).lower())) is None:
            raise UserError(f"--config {place}: {_key(name)} is {value!r}; give true or false")
        return [chosen]
    if typing.get_origin(hint) is tuple:
        return [name, *map(str, value if isinstance(value, list) else [value])]
    if typing.get_origin(hint) is typing.Annotated:
        return [f"{name}={_joined(value)}"]
    return [f"{name}={value}"]


def _joined(value: Any) -> str:
    """A comma-separated list, or the range of a search."""
    if isinstance(value, Mapping):
        low_high, several = value["bounds"], value["values"]
        return "..".join(map(str, low_high)) if low_high else _joined(several)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _key(name: str) -> str:
    """A flag in the spelling of the file."""
    return name.removeprefix("--").replace("-", "_")
