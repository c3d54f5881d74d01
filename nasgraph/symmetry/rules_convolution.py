"""What convolutions demand of the axes that they read."""

from collections.abc import Mapping

import numpy as np

from nasgraph.ir.op import whole
from nasgraph.symmetry.demands import (
    KERNEL,
    SPACE,
    Rule,
    Step,
    Value,
    fixed,
    keep_apart,
)
from nasgraph.symmetry.units import Axis


def _convolution(step: Step, data: Value, weight: tuple[Axis, Axis], out: Axis, *, groups: int) -> Value:
    """Demands of a convolution in groups.

    Args:
        step: The node.
        data: Axes of what is convolved.
        weight: Axes of the weight that stand for output channels and for input channels of one group.
        out: Output channels, which are the weight's unless there are groups and it is transposed.
        groups: Number of groups.
    """
    ledger = step.ledger
    for axis in data[1:]:
        ledger.fix(axis, SPACE)
    if groups == 1:
        ledger.unify(weight[1], data[0], "reads channels that are fixed")
        return (out, *fixed(step.shape[1:]))
    num_in, num_out = step.shapes[0][0] // groups, step.shape[0] // groups
    if num_in == 1 and data[0] is not None and out is not None:  # depthwise: a channel and what is made of it
        ledger.bind(np.repeat(data[0], num_out), out)
        return (out, *fixed(step.shape[1:]))
    return _in_groups(step, data, weight, out, groups=groups)


def _in_groups(step: Step, data: Value, weight: tuple[Axis, Axis], out: Axis, *, groups: int) -> Value:
    ledger, inner = step.ledger, weight[1]
    ledger.has_blocks = True
    if ledger.coarse:  # whole groups move
        ledger.fix(inner, "a place within a group of channels")
        if data[0] is None or out is None:
            ledger.fix(data[0], "grouped with channels that are fixed")
            ledger.fix(out, "grouped with channels that are fixed")
        else:
            blocks = [data[0].reshape(groups, -1), out.reshape(groups, -1)]
            ledger.join(np.concatenate(blocks, axis=1))
    else:  # within all groups alike, since they share the weight's axis; output channels within their group
        if data[0] is None or inner is None:
            ledger.fix(data[0], "convolved by a weight that is fixed")
            ledger.fix(inner, "reads channels that are fixed")
        else:
            rows = data[0].reshape(groups, -1)
            ledger.bind(rows, np.broadcast_to(inner, rows.shape))
            keep_apart(ledger, rows)
        if out is not None:
            keep_apart(ledger, out.reshape(groups, -1))
    return (out, *fixed(step.shape[1:]))


def _conv(step: Step) -> Value:
    ledger, groups = step.ledger, whole(step.attrs, "groups")
    num_out, num_in = step.parameters["weight"].shape[:2]
    out, inner = ledger.fresh(num_out), ledger.fresh(num_in)
    step.own("weight", out, inner, *fixed(step.parameters["weight"].shape[2:]), reason=KERNEL)
    step.own("bias", out)
    return _convolution(step, step.inputs[0], (out, inner), out, groups=groups)


def _apply_conv(step: Step) -> Value:
    data, weight = step.inputs[:2]
    step.fix(weight[2:], KERNEL)
    out = weight[0]
    for bias in step.inputs[2:]:
        out = step.ledger.unify(out, bias[0], "joined with a bias that is fixed")
    return _convolution(step, data, (out, weight[1]), out, groups=whole(step.attrs, "groups"))


def _transposed(step: Step) -> Value:
    num_in, num_out = step.parameters["weight"].shape[:2]
    outer, inner = step.ledger.fresh(num_in), step.ledger.fresh(num_out)
    step.own("weight", outer, inner, *fixed(step.parameters["weight"].shape[2:]), reason=KERNEL)
    out = inner if num_out == step.shape[0] else step.ledger.fresh(step.shape[0])
    step.own("bias", out)
    return _transposed_convolution(step, outer, inner, out)


def _apply_transposed(step: Step) -> Value:
    outer, inner = step.inputs[1][:2]
    step.fix(step.inputs[1][2:], KERNEL)
    out = inner if step.shapes[1][1] == step.shape[0] else step.ledger.fresh(step.shape[0])
    for bias in step.inputs[2:]:
        out = step.ledger.unify(out, bias[0], "joined with a bias that is fixed")
    return _transposed_convolution(step, outer, inner, out)


def _transposed_convolution(step: Step, outer: Axis, inner: Axis, out: Axis) -> Value:
    """`outer` and `inner`: the weight's axes, for input channels and for output channels of one group."""
    ledger, groups = step.ledger, whole(step.attrs, "groups")
    data = step.inputs[0]
    for axis in data[1:]:
        ledger.fix(axis, SPACE)
    channels = ledger.unify(data[0], outer, "reads channels that are fixed")
    if groups == 1:
        return (out, *fixed(step.shape[1:]))
    ledger.has_blocks = True
    if channels is None or out is None:
        for axis in (inner, out):
            ledger.fix(axis, "grouped with channels that are fixed")
        return (out, *fixed(step.shape[1:]))
    rows_in, rows_out = channels.reshape(groups, -1), out.reshape(groups, -1)
    if ledger.coarse or rows_in.shape[1] == rows_out.shape[1] == 1:
        ledger.fix(inner, "a place within a group of channels")
        ledger.join(np.concatenate([rows_in, rows_out], axis=1))
    else:
        keep_apart(ledger, rows_in)
        keep_apart(ledger, rows_out)
        if inner is None:
            ledger.fix(out, "made by a weight that is fixed")
        else:
            ledger.bind(rows_out, np.broadcast_to(inner, rows_out.shape))
    return (out, *fixed(step.shape[1:]))


CONVOLUTIONS: Mapping[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("apply_conv1d", "apply_conv2d", "apply_conv3d"), _apply_conv),
    **{f"conv_transpose{dims}d": _transposed for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _apply_transposed for dims in (1, 2, 3)},
}
