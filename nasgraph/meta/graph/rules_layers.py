"""How layers, attention, norms and sums write their units and parameters into the book of a parameter graph."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from nasgraph.ir import Shape
from nasgraph.ir.op import whole
from nasgraph.meta.graph.sites import Axis, Book, Joint, Step, Value


def lazy(shape: Shape) -> Value:
    """Axes without nodes."""
    return tuple(Axis(size) for size in shape)


# ---- sums, products and other functions of several values


def joined(book: Book, step: Step, axes: Sequence[Axis], size: int, kinds: Sequence[str]) -> Axis:
    """The axis that several become element by element: the same one if they agree, else new units with edges from each."""
    having = [(axis, kind) for axis, kind in zip(axes, kinds, strict=True) if axis.nodes is not None]
    full = [axis for axis in axes if axis.size == size]
    if not having:
        return full[0]
    first = having[0][0]
    if all(_alike(first, axis) for axis, _ in having) and first.size == size:
        return first
    new = book.site(step, "join", size)
    assert new.nodes is not None
    for axis, kind in having:
        assert axis.nodes is not None
        book.link(kind, axis.nodes, new.nodes, np.broadcast_to(axis.slots, (size,)))
    return new


def _alike(first: Axis, second: Axis) -> bool:
    return first is second or (
        first.size == second.size
        and np.array_equal(np.asarray(first.nodes), np.asarray(second.nodes))
        and np.array_equal(first.slots, second.slots)
    )


_KINDS: Mapping[str, tuple[str, str]] = {
    "add": ("add", "add"),
    "sub": ("add", "subtract"),
    "mul": ("multiply", "multiply"),
    "div": ("multiply", "divide"),
    "maximum": ("argument_0", "argument_0"),
    "minimum": ("argument_0", "argument_0"),
}


def _join(book: Book, step: Step) -> Value:
    known = _KINDS.get(step.op, ("argument_0", "argument_1", "argument_2"))
    kinds = [known[min(place, len(known) - 1)] for place in range(len(step.inputs))]
    return tuple(
        joined(book, step, [value[place] for value in step.inputs], size, kinds)
        for place, size in enumerate(step.shape)
    )


def _front(book: Book, step: Step, values: Sequence[Value]) -> Value:
    """Leading axes, broadcast."""
    return tuple(
        joined(book, step, axes, max(axis.size for axis in axes), ["argument_0"] * len(axes))
        for axes in zip(*values, strict=True)
    )


# ---- linear maps and look-up tables


def _linear(book: Book, step: Step) -> Value:
    out = book.site(step, "unit", step.shape[-1])
    book.weight(step, "weight", out, step.inputs[0][-1], kind="linear")
    book.column(step, "bias", out, "bias")
    return (*step.inputs[0][:-1], out)


def _bilinear(book: Book, step: Step) -> Value:
    first, second = step.inputs
    out = book.site(step, "unit", step.shape[-1])
    for axis in (first[-1], second[-1]):
        book.nodes(step, axis)
    pairs = book.pairs(step, first[-1], second[-1])
    shape = (out.size, pairs.size)
    grid = np.arange(out.size)[:, None], np.arange(pairs.size)[None, :]
    book.connect(step, "weight", shape, (pairs, grid[1]), (out, grid[0]), kind="bilinear")
    book.stand(step, "weight", (out, first[-1], second[-1]), (1, 0, 0))
    book.column(step, "bias", out, "bias")
    return (*_front(book, step, [first[:-1], second[:-1]]), out)


def _embedding(book: Book, step: Step) -> Value:
    entries = book.site(step, "entry", step.parameters["weight"].shape[0])
    out = book.site(step, "unit", step.shape[-1])
    book.weight(step, "weight", entries, out, kind="table", outgoing=True)
    return (*step.inputs[0], out)


def _operand(book: Book, step: Step, axis: Axis, site: str = "unit") -> Axis:
    """New units that follow those of a weight that is itself a value."""
    return Axis(axis.size) if axis.nodes is None else book.follow(step, site, axis, "operand")


def _sum_over(book: Book, step: Step, axes: Sequence[Axis]) -> None:
    """Nodes for what a product of matrices sums over, once for the same axes."""
    if len(axes) < 2 or all(axis.nodes is None for axis in axes):
        return
    nodes = [book.nodes(step, axis) for axis in axes]
    key = tuple((own.tobytes(), axis.slots.tobytes()) for own, axis in zip(nodes, axes, strict=True))
    if key in book.sums:
        return
    book.sums.add(key)
    new = book.site(step, "operand", max(axis.size for axis in axes))
    assert new.nodes is not None
    for number, (own, axis) in enumerate(zip(nodes, axes, strict=True)):
        book.link(f"argument_{min(number, 2)}", own, new.nodes, axis.slots)


def _apply_linear(book: Book, step: Step) -> Value:
    data, weight = step.inputs[:2]
    _sum_over(book, step, [data[-1], weight[1]])
    out = _operand(book, step, weight[0])
    for bias in step.inputs[2:]:
        book.link("add", book.nodes(step, bias[0]), book.nodes(step, out))
    return (*data[:-1], out)


def _apply_embedding(book: Book, step: Step) -> Value:
    words, table = step.inputs
    return (*words, _operand(book, step, table[1]))


def _matmul(book: Book, step: Step) -> Value:
    first, second = step.inputs
    _sum_over(book, step, [first[-1], second[-2]])
    rows, columns = _operand(book, step, first[-2], "operand"), _operand(book, step, second[-1], "operand")
    return (*_front(book, step, [first[:-2], second[:-2]]), rows, columns)


def _einsum(book: Book, step: Step) -> Value:
    left, _, right = str(step.attrs["equation"]).replace(" ", "").partition("->")
    known: dict[str, list[Axis]] = {}
    for term, value in zip(left.split(","), step.inputs, strict=True):
        for letter, axis in zip(term, value, strict=True):
            known.setdefault(letter, []).append(axis)
    result: dict[str, Axis] = {}
    for letter, axes in known.items():
        if letter not in right:
            _sum_over(book, step, axes)
        elif len(axes) == 1:
            result[letter] = _operand(book, step, axes[0], "operand")
        else:
            size = max(axis.size for axis in axes)
            result[letter] = joined(book, step, axes, size, ["argument_0"] * len(axes))
    return tuple(result[letter] for letter in right)


# ---- convolutions


def _conv(book: Book, step: Step) -> Value:
    groups, channels = whole(step.attrs, "groups"), step.inputs[0][0]
    out = book.site(step, "unit", step.shape[0])
    spec = step.parameters["weight"]
    num_out, num_in = spec.shape[:2]
    row = np.arange(num_out)[:, None]
    place = row // (num_out // groups) * num_in + np.arange(num_in)
    book.connect(step, "weight", spec.shape, (channels, place), (out, row), kind="kernel")
    book.stand(step, "weight", (out, channels if groups == 1 else None), (1, -1))
    book.column(step, "bias", out, "bias")
    return (out, *lazy(step.shape[1:]))


def _transposed(book: Book, step: Step) -> Value:
    groups, channels = whole(step.attrs, "groups"), step.inputs[0][0]
    out = book.site(step, "unit", step.shape[0])
    spec = step.parameters["weight"]
    num_in, num_out = spec.shape[:2]
    row = np.arange(num_in)[:, None]
    place = row // (num_in // groups) * num_out + np.arange(num_out)
    book.connect(step, "weight", spec.shape, (channels, row), (out, place), kind="transposed_kernel")
    book.stand(step, "weight", (channels, out if groups == 1 else None), (-1, 1))
    book.column(step, "bias", out, "bias")
    return (out, *lazy(step.shape[1:]))


def _apply_conv(book: Book, step: Step) -> Value:
    data, weight = step.inputs[:2]
    transposed, groups = step.op.startswith("apply_conv_transpose"), whole(step.attrs, "groups")
    outer, inner = weight[:2]
    out = book.site(step, "unit", step.shape[0])
    inside, outside = (outer, inner) if transposed else (inner, outer)
    if inside.nodes is not None:  # those of one group, for each group
        book.link("argument_0", book.nodes(step, data[0]), np.resize(inside.nodes, data[0].size))
    if outside.nodes is not None:
        book.link("operand", np.resize(outside.nodes, out.size), book.nodes(step, out))
    if groups > 1:
        rows = [book.nodes(step, axis).reshape(groups, -1) for axis in (data[0], out)]
        book.blocks(step, *rows)
    for bias in step.inputs[2:]:
        book.link("add", book.nodes(step, bias[0]), book.nodes(step, out))
    return (out, *lazy(step.shape[1:]))


# ---- attention and recurrent layers


def _attention(book: Book, step: Step) -> Value:
    heads = whole(step.attrs, "num_heads")
    values = step.inputs[:3]
    fronts = [place for place in range(len(step.shape) - 2) if values[0][place].joint is not None]
    together = [_heads_together(value, fronts) for value in values] if fronts else [None]
    if any(each is None for each in together):
        book.take_apart(step, step.inputs)
        fronts, flat = [], [value[-1] for value in values]
    else:
        book.take_apart(step, step.inputs[3:])
        flat = [each for each in together if each is not None]
        heads *= prod(step.shape[place] for place in fronts)
    query, key, value = flat
    score = book.follow(step, "score", query, "query")
    book.link("key", book.nodes(step, key), book.nodes(step, score), key.slots)
    out = book.follow(step, "attention", value, "value")
    rows = [book.nodes(step, axis).reshape(heads, -1) for axis in (score, out)]
    book.blocks(step, *rows)
    if not fronts:
        front = _front(book, step, [each[:-2] for each in values])
        return (*front, step.inputs[0][-2], out)
    sizes = [*(step.shape[place] for place in fronts), step.shape[-1]]
    joint = Joint.of(book.nodes(step, out).reshape(sizes), out.slots.reshape(sizes))
    given = dict(zip([*fronts, len(step.shape) - 1], joint.axes, strict=True))
    return tuple(given.get(place, axis) for place, axis in enumerate(step.inputs[0]))


def _heads_together(value: Value, fronts: Sequence[int]) -> Axis | None:
    """The channels of all heads in one axis, if leading axes stand for heads, and no others do."""
    joint = value[-1].joint
    others = [axis for place, axis in enumerate(value[:-2]) if place not in fronts]
    if joint is None or any(axis.nodes is not None or axis.joint is not None for axis in others):
        return None
    together = joint.ordered([*(value[place] for place in fronts), value[-1]])
    return None if together is None else Axis(together[0].size, together[0].ravel(), together[1].ravel())


def _recurrent(book: Book, step: Step) -> Value:
    hidden_size = whole(step.attrs, "hidden_size")
    gates = step.parameters["weight_ih"].shape[0] // hidden_size
    parts = [book.site(step, f"gate_{gate}", hidden_size) for gate in range(gates)]
    rows = Axis(gates * hidden_size, np.concatenate([book.nodes(step, part) for part in parts]))
    hidden = book.site(step, "state", hidden_size)
    state = book.nodes(step, hidden)
    book.link("gate", book.nodes(step, rows), np.tile(state, gates))
    out = hidden
    if "weight_hr" in step.parameters:
        out = book.site(step, "unit", step.shape[-1])
        book.weight(step, "weight_hr", out, hidden, kind="linear")
    book.weight(step, "weight_ih", rows, step.inputs[0][-1], kind="linear")
    book.weight(step, "weight_hh", rows, out, kind="recurrent")
    book.column(step, "bias_ih", rows, "bias")
    book.column(step, "bias_hh", rows, "hidden_bias")
    for first, wanted in zip(step.inputs[1:], (out, hidden), strict=False):
        book.link("flow", book.nodes(step, first[0]), book.nodes(step, wanted), first[0].slots)
    return (Axis(step.shape[0]), out)


# ---- message passing


def _message(book: Book, step: Step) -> Value:
    out = book.site(step, "unit", step.shape[0])
    features = step.inputs[0][0]
    maps = step.parameters["weight"].shape
    rows, columns = out, features
    if maps[0] > out.size:  # stacks of linear maps
        rows = book.site(step, "operand", maps[0])
        book.link("add", book.nodes(step, rows), np.tile(book.nodes(step, out), maps[0] // out.size))
    if maps[1] > features.size:  # one map for each power of the Laplacian
        terms = maps[1] // features.size
        slots = features.slots * terms
        columns = Axis(
            maps[1],
            np.tile(book.nodes(step, features), terms),
            np.concatenate([slots + term for term in range(terms)]),
        )
    book.weight(step, "weight", rows, columns, kind="linear")
    if "root" in step.parameters:
        book.weight(step, "root", rows, features, kind="root")
    book.column(step, "bias", rows, "bias")
    return (out,)


def _gat(book: Book, step: Step) -> Value:
    (out,) = _message(book, step)
    nodes = book.nodes(step, out)
    book.blocks(step, nodes.reshape(whole(step.attrs, "num_heads"), -1))
    for name in ("source", "target"):
        book.column(step, name, out, name)
        del book.axes[(f"n{step.index}.{name}", 0)]  # it has two axes, heads and places within them
    return (out,)


# ---- norms


def _norm(book: Book, step: Step) -> Value:
    data = step.inputs[0]
    count = whole(step.attrs, "axes") if "axes" in step.attrs else 1
    first = 0 if step.op in ("batch_norm", "group_norm") else len(data) - count
    places = range(first, first + count)
    return _normed(book, step, list(places))


def _normed(book: Book, step: Step, places: Sequence[int]) -> Value:
    value = list(step.inputs[0])
    names = book.wanted(step)
    having = [place for place in places if value[place].nodes is not None]
    if not having and not names:
        return step.inputs[0]
    chosen = having[0] if having else max(places, key=lambda place: (value[place].size, place))
    value[chosen] = book.follow(step, "norm", value[chosen], "flow")
    axes = [value[place] for place in places]
    columns = {
        "weight": "scale",
        "bias": "shift",
        "running_mean": "running_mean",
        "running_var": "running_var",
    }
    for name in sorted(names):
        book.attach(step, name, axes, kind="norm", column=columns[name])
    if step.op == "group_norm" and 1 < whole(step.attrs, "groups") < step.shape[0]:
        rows = book.nodes(step, value[0]).reshape(whole(step.attrs, "groups"), -1)
        book.blocks(step, rows)
    return tuple(value)


def _apply_layer_norm(book: Book, step: Step) -> Value:
    count = len(step.shapes[1])
    places = range(len(step.shape) - count, len(step.shape))
    value = list(_normed(book, step, list(places)))
    for given, kind in zip(step.inputs[1:], ("multiply", "add"), strict=False):
        for place, axis in zip(places, given, strict=True):
            value[place] = joined(book, step, [value[place], axis], value[place].size, ["flow", kind])
    return tuple(value)


_JOINING = ("add", "mul", "sub", "div", "maximum", "minimum", "power", "where", "compare")

LAYERS: Mapping[str, Callable[[Book, Step], Value]] = {
    **dict.fromkeys(_JOINING, _join),
    "linear": _linear,
    "apply_linear": _apply_linear,
    "bilinear": _bilinear,
    "embedding": _embedding,
    "apply_embedding": _apply_embedding,
    "matmul": _matmul,
    "einsum": _einsum,
    **{f"conv{dims}d": _conv for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _transposed for dims in (1, 2, 3)},
    **{f"apply_conv{dims}d": _apply_conv for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _apply_conv for dims in (1, 2, 3)},
    "attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    **dict.fromkeys(("gcn_conv", "gin_conv", "sage_conv", "graph_conv", "cheb_conv", "arma_conv"), _message),
    "gat_conv": _gat,
    **dict.fromkeys(("batch_norm", "group_norm", "layer_norm", "rms_norm"), _norm),
    "apply_layer_norm": _apply_layer_norm,
}
