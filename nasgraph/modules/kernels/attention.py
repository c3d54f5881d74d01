# ruff: noqa: ARG001  every kernel has the same signature, and most need only a part of it
"""Scaled dot-product attention.

Shape letters: B = batch, ... = further axes, H = heads, T = queries, S = keys, D = size of a head.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    number,
    one_batch,
    whole,
)


def _attention(node: int, attrs: Attrs) -> Kernel:
    heads, causal = whole(attrs, "num_heads"), bool(attrs["causal"])
    scale = number(attrs, "scale") or None

    def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
        query, key, value = one_batch(inputs if inputs[-1].shape[0] > 1 else inputs[:3])[:3]
        # Without further axes one head gets an axis too: torch has its fast kernels for four axes.
        split = heads > 1 or query.dim() == 3
        if split:
            query, key, value = (_split(x, heads) for x in (query, key, value))
        mask = _mask(inputs[3], query, key) if len(inputs) > 3 else None
        if mask is not None and causal:
            mask = _causal(mask)
        out = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=causal and mask is None, scale=scale
        )
        return out.transpose(-2, -3).flatten(-2) if split else out

    return run


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, ..., T, H * D] -> [B, ..., H, T, D]."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-2, -3)


def _mask(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask with as many axes as the scores [B, ..., H, T, S]: where attended, or what is added."""
    if mask.dim() < query.dim():
        mask = mask.unsqueeze(-3)
    mask = mask if mask.is_floating_point() else mask != 0
    return mask.expand(*mask.shape[:-2], query.shape[-2], key.shape[-2])


def _causal(mask: Tensor) -> Tensor:
    """The mask that also hides what comes after each query."""
    seen = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).tril()
    return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)


ATTENTION: Mapping[str, KernelMaker] = {"attention": _attention}
