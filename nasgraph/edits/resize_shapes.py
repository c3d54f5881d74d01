"""What operators without parameters make of resized inputs: element by element, pooling, and rearranging."""

from collections.abc import Mapping

import numpy as np

from nasgraph.edits.places import (
    NEW,
    Places,
    Resized,
    Rule,
    Step,
    has_new,
    length,
    reshaped,
    same,
)
from nasgraph.edits.resize_rules import LAYERS, only_as_before
from nasgraph.ir.op import whole, wholes

_KEEPS_ZERO = (
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "tanh"),
    *("softsign", "expm1", "log1p", "sqrt", "square", "abs", "neg", "sign", "floor", "round", "sin", "tan"),
    *("atan", "erf", "cast", "dropout", "drop_path", "identity", "zero"),
)
_OTHERS = (
    *("hardsigmoid", "sigmoid", "log_sigmoid", "softplus", "exp", "log", "rsqrt", "reciprocal", "cos"),
    *("power_scalar", "compare_scalar"),
)


def _same(step: Step) -> Resized:
    return step.inputs[0]


def _filled(step: Step) -> Resized:
    return Resized(step.inputs[0].axes)


def _affine(step: Step) -> Resized:
    data = step.inputs[0]
    return Resized(data.axes, data.zero and step.attrs["shift"] == 0)


def _clamp(step: Step) -> Resized:
    data = step.inputs[0]
    return Resized(
        data.axes, data.zero and float(str(step.attrs["low"])) <= 0 <= float(str(step.attrs["high"]))
    )


def _ordered(step: Step) -> Resized:
    data, axis = step.inputs[0], whole(step.attrs, "axis")
    if data.axes[axis] is not None and (step.exact or step.op not in ("softmax", "log_softmax")):
        step.refuse("treats the places along its axis together, so that their number cannot change")
    return Resized(data.axes)


# ---- joining


def _joined(step: Step) -> Resized:
    result: list[Places] = []
    for place, size in enumerate(step.shape):
        axes = [
            value.axes[place]
            for value, shape in zip(step.inputs, step.shapes, strict=True)
            if shape[place] == size
        ]
        for places in axes[1:]:
            if not same(axes[0], places):
                step.refuse("joins axes that change differently")
        result.append(axes[0])
    return Resized(tuple(result), zero=_joined_zero(step, result))


def _joined_zero(step: Step, axes: list[Places]) -> bool:
    """Whether new places are zero: all that is summed is, or one factor is."""
    new = [place for place, places in enumerate(axes) if has_new(places)]
    if not new:
        return False
    covers = [
        value.zero and all(has_new(value.axes[place]) for place in new)
        for value in step.inputs[: 1 if step.op == "div" else None]
    ]
    if step.op in ("mul", "div"):
        return any(covers)
    return step.op in ("add", "sub", "maximum", "minimum") and all(covers)


def _prelu(step: Step) -> Resized:
    data, slope = step.inputs
    if step.shapes[1] == step.shapes[0][:1] and not same(data.axes[0], slope.axes[0]):
        step.refuse("joins axes that change differently")
    return data


# ---- pooling


def _pool(step: Step) -> Resized:
    data = step.inputs[0]
    if any(places is not None for places in data.axes[1:]):
        step.refuse("reads space, whose size cannot change")
    return Resized((data.axes[0], *(None,) * (len(step.shape) - 1)), data.zero)


def _pixel_shuffle(step: Step) -> Resized:
    places, factor = step.inputs[0].axes[0], whole(step.attrs, "factor")
    if places is None:
        return Resized((None, None, None))
    found = reshaped([places], step.shapes[0][:1], (step.shape[0], factor**2))
    if found is None or found[1] is not None:
        step.refuse("makes a channel of several, which change together")
    return Resized((found[0], None, None), step.inputs[0].zero)


# ---- rearranging


def _concat(step: Step) -> Resized:
    place, result = whole(step.attrs, "axis"), []
    for axis in range(len(step.shape)):
        axes = [value.axes[axis] for value in step.inputs]
        if axis == place:
            result.append(_chain(axes, [shape[axis] for shape in step.shapes]))
            continue
        if not all(same(axes[0], places) for places in axes[1:]):
            step.refuse("joins axes that change differently")
        result.append(axes[0])
    fresh = [value for value in step.inputs if any(has_new(places) for places in value.axes)]
    return Resized(tuple(result), zero=all(value.zero for value in fresh))


def _chain(axes: list[Places], sizes: list[int]) -> Places:
    if all(places is None for places in axes):
        return None
    parts, before = [], 0
    for places, size in zip(axes, sizes, strict=True):
        index = np.arange(size) if places is None else places
        parts.append(np.where(index == NEW, NEW, index + before))
        before += size
    return np.concatenate(parts)


def _reshape(step: Step) -> Resized:
    data = step.inputs[0]
    if data.is_as_before:
        return Resized((None,) * len(step.shape))
    axes = reshaped(data.axes, step.shapes[0], step.shape)
    if axes is None:
        step.refuse(f"writes units in shape {step.shape}, which no longer holds them")
    if step.op == "reshape":
        step.attrs["shape"] = tuple(
            length(places, size) for places, size in zip(axes, step.shape, strict=True)
        )
    return Resized(axes, data.zero)


def _permute(step: Step) -> Resized:
    data = step.inputs[0]
    return Resized(tuple(data.axes[axis] for axis in wholes(step.attrs, "order")), data.zero)


def _slice(step: Step) -> Resized:
    data, axis = step.inputs[0], whole(step.attrs, "axis")
    places = data.axes[axis]
    if places is None:
        return data
    start, stop, by = (whole(step.attrs, name) for name in ("start", "stop", "step"))
    # A new place belongs to what stands before it.
    owner = np.maximum.accumulate(np.where(places == NEW, 0, np.arange(len(places))))
    old = places[owner]
    inside = np.flatnonzero((old >= start) & (old < stop) & ((old - start) % by == 0))
    strides = np.unique(np.diff(inside))
    if not len(inside) or len(strides) > 1:
        step.refuse("cuts out units that no longer stand side by side")
    stride = int(strides[0]) if len(strides) else 1
    step.attrs["start"], step.attrs["stop"] = int(inside[0]), int(inside[-1]) + 1
    step.attrs["step"] = stride
    taken = places[inside]
    cut = np.where(taken == NEW, NEW, (taken - start) // by)
    is_same = len(cut) == step.shape[axis] and bool((cut == np.arange(len(cut))).all())
    axes = tuple(
        (None if is_same else cut) if other == axis else each for other, each in enumerate(data.axes)
    )
    return Resized(axes, data.zero)


def _expand(step: Step) -> Resized:
    data = step.inputs[0]
    shape = [
        after if before != after else length(places, after)
        for places, before, after in zip(data.axes, step.shapes[0], step.shape, strict=True)
    ]
    step.attrs["shape"] = tuple(shape)
    return data


def _pad(step: Step) -> Resized:
    amounts, result = wholes(step.attrs, "amounts"), []
    for place, places in enumerate(step.inputs[0].axes):
        before, after = amounts[2 * place : 2 * place + 2]
        if places is None or not (before or after):
            result.append(places)
            continue
        if step.attrs["mode"] != "constant":
            step.refuse("repeats places along an axis that changes")
        size = step.shapes[0][place]
        moved = np.where(places == NEW, NEW, places + before)
        result.append(
            np.concatenate([np.arange(before), moved, np.arange(before + size, before + size + after)])
        )
    return Resized(tuple(result), step.inputs[0].zero)


def _take(step: Step) -> Resized:
    data, axis = step.inputs[0], whole(step.attrs, "axis")
    if data.axes[axis] is not None:
        step.refuse("reads places by number, which cannot change")
    indices = step.inputs[1].axes
    return Resized((*data.axes[:axis], *indices, *data.axes[axis + 1 :]), data.zero)


_POOLS = (
    *("max_pool2d", "avg_pool2d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("upsample", "global_avg_pool2d"),
)

RULES: Mapping[str, Rule] = {
    **LAYERS,
    **dict.fromkeys(_KEEPS_ZERO, _same),
    **dict.fromkeys(_OTHERS, _filled),
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "roll", "flip"), _ordered),
    "affine": _affine,
    "clamp": _clamp,
    **dict.fromkeys(("add", "mul", "sub", "div", "maximum", "minimum", "power", "where", "compare"), _joined),
    "prelu": _prelu,
    **dict.fromkeys(_POOLS, _pool),
    "pixel_shuffle": _pixel_shuffle,
    "concat": _concat,
    **dict.fromkeys(("reshape", "flatten"), _reshape),
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "take": _take,
    **dict.fromkeys(("gather", "opaque", "gat_conv", "cheb_conv", "arma_conv"), only_as_before),
}
"""One rule per operator."""
