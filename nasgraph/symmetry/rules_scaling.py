"""Which equations each operator sets up between the exponents of what it reads, owns and gives. See `scaling`."""

from collections.abc import Mapping

import numpy as np

from nasgraph.ir.op import wholes
from nasgraph.symmetry.exponents import Scaling
from nasgraph.symmetry.rules_scaling_layers import LAYERS
from nasgraph.symmetry.scaling import Keys, Rule, Step, attr, nothing
from nasgraph.symmetry.units import Ids


def _free(step: Step) -> None:
    """Neither reads nor limits anything."""


def _parameter(step: Step) -> None:
    weight = step.own("weight")
    for axis in range(len(step.output.axes)):
        step.system.same(weight, axis, step.output, axis)


def _passes(kind: Scaling = "none") -> Rule:
    """Element by element: the output is scaled as the first input. `kind`: by which factors only, if not by all."""

    def rule(step: Step) -> None:
        step.follow(range(len(step.output.axes)))
        if kind != "none":
            step.system.mark(step.output, kind)

    return rule


def _affine(step: Step) -> None:
    (_passes() if dict(step.node.attrs)["shift"] == 0.0 else nothing)(step)


def _sum(step: Step) -> None:
    """All inputs are scaled as the output is; one that is repeated along an axis is not, nor is the output there."""
    for axis in range(len(step.output.axes)):
        for keys in step.inputs:
            step.system.same(keys, axis, step.output, axis)


def _extreme(step: Step) -> None:
    _sum(step)
    step.system.mark(step.output, "positive")


def _product(step: Step) -> None:
    first, second = step.inputs
    sign = -1 if step.node.op == "div" else 1
    for axis in range(len(step.output.axes)):
        step.system.zero((step.output, axis, -1), (first, axis, 1), (second, axis, sign))


def _prelu(step: Step) -> None:
    _passes("positive")(step)
    step.vanish(step.inputs[1])


def _channels(kind: Scaling = "none") -> Rule:
    """Channels pass, space does not."""

    def rule(step: Step) -> None:
        data, out = step.inputs[0], step.output
        if len(data.axes[0]) == len(out.axes[0]):
            step.system.same(data, 0, out, 0)
        else:  # channels rearranged into space: several become one
            for column in data.axes[0].reshape(len(out.axes[0]), -1).T:
                step.system.same(Keys(data.tensor, (column,)), 0, out, 0)
        for axis in range(1, len(out.axes)):
            step.system.vanish(out, axis)
        if kind != "none":
            step.system.mark(out, kind)

    return rule


def _reduce(step: Step) -> None:
    attrs = dict(step.node.attrs)
    axes = wholes(attrs, "axes") if "axes" in attrs else (attr(step, "axis"),)
    if step.node.op == "reduce_var":
        nothing(step)
        return
    data, place = step.inputs[0], 0
    for axis in range(len(data.axes)):
        if axis in axes:
            step.system.vanish(data, axis)
            place += bool(attrs["keepdims"])
        else:
            step.system.same(data, axis, step.output, place)
            place += 1
    if step.node.op in ("reduce_max", "reduce_min"):
        step.system.mark(step.output, "positive")


def _along(step: Step) -> None:
    """Linear, and mixes places of one axis."""
    place = attr(step, "axis")
    for axis in range(len(step.output.axes)):
        if axis == place:
            step.system.vanish(step.inputs[0], axis)
            step.system.vanish(step.output, axis)
        else:
            step.follow((axis,))


def _concat(step: Step) -> None:
    place, start = attr(step, "axis"), 0
    for keys in step.inputs:
        size = len(keys.axes[place])
        part = _part(step.output, place, slice(start, start + size))
        for axis in range(len(step.output.axes)):
            step.system.same(keys, axis, part, axis)
        start += size


def _part(keys: Keys, axis: int, places: slice | Ids) -> Keys:
    """A tensor of which some places along an axis are looked at."""
    axes = list(keys.axes)
    axes[axis] = axes[axis][places]
    return Keys(keys.tensor, tuple(axes))


def _permute(step: Step) -> None:
    for axis, source in enumerate(wholes(dict(step.node.attrs), "order")):
        step.system.same(step.inputs[0], source, step.output, axis)


def _slice(step: Step) -> None:
    place = attr(step, "axis")
    start, stop, by = (attr(step, name) for name in ("start", "stop", "step"))
    part = _part(step.inputs[0], place, slice(start, stop, by))
    for axis in range(len(step.output.axes)):
        step.system.same(part, axis, step.output, axis)


def _expand(step: Step) -> None:
    for axis, (keys, out) in enumerate(zip(step.inputs[0].axes, step.output.axes, strict=True)):
        if len(keys) == len(out):
            step.follow((axis,))
        else:
            step.system.vanish(step.output, axis)


def _pad(step: Step) -> None:
    attrs = dict(step.node.attrs)
    if attrs["mode"] == "constant" and attrs["value"] != 0.0:
        nothing(step)
        return
    amounts = wholes(attrs, "amounts")
    for axis, numbers in enumerate(step.output.axes):
        before, after = amounts[2 * axis : 2 * axis + 2]
        if not before and not after:
            step.follow((axis,))
            continue
        part = _part(step.output, axis, slice(before, len(numbers) - after))
        step.system.same(step.inputs[0], axis, part, axis)


def _take(step: Step) -> None:
    place = attr(step, "axis")
    step.system.vanish(step.inputs[0], place)
    for axis in range(len(step.output.axes)):
        if axis == place:
            step.system.vanish(step.output, axis)
        else:
            step.follow((axis,))


def _reshape(step: Step) -> None:
    """A place of the output along an axis is made of places of an input's axis: all those have its exponent."""
    data, out = step.inputs[0], step.output
    shapes = tuple(len(axis) for axis in data.axes), tuple(len(axis) for axis in out.axes)
    moved_in = [axis for axis, numbers in enumerate(data.axes) if (numbers >= 0).any() and len(numbers) > 1]
    moved_out = [axis for axis, numbers in enumerate(out.axes) if (numbers >= 0).any() and len(numbers) > 1]
    for axis in moved_in:
        matches = [other for other in moved_out if _overlaps(shapes[0], axis, shapes[1], other)]
        if len(matches) != 1:
            step.system.vanish(data, axis)
            continue
        _pair(step, axis, matches[0], shapes)
    for axis in moved_out:
        sources = [other for other in moved_in if _overlaps(shapes[1], axis, shapes[0], other)]
        if len(sources) != 1:
            step.system.vanish(out, axis)


def _overlaps(shape: tuple[int, ...], axis: int, others: tuple[int, ...], other: int) -> bool:
    """Whether walking along one axis walks along the other: their strides cover each other."""
    low, high = int(np.prod(shape[axis + 1 :])), int(np.prod(shape[axis:]))
    other_low, other_high = int(np.prod(others[other + 1 :])), int(np.prod(others[other:]))
    return max(low, other_low) < min(high, other_high)


def _pair(step: Step, axis: int, other: int, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    data, out = step.inputs[0], step.output
    low, other_low = int(np.prod(shapes[0][axis + 1 :])), int(np.prod(shapes[1][other + 1 :]))
    size, other_size = shapes[0][axis], shapes[1][other]
    stride = min(low, other_low)
    places = np.arange(max(low * size, other_low * other_size) // stride) * stride
    first, second = places // low % size, places // other_low % other_size
    step.system.same(_part(data, axis, first), axis, _part(out, other, second), other)


_LINEAR = ("identity", "dropout", "drop_path", "neg", "zero", "cast")
_HOMOGENEOUS = ("relu", "leaky_relu", "abs")
_ODD = ("tanh", "sin", "erf", "softsign", "atan", "tan")

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("input", "constant"), _free),
    "parameter": _parameter,
    **dict.fromkeys(_LINEAR, _passes()),
    **dict.fromkeys(_HOMOGENEOUS, _passes("positive")),
    **dict.fromkeys(_ODD, _passes("sign")),
    "affine": _affine,
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("maximum", "minimum"), _extreme),
    **dict.fromkeys(("mul", "div"), _product),
    "prelu": _prelu,
    **LAYERS,
    **dict.fromkeys(("avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "upsample"), _channels()),
    **dict.fromkeys(("max_pool2d", "max_pool3d", "adaptive_max_pool2d"), _channels("positive")),
    **dict.fromkeys(("global_avg_pool2d", "pixel_shuffle"), _channels()),
    **dict.fromkeys(("mean", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_var"), _reduce),
    **dict.fromkeys(("cumsum", "roll", "flip"), _along),
    "concat": _concat,
    **dict.fromkeys(("reshape", "flatten"), _reshape),
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "take": _take,
}
"""One rule per operator. An operator that is not here, such as a sigmoid or a softmax, commutes with no factor."""
