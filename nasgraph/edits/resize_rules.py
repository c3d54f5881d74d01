"""What each operator makes of resized inputs: attributes, parameters and its own axes; and where the function would change.

With `Step.exact` a rule refuses what would change the function, given that copies of a unit are equal, that whoever reads
copies through a weight shares it out among them, and that a weight that reads new units is zero there unless the units are.
"""

from collections.abc import Mapping
from math import sqrt

import numpy as np

from nasgraph.edits.places import (
    Ids,
    Places,
    Resized,
    Rule,
    Step,
    has_copies,
    has_new,
    is_uniform,
    length,
    same,
    whole_blocks,
    within_blocks,
)
from nasgraph.ir.op import whole

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _unchanged(step: Step) -> Resized:
    return Resized((None,) * len(step.shape))


def only_as_before(step: Step) -> Resized:
    """The rule of an operator that cannot be resized."""
    if not all(value.is_as_before for value in step.inputs):
        step.refuse("cannot be resized, nor read what is")
    for name, shape in step.shapes_of.items():
        for axis in range(len(shape)):
            if step.made(name, axis) is not None:
                step.refuse("cannot be resized")
    return _unchanged(step)


def _parameter(step: Step) -> Resized:
    axes = tuple(step.made("weight", axis) for axis in range(len(step.shape)))
    reads: tuple[int, ...] = ()
    if len(step.readers) == 1 and step.readers[0][1] == 1 and step.readers[0][0].startswith("apply_"):
        op = step.readers[0][0]
        reads = (
            (0,) if "transpose" in op else (1,) if op == "apply_linear" or op.startswith("apply_conv") else ()
        )
    for axis, places in enumerate(axes):
        step.own("weight", axis, places, "read" if axis in reads else "made")
    step.attrs["shape"] = tuple(length(places, size) for places, size in zip(axes, step.shape, strict=True))
    return Resized(axes, zero=step.fills_zero, shares=reads)


# ---- linear maps


def _linear(step: Step) -> Resized:
    data = step.inputs[0]
    out = step.made("weight", 0)
    step.own("weight", 0, out, "made")
    step.own("weight", 1, data.axes[-1], "read", zero=data.zero)
    step.own("bias", 0, out, "made")
    step.attrs["out_features"] = length(out, step.shape[-1])
    return Resized((*data.axes[:-1], out), zero=_zero_out(step, out, data.axes[:-1]))


def _zero_out(step: Step, out: Places, others: tuple[Places, ...]) -> bool:
    return step.fills_zero and has_new(out) and not any(has_new(places) for places in others)


def contract(step: Step, first: tuple[Resized, int], second: tuple[Resized, int]) -> None:
    """Two values are multiplied and summed along an axis of each: check that this is as before."""
    (a, i), (b, j) = first, second
    if not same(a.axes[i], b.axes[j]):
        step.refuse("multiplies axes that change differently")
    if not step.exact or j in b.shares:
        return
    if has_copies(a.axes[i]):
        step.refuse("multiplies copies of a unit with copies, which would count several times")
    if has_new(a.axes[i]) and not (a.zero or b.zero):
        step.refuse("multiplies new units with new ones, neither of which are zero")


def _apply_linear(step: Step) -> Resized:
    data, weight = step.inputs[:2]
    contract(step, (data, len(data.axes) - 1), (weight, 1))
    out = weight.axes[0]
    for bias in step.inputs[2:]:
        if not same(bias.axes[0], out):
            step.refuse("adds a bias that changes differently")
    return Resized((*data.axes[:-1], out), zero=weight.zero and not step.inputs[2:])


def _bilinear(step: Step) -> Resized:
    first, second = step.inputs
    out = step.made("weight", 0)
    step.own("weight", 0, out, "made")
    step.own("weight", 1, first.axes[-1], "read", zero=first.zero)
    step.own("weight", 2, second.axes[-1], "read", zero=second.zero)
    step.own("bias", 0, out, "made")
    step.attrs["out_features"] = length(out, step.shape[-1])
    return Resized((*first.axes[:-1], out), zero=step.fills_zero)


def _embedding(step: Step) -> Resized:
    out = step.made("weight", 1)
    step.own("weight", 1, out, "made")
    step.attrs["dim"] = length(out, step.shape[-1])
    return Resized((*step.inputs[0].axes, out), zero=step.fills_zero)


def _apply_embedding(step: Step) -> Resized:
    words, table = step.inputs
    if table.axes[0] is not None:
        step.refuse("reads a table whose entries change")
    return Resized((*words.axes, table.axes[1]), zero=table.zero)


def _matmul(step: Step) -> Resized:
    first, second = step.inputs
    contract(step, (first, len(first.axes) - 1), (second, len(second.axes) - 2))
    front = []
    for place in range(len(first.axes) - 2):
        sizes = step.shapes[0][place], step.shapes[1][place]
        front.append(
            (first if sizes[0] >= sizes[1] else second).axes[place]
            if sizes[0] != sizes[1]
            else _common(step, [first.axes[place], second.axes[place]])
        )
    axes = (*front, first.axes[-2], second.axes[-1])
    return Resized(axes, zero=_covers(first, axes, first.axes[:-1]) or _covers(second, axes, second.axes))


def _covers(value: Resized, axes: tuple[Places, ...], own: tuple[Places, ...]) -> bool:
    """Whether zeros of one factor make all new places of a product zero."""
    mine = [places for places in own if has_new(places)]
    return (
        value.zero
        and bool(mine)
        and all(any(places is each for each in mine) for places in axes if has_new(places))
    )


def _common(step: Step, axes: list[Places]) -> Places:
    for places in axes[1:]:
        if not same(axes[0], places):
            step.refuse("joins axes that change differently")
    return axes[0]


def _einsum(step: Step) -> Resized:
    left, _, right = str(step.attrs["equation"]).replace(" ", "").partition("->")
    known: dict[str, list[tuple[Resized, int]]] = {}
    for term, value in zip(left.split(","), step.inputs, strict=True):
        for place, letter in enumerate(term):
            known.setdefault(letter, []).append((value, place))
    for letter, uses in known.items():
        for use in uses[1:]:
            if letter in right:
                _common(step, [uses[0][0].axes[uses[0][1]], use[0].axes[use[1]]])
            else:
                contract(step, uses[0], use)
        if letter not in right and len(uses) == 1:
            _reduced(step, *uses[0], mean=False)
    return Resized(tuple(known[letter][0][0].axes[known[letter][0][1]] for letter in right))


# ---- convolutions


def _conv(step: Step) -> Resized:
    out = step.made("weight", 0)
    step.own("weight", 0, out, "made")
    step.own("bias", 0, out, "made")
    step.attrs["out_channels"] = length(out, step.shape[0])
    inner = _in_groups(step, step.inputs[0].axes[0], out)
    step.own("weight", 1, inner, "read", zero=step.inputs[0].zero)
    zero = step.fills_zero or (_is_depthwise(step) and step.inputs[0].zero and "bias" not in step.shapes_of)
    return Resized((out, *(None,) * (len(step.shape) - 1)), zero=zero and has_new(out))


def _is_depthwise(step: Step) -> bool:
    return whole(step.attrs, "groups") > 1 and step.shapes_of["weight"][1] == 1


def _in_groups(step: Step, data: Places, out: Places) -> Places:
    """How the channels change that one group reads. Whole groups may change, or the channels within all of them alike."""
    groups, channels = whole(step.attrs, "groups"), step.shapes[0][0]
    if groups == 1:
        return data
    if data is None and out is None:
        return None
    outside, inside = whole_blocks(out, step.shape[0], groups), whole_blocks(data, channels, groups)
    if outside is not None and inside is not None and np.array_equal(outside, inside):
        step.attrs["groups"] = len(inside)
        return None
    made, rows = within_blocks(out, step.shape[0], groups), within_blocks(data, channels, groups)
    if made is None or rows is None or not (rows == rows[0]).all():
        step.refuse("has groups of channels, which change as whole groups or alike within all of them")
    inner: Ids = rows[0]
    return None if data is None else inner


def _apply_conv(step: Step) -> Resized:
    data, weight = step.inputs[:2]
    if whole(step.attrs, "groups") > 1:
        return only_as_before(step)
    contract(step, (data, 0), (weight, 1))
    out = weight.axes[0]
    for bias in step.inputs[2:]:
        if not same(bias.axes[0], out):
            step.refuse("adds a bias that changes differently")
    return Resized((out, *(None,) * (len(step.shape) - 1)), zero=weight.zero and not step.inputs[2:])


def _transposed(step: Step) -> Resized:
    if whole(step.attrs, "groups") > 1:
        return only_as_before(step)
    out = step.made("weight", 1)
    step.own("weight", 0, step.inputs[0].axes[0], "read", zero=step.inputs[0].zero)
    step.own("weight", 1, out, "made")
    step.own("bias", 0, out, "made")
    step.attrs["out_channels"] = length(out, step.shape[0])
    return Resized((out, *(None,) * (len(step.shape) - 1)), zero=step.fills_zero)


def _apply_transposed(step: Step) -> Resized:
    data, weight = step.inputs[:2]
    if whole(step.attrs, "groups") > 1:
        return only_as_before(step)
    contract(step, (data, 0), (weight, 0))
    out = weight.axes[1]
    for bias in step.inputs[2:]:
        if not same(bias.axes[0], out):
            step.refuse("adds a bias that changes differently")
    return Resized((out, *(None,) * (len(step.shape) - 1)))


# ---- attention, recurrent layers, message passing


def _attention(step: Step) -> Resized:
    query, key, value = step.inputs[:3]
    if not all(same(a, b) for a, b in zip(key.axes[:-1], value.axes[:-1], strict=True)) or any(
        places is not None for each in step.inputs[:3] for places in each.axes[:-1]
    ):
        step.refuse("attends among tokens, whose number cannot change")
    width, made = query.axes[-1], value.axes[-1]
    if not same(width, key.axes[-1]):
        step.refuse("multiplies queries and keys that change differently")
    if width is not None or made is not None:
        _heads(step, width, made)
    return Resized((*query.axes[:-1], made), zero=value.zero)


def _heads(step: Step, width: Places, made: Places) -> None:
    heads, size = whole(step.attrs, "num_heads"), step.shapes[0][-1]
    first, second = whole_blocks(width, size, heads), whole_blocks(made, step.shapes[2][-1], heads)
    if first is not None and second is not None and np.array_equal(first, second):
        own_masks = step.shapes[3:] and len(step.shapes[3]) > len(step.shape) and step.shapes[3][-3] > 1
        if own_masks:
            step.refuse("has a mask for each head, so that their number cannot change")
        step.attrs["num_heads"] = len(first)
        return
    inner = within_blocks(width, size, heads)
    if inner is None or within_blocks(made, step.shapes[2][-1], heads) is None:
        step.refuse("has heads, which change as a whole or each by as many channels")
    if width is None:
        return
    if step.exact:
        contract(step, (step.inputs[0], len(step.shape) - 1), (step.inputs[1], len(step.shape) - 1))
    if inner.shape[1] != size // heads and not step.attrs["scale"]:
        step.attrs["scale"] = 1 / sqrt(size // heads)


def _recurrent(step: Step) -> Resized:
    data = step.inputs[0]
    rows, out = step.made("weight_ih", 0), step.made("weight_hh", 1)
    if "weight_hr" in step.shapes_of and not (rows is None and out is None):
        step.refuse("has a projection, so that its width cannot change")
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        step.own(name, 0, rows, "made")
    step.own("weight_ih", 1, data.axes[1], "read", zero=data.zero)
    step.own("weight_hh", 1, out, "read")
    if data.axes[0] is not None or any(not same(state.axes[0], out) for state in step.inputs[1:]):
        step.refuse("reads steps or a first state that change differently")
    if rows is not None:
        step.attrs["hidden_size"] = len(rows) // _GATES[step.op]
    return Resized((None, out))


def _message(step: Step) -> Resized:
    out, data = step.made("weight", 0), step.inputs[0]
    for name in ("weight", "root"):
        step.own(name, 0, out, "made")
        step.own(name, 1, data.axes[0], "read", zero=data.zero)
    step.own("bias", 0, out, "made")
    step.attrs["out_features"] = length(out, step.shape[0])
    return Resized((out,), zero=step.fills_zero)


# ---- norms


def _batch_norm(step: Step) -> Resized:
    for name in ("weight", "bias", "running_mean", "running_var"):
        step.own(name, 0, step.inputs[0].axes[0], "kept")
    return step.inputs[0]


def _group_norm(step: Step) -> Resized:
    data, groups = step.inputs[0], whole(step.attrs, "groups")
    for name in ("weight", "bias"):
        step.own(name, 0, data.axes[0], "kept")
    places, size = data.axes[0], step.shape[0]
    if places is None:
        return data
    if groups == size:
        step.attrs["groups"] = len(places)
        return data
    blocks = whole_blocks(places, size, groups) if groups > 1 else None
    if blocks is not None:
        step.attrs["groups"] = len(blocks)
        return data
    rows = within_blocks(places, size, groups)
    if rows is None:
        step.refuse("normalises groups of channels, which change as whole groups or each by as many channels")
    if step.exact and not all(is_uniform(row, size // groups) for row in rows):
        step.refuse(
            "normalises over channels: exact only if each of a group is copied equally often (a multiple of the width)"
        )
    return data


def _layer_norm(step: Step) -> Resized:
    data, axes = step.inputs[0], whole(step.attrs, "axes")
    trailing = data.axes[-axes:]
    for axis, places in enumerate(trailing):
        for name in ("weight", "bias"):
            step.own(name, axis, places, "kept")
        if step.exact and not is_uniform(places, step.shape[len(step.shape) - axes + axis]):
            step.refuse(
                "subtracts the mean over its features: exact only if each is copied equally often (a multiple of "
                "the width); new features need a network with 'rms_norm'"
            )
    return data


def _rms_norm(step: Step) -> Resized:
    data, axes = step.inputs[0], whole(step.attrs, "axes")
    for axis, places in enumerate(data.axes[-axes:]):
        step.own("weight", axis, places, "kept")
        size = step.shape[len(step.shape) - axes + axis]
        if not step.exact or is_uniform(places, size):
            continue
        assert places is not None
        kept = places[places >= 0]
        if not data.zero or not np.array_equal(kept, np.arange(size)):
            step.refuse(
                "divides by the mean square of its features: exact only if new ones are zero, or all are copied "
                "equally often"
            )
        _rescale_rms(step, size / len(places))
    return data


def _rescale_rms(step: Step, share: float) -> None:
    """Zeros make the mean square smaller by `share`: the gain makes up for it (Gesmundo and Maile 2023, section 3.5), and
    what is added to the mean square shrinks with it."""
    if "weight" not in step.shapes_of:
        step.refuse("has no gain that could make up for new features")
    eps = step.attrs["eps"]
    assert isinstance(eps, float)
    step.attrs["eps"] = eps * share
    step.gains["weight"] = step.gains.get("weight", 1.0) * sqrt(share)


def _apply_layer_norm(step: Step) -> Resized:
    data, size = step.inputs[0], len(step.shapes[1])
    last = data.axes[-size:]
    for given in step.inputs[1:]:
        if not all(same(a, b) for a, b in zip(last, given.axes, strict=True)):
            step.refuse("joins axes that change differently")
    if step.exact and not all(
        is_uniform(p, n) for p, n in zip(last, step.shape[len(step.shape) - size :], strict=True)
    ):
        step.refuse("subtracts the mean over its features: exact only if each is copied equally often")
    return data


# ---- reductions


def _reduced(step: Step, value: Resized, axis: int, *, mean: bool) -> None:
    places = value.axes[axis]
    if not step.exact or places is None:
        return
    size = step.shapes[0][axis] if value is step.inputs[0] else len(places)
    if mean and is_uniform(places, size):
        return
    if not mean and not has_copies(places) and value.zero:
        return
    step.refuse("sums over units, so that copies would count several times")


def reduce(step: Step) -> Resized:
    """A reduction along attributes `axes` or `axis`."""
    named = step.attrs["axes"] if "axes" in step.attrs else (step.attrs["axis"],)
    assert isinstance(named, tuple)
    data = step.inputs[0]
    for axis in named:
        assert isinstance(axis, int)
        if step.op in ("reduce_max", "reduce_min"):
            if step.exact and has_new(data.axes[axis]):
                step.refuse("takes an extreme over units, which new ones could change")
        else:
            is_biased = step.op == "reduce_var" and bool(step.attrs["correction"])
            _reduced(
                step, data, axis, mean=step.op in ("mean", "reduce_mean", "reduce_var") and not is_biased
            )
    if step.attrs["keepdims"]:
        return Resized(tuple(None if i in named else places for i, places in enumerate(data.axes)), data.zero)
    return Resized(tuple(places for i, places in enumerate(data.axes) if i not in named), data.zero)


LAYERS: Mapping[str, Rule] = {
    "input": _unchanged,
    "constant": _unchanged,
    "parameter": _parameter,
    "linear": _linear,
    "apply_linear": _apply_linear,
    "bilinear": _bilinear,
    "embedding": _embedding,
    "apply_embedding": _apply_embedding,
    "matmul": _matmul,
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("apply_conv1d", "apply_conv2d", "apply_conv3d"), _apply_conv),
    **{f"conv_transpose{dims}d": _transposed for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _apply_transposed for dims in (1, 2, 3)},
    "attention": _attention,
    **dict.fromkeys(_GATES, _recurrent),
    **dict.fromkeys(("gcn_conv", "gin_conv", "sage_conv", "graph_conv"), _message),
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "apply_layer_norm": _apply_layer_norm,
    **dict.fromkeys(("mean", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_var"), reduce),
}
"""Rules of operators with parameters, of products and of reductions."""
