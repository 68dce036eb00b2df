import shutil
from types import SimpleNamespace

import pytest
import ray
import torch
from safetensors.torch import save
from tiny import tiny_whisper

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.job import pools
from xlt_ray.models import decoder
from xlt_ray.models.size import ModelSize
from xlt_ray.store import artifacts
from xlt_ray.study import pipeline
from xlt_ray.study.cost import distance_memory


def written(root, names):
    """The Fishers of two tasks, and what they hold."""
    generator = torch.Generator().manual_seed(0)
    for task in ("en-zh", "fr-zh"):
        values = {name: torch.rand(3, generator=generator) for name in names}
        artifact = artifacts.plan(str(root), "fisher", task, {}, {})
        artifact.begin()
        artifact.write_bytes("fisher.safetensors", save(values))
        artifact.merge_rejected()
        artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0, others=["fisher.safetensors"])
        yield artifact, values


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"train_embeddings": True}])
def test_the_distance_is_over_the_weights_that_a_run_changes(tmp_path, monkeypatch, settings):
    """With adapters too, which have no Fisher of their own. The task may run where the model of the driver is not."""
    model = tiny_whisper(tmp_path / "model")
    made = list(written(tmp_path, [name for name, _ in decoder.load_decoder(model).named_parameters()]))

    def elsewhere(tasks):
        shutil.rmtree(model)
        return [task() for task in tasks]

    monkeypatch.setattr(pools, "pool", lambda stage, num_gpus, *_: pools.Pool(0.9, num_gpus, 0.1, 1, 1))
    monkeypatch.setattr(
        ray, "remote", lambda **_: lambda task: SimpleNamespace(remote=lambda *given: lambda: task(*given))
    )
    monkeypatch.setattr(ray, "get", elsewhere)
    job = SimpleNamespace(sources=("en", "fr"), model=str(model), finetune=FinetuneConfig(**settings))
    runs = dict.fromkeys(job.sources, SimpleNamespace(model_dir=model))
    fishers = {source: artifact for source, (artifact, _) in zip(job.sources, made, strict=True)}
    found = pipeline._distances(SimpleNamespace(job=job, runs=runs, fishers=fishers))
    first, second = (
        torch.cat(
            [
                squares
                for name, squares in values.items()
                if settings.get("train_embeddings") or "embed_tokens" not in name
            ]
        ).double()
        for _, values in made
    )
    expected = 0.5 * ((first / first.sum()).sqrt() - (second / second.sum()).sqrt()).square().sum().item()
    assert found["en", "fr"] == found["fr", "en"] == pytest.approx(expected, abs=1e-6)


def test_every_distance_asks_for_the_memory_of_two_fishers(tmp_path, monkeypatch):
    """All pairs are submitted at once, so the memory that each asks for decides how many are computed at a time."""
    model, asked = tiny_whisper(tmp_path / "model"), []

    def pool(stage, num_gpus, max_actors, num_units, needed):
        return pools.Pool(0.9, num_gpus, 0.1, 1, num_units, memory=needed("cpu"))

    def remote(**options):
        return lambda task: SimpleNamespace(remote=lambda *given: asked.append(options) or float(len(asked)))

    monkeypatch.setattr(pools, "pool", pool)
    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "get", list)
    sources, config = ("de", "en", "fr"), FinetuneConfig()
    job = SimpleNamespace(sources=sources, model=str(model), finetune=config)
    runs = {source: SimpleNamespace(model_dir=model) for source in sources}
    found = pipeline._distances(SimpleNamespace(job=job, runs=runs, fishers=dict.fromkeys(sources)))
    assert found["de", "en"] == found["en", "de"] == 1.0
    assert asked == [{"num_cpus": 0.9, "num_gpus": 0, "memory": distance_memory(ModelSize.read(model), config)}] * 3
