"""What a worker holds of the examples, of which there may be hundreds of thousands."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import torch

from xlt_ray.finetune import worker
from xlt_ray.store.schema import EXAMPLE

NUM, NUM_TOKENS = 5000, 40


@pytest.fixture
def table():
    targets = np.random.default_rng(0).integers(300, 50_000, (NUM, NUM_TOKENS), dtype=np.int32)
    columns = {
        "utterance_id": ["u"] * NUM,
        "direction": ["en-zh"] * NUM,
        "role": ["learn"] * NUM,
        "shard": ["s"] * NUM,
        "row": range(NUM),
        "num_frames": [5] * NUM,
        "prompt": [[1, 2, 3, 4]] * NUM,
        "target": [*targets[1:], targets[0, :7]],
    }
    return pa.table({name: pa.array(values, EXAMPLE.field(name).type) for name, values in columns.items()}, EXAMPLE)


class One:
    """A single worker."""

    rank, world_size, device = 0, 1, torch.device("cpu")


def test_the_tokens_of_all_examples_are_counted_without_being_held(table, monkeypatch):
    monkeypatch.setattr(worker.reading, "in_order", lambda items: iter(()))
    tracemalloc.start()
    step = next(worker._read_steps(table, [np.array([0, NUM - 1])], 0, One(), None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (step.num_tokens, step.num_examples) == (NUM_TOKENS + 7, 2)
    assert peak < 300 * NUM  # a place of each: as Python numbers, its tokens would take 1,500 bytes
