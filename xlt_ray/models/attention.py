"""Attention with kernels that need no planning for a new shape."""

from __future__ import annotations

import contextlib

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    shape_repeats: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention`; on a GPU, cuDNN is used only if the shape repeats.

    cuDNN is the fastest, but needs 70 ms to plan every new shape. Recordings of 1 to 15 s have many different shapes:
    with cuDNN, a large encoder on an H100 encoded 74 of them per second, without it 400 (benchmarks/gpu.py).

    Args:
        query: (batch, heads, length, dim).
        key: (batch, heads, num_keys, dim).
        value: the same.
        mask: bool, True for visible keys; broadcast to (batch, heads, length, num_keys).
        is_causal: whether a position sees only itself and earlier ones.
        scale: of the products; None: 1 / sqrt(dim).
        shape_repeats: whether the same shape is used again and again.
    """
    chosen = sdpa_kernel(_KERNELS) if query.is_cuda and not shape_repeats else contextlib.nullcontext()
    with chosen:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal, scale=scale)
