"""Every preset for every job that it is meant for; those of large models dry-run with nothing at hand."""

import dataclasses
import importlib
import runpy
import socket

import embedded
import pytest
import ray
from ray_speech import row, write_manifest, write_rows
from tiny import tiny_whisper

from xlt_ray.embed import cost, plan
from xlt_ray.embed.config import EmbedJob
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.finetune.cost import learned
from xlt_ray.job import cli
from xlt_ray.mine.config import MineJob
from xlt_ray.presets import PRESETS, presets_of
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.translate.config import TranslateJob

JOBS = {"embed": EmbedJob, "retrieval": RetrievalJob, "finetune": FinetuneJob, "translate": TranslateJob}
JOBS["mine"] = MineJob
MEANT = dict.fromkeys(("demo", "plain", "asterisk", "asterisk_100"), tuple(JOBS)) | {
    "layers": ("embed", "retrieval"),
    "fleurs_large_v2": ("embed", "retrieval", "translate"),
    "mass_large_v2": ("embed", "retrieval"),
    "mine_large_v2": ("embed", "mine"),
    "mine_exact": ("embed", "mine"),
    "unseen": ("embed", "translate"),
    "unseen_wide": ("embed", "translate"),
    "transfer_large_v2": ("embed", "finetune"),
    "ja_zh_large_v2": ("embed", "finetune"),
    "transfer_test_large_v2": ("embed", "translate"),
    "transfer_test_wide_large_v2": ("embed", "translate"),
    "ja_zh_test_large_v2": ("embed", "translate"),
}
LARGE = [(preset, job) for preset, jobs in MEANT.items() if "large" in preset or "unseen" in preset for job in jobs]


def parsed(preset, job, *words):
    return cli.parse(JOBS[job], ["--preset", preset, *map(str, words)], PRESETS)


@pytest.fixture
def nothing_at_hand(monkeypatch):
    """No network, no Ray."""

    def refuse(*_, **__):
        raise AssertionError("a dry run reached out")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(ray, "init", refuse)


def splits_of(job, settings):
    """The splits that a job reads."""
    return {
        "embed": lambda: settings.splits,
        "retrieval": lambda: [settings.retrieval.split],
        "mine": lambda: [settings.mine.split],
        "finetune": lambda: settings.finetune.splits,
        "translate": lambda: [settings.translate.split],
    }[job]()


def stages(output):
    """The stages that stand in the table of a dry run."""
    cells = [line.strip("│┃ ").split("│")[0].strip() for line in output.splitlines()]
    return [cell for cell in cells if cell in JOBS]


def run(job, settings):
    runpy.run_path(f"jobs/{job}.py")["main"](settings)


def test_every_preset_is_meant_for_something():
    """Those of jobs/study.py and jobs/tune.py begin with their names."""
    assert {name for name in PRESETS if not name.startswith(("study", "tune"))} == set(MEANT)


@pytest.mark.parametrize("job", JOBS)
def test_help_of_a_job_shows_the_presets_that_are_meant_for_it(job):
    assert sorted(presets_of(job)) == sorted(preset for preset, jobs in MEANT.items() if job in jobs)


@pytest.mark.parametrize(("preset", "job"), [(preset, job) for preset, jobs in MEANT.items() for job in jobs])
def test_every_preset_builds(preset, job):
    settings = parsed(preset, job)
    assert (settings.preset, settings.name, settings.dry_run) == (preset, preset, False)


@pytest.mark.parametrize(("preset", "job"), LARGE)
def test_large_presets_are_estimated_from_published_sizes(nothing_at_hand, preset, job):
    settings = parsed(preset, job)
    directions = learned(settings) if job == "finetune" else ()
    speech = cost.public_speech(settings, settings.embed, splits_of(job, settings), None, directions)
    if job == "embed":
        found = cost.costs(settings, settings.embed, speech)
    else:
        found = importlib.import_module(f"xlt_ray.{job}.cost").costs(settings, speech)
    assert list(found) == (["embed"] if job == "embed" else ["embed", job])
    assert all(spent.gpu_hours > 0 and spent.num_bytes > 0 for spent in found.values())


@pytest.mark.parametrize(("preset", "job"), [(preset, job) for preset, job in LARGE if job != "translate"])
def test_large_presets_dry_run_with_nothing_at_hand(nothing_at_hand, tmp_path, capsys, preset, job):
    run(job, parsed(preset, job, "--root", tmp_path / "runs", "--dry-run"))
    output = capsys.readouterr().out
    assert f"dry run of {preset}: nothing was started or written" in output
    assert "from published sizes" in output
    assert "in all" in output
    assert not (tmp_path / "runs").exists()


def test_the_transfer_is_tested_by_the_checkpoint_that_it_leaves():
    for preset in ("transfer_large_v2", "ja_zh_large_v2"):
        made = parsed(preset, "finetune")
        test = parsed(preset.replace("_large", "_test_large"), "translate")
        assert test.translate.checkpoint == made.name
        assert test.model == made.model
        assert {"zh", "en"} == set(test.translate.targets)
    wide = parsed("transfer_test_wide_large_v2", "translate")
    assert set(wide.languages) == {*parsed("transfer_test_large_v2", "translate").languages, "ru", "ar", "hi"}
    assert wide.translate == parsed("transfer_test_large_v2", "translate").translate
    untouched = parsed("transfer_test_large_v2", "translate", "--name", "before", "--translate.checkpoint", "None")
    assert untouched.translate.checkpoint is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a manifest of tones in en and fr with zh texts, and of the tiny model."""
    folder = tmp_path_factory.mktemp("world")
    write_manifest(folder, ["en", "fr"], 3)
    texts = {"translations": {"zh": "你好"}, "split": "train"}
    rows = [row(code, k, f"{code}-{k:03d}.wav") | texts for code in ("en", "fr") for k in range(3)]
    manifest = write_rows(folder, rows)
    return ["--corpus", f"manifest:{manifest}", "--languages", "en,fr", "--model", tiny_whisper(folder / "model")]


@pytest.mark.parametrize(
    ("job", "words"),
    [("embed", []), ("retrieval", ["--retrieval.split", "all"]), ("finetune", [])],
)
def test_ones_own_corpus_is_counted_and_nothing_is_left(nothing_at_hand, tmp_path, capsys, world, job, words):
    run(job, parsed("plain", job, *world, "--root", tmp_path / "runs", "--dry-run", *words))
    output = capsys.readouterr().out
    assert "recordings counted" in output
    assert stages(output) == list(dict.fromkeys(("embed", job)))
    assert not (tmp_path / "runs").exists()


def test_nothing_more_is_said_to_be_encoded_than_is_missing(nothing_at_hand, tmp_path, capsys, world):
    """The embeddings of one job serve the dry run of another, under any name."""
    asked = parsed("plain", "embed", *world, "--root", tmp_path / "runs", "--name", "first")
    embedded.encode(plan.prepare(asked, asked.embed, asked.splits))
    capsys.readouterr()
    run("finetune", parsed("plain", "finetune", *world, "--root", tmp_path / "runs", "--dry-run"))
    output = capsys.readouterr().out
    assert "embeddings: first (same corpus, model and encoding)" in output
    assert stages(output) == ["finetune"]
    assert not (tmp_path / "runs/finetune").exists()


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        ("embed", ["--languages", "en,de"], "has no rows of language 'de'"),
        ("embed", ["--model", "nowhere"], "no model 'nowhere'"),
        ("retrieval", ["--retrieval.embeddings", "no"], "no finished embed artifact 'no'"),
        ("retrieval", [], "no recording is of split 'test'; the corpus has train; give its name .* or all for every"),
        ("finetune", ["--finetune.directions", "en-de"], "direction en-de: no en recording .* has a de text"),
        ("finetune", ["--finetune.split", "test"], "no recording is of split 'test'; the corpus has train"),
    ],
)
def test_a_dry_run_makes_the_checks_of_the_run(nothing_at_hand, tmp_path, world, job, words, message):
    with pytest.raises(UserError, match=message):
        run(job, parsed("plain", job, *world, "--root", tmp_path / "runs", "--dry-run", *words))
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_sees_a_name_that_is_taken(nothing_at_hand, tmp_path, world):
    settings = parsed("plain", "embed", *world, "--root", tmp_path)
    plan.prepare(settings, settings.embed, settings.splits).artifact.begin()
    run("embed", dataclasses.replace(settings, dry_run=True))
    other = parsed("plain", "embed", *world, "--root", tmp_path, "--dry-run", "--embed.keep-margin", "7")
    with pytest.raises(UserError, match=r"encoding\.keep_margin: 200 stored, 7 given"):
        run("embed", other)
