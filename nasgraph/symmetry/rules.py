"""What each operator demands of the axes that it reads, and the axes that it gives.

A rule is sound if the operator commutes with every permutation that its demands leave open. It need not find all of them: where in
doubt it fixes an axis. An operator without a rule fixes all.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nasgraph.ir.op import whole, wholes
from nasgraph.symmetry.demands import (
    ORDER,
    SPACE,
    Rule,
    Step,
    Value,
    broadcast,
    fixed,
    merge_axes,
)
from nasgraph.symmetry.loose import Loose, reshaped
from nasgraph.symmetry.rules_convolution import CONVOLUTIONS
from nasgraph.symmetry.rules_layers import LAYERS
from nasgraph.symmetry.units import Axis, Ledger


def _source(step: Step) -> Value:
    return fixed(step.shape)


def _parameter(step: Step) -> Value:
    value = tuple(step.ledger.fresh(size) if size > 1 else None for size in step.shape)
    step.own("weight", *value, reason="a single place")
    return value


def _same(step: Step) -> Value:
    return step.inputs[0]


# ---- joining


def _joined(step: Step) -> Value:
    return broadcast(step.ledger, step.inputs, step.shapes, step.op)


def _prelu(step: Step) -> Value:
    data, slope = step.inputs
    if step.shapes[1] == step.shapes[0][:1]:
        channel = step.ledger.unify(data[0], slope[0], "joined by 'prelu' with an axis that is fixed")
        return (channel, *data[1:])
    return data


# ---- pooling, reductions


def _pool(step: Step) -> Value:
    for axis in step.inputs[0][1:]:
        step.ledger.fix(axis, SPACE)
    return (step.inputs[0][0], *fixed(step.shape[1:]))


def _global_pool(step: Step) -> Value:
    return step.inputs[0][:1]


def _pixel_shuffle(step: Step) -> Value:
    channels, *space = step.inputs[0]
    for axis in space:
        step.ledger.fix(axis, SPACE)
    if channels is None:
        return fixed(step.shape)
    blocks = channels.reshape(step.shape[0], -1)
    step.ledger.join(blocks)
    return (step.ledger.attached(blocks[:, 0]), None, None)


def _reduce(step: Step) -> Value:
    axes = wholes(step.attrs, "axes") if "axes" in step.attrs else (whole(step.attrs, "axis"),)
    kept = [None if place in axes else axis for place, axis in enumerate(step.inputs[0])]
    if step.attrs["keepdims"]:
        return tuple(kept)
    return tuple(axis for place, axis in enumerate(kept) if place not in axes)


def _ordered(step: Step) -> Value:
    """An operator for which the order along its attribute `axis` has a meaning."""
    place = whole(step.attrs, "axis")
    step.ledger.fix(step.inputs[0][place], ORDER)
    return tuple(None if other == place else axis for other, axis in enumerate(step.inputs[0]))


# ---- structure


def _concat(step: Step) -> Value:
    place = whole(step.attrs, "axis")
    result: list[Axis] = []
    for other in range(len(step.shape)):
        if other == place:
            axes = [value[other] for value in step.inputs]
            result.append(_chain(step.ledger, axes, [shape[other] for shape in step.shapes]))
            continue
        common = step.inputs[0][other]
        for value in step.inputs[1:]:
            common = step.ledger.unify(common, value[other], "joined by 'concat' with an axis that is fixed")
        result.append(common)
    return tuple(result)


def _chain(ledger: Ledger, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    if all(axis is None for axis in axes):
        return None
    parts = []
    for axis, size in zip(axes, sizes, strict=True):
        if axis is None:
            axis = ledger.fresh(size)
            ledger.fix(axis, "reads a part of an axis that is fixed")
        parts.append(axis)
    return np.concatenate(parts)


def _permute(step: Step) -> Value:
    return tuple(step.inputs[0][axis] for axis in wholes(step.attrs, "order"))


def _slice(step: Step) -> Value:
    place = whole(step.attrs, "axis")
    start, stop, by = (whole(step.attrs, name) for name in ("start", "stop", "step"))
    return tuple(
        np.ascontiguousarray(axis[start:stop:by]) if other == place and axis is not None else axis
        for other, axis in enumerate(step.inputs[0])
    )


def _expand(step: Step) -> Value:
    """Along a repeated axis all places are alike: they may move freely."""
    pairs = zip(step.inputs[0], step.shapes[0], step.shape, strict=True)
    return tuple(axis if before == after else step.ledger.fresh(after) for axis, before, after in pairs)


def _pad(step: Step) -> Value:
    amounts, ledger = wholes(step.attrs, "amounts"), step.ledger
    result: list[Axis] = []
    for place, axis in enumerate(step.inputs[0]):
        before, after = amounts[2 * place : 2 * place + 2]
        if not before and not after:
            result.append(axis)
        elif step.attrs["mode"] == "constant" and axis is not None:  # what is added is the same everywhere
            result.append(np.concatenate([ledger.fresh(before), axis, ledger.fresh(after)]))
        else:
            ledger.fix(axis, SPACE)
            result.append(None)
    return tuple(result)


def _take(step: Step) -> Value:
    place = whole(step.attrs, "axis")
    step.ledger.fix(step.inputs[0][place], ORDER)
    return tuple(None if other == place else axis for other, axis in enumerate(step.inputs[0]))


def _flatten(step: Step) -> Value:
    return (merge_axes(step.ledger, step.inputs[0], step.shapes[0]),)


def _reshape(step: Step) -> Value:
    value = reshaped(step)
    return value.settled(step.ledger) if isinstance(value, Loose) else value


_ELEMENTWISE = (
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "sigmoid", "log_sigmoid", "tanh", "softsign", "softplus", "softmax", "log_softmax"),
    *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "neg", "sign", "reciprocal"),
    *("floor", "round", "sin", "cos", "tan", "atan", "erf", "affine", "power_scalar", "clamp"),
    *("compare_scalar", "cast", "dropout", "drop_path", "identity", "zero"),
)
_JOINING = ("add", "mul", "sub", "div", "maximum", "minimum", "power", "where", "compare")
_POOLS = (
    *("max_pool2d", "avg_pool2d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    "upsample",
)
_REDUCTIONS = ("mean", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_var")

RULES: Mapping[str, Rule] = {
    "input": _source,
    "constant": _source,
    "parameter": _parameter,
    **CONVOLUTIONS,
    **LAYERS,
    **dict.fromkeys(_POOLS, _pool),
    "global_avg_pool2d": _global_pool,
    "pixel_shuffle": _pixel_shuffle,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("cumsum", "roll", "flip"), _ordered),
    **dict.fromkeys(_JOINING, _joined),
    "prelu": _prelu,
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _flatten,
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "take": _take,
    **dict.fromkeys(_ELEMENTWISE, _same),
}
"""One rule per operator. An operator that is not here, such as `gather` or `opaque`, is `unknown`."""
