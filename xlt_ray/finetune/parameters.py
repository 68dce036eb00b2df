"""Which weights of the decoder train, by their names and shapes alone: no weight is read, nor transformers imported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from xlt_ray.models.files import read_json
from xlt_ray.models.shapes import EMBEDDING, OUTPUT, expected_shapes

if TYPE_CHECKING:
    from xlt_ray.finetune.config import FinetuneConfig

EMBEDDINGS = (EMBEDDING, OUTPUT)  # one and the same in most models
ADAPTED = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Layers that LoRA adapts."""
GROUP_WEIGHTS = 1 << 25
"""Weights that EWC pulls at a time: 268 MB of fp32 are computed on the way."""


def count_parameters(model_dir: Path, config: FinetuneConfig) -> tuple[int, int]:
    """How many weights train, and how many the decoder has."""
    shapes = expected_shapes(read_json(model_dir / "config.json"))
    decoder = {name: shape for name, shape in shapes.items() if name.startswith("model.decoder.") or name == OUTPUT}
    total = sum(map(math.prod, decoder.values()))
    if config.lora_rank is not None:
        adapted = [shape for name, shape in decoder.items() if name.split(".")[-2] in ADAPTED and len(shape) == 2]
        own = sum(math.prod(decoder[name]) for name in EMBEDDINGS if name in decoder and config.train_embeddings)
        return own + config.lora_rank * sum(map(sum, adapted)), total
    left_out = () if config.train_embeddings else EMBEDDINGS
    return total - sum(math.prod(decoder[name]) for name in left_out if name in decoder), total
