"""What makes a retrieval run another run."""

import dataclasses

from ray_speech import write_manifest
from tiny import tiny_whisper

from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval import plan
from xlt_ray.retrieval.config import RetrievalJob


def test_how_frames_are_pooled_counts_where_candidates_are_found_by_them(tmp_path, monkeypatch):
    corpus = f"manifest:{write_manifest(tmp_path, ['en', 'fr'], 2)}"
    words = ["--corpus", corpus, "--languages", "en,fr", "--root", tmp_path / "runs"]
    job = cli.parse(RetrievalJob, [*map(str, words), "--model", str(tiny_whisper(tmp_path / "model"))], PRESETS)
    found = {}
    for candidates in (None, 2):
        asked = dataclasses.replace(job, retrieval=dataclasses.replace(job.retrieval, candidates=candidates))
        for pool_frames in (plan.POOL_FRAMES, plan.POOL_FRAMES + 1):
            monkeypatch.setattr(plan, "POOL_FRAMES", pool_frames)
            found.setdefault(candidates, []).append(plan.prepare(asked).artifact.fingerprint)
            monkeypatch.undo()
    assert found[None][0] == found[None][1]
    assert found[2][0] != found[2][1]
