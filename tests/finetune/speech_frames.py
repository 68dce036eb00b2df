"""Miniature examples for training: random frames and texts, as EXAMPLE rows would give them."""

import numpy as np
import torch

from xlt_ray.finetune.batch import collate

DIM = 32


def frames(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, DIM)).astype(np.float16) for length in lengths]


def examples(lengths=(7, 12, 9, 12), seed=0):
    """Prompts, targets and frames of as many examples."""
    rng = np.random.default_rng(seed)
    prompts = [[257, 260, 358, 363] for _ in lengths]
    targets = [[*rng.integers(0, 256, 2 + length % 5).tolist(), 256] for length in lengths]
    return prompts, targets, frames(lengths, seed)


def batch(lengths=(7, 12, 9, 12), seed=0):
    torch.manual_seed(0)
    return collate(*examples(lengths, seed))
