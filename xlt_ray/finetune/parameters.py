"""Counts the weights to train from names and shapes only, without reading weights or importing transformers."""

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
"""Weights that EWC processes at a time: intermediate results take 268 MB in fp32."""


def count_parameters(model_dir: Path, config: FinetuneConfig) -> tuple[int, int]:
    """The number of trained weights, and of all weights of the decoder."""
    shapes = expected_shapes(read_json(model_dir / "config.json"))
    decoder = {name: shape for name, shape in shapes.items() if name.startswith("model.decoder.") or name == OUTPUT}
    total = sum(map(math.prod, decoder.values()))
    if config.lora_rank is not None:
        adapted = [shape for name, shape in decoder.items() if name.split(".")[-2] in ADAPTED and len(shape) == 2]
        own = sum(math.prod(decoder[name]) for name in EMBEDDINGS if name in decoder and config.train_embeddings)
        return own + config.lora_rank * sum(map(sum, adapted)), total
    left_out = () if config.train_embeddings else EMBEDDINGS
    return total - sum(math.prod(decoder[name]) for name in left_out if name in decoder), total
