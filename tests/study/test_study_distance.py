import pytest
import torch
from safetensors.torch import save
from tiny import tiny_whisper

from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.models import decoder
from xlt_ray.store import artifacts
from xlt_ray.study.pipeline import _distance


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"train_embeddings": True}])
def test_the_distance_is_over_the_weights_that_a_run_changes(tmp_path, settings):
    """With adapters too, which have no Fisher of their own."""
    model = tiny_whisper(tmp_path / "model")
    names = [name for name, _ in decoder.load_decoder(model).named_parameters()]
    generator = torch.Generator().manual_seed(0)
    made, fishers = [], []
    for task in ("en-zh", "fr-zh"):
        values = {name: torch.rand(3, generator=generator) for name in names}
        artifact = artifacts.plan(str(tmp_path), "fisher", task, {}, {})
        artifact.begin()
        artifact.write_bytes("fisher.safetensors", save(values))
        artifact.merge_rejected()
        artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=0, others=["fisher.safetensors"])
        made.append(artifact)
        kept = [of for name, of in values.items() if settings.get("train_embeddings") or "embed_tokens" not in name]
        fishers.append(torch.cat(kept).double())
    first, second = (of / of.sum() for of in fishers)
    expected = 0.5 * (first.sqrt() - second.sqrt()).square().sum().item()
    assert _distance(*made, str(model), FinetuneConfig(**settings)) == pytest.approx(expected, abs=1e-6)
