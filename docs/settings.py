"""Writes docs/settings.md: every setting of every job and every preset, as the code has them.

    python docs/settings.py

Names, values and defaults come from the dataclasses that the command line is made of, explanations from the docstrings
under their fields. `make docs` runs this; a test compares the page with what it would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job.flags import values
from xlt_ray.job.settings import Codes, Job, flag
from xlt_ray.mine.config import MineConfig, MineJob
from xlt_ray.presets import PRESETS
from xlt_ray.report.config import ReportJob
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.study.config import StudyConfig, StudyJob
from xlt_ray.translate.config import TranslateConfig, TranslateJob
from xlt_ray.tune.config import Searched, TuneConfig, TuneJob

PAGE = Path(__file__).with_name("settings.md")
JOBS = (EmbedJob, RetrievalJob, MineJob, FinetuneJob, TuneJob, TranslateJob, StudyJob, ReportJob)
GROUPS = (EmbedConfig, RetrievalConfig, MineConfig, FinetuneConfig, TranslateConfig, TuneConfig, StudyConfig)

HEAD = """\
# Settings

Every setting of every job, generated from the code by `docs/settings.py`. `--help-all` of a job prints the same,
`--help` only the basic settings. `--config FILE` reads settings from the `config.json` of an earlier run, or from YAML
with the same nesting (`embed:`, below it `encoding: trimmed`). Flags override it.
An unknown flag or a value out of range stops the job before any work, with exit code 2 and one line that names the
valid values.

**Defaults** are those of the code. `--preset` starts from other values, and flags override them. Without `--preset` a
job starts from `demo`, or from `plain` if `--corpus` is given.

**Result** shows whether a setting is part of the identity of an artifact.

- *yes*: if an artifact of this name exists with another value, the job stops and lists the fields that differ. For a
  split, the rows that it selects count, not its name.
- *no*: the setting controls where or how fast the work is done, or which rows are processed. It can change between two
  runs of the same name. For `--corpus`, `--model` and names of other artifacts, the content that they refer to counts.
- *shown*: the setting selects from the stored results of retrieval or mining. Another value only updates the metrics.

`no-` before the name turns a switch off: `--translate.no-transcribe`.
"""


def explanations(config: type) -> dict[str, str]:
    """The docstring under each field that a dataclass itself declares, on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def own_fields(config: type, base: type = object) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that `base` does not have, but those that are groups of settings themselves."""
    inherited = {field.name for field in dataclasses.fields(base)} if dataclasses.is_dataclass(base) else set()
    fields = [field for field in dataclasses.fields(config) if field.name not in inherited]
    return [field for field in fields if field.default_factory is dataclasses.MISSING]


def written_values(hint: Any) -> str:
    """What a user may write for a type."""
    if hint == Codes:
        return "comma-separated codes"
    if hint == Searched:
        return "comma-separated values, or `LOW..HIGH`"
    return values(hint, "`")


def default(field: dataclasses.Field[Any], hint: Any) -> str:
    """The default as the command line would write it."""
    value = field.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        between = " " if typing.get_origin(hint) is tuple else ","
        return f"`{between.join(map(str, value))}`" if value else "none"
    if value is None or str(value) == "":
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def counts(config: type, field: dataclasses.Field[Any]) -> str:
    """Whether a setting is part of an artifact's identity; a page of the report has none."""
    if config is ReportJob:
        return "no"
    if field.name in getattr(config, "SHOWN", ()):
        return "shown"
    return "yes" if field.metadata.get("identity", True) else "no"


def table(config: type, prefix: str, base: type = object) -> Iterator[str]:
    """A row for each setting of a dataclass."""
    hints = typing.get_type_hints(config, include_extras=True)
    told = explanations(config)
    yield from ("| flag | values | default | result | meaning |", "|---|---|---|---|---|")
    for field in own_fields(config, base):
        hint = hints[field.name]
        cells = (written_values(hint), default(field, hint), counts(config, field), marked(told[field.name]))
        yield f"| `--{prefix}{flag(field.name)}` | " + " | ".join(cells) + " |"


def marked(text: str) -> str:
    """A docstring as Markdown: flags as code, nothing that would end a cell or begin a tag."""
    text = re.sub(r"(?<![`\w])(--[a-z][\w.-]*[a-z])", r"`\1`", text)
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def changed(config: Any) -> str:
    """The settings of a group that differ from its defaults, as flags."""
    found = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default]
    return " ".join(written(f"{name_of(type(config))}.", name, getattr(config, name)) for name in found)


def written(prefix: str, name: str, value: Any) -> str:
    """A setting with its value as the command line takes it."""
    if isinstance(value, bool):
        return f"--{prefix}{'' if value else 'no-'}{flag(name)}"
    if isinstance(value, tuple):
        value = (" " if value and isinstance(value[0], int) else ",").join(map(str, value))
    return f"--{prefix}{flag(name)} {f'{value:g}' if isinstance(value, float) else value}"


def code(text: str) -> str:
    """A text as code; nothing for none."""
    return f"`{text}`" if text else ""


def name_of(group: type) -> str:
    """The name of a group of settings on the command line: `embed` of EmbedConfig."""
    return group.__name__.removesuffix("Config").removesuffix("Job").lower()


def presets() -> Iterator[str]:
    """A row for each preset: what it is for, and what it sets."""
    yield from ("| preset | what it is | what it sets |", "|---|---|---|")
    for name, preset in PRESETS.items():
        flags = [
            changed(value) if dataclasses.is_dataclass(value) else written("", key, value)
            for key, value in preset().items()
        ]
        about = (inspect.getdoc(preset) or "").splitlines()[0]
        yield f"| `{name}` | {marked(about)} | {code(' '.join(flags)) or 'nothing'} |"


def jobs() -> Iterator[str]:
    """A row for each job: which groups of settings it takes, and where their defaults are its own."""
    yield from ("| job | groups | own settings | defaults of its own |", "|---|---|---|---|")
    for job in JOBS:
        groups = [field.default_factory() for field in dataclasses.fields(job) if callable(field.default_factory)]
        named = ", ".join(f"`--{name_of(type(group))}.*`" for group in groups)
        own = ", ".join(f"`--{flag(field.name)}`" for field in own_fields(job, Job))
        differs = code(" ".join(filter(None, map(changed, groups))))
        yield f"| `jobs/{name_of(job)}.py` | {named or 'none'} | {own or 'none'} | {differs or 'none'} |"


def sections() -> Iterator[str]:
    """The page, part by part."""
    yield HEAD
    yield "\n".join(["## Which job takes what\n", *jobs()])
    yield "\n".join(["## Every job but report\n", *table(Job, "")])
    for job in (EmbedJob, TranslateJob):
        yield "\n".join([f"### Only jobs/{name_of(job)}.py\n", *table(job, "", Job)])
    for group in GROUPS:
        name = name_of(group)
        yield "\n".join([f"## {name}\n", f"{inspect.getdoc(group)}\n", *table(group, f"{name}.")])
    yield "\n".join(["## report\n", *table(ReportJob, "")])
    yield "\n".join(["## Presets\n", *presets()])


def page() -> str:
    """The text of docs/settings.md."""
    return "\n\n".join(part.strip("\n") for part in sections() if part) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
