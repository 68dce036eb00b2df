"""What is tried: the readers of the package, as its jobs call them."""

from __future__ import annotations

import contextlib
import functools
import html.parser
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from benchmarks.fuzz import seeds
from benchmarks.fuzz.mutations import SECRET
from benchmarks.fuzz.trials import Target
from xlt_ray.report.config import ReportJob
from xlt_ray.retrieval.config import RetrievalJob


class Unescaped(Exception):  # noqa: N818 - what happened
    """A page has an element that is no template's, or a password."""


def _manifest(root: Path, name: str) -> int:
    from xlt_ray import corpora
    from xlt_ray.corpora import doctor

    kind = {"nemo.jsonl": "nemo", "cuts.jsonl": "lhotse"}.get(name, "hf" if "hf" in name else "manifest")
    rows = list(corpora.read(f"{kind}:{root / name}", ["en", "fr"], None))
    found = doctor.check(rows)
    found.render()
    return sum(problem.num for problem in found.problems if not problem.is_note)


def _places(root: Path, name: str, members: tuple[str, ...]) -> int:
    from xlt_ray.corpora.guarded import sounds
    from xlt_ray.corpora.recordings import Place

    path = str(root / name)
    places = [place for m in members for place in (Place(path, m), Place(path, m, 0.05, 0.1), Place(path, m, 0.1))]
    return sum(sound.problem is not None for sound in sounds(places))


def _audio(root: Path, name: str) -> int:
    return _places(root, name, ("",))


def _archive(root: Path, name: str) -> int:
    return _places(root, name, ("0",) if name.endswith(("parquet", "arrow")) else ("a.flac", "b.flac"))


def _model(root: Path, name: str) -> int:
    import torch

    from xlt_ray.models.encoder import load_encoder, mel_filters
    from xlt_ray.models.prompts import Prompter
    from xlt_ray.models.size import model_size
    from xlt_ray.models.whisper import language_ids, resolve_model

    spec = str(root / "adapter" if (root / "adapter").is_dir() else root)
    folder = resolve_model(spec)
    model_size(spec)
    language_ids(folder)
    mel_filters(folder)
    load_encoder(folder, "cpu", torch.float32)
    Prompter(folder)
    return 0


def _sealed(root: Path) -> None:
    """Give every manifest the sums of what is there, as somebody would who means harm."""
    from xlt_ray.store import manifest, sums

    for path in root.glob("*/*/manifest.json"):
        try:
            content = json.loads(path.read_bytes())
            for entry in [*content["files"], *content.get("others", ())]:
                if (file := path.parent / entry["path"]).is_file() and file.is_relative_to(root):
                    entry |= sums.of_bytes(file.read_bytes())._asdict()
            path.write_text(json.dumps(manifest.sealed(content) if "checksum" in content else content))
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            continue


def _artifact(root: Path, name: str) -> int:
    from xlt_ray.report.collect import collect
    from xlt_ray.report.render import render

    _sealed(root)
    os.environ["XLT_RAY_COMMIT"] = "0" * 40
    results = collect(str(root))
    page = render(results)
    page.encode()
    if found := _Elements(page).found:
        raise Unescaped(f"{sorted(found)}")
    _use(root, *name.split("/")[:2])
    return len(results.damaged)


def _use(root: Path, stage: str, name: str) -> None:
    """Read an artifact as other stages do, and begin to write it again."""
    from xlt_ray.errors import Damaged
    from xlt_ray.store import artifacts, lease
    from xlt_ray.store.artifact import Artifact

    artifact = Artifact.at(str(root), stage, name)
    try:
        found = artifacts.find(str(root), stage, name)
        _ = found.identity, found.settings, found.named, list(found.tables())
        if found.has("index.parquet"):
            found.table("index.parquet")
    except Damaged:
        pass
    try:
        artifact.planned({"identity": {}, "settings": {}}).begin()
    finally:
        lease.give_all_back()


class _Elements(html.parser.HTMLParser):
    """What a page has that no template has: elements, attributes that run code, links that leave the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is not a template's."""
        links = [value or "" for name, value in attrs if name in ("href", "src", "action", "data", "srcset")]
        self.found |= {tag} - _tags() | {name for name, _ in attrs if name.startswith("on")}
        self.found |= {link[:50] for link in links if not link.startswith(("#", "data:image/", "data:audio/"))}


@functools.cache
def _tags() -> set[str]:
    """Every element of the templates and of the charts."""
    texts = [path.read_text() for path in (seeds.ROOT / "xlt_ray").rglob("*.jinja")]
    drawn = {"svg", "defs", "g", "path", "text", "use"}
    return drawn | {tag for text in texts for tag in re.findall(r"<([a-z][a-z0-9]*)", text)}


def _config(root: Path, name: str) -> int:
    from xlt_ray.finetune.config import FinetuneJob
    from xlt_ray.job.parsing import parse
    from xlt_ray.job.secrets import refuse_passwords
    from xlt_ray.presets import PRESETS
    from xlt_ray.tune.config import TuneJob

    path = root / name
    words = path.read_bytes().decode(errors="surrogateescape").split("\n") if name.endswith("txt") else None
    jobs: list[Any] = [RetrievalJob, FinetuneJob, TuneJob, ReportJob]
    job = jobs[path.stat().st_size % len(jobs)]
    try:
        refuse_passwords(parse(job, ["--config", str(path)] if words is None else words, PRESETS))
    except SystemExit as stop:  # after --help
        if stop.code:
            raise
    return 0


def _name(root: Path, name: str) -> int:
    from xlt_ray import corpora, languages
    from xlt_ray.errors import UserError
    from xlt_ray.models.whisper import resolve_model
    from xlt_ray.store import artifacts, lease

    text = os.fsdecode((root / name).read_bytes())
    refused = 0
    for use in (corpora.parse, resolve_model, lambda word: languages.codes(word.split(","))):
        try:
            use(text)
        except UserError:
            refused += 1
    job = ReportJob(name=text)
    try:
        artifacts.plan(str(root), "embed", job.name, {}, {}).begin()
    finally:
        lease.give_all_back()
    return refused == 3


def _password(root: Path, name: str) -> int:
    from xlt_ray.job import cli
    from xlt_ray.job.mlflow_run import flatten
    from xlt_ray.job.secrets import redacted
    from xlt_ray.presets import PRESETS

    said = re.sub(r"[\s'\"]", "", (root / name).read_bytes().decode(errors="replace"))  # none of them is of a URI
    if not re.match(r"[^/@:]+:(?!\d+/)[^@]*" + SECRET, said):
        return 1
    uri = f"s3://{said}@bucket/a"

    def report(job: ReportJob) -> None:
        raise RuntimeError(f"no {uri}")

    def retrieve(job: RetrievalJob) -> None:
        report(ReportJob())

    shown = io.StringIO()
    for job, words in ((report, []), (report, [f"--root={uri}"]), (retrieve, ["--corpus", f"manifest:{uri}"])):
        with contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit):
            cli.run(job, PRESETS, words)
    logs = [path.read_text() for path in (root.parent / "tmp").glob("xlt_ray-*.log")]
    if SECRET in "".join([shown.getvalue(), redacted(uri), str(flatten({"corpus": f"manifest:{uri}"})), *logs]):
        raise Unescaped(f"{uri} is shown")
    return 0


def _lease(root: Path, name: str) -> int:
    from xlt_ray.store import lease

    lease.STALE_S, lease._POLL_S = 0.2, 0.05
    uri = str(root / "embed" / "mine")
    # As a process of this machine would have left it.
    file = root / name
    file.write_bytes(file.read_bytes().replace(b'"k"', json.dumps(lease._kernel()).encode()))
    try:
        lease.require_free(uri)
        lease.take(uri)
    finally:
        lease.give_all_back()
    return 0


TARGETS = {
    "manifest": Target(seeds.write_manifests, _manifest, ("*l", "*.?sv", "*.parquet", "*.arrow"), foreign=True),
    "archive": Target(seeds.write_archives, _archive),
    "audio": Target(seeds.write_sounds, _audio),
    "ctranslate2": Target(seeds.write_ctranslate2, _model),
    "safetensors": Target(seeds.write_whisper, _model),
    "adapter": Target(seeds.write_adapter, _model, ("adapter/adapter_*",)),
    "artifact": Target(
        seeds.write_runs, _artifact, ("*/*/*.json", "*/*/*.parquet", "*/*/data/u.parquet", "*/*/plots/*")
    ),
    "config": Target(seeds.write_settings, _config),
    "name": Target(seeds.write_names, _name, foreign=True),
    "password": Target(seeds.write_password, _password),
    "lease": Target(seeds.write_lease, _lease),
}
"""What is tried, by the name that `--only` takes."""
