"""Ray Data's rules for GPU actors are other than for CPU actors; a logical GPU is enough to break them."""

import pytest
import ray
from ray_speech import write_manifest
from tiny import tiny_whisper

from xlt_ray.embed import pipeline as embed
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.job import pools
from xlt_ray.retrieval import pipeline
from xlt_ray.retrieval.config import RetrievalConfig, RetrievalJob
from xlt_ray.retrieval.plan import prepare

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def one_gpu(several_cpus, monkeypatch):
    """A Ray of 2 CPUs that says it has a GPU; what makes no progress for a minute fails."""
    assert pools.Pool(0.5, 0.5, 0.5, 1, 1).device == "cuda"
    assert pools.Pool(0.9, 0, 0.1, 1, 1).device == "cpu"
    monkeypatch.setattr(pools.Pool, "device", "cpu")  # there is no such GPU
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = 60
    yield
    ray.shutdown()


def test_a_whole_job_on_half_a_gpu_an_actor(one_gpu, tmp_path):
    manifest = write_manifest(tmp_path, ["en", "fr"], 5)
    job = RetrievalJob(
        root=str(tmp_path / "runs"),
        corpus=f"manifest:{manifest}",
        languages=("en", "fr"),
        model=str(tiny_whisper(tmp_path / "model")),
        embed=EmbedConfig(rows_per_shard=2, num_gpus=0.5),
        retrieval=RetrievalConfig(strip_utterances=2, num_gpus=1),
    )
    assert pools.pool("embed", 0.5, None, 9).num_cpus == 0.5
    plan = prepare(job)
    embeddings = embed.embed(plan.embeddings)
    counts = {file["path"]: file["rows"] for file in embeddings.read_json("manifest.json")["files"]}
    expected = {(code, n): rows for code in ("en", "fr") for n, rows in enumerate((2, 2, 1))}
    assert counts == {f"data/{code}-rows-{n:05d}.parquet": rows for (code, n), rows in expected.items()}
    assert pipeline.retrieve(plan).read_json("metrics.json")["pairs"]["en-fr"]["num_queries"] == 5
