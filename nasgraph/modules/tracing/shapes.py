# ruff: noqa: ARG001  rules have one signature
"""Output tensors, on meta, of the functions that make up most of a forward pass.

A rule takes the function's arguments and returns what it would return with empty meta tensors, or None where it is not
sure; torch's own meta kernel then decides. Rules exist for speed alone: a test holds them against the meta kernels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Args = Sequence[Any]
Keywords = Mapping[str, Any]
Rule = Callable[[Args, Keywords], Tensor | tuple[Tensor, None] | None]

_META = torch.device("meta")


def _same(args: Args, keywords: Keywords) -> Tensor | None:
    x: Tensor = args[0] if args else keywords["input"]
    if x.device != _META or not x.is_floating_point():
        return None
    return _like(x)


def _like(x: Tensor) -> Tensor:
    """`empty_like`, which takes a tenth of a millisecond on meta."""
    return torch.empty(x.shape, dtype=x.dtype, device=_META) if x.is_contiguous() else torch.empty_like(x)


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
    if isinstance(second, int | float):
        return _like(first)
    if not isinstance(second, Tensor) or second.dtype != first.dtype:
        return None
    if second.shape == first.shape or (first.is_contiguous() and _spreads(second.shape, first.shape)):
        return _like(first)
    return None


def _spreads(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether the first shape is broadcast to the second, which stays as it is."""
    return len(small) <= len(large) and all(
        one in (1, other) for one, other in zip(reversed(small), reversed(large), strict=False)
    )


def _addmm(args: Args, keywords: Keywords) -> Tensor | None:
    if len(args) != 3 or keywords:
        return None
    bias, x, weight = args
    if x.device != _META or x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        return None
    shape = (x.shape[0], weight.shape[1])
    if not x.dtype == weight.dtype == bias.dtype or not _spreads(bias.shape, shape):
        return None
    return torch.empty(shape, dtype=x.dtype, device=_META)


def _adaptive_mean(args: Args, keywords: Keywords) -> Tensor | None:
    x, size = args[0], args[1] if len(args) > 1 else keywords.get("output_size")
    sides = (size, size) if isinstance(size, int) else size
    if x.device != _META or x.ndim != 4 or not isinstance(sides, tuple) or not x.is_contiguous():
        return None
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        return None
    return torch.empty((*x.shape[:2], *sides), dtype=x.dtype, device=_META)


def _packed_attention(args: Args, keywords: Keywords) -> tuple[Tensor, None] | None:
    """`multi_head_attention_forward` without its weights; torch's own way takes twenty functions and 8 ms on meta."""
    if len(args) < 5 or keywords.get("need_weights", True) or keywords.get("out_proj_weight") is not None:
        return None
    query, key, value, width, heads = args[:5]
    fits = (
        all(x.device == _META and x.ndim == 3 for x in (query, key, value))
        and query.shape[1:] == (key.shape[1], width)
        and key.shape[:2] == value.shape[:2]
        and width % heads == 0
        and len(args) > 12
        and query.dtype == args[5 if args[5] is not None else 11].dtype
    )
    if not fits:
        return None
    return torch.empty((*query.shape[:2], args[11].shape[0]), dtype=query.dtype, device=_META), None


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


def _cat(args: Args, keywords: Keywords) -> Tensor | None:
    tensors = args[0] if args else keywords.get("tensors")
    axis = args[1] if len(args) > 1 else keywords.get("dim", keywords.get("axis", 0))
    if not isinstance(tensors, list | tuple) or not tensors or not isinstance(axis, int):
        return None
    first: Tensor = tensors[0]
    rank = first.ndim
    if not -rank <= axis < rank or not first.is_floating_point():
        return None
    axis %= rank
    around = (first.shape[:axis], first.shape[axis + 1 :])
    for x in tensors:
        is_plain = rank not in (4, 5) or x.is_contiguous()  # pictures may have their channels last
        fits = x.ndim == rank and x.dtype == first.dtype and is_plain
        if not fits or (x.shape[:axis], x.shape[axis + 1 :]) != around:
            return None
    length = sum(x.shape[axis] for x in tensors)
    return torch.empty((*around[0], length, *around[1]), dtype=first.dtype, device=_META)


def _max_pool2d(args: Args, keywords: Keywords) -> Tensor | None:
    """Windows given by numbers, without positions of the maxima."""
    x: Tensor = args[0]
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = dict(zip(names, args[1:], strict=False)) | dict(keywords)
    kernel = given["kernel_size"]
    pairs = [
        (n, n) if isinstance(n, int) else n
        for n in (kernel, given.get("stride") or kernel, given.get("padding", 0), given.get("dilation", 1))
    ]
    unusual = given.get("ceil_mode") or given.get("return_indices")
    if (
        unusual
        or x.device != _META
        or x.ndim != 4
        or not x.is_contiguous()
        or any(len(p) != 2 for p in pairs)
    ):
        return None
    sides = [
        (size + 2 * padding - dilation * (window - 1) - 1) // stride + 1
        for size, window, stride, padding, dilation in zip(x.shape[2:], *pairs, strict=True)
    ]
    if min(sides) < 1 or any(2 * p > k for p, k in zip(pairs[2], pairs[0], strict=True)):
        return None
    return torch.empty((*x.shape[:2], *sides), dtype=x.dtype, device=_META)


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
    return torch.empty(
        (x.shape[0], weight.shape[2]), dtype=keywords.get("out_dtype") or x.dtype, device=_META
    )


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
    **dict.fromkeys(("add", "sub", "mul", "div", "pow"), _binary),
    "addmm": _addmm,
    "cat": _cat,
    "max_pool2d": _max_pool2d,
    "adaptive_avg_pool2d": _adaptive_mean,
    "multi_head_attention_forward": _packed_attention,
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"), _contiguous),
    "softmax": _softmax,
    "linear": _linear,
    "conv2d": _conv2d,
    "scaled_dot_product_attention": _attention,
}
