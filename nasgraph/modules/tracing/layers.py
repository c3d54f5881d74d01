# ruff: noqa: ARG001  rules have one signature
"""Rules for functions with parameters: linear maps, convolutions, norms, embeddings, products; and pooling."""

from collections.abc import Mapping, Sequence

from nasgraph.modules.tracing.arguments import example_first, optional, ownable
from nasgraph.modules.tracing.elementwise import finite, number_at, reduce, value_at
from nasgraph.modules.tracing.lowering import Batch, Dims, Lowering, Rule, UntranslatableError, integers
from nasgraph.modules.tracing.recording import Call, Value


def _channels_last_axis(lower: Lowering, x: Value) -> None:
    batch = lower.layout(x)
    if batch is not None and batch.axis == len(x.shape) - 1:
        raise UntranslatableError("maps the axis of the examples")


def linear(lower: Lowering, call: Call) -> None:
    """`torch.nn.functional.linear`."""
    x, weight, bias = value_at(call, 0), value_at(call, 1, "weight"), optional(call, 2, "bias")
    out = call.outputs[0]
    batch = lower.layout(x)
    node = apply_weight(lower, x, weight, bias)
    lower.set(out, node, None if batch is None else batch)


def apply_weight(lower: Lowering, x: Value, weight: Value, bias: Value | None) -> int:
    """`x @ weight.T + bias`: a node that owns its parameters where they are its own alone."""
    _channels_last_axis(lower, x)
    if ownable(lower, weight, bias) and len(weight.shape) == 2 and (bias is None or len(bias.shape) == 1):
        node = lower.emit("linear", lower.node(x), out_features=weight.shape[0], bias=bias is not None)
        lower.own(node, "weight", weight)
        if bias is not None:
            lower.own(node, "bias", bias)
        return node
    sources = [lower.node(x), lower.node(weight)]
    return lower.emit("apply_linear", *sources, *([] if bias is None else [lower.node(bias)]))


def transposed(lower: Lowering, value: Value) -> Value:
    """A matrix with its axes swapped, as a view that nodes may own."""
    root, order = lower.root(value)
    out = Value((*value.shape[:-2], value.shape[-1], value.shape[-2]), value.dtype)
    lower.alias(out, root, (*order[:-2], order[-1], order[-2]))
    return out


def addmm(lower: Lowering, call: Call) -> None:
    """`addmm(bias, x, weight)`: how GPT-2 spells a linear map."""
    bias, x, weight = (value_at(call, i, n) for i, n in enumerate(("input", "mat1", "mat2")))
    if call.kwargs.get("beta", 1) != 1 or call.kwargs.get("alpha", 1) != 1:
        raise UntranslatableError("scales its operands")
    if not lower.base(weight).parameter:
        raise UntranslatableError("multiplies computed matrices")
    lower.set(call.outputs[0], apply_weight(lower, x, transposed(lower, weight), bias), lower.layout(x))


def matmul(lower: Lowering, call: Call) -> None:
    """`matmul`, `@`, `mm`, `bmm`, `mv`."""
    first, second = value_at(call, 0), value_at(call, 1, "mat2" if "mat2" in call.kwargs else "other")
    if call.name == "rmatmul":
        first, second = second, first
    out = call.outputs[0]
    if lower.base(second).parameter and len(second.shape) == 2 and _fits_linear(lower, first, second):
        lower.set(out, apply_weight(lower, first, transposed(lower, second), None), lower.layout(first))
        return
    if min(len(first.shape), len(second.shape)) < 2:
        _matrix_vector(lower, first, second, out)
        return
    rank = len(out.shape)
    batch = next((b for b in (_grown(lower, v, rank) for v in (first, second)) if b is not None), None)
    if batch is not None and batch.axis >= rank - 2:
        _matrix_examples(lower, first, second, batch, out)
        return
    nodes = [lower.operand(value, rank, batch) for value in (first, second)]
    lower.set(out, lower.emit("matmul", *nodes), batch)


def _grown(lower: Lowering, value: Value, rank: int) -> Batch | None:
    batch = lower.layout(value)
    extra = rank - len(value.shape)
    return None if batch is None else Batch(batch.axis + extra, batch.outer, batch.inner)


def _fits_linear(lower: Lowering, x: Value, weight: Value) -> bool:
    return len(x.shape) >= 1 and lower.owned(weight) is not None


def _matrix_examples(lower: Lowering, first: Value, second: Value, batch: Batch, out: Value) -> None:
    """Rows of the first matrix (or columns of the second) are examples, the other matrix is fixed."""
    rows = (
        lower.layout(first) is not None and lower.layout(second) is None and batch.axis == len(out.shape) - 2
    )
    if not rows or len(second.shape) != 2 or len(first.shape) != 2:
        raise UntranslatableError("multiplies examples with each other")
    node = lower.fit(lower.node(first), (batch.rest, first.shape[-1]))
    product = lower.emit("matmul", node, lower.node(second))
    dims = lower.strip(out.shape, batch)
    lower.set(out, lower.fit(product, dims), batch)


def _matrix_vector(lower: Lowering, first: Value, second: Value, out: Value) -> None:
    if len(first.shape) >= 2 and len(second.shape) == 1:
        if lower.layout(second) is not None:
            raise UntranslatableError("multiplies by a vector over examples")
        _channels_last_axis(lower, first)
        node = lower.node(first)
        if len(lower.g.shape(node)) == 1:
            node = lower.fit(node, (1, *lower.g.shape(node)))
        column = lower.fit(lower.node(second), (*(1,) * (len(lower.g.shape(node)) - 2), second.shape[0], 1))
        batch = lower.layout(first)
        lower.set(out, lower.fit(lower.emit("matmul", node, column), lower.strip(out.shape, batch)), batch)
        return
    if len(first.shape) == len(second.shape) == 1 and lower.layout(first) is None is lower.layout(second):
        node = lower.emit("mul", lower.node(first), lower.node(second))
        lower.set(out, lower.emit("reduce_sum", node, axes=(0,), keepdims=True), None)
        return
    raise UntranslatableError("multiplies a vector by a matrix")


def baddbmm(lower: Lowering, call: Call) -> None:
    """`baddbmm(c, a, b, beta, alpha)`: a batched product plus an offset."""
    c, a, b = (value_at(call, i, n) for i, n in enumerate(("input", "batch1", "batch2")))
    beta, alpha = (number_at(call, i, n, 1.0) for i, n in ((3, "beta"), (4, "alpha")))
    out = call.outputs[0]
    batch = lower.layout(a)
    product = lower.emit("matmul", lower.operand(a, 3, batch), lower.operand(b, 3, batch))
    if alpha != 1:
        product = lower.emit("affine", product, scale=finite(alpha), shift=0.0)
    if beta != 0:
        offset = lower.operand(c, 3, batch)
        if beta != 1:
            offset = lower.emit("affine", offset, scale=finite(beta), shift=0.0)
        product = lower.emit("add", offset, product)
    lower.set(out, product, batch)


def einsum(lower: Lowering, call: Call) -> None:
    """`einsum` over one letter for the examples, which is dropped."""
    equation, operands = call.args[0], list(call.inputs())
    if not isinstance(equation, str) or "." in equation:
        raise UntranslatableError("uses an ellipsis")
    equation = equation.replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        letters = "".join(terms)
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    out = call.outputs[0]
    marked = set()
    for term, value in zip(terms, operands, strict=True):
        batch = lower.layout(value)
        if batch is not None:
            if batch.rest != 1:
                raise UntranslatableError("has examples merged with another axis")
            marked.add(term[batch.axis])
    if len(marked) > 1 or (marked and not marked <= set(right)):
        raise UntranslatableError("sums over the examples")
    letter = next(iter(marked), "")
    nodes = []
    for term, value in zip(terms, operands, strict=True):
        if letter and letter in term and lower.layout(value) is None:
            raise UntranslatableError("combines a fixed tensor with single examples")
        if not term.replace(letter, "") if letter else not term:
            raise UntranslatableError("reads one number per example")
        nodes.append(lower.node(value))
    if letter:
        terms = [term.replace(letter, "") for term in terms]
    rest = right.replace(letter, "") if letter else right
    if not rest:
        raise UntranslatableError("gives one number per example")
    batch = Batch(right.index(letter)) if letter else None
    lower.set(out, lower.emit("einsum", *nodes, equation=f"{','.join(terms)}->{rest}"), batch)


# ---- norms


def batch_norm(lower: Lowering, call: Call) -> None:
    """`batch_norm` with running statistics, or of a fixed tensor by its own."""
    x = value_at(call, 0)
    mean, variance = (call.argument(i, n) for i, n in ((1, "running_mean"), (2, "running_var")))
    weight, bias = optional(call, 3, "weight"), optional(call, 4, "bias")
    eps = number_at(call, 7, "eps", 1e-5)
    if lower.layout(x) is None and call.argument(5, "training", False) and weight is None and bias is None:
        lower.set(call.outputs[0], _standardised(lower, x, eps), None)
        return
    known = all(isinstance(v, Value) and v.tensor is not None for v in (mean, variance))
    if not known or call.argument(5, "training", False):
        raise UntranslatableError("has no running statistics")
    node, back = _channels_first(lower, x)
    affine = _has_both(lower, weight, bias)
    node = lower.emit("batch_norm", node, eps=eps, affine=affine)
    assert isinstance(mean, Value)
    assert isinstance(variance, Value)
    assert mean.tensor is not None
    assert variance.tensor is not None
    lower.statistics[node] = (mean.tensor, variance.tensor)
    node = _with_gain(lower, node, weight, bias, own=affine)
    if back:
        node = lower.emit("permute", node, order=back)
    lower.set(call.outputs[0], node, lower.layout(x))


def _channels_first(lower: Lowering, x: Value) -> tuple[int, Dims]:
    """A node with the channels (axis 1) in front, and the order that undoes it, if it needs undoing."""
    batch = lower.layout(x)
    if batch is None or batch.axis != 0:
        raise UntranslatableError("reads no plain batch")
    node = lower.node(x)
    if batch.rest == 1:
        return node, ()
    others = tuple(range(2, len(x.shape)))  # axis 0 holds what was merged with the examples
    return lower.emit("permute", node, order=(1, 0, *others)), (1, 0, *others)


def _standardised(lower: Lowering, x: Value, eps: float) -> int:
    """A fixed tensor with mean 0 and variance 1 in each of its channels (axis 1): weight standardisation."""
    axes = tuple(axis for axis in range(len(x.shape)) if axis != 1)
    node = lower.node(x)
    centred = lower.emit("sub", node, lower.emit("reduce_mean", node, axes=axes, keepdims=True))
    variance = lower.emit("reduce_var", node, axes=axes, keepdims=True, correction=0)
    scale = lower.emit("rsqrt", lower.emit("affine", variance, scale=1.0, shift=finite(eps)))
    return lower.emit("mul", centred, scale)


def _has_both(lower: Lowering, weight: Value | None, bias: Value | None) -> bool:
    """Whether a norm can own its scale and shift."""
    return weight is not None and bias is not None and ownable(lower, weight, bias)


def _with_gain(
    lower: Lowering, node: int, weight: Value | None, bias: Value | None, *, own: bool, axis: int = 0
) -> int:
    """A norm with its scale and shift: its own, or read by product and sum along `axis`."""
    if own:
        _own_norm(lower, node, weight, bias)
        return node
    rank = len(lower.g.shape(node))
    for op, value in (("mul", weight), ("add", bias)):
        if value is not None:
            shape = (*(1,) * axis, *value.shape, *(1,) * (rank - axis - len(value.shape)))
            node = lower.emit(op, node, lower.fit(lower.node(value), shape))
    return node


def _own_norm(lower: Lowering, node: int, weight: Value | None, bias: Value | None) -> None:
    if weight is not None:
        lower.own(node, "weight", weight)
    if bias is not None:
        lower.own(node, "bias", bias)


def layer_norm(lower: Lowering, call: Call) -> None:
    """`layer_norm` over the last axes."""
    x = value_at(call, 0)
    axes = len(tuple(integers((call.argument(1, "normalized_shape"),))))
    weight, bias = optional(call, 2, "weight"), optional(call, 3, "bias")
    eps = number_at(call, 4, "eps", 1e-5)
    for axis in range(len(x.shape) - axes, len(x.shape)):
        lower.axis(x, axis)
    node = lower.node(x)
    if weight is None and bias is None:
        node = lower.emit("layer_norm", node, eps=eps, axes=axes, affine=False)
    elif weight is not None and ownable(lower, weight, bias):
        node = lower.emit("layer_norm", node, eps=eps, axes=axes, affine=True, bias=bias is not None)
        _own_norm(lower, node, weight, bias)
    else:
        node = lower.emit("layer_norm", node, eps=eps, axes=axes, affine=False)
        axis = len(lower.g.shape(node)) - axes
        node = _with_gain(lower, node, weight, bias, own=False, axis=axis)
    lower.set(call.outputs[0], node, lower.layout(x))


def rms_norm(lower: Lowering, call: Call) -> None:
    """`rms_norm` over the last axes."""
    x, weight = value_at(call, 0), optional(call, 2, "weight")
    axes = len(tuple(integers((call.argument(1, "normalized_shape"),))))
    eps = call.argument(3, "eps")
    if eps is None:
        eps = 1.1920928955078125e-07  # the type's epsilon, torch's default
    for axis in range(len(x.shape) - axes, len(x.shape)):
        lower.axis(x, axis)
    own = weight is not None and ownable(lower, weight)
    node = lower.emit("rms_norm", lower.node(x), eps=eps, axes=axes, affine=own)
    axis = len(lower.g.shape(node)) - axes
    node = _with_gain(lower, node, weight, None, own=own, axis=axis)
    lower.set(call.outputs[0], node, lower.layout(x))


def group_norm(lower: Lowering, call: Call) -> None:
    """`group_norm` over groups of channels."""
    x, groups = value_at(call, 0), call.argument(1, "num_groups")
    weight, bias = optional(call, 2, "weight"), optional(call, 3, "bias")
    _group_norm(lower, x, groups, weight, bias, number_at(call, 4, "eps", 1e-5), call.outputs[0])


def instance_norm(lower: Lowering, call: Call) -> None:
    """`instance_norm` by the statistics of each picture: a group norm with one channel in each group."""
    x = value_at(call, 0)
    if not call.argument(5, "use_input_stats", True):
        raise UntranslatableError("uses running statistics")
    weight, bias = optional(call, 3, "weight"), optional(call, 4, "bias")
    _group_norm(lower, x, x.shape[1], weight, bias, number_at(call, 7, "eps", 1e-5), call.outputs[0])


def _group_norm(
    lower: Lowering,
    x: Value,
    groups: object,
    weight: Value | None,
    bias: Value | None,
    eps: float,
    out: Value,
) -> None:
    batch = example_first(lower, x, len(x.shape) - 2)
    affine = _has_both(lower, weight, bias)
    node = lower.emit("group_norm", lower.node(x), groups=groups, eps=eps, affine=affine)
    node = _with_gain(lower, node, weight, bias, own=affine)
    lower.set(out, node, batch)


# ---- tables and others


def embedding(lower: Lowering, call: Call) -> None:
    """`embedding(ids, table)`."""
    ids, table, out = value_at(call, 0), value_at(call, 1, "weight"), call.outputs[0]
    if call.argument(3, "max_norm") is not None:
        raise UntranslatableError("renormalises its table")
    batch = lower.layout(ids)
    node = lower.node(ids)
    if lower.owned(table) is not None:
        size, dim = table.shape
        node = lower.emit("embedding", node, num_embeddings=size, dim=dim)
        lower.own(node, "weight", table)
    else:
        node = lower.emit("apply_embedding", node, lower.node(table))
    lower.set(out, lower.fit(node, lower.strip(out.shape, batch)), batch)


def embedding_bag(lower: Lowering, call: Call) -> None:
    """`embedding_bag` over rows of equal length: a look-up, then the mean or sum of the rows."""
    ids, table, out = value_at(call, 0), value_at(call, 1, "weight"), call.outputs[0]
    mode = call.argument(6, "mode", "mean")
    unusual = (
        call.argument(i, n)
        for i, n in ((2, "offsets"), (3, "max_norm"), (8, "per_sample_weights"), (10, "padding_idx"))
    )
    if (
        any(setting is not None for setting in unusual)
        or len(ids.shape) != 2
        or mode not in ("mean", "sum", "max")
    ):
        raise UntranslatableError("has bags of different sizes or weights")
    words = Value((*ids.shape, table.shape[1]), "float")
    embedding(lower, Call("embedding", (ids, table), {}, (words,)))
    reduce(lower, f"reduce_{mode}", words, 1, False, out)


def bilinear(lower: Lowering, call: Call) -> None:
    """`bilinear(x1, x2, weight, bias)`."""
    first, second = value_at(call, 0, "input1"), value_at(call, 1, "input2")
    weight, bias = value_at(call, 2, "weight"), optional(call, 3, "bias")
    if not ownable(lower, weight, bias):
        raise UntranslatableError("shares its parameters")
    node = lower.emit(
        "bilinear", lower.node(first), lower.node(second), out_features=weight.shape[0], bias=bias is not None
    )
    _own_norm(lower, node, weight, bias)
    lower.set(call.outputs[0], node, lower.layout(first))


def weight_norm(lower: Lowering, call: Call) -> None:
    """`torch._weight_norm(v, g, dim)`: direction times length (Salimans and Kingma 2016, equation 2)."""
    direction, length, out = value_at(call, 0, "v"), value_at(call, 1, "g"), call.outputs[0]
    dim = call.argument(2, "dim", 0)
    rank = len(direction.shape)
    axes = tuple(axis for axis in range(rank) if dim == -1 or axis != dim)
    node = lower.node(direction)
    squares = lower.emit("reduce_sum", lower.emit("square", node), axes=axes, keepdims=True)
    gain = lower.fit(lower.node(length), (1,) * rank if dim == -1 else lower.g.shape(squares))
    scale = lower.emit("div", gain, lower.emit("sqrt", squares))
    lower.set(out, lower.emit("mul", node, scale), None)


def reordered(rule: Rule, order: Sequence[int]) -> Rule:
    """A rule for a function that takes the same arguments by position, in another order."""

    def reorder(lower: Lowering, call: Call) -> None:
        args = tuple(call.args[place] if place < len(call.args) else None for place in order)
        rule(lower, Call(call.name, args, call.kwargs, call.outputs))

    return reorder


def known_opaque(lower: Lowering, call: Call) -> None:
    """Known to use its parameters as weights, not expressible."""
    raise UntranslatableError("has no counterpart")


RULES: Mapping[str, Rule] = {
    "linear": linear,
    "addmm": addmm,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "rmatmul", "dot", "vdot", "inner"), matmul),
    "baddbmm": baddbmm,
    "einsum": einsum,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "embedding": embedding,
    "embedding_bag": embedding_bag,
    "aten_embedding": reordered(embedding, (1, 0)),
    "aten_batch_norm": reordered(batch_norm, (0, 3, 4, 1, 2, 5, 6, 7)),
    "aten_instance_norm": reordered(instance_norm, (0, 3, 4, 1, 2, 5, 6, 7)),
    "aten_embedding_bag": known_opaque,
    "bilinear": bilinear,
    "_weight_norm": weight_norm,
    **dict.fromkeys(
        ("tensordot", "grouped_mm", "_grouped_mm", "convolution", "conv_tbc", "batch_norm_", "_convolution", "native_batch_norm",
         "ctc", "multi_margin", "lp_pool2d", "fractional_max_pool2d", "native_layer_norm", "native_group_norm"),
        known_opaque,
    ),
}  # fmt: skip

__all__: Sequence[str] = ("RULES",)
