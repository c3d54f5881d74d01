# ruff: noqa: ARG001 -- all rules have one signature, whether they need all of it or not
"""How each operator writes its units, its parameters and the flow of its values into the book of a parameter graph.

Operators with parameters make units of their own, so do sums and products of different values; all others hand on the units they
read. Functions of one input say which activation follows a unit.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from nasgraph.ir.op import whole, wholes
from nasgraph.meta.graph.kinds import ACTIVATIONS
from nasgraph.meta.graph.rules_layers import LAYERS, joined, lazy
from nasgraph.meta.graph.sites import Axis, Book, Ids, Joint, Step, Value
from nasgraph.symmetry import matched_axes

Rule = Callable[[Book, Step], Value]


def unknown(book: Book, step: Step) -> Value:
    """Nothing is known of the operator: units are handed on where an axis looks the same."""
    for value, shape in zip(step.inputs, step.shapes, strict=True):
        if shape == step.shape:
            return value
    return lazy(step.shape)


def _input(book: Book, step: Step) -> Value:
    return tuple(Axis(size, is_input=True) for size in step.shape)


def _constant(book: Book, step: Step) -> Value:
    return lazy(step.shape)


def _parameter(book: Book, step: Step) -> Value:
    """Axes whose places are interchangeable have nodes, and others longer than one as long as there are less than two."""
    name = f"n{step.index}.weight"
    having = [place for place in range(len(step.shape)) if (name, place) in book.moving]
    fixed = [place for place, size in enumerate(step.shape) if size > 1 and place not in having]
    having += fixed[: max(0, 2 - len(having))]
    axes = tuple(
        book.site(step, "parameter", size) if place in (having or [0]) else Axis(size)
        for place, size in enumerate(step.shape)
    )
    is_weight = step.index in book.weights
    book.attach(step, "weight", axes, kind="position", column="value", is_weight=is_weight)
    return axes


def _same(book: Book, step: Step) -> Value:
    return step.inputs[0]


def _activation(book: Book, step: Step) -> Value:
    value = step.inputs[0]
    if not step.is_shared[0] and all(book.activate(axis, step.op) for axis in value):
        return value
    made = tuple(
        book.follow(step, "activated", axis, "flow") if axis.nodes is not None else axis for axis in value
    )
    for axis in made:
        book.activate(axis, step.op)
    return made


def _prelu(book: Book, step: Step) -> Value:
    data, slope = step.inputs
    value = _activation(book, step)
    if slope[0].nodes is not None and slope[0].size in (1, data[0].size):
        book.link("multiply", slope[0].nodes, book.nodes(step, value[0]))
    return value


# ---- pooling, reductions


def _pool(book: Book, step: Step) -> Value:
    return (step.inputs[0][0], *lazy(step.shape[1:]))


def _global_pool(book: Book, step: Step) -> Value:
    return step.inputs[0][:1]


def _pixel_shuffle(book: Book, step: Step) -> Value:
    return (_split(book, step, step.inputs[0][0], (step.shape[0], -1))[0], *lazy(step.shape[1:]))


def _reduce(book: Book, step: Step) -> Value:
    axes = wholes(step.attrs, "axes") if "axes" in step.attrs else (whole(step.attrs, "axis"),)
    result: list[Axis] = []
    for place, axis in enumerate(step.inputs[0]):
        if place not in axes:
            result.append(axis)
        elif step.attrs["keepdims"]:
            result.append(_pooled(book, step, axis))
    return tuple(result)


def _pooled(book: Book, step: Step, axis: Axis) -> Axis:
    if axis.nodes is None or axis.size == 1:
        return Axis(1) if axis.nodes is None else axis
    new = book.site(step, "pooled", 1)
    assert new.nodes is not None
    book.link("pool", axis.nodes, new.nodes, axis.slots)
    return new


# ---- structure


def _along(step: Step, change: Callable[[Axis], Axis]) -> Value:
    """All axes as they are, but for one."""
    place = whole(step.attrs, "axis")
    return tuple(change(axis) if other == place else axis for other, axis in enumerate(step.inputs[0]))


def _indexed(axis: Axis, index: Ids) -> Axis:
    if axis.nodes is None:
        return Axis(len(index), is_input=axis.is_input)
    return Axis(len(index), axis.nodes[index], axis.slots[index])


def _slice(book: Book, step: Step) -> Value:
    start, stop, by = (whole(step.attrs, name) for name in ("start", "stop", "step"))
    chosen = step.inputs[0][whole(step.attrs, "axis")]
    if chosen.joint is not None:
        joint = chosen.joint
        place = next(place for place, axis in enumerate(joint.axes) if axis is chosen)
        index = np.arange(chosen.size)[start:stop:by]
        part = Joint.of(joint.nodes.take(index, place), joint.slots.take(index, place))
        known = dict(zip(map(id, joint.axes), part.axes, strict=True))
        return tuple(known.get(id(axis), axis) for axis in step.inputs[0])
    return _along(step, lambda axis: _indexed(axis, np.arange(axis.size)[start:stop:by]))


def _flip(book: Book, step: Step) -> Value:
    return _along(step, lambda axis: _indexed(axis, np.arange(axis.size)[::-1].copy()))


def _roll(book: Book, step: Step) -> Value:
    return _along(
        step, lambda axis: _indexed(axis, np.roll(np.arange(axis.size), whole(step.attrs, "shift")))
    )


def _take(book: Book, step: Step) -> Value:
    place = whole(step.attrs, "axis")
    if len(step.shape) == len(step.inputs[0]):
        axes = zip(step.inputs[0], step.shape, strict=True)
        return tuple(Axis(size) if other == place else axis for other, (axis, size) in enumerate(axes))
    return tuple(axis for other, axis in enumerate(step.inputs[0]) if other != place)


def _concat(book: Book, step: Step) -> Value:
    place = whole(step.attrs, "axis")
    result: list[Axis] = []
    for other in range(len(step.shape)):
        axes = [value[other] for value in step.inputs]
        if other != place:
            result.append(joined(book, step, axes, axes[0].size, ["flow"] * len(axes)))
        elif all(axis.nodes is None for axis in axes):
            result.append(Axis(step.shape[other], is_input=all(axis.is_input for axis in axes)))
        else:
            nodes = np.concatenate([book.nodes(step, axis) for axis in axes])
            result.append(_distinct(book, step, nodes, np.concatenate([axis.slots for axis in axes])))
    return tuple(result)


def _distinct(book: Book, step: Step, nodes: Ids, slots: Ids) -> Axis:
    """An axis of these nodes; where one stands twice in the same slot, as after joining a value with itself, new ones."""
    axis = Axis(len(nodes), nodes, slots)
    if len(np.unique(np.stack([nodes, slots]), axis=1).T) < len(nodes):
        return book.follow(step, "merged", axis, "flow")
    return axis


def _permute(book: Book, step: Step) -> Value:
    return tuple(step.inputs[0][axis] for axis in wholes(step.attrs, "order"))


def _expand(book: Book, step: Step) -> Value:
    pairs = zip(step.inputs[0], step.shapes[0], step.shape, strict=True)
    return tuple(axis if before == after else Axis(after) for axis, before, after in pairs)


def _pad(book: Book, step: Step) -> Value:
    amounts = wholes(step.attrs, "amounts")
    result: list[Axis] = []
    for place, axis in enumerate(step.inputs[0]):
        before, after = amounts[2 * place : 2 * place + 2]
        if not before and not after:
            result.append(axis)
        elif axis.nodes is None:
            result.append(Axis(axis.size + before + after))
        else:
            result.append(_padded(book, step, axis, before, after))
    return tuple(result)


def _padded(book: Book, step: Step, axis: Axis, before: int, after: int) -> Axis:
    parts = [book.site(step, "padding", before), axis, book.site(step, "padding", after)]
    return Axis(
        axis.size + before + after,
        np.concatenate([book.nodes(step, part) for part in parts]),
        np.concatenate([part.slots for part in parts]),
    )


def _flatten(book: Book, step: Step) -> Value:
    return (_merge(book, step, step.inputs[0]),)


def _reshape(book: Book, step: Step) -> Value:
    """Match the axes before and after from the left, as few at a time as their sizes allow."""
    result: list[Axis] = []
    for old, new in matched_axes(step.shapes[0], step.shape):
        merged = _merge(book, step, step.inputs[0][old])
        result.extend(_split(book, step, merged, step.shape[new]))
    return tuple(result)


def _merge(book: Book, step: Step, axes: Sequence[Axis]) -> Axis:
    """The axis that several become. If one has nodes the others become its slots; if several have, there are new nodes."""
    total = prod(axis.size for axis in axes)
    real = [axis for axis in axes if axis.size > 1] or list(axes[:1])
    if len(real) == 1:
        return real[0]
    if real and real[0].joint is not None and (together := real[0].joint.ordered(real)) is not None:
        return Axis(total, together[0].ravel(), together[1].ravel())
    book.take_apart(step, [tuple(real)])
    having = [axis for axis in real if axis.nodes is not None]
    if not having:
        return Axis(total, is_input=bool(axes) and all(axis.is_input for axis in axes))
    sizes = [axis.size for axis in real]
    index = np.indices(sizes).reshape(len(sizes), total)
    if len(having) == 1:
        place = next(place for place, axis in enumerate(real) if axis is having[0])
        others = [other for other in range(len(sizes)) if other != place]
        rank = np.ravel_multi_index(tuple(index[other] for other in others), [sizes[o] for o in others])
        nodes = book.nodes(step, having[0])[index[place]]
        count = total // having[0].size
        return Axis(total, nodes, having[0].slots[index[place]] * count + rank)
    new = book.site(step, "merged", total)
    assert new.nodes is not None
    for number, axis in enumerate(having):
        own = index[next(place for place, other in enumerate(real) if other is axis)]
        book.link(f"argument_{min(number, 2)}", book.nodes(step, axis)[own], new.nodes, axis.slots[own])
    return new


def _split(book: Book, step: Step, axis: Axis, shape: Sequence[int]) -> Value:
    """The axes that one becomes. If its nodes change along one of them only, that one keeps them; else they have them together."""
    if -1 in shape:
        shape = [axis.size // -prod(shape) if size == -1 else size for size in shape]
    real = [place for place, size in enumerate(shape) if size > 1] or [0]
    if not shape:
        return ()
    if len(real) == 1:
        return tuple(axis if place == real[0] else Axis(1) for place in range(len(shape)))
    book.take_apart(step, [(axis,)])
    if axis.nodes is None:
        return tuple(Axis(size, is_input=axis.is_input) for size in shape)
    nodes = axis.nodes.reshape(shape)
    changes = [place for place in real if (np.diff(nodes, axis=place) != 0).any()]
    if len(changes) == 1:
        kept = np.moveaxis(nodes, changes[0], 0).reshape(shape[changes[0]], -1)[:, 0]
        if len(np.unique(kept)) == len(kept):
            return tuple(
                Axis(size, kept if place == changes[0] else None) for place, size in enumerate(shape)
            )
    sizes = [shape[place] for place in real]
    joint = Joint.of(axis.nodes.reshape(sizes), axis.slots.reshape(sizes))
    return tuple(joint.axes[real.index(place)] if place in real else Axis(1) for place in range(len(shape)))


_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name not in ("none", "prelu"))
_POOLS = (
    *("max_pool2d", "avg_pool2d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    "upsample",
)
_REDUCTIONS = ("mean", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_var")

RULES: Mapping[str, Rule] = {
    "input": _input,
    "constant": _constant,
    "parameter": _parameter,
    **LAYERS,
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(("neg", "affine", "cast", "dropout", "drop_path", "identity", "zero", "cumsum"), _same),
    "prelu": _prelu,
    **dict.fromkeys(_POOLS, _pool),
    "global_avg_pool2d": _global_pool,
    "pixel_shuffle": _pixel_shuffle,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _flatten,
    "permute": _permute,
    "slice": _slice,
    "flip": _flip,
    "roll": _roll,
    "expand": _expand,
    "pad": _pad,
    "take": _take,
}
"""One rule per operator; those that are not here are `unknown`."""


_AWARE = frozenset(
    ("reshape", "flatten", "permute", "slice", "attention", "dropout", "drop_path", "identity", "cast")
)
"""Operators whose rules know of axes that have nodes together."""


def apply_rule(book: Book, step: Step) -> Value:
    """What an operator gives."""
    if step.op not in _AWARE:
        book.take_apart(step, step.inputs)
    return RULES.get(step.op, unknown)(book, step)
