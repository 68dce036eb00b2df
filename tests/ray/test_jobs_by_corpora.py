"""Every job on every kind of corpus, in miniature trees of the exact formats; one Ray for all."""

import contextlib
import json
import os
import runpy
import time

import pyarrow.parquet as pq
import pytest
import worlds
from tiny import tiny_whisper

from xlt_ray.job import cli, cluster
from xlt_ray.presets import PRESETS

pytestmark = [pytest.mark.ray, pytest.mark.wide, pytest.mark.timeout(1800)]

FAST = ["--embed.encoding", "trimmed", "--embed.context-margin", "0", "--embed.keep-margin", "0"]
BRIEF = ["--finetune.epochs", "1", "--finetune.batch-size", "20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a job in this process, on one Ray."""
    folder = tmp_path_factory.mktemp("jobs")
    os.environ["MPLBACKEND"] = "Agg"
    model = tiny_whisper(folder / "model")
    monkeypatch = pytest.MonkeyPatch()

    def run_job(job, root, *words):
        flags = ["--root", root, *words] if job == "report" else ["--root", root, "--model", model, *FAST, *words]
        started = time.monotonic()
        runpy.run_path(f"jobs/{job}.py")["main"](cli.parse(worlds.JOBS[job], [str(word) for word in flags], PRESETS))
        print(f"{job}: {time.monotonic() - started:.1f} s")

    with cluster.cluster(with_state_api=True):
        monkeypatch.setattr(cluster, "cluster", lambda **_: contextlib.nullcontext())
        yield run_job
        monkeypatch.undo()


def flags_of(world):
    return {
        "embed": [],
        "retrieval": ["--name", "found"],
        "finetune": [
            *("--name", "tuned", "--finetune.directions", world.learn, "--finetune.evaluate-every", "1"),
            *("--finetune.evaluate", world.keep),
        ],
        "translate": ["--name", "after", "--translate.checkpoint", "tuned", "--translate.max-tokens", "8"],
        "tune": [
            *("--name", "search", "--finetune.directions", world.learn, "--finetune.evaluate", world.keep),
            *("--tune.learning-rate", "1e-4", "--tune.ewc-lambda", "0,10", "--tune.num-chosen", "1"),
            *("--finetune.evaluate-every", "1"),
        ],
        "study": ["--name", "study", "--study.sources", ",".join(world.sources), "--study.target", world.target],
    }


def metrics_of(root, stage, name):
    assert (root / stage / name / "manifest.json").exists()
    return json.loads((root / stage / name / "metrics.json").read_text())


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_every_job_runs(run, tmp_path, kind):
    world = worlds.KINDS[kind](tmp_path / "corpus")
    root = tmp_path / "runs"
    for job, flags in flags_of(world).items():
        brief = BRIEF if job in ("finetune", "tune", "study") else []
        run(job, root, "--corpus", world.spec, "--languages", ",".join(world.languages), *brief, *flags)
    run("report", root, "--name", "page")
    # One embed artifact serves all of them: each recording was encoded once.
    assert [path.name for path in (root / "embed").iterdir()] == ["plain"]
    index = pq.read_table(root / "embed/plain/index.parquet")
    assert len(set(index["utterance_id"].to_pylist())) == index.num_rows
    assert metrics_of(root, "retrieval", "found")["pairs"]
    assert world.learn in metrics_of(root, "translate", "after")["directions"]
    assert len(metrics_of(root, "tune", "search")["trials"]) == 2
    assert metrics_of(root, "study", "study")["sources"] == sorted(world.sources)
    assert (root / "report/page/index.html").exists()
