# ruff: noqa: ARG001  rules have one signature
"""Output tensors, on meta, of the functions that make up most of a forward pass.

A rule takes the function's arguments and returns an empty meta tensor, or None where it is not sure; torch's own
meta kernel then decides. Rules exist for speed alone: a test holds them against the meta kernels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Args = Sequence[Any]
Keywords = Mapping[str, Any]
Rule = Callable[[Args, Keywords], Tensor | None]

_META = torch.device("meta")


def _same(args: Args, keywords: Keywords) -> Tensor | None:
    x: Tensor = args[0] if args else keywords["input"]
    if x.device != _META or not x.is_floating_point():
        return None
    return torch.empty_like(x)


def _contiguous(args: Args, keywords: Keywords) -> Tensor | None:
    x: Tensor = args[0] if args else keywords["input"]
    if x.device != _META or not x.is_floating_point():
        return None
    return torch.empty(x.shape, dtype=x.dtype, device=_META)


def _softmax(args: Args, keywords: Keywords) -> Tensor | None:
    return None if keywords.get("dtype") is not None else _same(args, {})


def _linear(args: Args, keywords: Keywords) -> Tensor | None:
    if len(args) < 2:
        return None
    x, weight = args[0], args[1]
    if x.device != _META or weight.ndim != 2 or x.dtype != weight.dtype or x.shape[-1] != weight.shape[1]:
        return None
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=_META)


def _conv2d(args: Args, keywords: Keywords) -> Tensor | None:
    if len(args) < 7:  # torch.nn passes all seven by position
        return None
    x, weight, bias, stride, padding, dilation, groups = args[:7]
    fits = (
        x.device == _META
        and x.ndim == weight.ndim == 4
        and x.dtype == weight.dtype
        and not isinstance(padding, str)
        and all(isinstance(setting, tuple) and len(setting) == 2 for setting in (stride, padding, dilation))
        and x.shape[1] == weight.shape[1] * groups
        and (bias is None or bias.shape == weight.shape[:1])
    )
    if not fits:
        return None
    sides = [
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    if min(sides) < 1:
        return None
    return torch.empty((x.shape[0], weight.shape[0], *sides), dtype=x.dtype, device=_META)


def _binary(args: Args, keywords: Keywords) -> Tensor | None:
    if keywords or len(args) != 2 or not isinstance(args[0], Tensor):
        return None
    first, second = args
    if first.device != _META or not first.is_floating_point():
        return None
    if isinstance(second, int | float) or (
        isinstance(second, Tensor) and second.shape == first.shape and second.dtype == first.dtype
    ):
        return torch.empty_like(first)
    return None


def _attention(args: Args, keywords: Keywords) -> Tensor | None:
    if len(args) < 3 or keywords.get("enable_gqa"):
        return None
    query, key, value = args[:3]
    fits = (
        all(x.device == _META and x.ndim == 4 for x in (query, key, value))
        and query.shape[:2] == key.shape[:2] == value.shape[:2]
        and query.shape[-1] == key.shape[-1]
        and key.shape[-2] == value.shape[-2]
    )
    if not fits:
        return None
    # Torch's fused kernels give a tensor whose heads lie beside each other once transposed back.
    batch, heads, tokens, _ = query.shape
    out = torch.empty((batch, tokens, heads, value.shape[-1]), dtype=query.dtype, device=_META)
    return out.transpose(1, 2)


def _histc(args: Args, keywords: Keywords) -> Tensor | None:
    """Torch has no meta kernel for it."""
    x: Tensor = args[0] if args else keywords["input"]
    bins = args[1] if len(args) > 1 else keywords.get("bins", 100)
    return torch.empty((bins,), dtype=x.dtype, device=_META)


def _grouped_mm(args: Args, keywords: Keywords) -> Tensor | None:
    """Rows of a matrix in groups, each times a matrix of its own. Torch's meta kernel takes bfloat16 only."""
    x, weight = args[0], args[1] if len(args) > 1 else keywords.get("mat_b")
    if not isinstance(weight, Tensor) or (x.ndim, weight.ndim) != (2, 3) or x.shape[1] != weight.shape[1]:
        return None
    return torch.empty((x.shape[0], weight.shape[2]), dtype=keywords.get("out_dtype") or x.dtype, device=_META)


SHAPES: Mapping[str, Rule] = {
    **dict.fromkeys(("grouped_mm", "_grouped_mm"), _grouped_mm),
    "histc": _histc,
    **dict.fromkeys(
        (
            "relu",
            "gelu",
            "silu",
            "sigmoid",
            "tanh",
            "leaky_relu",
            "elu",
            "hardswish",
            "hardsigmoid",
            "mish",
            "softplus",
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            "relu6",
            "hardtanh",
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "dropout1d",
            "dropout2d",
            "dropout3d",
        ),
        _same,
    ),
    **dict.fromkeys(("add", "sub", "mul", "div"), _binary),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"), _contiguous),
    "softmax": _softmax,
    "linear": _linear,
    "conv2d": _conv2d,
    "scaled_dot_product_attention": _attention,
}
