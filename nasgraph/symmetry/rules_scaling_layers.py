"""Which equations layers with weights, attention and norms set up between exponents. See `scaling`."""

from collections.abc import Mapping

from nasgraph.symmetry.scaling import Keys, Rule, Step, attr


def _linear(step: Step) -> None:
    front = range(len(step.output.axes) - 1)
    step.follow(front)
    step.system.same(step.own("weight"), 0, step.output, -1)
    step.system.opposite(step.own("weight"), 1, step.inputs[0], -1)
    _bias(step, front)


def _bias(step: Step, front: range) -> None:
    """A bias is scaled as the output is along its own axis; along all others then nothing is."""
    bias = step.own("bias")
    if bias:
        step.system.same(bias, 0, step.output, -1)
        for axis in front:
            step.system.vanish(step.output, axis)


def _apply_linear(step: Step) -> None:
    data, weight = step.inputs[:2]
    front = range(len(step.output.axes) - 1)
    step.follow(front)
    step.system.same(weight, 0, step.output, -1)
    step.system.opposite(weight, 1, data, -1)
    for bias in step.inputs[2:]:
        step.system.same(bias, 0, step.output, -1)
        for axis in front:
            step.system.vanish(step.output, axis)


def _bilinear(step: Step) -> None:
    weight, (first, second) = step.own("weight"), step.inputs
    step.system.same(weight, 0, step.output, -1)
    step.system.opposite(weight, 1, first, -1)
    step.system.opposite(weight, 2, second, -1)
    front = range(len(step.output.axes) - 1)
    for axis in front:
        step.system.zero((step.output, axis, -1), (first, axis, 1), (second, axis, 1))
    _bias(step, front)


def _embedding(step: Step) -> None:
    step.vanish(step.inputs[0])
    step.system.same(step.own("weight"), 1, step.output, -1)
    for axis in range(len(step.output.axes) - 1):
        step.system.vanish(step.output, axis)


def _apply_embedding(step: Step) -> None:
    step.vanish(step.inputs[0])
    step.system.same(step.inputs[1], 1, step.output, -1)
    for axis in range(len(step.output.axes) - 1):
        step.system.vanish(step.output, axis)


def _convolution(step: Step) -> None:
    _convolve(step, step.own("weight"), step.own("bias"))


def _apply_convolution(step: Step) -> None:
    bias = step.inputs[2] if len(step.inputs) > 2 else None
    _convolve(step, step.inputs[1], bias)


def _convolve(step: Step, weight: Keys | None, bias: Keys | None) -> None:
    assert weight is not None
    system, data, transposed = step.system, step.inputs[0], "transpose" in step.node.op
    system.same(bias, 0, step.output, 0)
    groups = attr(step, "groups")
    if groups == 1:
        out, inner = (1, 0) if transposed else (0, 1)
        system.same(weight, out, step.output, 0)
        system.opposite(weight, inner, data, 0)
        return
    channels = data.axes[0]
    if len(channels) == groups and (not transposed or len(step.output.axes[0]) == groups):  # depthwise
        repeated = Keys(data.tensor, (channels.repeat(len(step.output.axes[0]) // groups),))
        system.zero((step.output, 0, -1), (weight, 0, 1), (repeated, 0, 1))
        return
    _convolve_groups(step, weight, groups)


def _convolve_groups(step: Step, weight: Keys, groups: int) -> None:
    """The weight has one axis for the channels within a group, which all groups share."""
    system, data, output = step.system, step.inputs[0], step.output
    if "transpose" in step.node.op:
        whole_axis, own, other, sign = data, 0, output, -1
    else:
        whole_axis, own, other, sign = output, 0, data, 1
    system.zero((weight, own, 1), (whole_axis, 0, -sign))
    rows = other.axes[0].reshape(groups, -1)
    for row in rows:
        system.zero((weight, 1, 1), (Keys(other.tensor, (row,)), 0, sign))


def _matmul(step: Step) -> None:
    first, second = step.inputs
    step.system.opposite(first, -1, second, -2)
    step.system.same(first, -2, step.output, -2)
    step.system.same(second, -1, step.output, -1)
    for axis in range(len(step.output.axes) - 2):
        step.system.zero((step.output, axis, -1), (first, axis, 1), (second, axis, 1))


def _einsum(step: Step) -> None:
    left, _, right = str(dict(step.node.attrs)["equation"]).replace(" ", "").partition("->")
    places: dict[str, list[tuple[Keys, int, int]]] = {}
    for term, keys in zip(left.split(","), step.inputs, strict=True):
        for axis, letter in enumerate(term):
            places.setdefault(letter, []).append((keys, axis, 1))
    for letter, terms in places.items():
        given = [(step.output, right.index(letter), -1)] if letter in right else []
        step.system.zero(*terms, *given)


def _attention(step: Step) -> None:
    query, key, value = step.inputs[:3]
    system = step.system
    system.opposite(query, -1, key, -1)
    system.same(value, -1, step.output, -1)
    for keys in (query, key, value, step.output):
        system.vanish(keys, -2)
    for axis in range(len(step.output.axes) - 2):
        system.opposite(query, axis, key, axis)
        system.same(value, axis, step.output, axis)
    step.vanish(*step.inputs[3:])


def _rnn(step: Step) -> None:
    """Elman's layer: the hidden units feed back into themselves."""
    system = step.system
    system.vanish(step.inputs[0], 0)
    system.vanish(step.output, 0)
    system.opposite(step.own("weight_ih"), 1, step.inputs[0], -1)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        system.same(step.own(name), 0, step.output, -1)
    system.opposite(step.own("weight_hh"), 1, step.output, -1)
    for state in step.inputs[1:]:
        system.same(state, 0, step.output, -1)
    system.mark(step.output, "positive" if dict(step.node.attrs)["nonlinearity"] == "relu" else "sign")


def _gated(step: Step) -> None:
    """Gates hold the hidden units; what the cell reads may be scaled."""
    for name in ("weight_hh", "bias_ih", "bias_hh", "weight_hr"):
        keys = step.own(name)
        if keys:
            step.vanish(keys)
    weight = step.own("weight_ih")
    assert weight is not None
    step.system.vanish(weight, 0)
    step.system.opposite(weight, 1, step.inputs[0], -1)
    step.system.vanish(step.inputs[0], 0)
    step.vanish(*step.inputs[1:], step.output)


def _message(step: Step) -> None:
    for keys in (step.own("weight"), step.own("root")):
        if keys:
            step.system.same(keys, 0, step.output, 0)
            step.system.opposite(keys, 1, step.inputs[0], 0)
    step.system.same(step.own("bias"), 0, step.output, 0)
    if dict(step.node.attrs).get("aggregation") == "max":
        step.system.mark(step.inputs[0], "positive")
        step.system.mark(step.output, "positive")


def _norm(step: Step) -> None:
    """Takes the scale out of what it reads; its own scale and shift make a new one along their axes."""
    step.vanish(*step.inputs[:1])
    for name in ("running_mean", "running_var"):
        keys = step.own(name)
        if keys:
            step.vanish(keys)
    own = [step.own("weight"), step.own("bias")] if step.node.op != "apply_layer_norm" else step.inputs[1:]
    parameters = [keys for keys in own if keys]
    rank = len(step.output.axes)
    if not parameters:
        step.vanish(step.output)
        return
    if step.node.op in ("batch_norm", "group_norm"):
        start, stop = 0, 1
    else:
        start, stop = rank - len(parameters[0].axes), rank
    for axis in range(rank):
        if not start <= axis < stop:
            step.system.vanish(step.output, axis)
            continue
        for keys in parameters:
            step.system.same(keys, axis - start, step.output, axis)


LAYERS: Mapping[str, Rule] = {
    "linear": _linear,
    "apply_linear": _apply_linear,
    "bilinear": _bilinear,
    "embedding": _embedding,
    "apply_embedding": _apply_embedding,
    **{f"conv{dims}d": _convolution for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _convolution for dims in (1, 2, 3)},
    **{f"apply_conv{dims}d": _apply_convolution for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _apply_convolution for dims in (1, 2, 3)},
    "matmul": _matmul,
    "einsum": _einsum,
    "attention": _attention,
    "rnn": _rnn,
    **dict.fromkeys(("lstm", "gru"), _gated),
    **dict.fromkeys(("gcn_conv", "gin_conv", "sage_conv", "graph_conv"), _message),
    **dict.fromkeys(("batch_norm", "group_norm", "layer_norm", "rms_norm", "apply_layer_norm"), _norm),
}
