"""The mean of the files that the estimators of a Fisher leave."""

from types import SimpleNamespace

import pytest
import ray
import torch
from safetensors.torch import load, save
from tiny import tiny_whisper

from xlt_ray.finetune import fisher
from xlt_ray.finetune.config import FinetuneJob
from xlt_ray.finetune.cost import averaging_memory
from xlt_ray.job import pools
from xlt_ray.models.size import ModelSize
from xlt_ray.store import artifacts


def test_it_is_over_all_examples_where_there_is_memory_for_it(tmp_path, monkeypatch):
    model, asked = tiny_whisper(tmp_path / "model"), []
    artifact = artifacts.plan(str(tmp_path), "fisher", "mine", {}, {})
    artifact.begin()
    for unit, value in enumerate((1.0, 5.0)):
        artifact.write_bytes(f"partial/{unit:08d}.safetensors", save({"weight": torch.tensor([value, 0.0])}))

    def pool(stage, num_gpus, max_actors, num_units, needed):
        return pools.Pool(0.9, num_gpus, 0.1, 1, num_units, memory=needed("cpu"))

    def remote(**options):
        asked.append(options)
        return lambda task: SimpleNamespace(remote=task)

    monkeypatch.setattr(pools, "pool", pool)
    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "get", lambda value: value)
    figures = fisher._average(artifact, FinetuneJob(model=str(model)), 4)
    assert figures == {"num_examples": 4, "trace": 1.5, "largest": 1.5}
    kept = load((tmp_path / "fisher" / "mine" / "fisher.safetensors").read_bytes())
    assert kept["weight"].tolist() == pytest.approx([1.5, 0.0])
    assert asked == [{"num_cpus": 0.9, "num_gpus": 0, "memory": averaging_memory(ModelSize.read(model))}]
