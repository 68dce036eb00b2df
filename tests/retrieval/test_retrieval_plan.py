"""What makes a retrieval run another run."""

import dataclasses
import json
from pathlib import Path

import pytest
from ray_speech import write_manifest
from tiny import tiny_whisper

from xlt_ray.errors import UserError
from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval import plan
from xlt_ray.retrieval.config import RetrievalJob


@pytest.fixture
def job(tmp_path):
    corpus = f"manifest:{write_manifest(tmp_path, ['en', 'fr'], 2)}"
    words = ["--corpus", corpus, "--languages", "en,fr", "--root", tmp_path / "runs"]
    return cli.parse(RetrievalJob, [*map(str, words), "--model", str(tiny_whisper(tmp_path / "model"))], PRESETS)


def test_how_frames_are_pooled_counts_where_candidates_are_found_by_them(job, monkeypatch):
    found = {}
    for candidates in (None, 2):
        asked = dataclasses.replace(job, retrieval=dataclasses.replace(job.retrieval, candidates=candidates))
        for pool_frames in (plan.POOL_FRAMES, plan.POOL_FRAMES + 1):
            monkeypatch.setattr(plan, "POOL_FRAMES", pool_frames)
            found.setdefault(candidates, []).append(plan.prepare(asked).artifact.fingerprint)
            monkeypatch.undo()
    assert found[None][0] == found[None][1]
    assert found[2][0] != found[2][1]


def test_a_run_that_ranked_baselines_among_candidates_is_not_continued(job):
    assert "baselines_over" not in plan.prepare(job).artifact.identity["retrieval"]
    asked = dataclasses.replace(job, retrieval=dataclasses.replace(job.retrieval, candidates=2))
    artifact = plan.prepare(asked).artifact
    artifact.begin()
    assert plan.prepare(asked).artifact.fingerprint == artifact.fingerprint
    path = Path(artifact.path("config.json"))
    config = json.loads(path.read_text())
    del config["identity"]["retrieval"]["baselines_over"]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"made with other settings .*baselines_over"):
        plan.prepare(asked)
