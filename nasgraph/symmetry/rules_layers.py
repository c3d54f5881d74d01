"""What linear maps, attention, recurrent layers, message passing and norms demand of the axes that they read."""

from collections.abc import Mapping

import numpy as np

from nasgraph.ir.op import whole
from nasgraph.symmetry.demands import (
    ORDER,
    Rule,
    Step,
    Value,
    broadcast,
    keep_apart,
    split_axis,
)
from nasgraph.symmetry.units import Axis, Ledger

# ---- linear maps and look-up tables


def _linear(step: Step) -> Value:
    out = step.ledger.fresh(step.shape[-1])
    last = step.inputs[0][-1]
    step.own("weight", out, last, reason="reads features that are fixed")
    step.own("bias", out)
    return (*step.inputs[0][:-1], out)


def _apply_linear(step: Step) -> Value:
    data, weight = step.inputs[:2]
    step.ledger.unify(weight[1], data[-1], "reads features that are fixed")
    out = weight[0]
    for bias in step.inputs[2:]:
        out = step.ledger.unify(out, bias[0], "joined with a bias that is fixed")
    return (*data[:-1], out)


def _bilinear(step: Step) -> Value:
    first, second = step.inputs
    out = step.ledger.fresh(step.shape[-1])
    step.own("weight", out, first[-1], second[-1], reason="reads features that are fixed")
    step.own("bias", out)
    shapes = [shape[:-1] for shape in step.shapes]
    return (*broadcast(step.ledger, [first[:-1], second[:-1]], shapes, step.op), out)


def _embedding(step: Step) -> Value:
    out = step.ledger.fresh(step.shape[-1])
    step.own("weight", None, out, reason="an entry of a look-up table")
    return (*step.inputs[0], out)


def _apply_embedding(step: Step) -> Value:
    words, table = step.inputs
    step.ledger.fix(table[0], "an entry of a look-up table")
    return (*words, table[1])


def _matmul(step: Step) -> Value:
    first, second = step.inputs
    step.ledger.unify(first[-1], second[-2], "multiplied with an axis that is fixed")
    shapes = [shape[:-2] for shape in step.shapes]
    front = broadcast(step.ledger, [first[:-2], second[:-2]], shapes, step.op) if shapes[0] else ()
    return (*front, first[-2], second[-1])


def _einsum(step: Step) -> Value:
    left, _, right = str(step.attrs["equation"]).replace(" ", "").partition("->")
    known: dict[str, Axis] = {}
    for term, value in zip(left.split(","), step.inputs, strict=True):
        for letter, axis in zip(term, value, strict=True):
            if letter in known:
                axis = step.ledger.unify(known[letter], axis, "multiplied with an axis that is fixed")
            known[letter] = axis
    return tuple(known[letter] for letter in right)


# ---- attention and recurrent layers


def _attention(step: Step) -> Value:
    ledger, heads = step.ledger, whole(step.attrs, "num_heads")
    query, key, value = step.inputs[:3]
    shapes = [shape[:-2] for shape in step.shapes[:3]]
    front = broadcast(ledger, [each[:-2] for each in step.inputs[:3]], shapes, step.op) if shapes[0] else ()
    width = ledger.unify(query[-1], key[-1], "multiplied with an axis that is fixed")
    tokens = ledger.unify(key[-2], value[-2], "attended with an axis that is fixed")
    if step.inputs[3:] or step.attrs["causal"]:
        for axis in (tokens, query[-2]):
            ledger.fix(axis, "hidden or shown by a mask")
        for mask, shape in zip(step.inputs[3:], step.shapes[3:], strict=True):
            step.fix(mask, "a mask")
            for axis, size in zip(front, shape, strict=False):
                if size > 1:  # not the same for all
                    ledger.fix(axis, "hidden or shown by a mask")
    if heads > 1:
        own_masks = any(len(shape) > len(step.shape) and shape[-3] > 1 for shape in step.shapes[3:])
        _heads(ledger, width, value[-1], heads=heads, own_masks=own_masks)
    return (*front, query[-2], value[-1])


def _heads(ledger: Ledger, width: Axis, value: Axis, *, heads: int, own_masks: bool) -> None:
    """Channels stay within their head; whole heads move unless each has a mask of its own."""
    ledger.has_blocks = True
    rows = [axis.reshape(heads, -1) for axis in (width, value) if axis is not None]
    if not ledger.coarse:
        for each in rows:
            keep_apart(ledger, each)
    elif len(rows) == 2 and not own_masks:
        ledger.join(np.concatenate(rows, axis=1))
    else:
        for axis in (width, value):
            ledger.fix(axis, "in a head that has a mask of its own, or of which a part is fixed")


def _recurrent(step: Step) -> Value:
    ledger, steps = step.ledger, step.inputs[0]
    hidden_size = whole(step.attrs, "hidden_size")
    gates = step.parameters["weight_ih"].shape[0] // hidden_size
    hidden = ledger.fresh(hidden_size)
    out = ledger.fresh(step.shape[-1]) if "weight_hr" in step.parameters else hidden
    rows = ledger.attached(np.tile(hidden, gates))
    step.own("weight_ih", rows, steps[1], reason="reads features that are fixed")
    step.own("weight_hh", rows, out)
    step.own("bias_ih", rows)
    step.own("bias_hh", rows)
    step.own("weight_hr", out, hidden)
    ledger.fix(steps[0], ORDER)
    for state, wanted in zip(step.inputs[1:], (out, hidden), strict=False):
        ledger.unify(wanted, state[0], "starts from a state that is fixed")
    return (None, out)


# ---- message passing


def _message(step: Step) -> Value:
    out = step.ledger.fresh(step.shape[0])
    for name in ("weight", "root"):
        step.own(name, out, step.inputs[0][0], reason="reads features that are fixed")
    step.own("bias", out)
    return (out,)


def _gat(step: Step) -> Value:
    (out,) = _message(step)
    heads = split_axis(step.ledger, out, step.parameters["source"].shape)
    for name in ("source", "target"):
        step.own(name, *heads, reason="a head, or a place within a head")
    return (out,)


def _chebyshev(step: Step) -> Value:
    out, features = step.ledger.fresh(step.shape[0]), step.inputs[0][0]
    terms = whole(step.attrs, "num_terms")
    columns = None if features is None else step.ledger.attached(np.tile(features, terms))
    step.own("weight", out, columns, reason="reads features that are fixed")
    step.own("bias", out)
    return (out,)


def _arma(step: Step) -> Value:
    out = step.ledger.fresh(step.shape[0])
    rows = step.ledger.attached(np.tile(out, whole(step.attrs, "num_stacks")))
    for name in ("weight", "root"):
        step.own(name, rows, step.inputs[0][0], reason="reads features that are fixed")
    step.own("bias", rows)
    return (out,)


# ---- norms


def _batch_norm(step: Step) -> Value:
    channels = step.inputs[0][0]
    _own_norm(step, (channels,))
    for name in ("running_mean", "running_var"):
        step.ledger.own(
            f"n{step.index}.{name}", 0, step.shape[0], channels, "normalises channels that are fixed"
        )
    return step.inputs[0]


def _own_norm(step: Step, axes: Value) -> None:
    for name in ("weight", "bias"):
        step.own(name, *axes, reason="normalises an axis that is fixed")


def _group_norm(step: Step) -> Value:
    channels, groups = step.inputs[0][0], whole(step.attrs, "groups")
    _own_norm(step, (channels,))
    if channels is not None and 1 < groups < len(channels):
        step.ledger.has_blocks = True
        rows = channels.reshape(groups, -1)
        if step.ledger.coarse:
            step.ledger.join(rows)
        else:
            keep_apart(step.ledger, rows)
    return step.inputs[0]


def _trailing_norm(step: Step) -> Value:
    _own_norm(step, step.inputs[0][-whole(step.attrs, "axes") :])
    return step.inputs[0]


def _apply_layer_norm(step: Step) -> Value:
    data, size = step.inputs[0], len(step.shapes[1])
    last = data[-size:]
    for given in step.inputs[1:]:
        last = broadcast(step.ledger, [last, given], [step.shapes[1], step.shapes[1]], step.op)
    return (*data[:-size], *last)


LAYERS: Mapping[str, Rule] = {
    "linear": _linear,
    "apply_linear": _apply_linear,
    "bilinear": _bilinear,
    "embedding": _embedding,
    "apply_embedding": _apply_embedding,
    "matmul": _matmul,
    "einsum": _einsum,
    "attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    **dict.fromkeys(("gcn_conv", "gin_conv", "sage_conv", "graph_conv"), _message),
    "gat_conv": _gat,
    "cheb_conv": _chebyshev,
    "arma_conv": _arma,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _trailing_norm,
    "rms_norm": _trailing_norm,
    "apply_layer_norm": _apply_layer_norm,
}
