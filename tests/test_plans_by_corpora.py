"""Every job on every kind of corpus, up to where Ray would start: each plan is made, and nothing is written.

`make corpora` runs the jobs themselves on all of them (tests/ray/test_jobs_by_corpora.py), which takes about an hour.
"""

import importlib

import pytest
import worlds
from tiny import tiny_whisper

from xlt_ray.embed import plan as embed
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=worlds.KINDS)
def world(request, tmp_path_factory):
    return worlds.KINDS[request.param](tmp_path_factory.mktemp("world") / "corpus")


def flags_of(job, world):
    learn = ["--finetune.directions", world.learn, "--finetune.evaluate", world.keep, "--finetune.evaluate-every", "1"]
    study = ["--study.sources", ",".join(world.sources), "--study.target", world.target]
    return {"finetune": learn, "tune": learn, "study": study}.get(job, [])


@pytest.mark.parametrize("job", [job for job in worlds.JOBS if job != "report"])
def test_every_job_is_planned(world, model, tmp_path, job):
    words = ["--corpus", world.spec, "--languages", ",".join(world.languages), "--model", model, "--root", tmp_path]
    settings = cli.parse(worlds.JOBS[job], [*map(str, words), *flags_of(job, world)], PRESETS)
    if job == "embed":
        made = [embed.prepare(settings, settings.embed, settings.splits)]
    else:
        plan = importlib.import_module(f"xlt_ray.{job}.plan").prepare(settings)
        made = [one.embeddings for one in (plan if isinstance(plan, list) else [plan])]
    assert all(one.work.missing.num_rows for one in made)
    assert all(one.rows(split).num_rows for one in made for split in one.splits)
    assert not list(tmp_path.iterdir())
