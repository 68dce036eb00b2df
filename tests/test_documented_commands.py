"""Every command in README, docs, deploy and the jobs' own texts is checked as the job would, on miniature corpora."""

import dataclasses
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import worlds
import yaml
from tiny import tiny_whisper

from xlt_ray import corpora
from xlt_ray.corpora.manifest import manifest
from xlt_ray.embed import plan as embed
from xlt_ray.job import cli
from xlt_ray.models import whisper
from xlt_ray.presets import PRESETS

ROOT = Path(__file__).parent.parent
NAMED = ("embeddings", "checkpoint", "baseline", "fisher", "retrieval")
"""Settings that name an artifact of an earlier command."""


def documents():
    prose = [
        ROOT / "README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
        *sorted((ROOT / "xlt_ray" / "console").glob("*.py")),
    ]
    return [*prose, ROOT / "cluster.yaml", *sorted(ROOT.glob("deploy/**/*.yaml"))]


def shell(path):
    """The text of a file; of YAML, its comments without their marks, and the commands in it, which may be folded."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".yaml":
        return text
    comments = [line.strip("# ") for line in text.splitlines() if line.startswith("#")]
    specs = [document.get("spec", {}) for document in yaml.safe_load_all(text) if document]
    return "\n".join([*comments, *(spec["entrypoint"] for spec in specs if "entrypoint" in spec)])


def commands():
    """(file, job, words) of every command line; a line that ends in a backslash goes on in the next."""
    for path in documents():
        joined = re.sub(r"\\\n\s*", "", shell(path))
        for script, program, rest in re.findall(r"(?:python jobs/(\w+)\.py|\bxlt-ray ([a-z]+))([^\n`]*)", joined):
            job = script or program
            words = re.split(r"\s+[#(]|\s{3,}[A-Za-z]", rest)[0]
            yield pytest.param(job, shlex.split(words), id=f"{path.name}: {job}{words}".strip())


def test_commands_are_found():
    """A pattern that matches nothing must not look like success."""
    found = [param.values[0] for param in commands()]
    assert len(found) > 30
    assert set(found) == set(worlds.JOBS)
    assert any("--config" in param.values[1] for param in commands())


def test_commands_of_every_way_to_a_cluster_are_found():
    whole = "--preset fleurs_large_v2 --root"
    for name in ("cluster.yaml", "cluster-gcp.yaml", "raycluster.yaml", "rayjob.yaml", "cluster.md"):
        (found,) = {param.id for param in commands() if param.id.startswith(f"{name}: retrieval") and whole in param.id}
        assert found.endswith("/runs --embed.num-gpus 1 --retrieval.num-gpus 1")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    own = worlds.manifest(folder / "own")
    demo = worlds.manifest(folder / "demo", worlds.ASTERISK)
    worlds.fleurs(folder / "fleurs", tuple(worlds.FLEURS))
    worlds.covost2(folder / "covost2")
    worlds.mass(folder / "mass")
    for kind, tree in {"mustc": "mustc", "hf": "hf parquet", "nemo": "nemo", "lhotse": "lhotse cuts"}.items():
        (folder / kind).mkdir()
        worlds.KINDS[tree](folder / kind)
    tiny_whisper(folder / "model")
    return folder, own, demo


@pytest.fixture
def offline(places, monkeypatch):
    """The demo's corpus is a manifest of tones, every model the tiny one, and public corpora lie in a folder."""
    folder, _, demo = places
    source = demo.spec.removeprefix("manifest:")
    monkeypatch.setitem(corpora.CORPORA, "asterisk", lambda _, languages, split: manifest(source, languages, split))
    for corpus in ("fleurs", "covost2"):
        monkeypatch.setitem(corpora._HOME, corpus, str(folder / corpus))
    resolve = whisper.resolve_model
    monkeypatch.setattr(whisper, "resolve_model", lambda _: resolve(str(folder / "model")))
    monkeypatch.setattr(whisper, "num_encoder_layers", lambda _: 6)  # as many as Whisper base has


def placed(corpus, places):
    """A corpus of the reader's, where it lies here."""
    folder, own, _ = places
    kind, _, place = corpus.partition(":")
    if not place:
        return corpus
    return own.spec if kind == "manifest" else f"{kind}:{folder / kind}"


def settle(job, places, root):
    """The job of a reader of the document: files where he has put them, earlier artifacts not asked for."""
    corpus = "+".join(placed(part, places) for part in corpora.parts(job.corpus))
    job = dataclasses.replace(job, root=str(root), corpus=corpus)
    for stage in ("retrieval", "mine", "finetune", "translate", "study"):
        if config := getattr(job, stage, None):
            names = {name: None for name in NAMED if hasattr(config, name)}
            names |= {"alpha": 1.0} if stage == "translate" else {}
            job = dataclasses.replace(job, **{stage: dataclasses.replace(config, **names)})
    return job


def config_of(path, job, folder):
    """The file that a command names with --config: of a run with the demo's settings, or the one in the recipes."""
    file = folder / Path(path).name
    if file.suffix == ".json":
        run = dataclasses.asdict(cli.parse(worlds.JOBS[job], [], PRESETS))
        file.write_text(json.dumps({"identity": {}, "settings": run}))
    else:
        text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
        (block,) = re.findall(rf"```yaml\n# {re.escape(path)}\n(.*?)```", text, flags=re.DOTALL)
        file.write_text(block)
    return str(file)


@pytest.mark.parametrize(("job", "words"), list(commands()))
def test_a_documented_command_passes_its_checks(offline, places, tmp_path, tmp_path_factory, job, words):
    if "--config" in words:
        place = words.index("--config") + 1
        words = [*words[:place], config_of(words[place], job, tmp_path_factory.mktemp("config")), *words[place + 1 :]]
    settings = cli.parse(worlds.JOBS[job], words, PRESETS)
    if job == "report":
        return
    settings = settle(settings, places, tmp_path)
    if job == "embed":
        embed.prepare(settings, settings.embed, settings.splits)
    else:
        importlib.import_module(f"xlt_ray.{job}.plan").prepare(settings)
    assert not list(tmp_path.iterdir())
