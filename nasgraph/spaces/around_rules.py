# ruff: noqa: ARG001 -- all rules have one signature, whether they need all of it or not
"""What each operator says about the sizes of axes: one rule per operator, for `nasgraph.spaces.around_widths`.

A rule gets the axes of what a node reads and returns those of what it gives. Operators without a rule fix all that they read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from nasgraph.ir import ComputationalGraph, Node, Shape
from nasgraph.ir.op import Attrs, whole, wholes
from nasgraph.ir.operators.elementwise import ACTIVATIONS, FUNCTIONS
from nasgraph.ir.operators.message_passing import MESSAGE_PASSING
from nasgraph.spaces.around_widths import FIXED, Axis, Widths, fixed, scaled

Axes = tuple[Axis, ...]
Read = Sequence[Axes]
Rule = Callable[["SizeReader", int, Read], Axes]


@dataclass
class SizeReader:
    """Reads a graph once, from inputs to outputs.

    Attributes:
        graph: What is read.
        names: A name for every node, for reasons.
        widths: The equations found.
        axes: For every node, the axes of its value.
        cuts: For every `slice` of an axis that may change, where it starts and stops.
        followers: Nodes whose number of groups follows their channels: depthwise convolutions and instance norms.
        scales: For every `affine` that divides by the root of a width: that width.
    """

    graph: ComputationalGraph
    names: Sequence[str]
    widths: Widths = field(default_factory=Widths)
    axes: list[Axes] = field(default_factory=list)
    cuts: dict[int, tuple[Axis, Axis]] = field(default_factory=dict)
    followers: set[int] = field(default_factory=set)
    scales: dict[int, Axis] = field(default_factory=dict)

    def read(self) -> None:
        """Read all nodes; outputs of the graph keep their shapes."""
        for index, node in enumerate(self.graph.nodes):
            given = [self.axes[source] for source in node.inputs]
            rule = RULES.get(node.op, _unknown)
            axes = rule(self, index, given)
            assert tuple(self.widths.size(axis) for axis in axes) == self.graph.shapes[index], node
            self.axes.append(axes)
        for output in self.graph.outputs:
            self.freeze(self.axes[output], "it is an output of the network")

    def attrs(self, index: int) -> Attrs:
        """Attributes of a node."""
        return dict(self.graph.nodes[index].attrs)

    def node(self, index: int) -> Node:
        """A node."""
        return self.graph.nodes[index]

    def freeze(self, axes: Sequence[Axis], reason: str) -> None:
        """Fix axes."""
        for axis in axes:
            self.widths.freeze(axis, reason)

    def by(self, index: int) -> str:
        """A reason: what a node demands."""
        return f"'{self.names[index]}' ({self.graph.nodes[index].op}) needs it as it is"

    def equate(self, index: int, first: Axis, second: Axis) -> None:
        """Note that a node needs two axes of one size."""
        reason = (
            f"'{self.names[index]}' ({self.graph.nodes[index].op}) needs it to agree with a size that stays"
        )
        self.widths.equate(first, second, reason)

    def broadcast(self, index: int, given: Read) -> Axes:
        """Axes of the result of an element-wise operator."""
        result = list(given[0])
        for axes in given[1:]:
            for place, axis in enumerate(axes):
                if self.widths.size(result[place]) == 1:
                    result[place] = axis
                elif self.widths.size(axis) > 1:
                    self.equate(index, result[place], axis)
        return tuple(result)

    def fixed_like(self, index: int) -> Axes:
        """The axes of a node's value, none of which changes."""
        return tuple(map(fixed, self.graph.shapes[index]))

    def regrouped(self, index: int, axes: Axes, shape: Shape) -> Axes:
        """Axes after a reshape: those whose products agree correspond to each other."""
        result: list[Axis] = []
        for group, sizes in _groups([self.widths.size(axis) for axis in axes], shape):
            result += self._regroup(index, [axes[place] for place in group], sizes)
        return tuple(result)

    def _regroup(self, index: int, axes: Sequence[Axis], sizes: Sequence[int]) -> list[Axis]:
        """Axes of one product as axes of these sizes: the largest of them changes, if one of `axes` does."""
        changing = [axis for axis in axes if any(u != FIXED for _, u in self.widths.resolve(axis))]
        constants = [fixed(size) for size in sizes]
        if len(changing) == 1:
            whole_axis = scaled(
                changing[0], prod(self.widths.size(axis) for axis in axes if axis is not changing[0])
            )
            for place in sorted(range(len(sizes)), key=lambda i: (-sizes[i], -i)):
                rest = prod(sizes) // sizes[place]
                part = whole_axis if rest == 1 else self.widths.divided(whole_axis, rest)
                if part is not None:
                    return [part if i == place else axis for i, axis in enumerate(constants)]
        self.freeze(axes, self.by(index))
        return constants


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of axes of equal product: places before, sizes after. What is left over at the end has size one."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        places, sizes = list(range(i, min(i + 1, len(before)))), list(after[j : j + 1])
        while (left := prod(before[place] for place in places)) != (right := prod(sizes)):
            if left < right:
                places.append(places[-1] + 1)
            else:
                sizes.append(after[j + len(sizes)])
        i, j = i + len(places), j + len(sizes)
        groups.append((places, sizes))
    return groups


def _unknown(reader: SizeReader, index: int, given: Read) -> Axes:
    for axes in given:
        reader.freeze(axes, reader.by(index))
    return reader.fixed_like(index)


def _same(reader: SizeReader, index: int, given: Read) -> Axes:
    return given[0]


def _broadcast(reader: SizeReader, index: int, given: Read) -> Axes:
    return reader.broadcast(index, given)


def _affine(reader: SizeReader, index: int, given: Read) -> Axes:
    """A scale of one over the root of the width of heads follows that width (Vaswani et al. 2017, eq. 1)."""
    scale = float(str(reader.attrs(index)["scale"]))
    source = reader.node(reader.node(index).inputs[0])
    contracted = reader.axes[source.inputs[0]][-1] if source.op == "matmul" else given[0][-1]
    if scale > 0 and abs(scale * reader.widths.size(contracted) ** 0.5 - 1) < 1e-5:
        reader.scales[index] = contracted
    return given[0]


def _free(reader: SizeReader, index: int, given: Read) -> Axes:
    """A free parameter has the shape that its readers want."""
    return tuple(reader.widths.new(size) for size in reader.graph.shapes[index])


def _fixed(reader: SizeReader, index: int, given: Read) -> Axes:
    return reader.fixed_like(index)


def _convolution(reader: SizeReader, index: int, given: Read) -> Axes:
    attrs = reader.attrs(index)
    channels, *space = given[0]
    reader.freeze(space, reader.by(index))
    groups, wanted = whole(attrs, "groups"), whole(attrs, "out_channels")
    size = reader.widths.size(channels)
    if groups == size > 1:
        reader.followers.add(index)
        return (scaled(channels, wanted // size), *reader.fixed_like(index)[1:])
    out = reader.widths.new(wanted)
    if groups > 1:
        why = f"'{reader.names[index]}' has {groups} groups"
        reader.widths.require(channels, groups, why)
        reader.widths.require(out, groups, why)
    return (out, *reader.fixed_like(index)[1:])


def _last_axis_made(attr: str) -> Rule:
    """Rule of a layer that makes its last axis and keeps the others."""

    def rule(reader: SizeReader, index: int, given: Read) -> Axes:
        for other in given[1:]:
            for one, two in zip(given[0][:-1], other[:-1], strict=True):
                reader.equate(index, one, two)
        kept = given[0] if reader.node(index).op == "embedding" else given[0][:-1]
        return (*kept, reader.widths.new(whole(reader.attrs(index), attr)))

    return rule


def _attending(reader: SizeReader, index: int, given: Read) -> Axes:
    out = reader.widths.new(whole(reader.attrs(index), "out_features"))
    heads = whole(reader.attrs(index), "num_heads")
    reader.widths.require(out, heads, f"'{reader.names[index]}' has {heads} heads")
    return (out,)


def _recurrent(reader: SizeReader, index: int, given: Read) -> Axes:
    attrs = reader.attrs(index)
    if attrs.get("proj_size"):
        return _unknown(reader, index, given)
    hidden = reader.widths.new(whole(attrs, "hidden_size"))
    for (state,) in given[1:]:
        reader.equate(index, state, hidden)
    return (given[0][0], hidden)


def _given_linear(reader: SizeReader, index: int, given: Read) -> Axes:
    data, (out, into) = given[:2]
    reader.equate(index, data[-1], into)
    for (bias,) in given[2:]:
        reader.equate(index, bias, out)
    return (*data[:-1], out)


def _given_convolution(reader: SizeReader, index: int, given: Read) -> Axes:
    if whole(reader.attrs(index), "groups") > 1:
        return _unknown(reader, index, given)
    (channels, *space), weight = given[:2]
    out, into = (weight[1], weight[0]) if "transpose" in reader.node(index).op else weight[:2]
    reader.equate(index, channels, into)
    reader.freeze([*space, *weight[2:]], reader.by(index))
    for (bias,) in given[2:]:
        reader.equate(index, bias, out)
    return (out, *reader.fixed_like(index)[1:])


def _given_embedding(reader: SizeReader, index: int, given: Read) -> Axes:
    return (*given[0], given[1][1])


def _given_norm(reader: SizeReader, index: int, given: Read) -> Axes:
    for axes in given[1:]:
        for one, two in zip(given[0][-len(axes) :], axes, strict=True):
            reader.equate(index, one, two)
    return given[0]


def _group_norm(reader: SizeReader, index: int, given: Read) -> Axes:
    groups = whole(reader.attrs(index), "groups")
    if groups == reader.widths.size(given[0][0]) > 1:
        reader.followers.add(index)
    else:
        reader.widths.require(given[0][0], groups, f"'{reader.names[index]}' has {groups} groups")
    return given[0]


def _matmul(reader: SizeReader, index: int, given: Read) -> Axes:
    first, second = given
    reader.equate(index, first[-1], second[-2])
    batch = reader.broadcast(index, (first[:-2], second[:-2])) if len(first) > 2 else ()
    return (*batch, first[-2], second[-1])


def _einsum(reader: SizeReader, index: int, given: Read) -> Axes:
    left, _, right = str(reader.attrs(index)["equation"]).replace(" ", "").partition("->")
    letters: dict[str, Axis] = {}
    for term, axes in zip(left.split(","), given, strict=True):
        for letter, axis in zip(term, axes, strict=True):
            reader.equate(index, letters.setdefault(letter, axis), axis)
    return tuple(letters[letter] for letter in right)


def _attention(reader: SizeReader, index: int, given: Read) -> Axes:
    query, key, value = given[:3]
    heads = whole(reader.attrs(index), "num_heads")
    reader.equate(index, query[-1], key[-1])
    for one, two in [
        *zip(key[:-1], value[:-1], strict=True),
        *zip(query[:-2], key[:-2], strict=True),
    ]:
        reader.equate(index, one, two)
    for axis in (query[-1], value[-1]):
        reader.widths.require(axis, heads, f"'{reader.names[index]}' has {heads} heads")
    for mask in given[3:]:
        reader.freeze([*mask, *query[:-1], *key[:-1]], reader.by(index))
    scale = float(str(reader.attrs(index)["scale"]))
    if scale > 0 and abs(scale * (reader.widths.size(query[-1]) / heads) ** 0.5 - 1) < 1e-5:
        reader.scales[index] = query[-1]
    return (*query[:-1], value[-1])


def _prelu(reader: SizeReader, index: int, given: Read) -> Axes:
    data, (slope,) = given
    if reader.widths.size(slope) > 1:
        reader.equate(index, data[0], slope)
    return data


def _windows(reader: SizeReader, index: int, given: Read) -> Axes:
    """Rule of what works on space and keeps channels."""
    reader.freeze(given[0][1:], reader.by(index))
    return (given[0][0], *reader.fixed_like(index)[1:])


def _pixel_shuffle(reader: SizeReader, index: int, given: Read) -> Axes:
    channels = reader.widths.divided(given[0][0], whole(reader.attrs(index), "factor") ** 2)
    if channels is None:
        return _unknown(reader, index, given)
    reader.freeze(given[0][1:], reader.by(index))
    return (channels, *reader.fixed_like(index)[1:])


def _reduce(reader: SizeReader, index: int, given: Read) -> Axes:
    attrs = reader.attrs(index)
    axes = (whole(attrs, "axis"),) if "axis" in attrs else wholes(attrs, "axes")
    if attrs["keepdims"]:
        return tuple(fixed(1) if place in axes else axis for place, axis in enumerate(given[0]))
    return tuple(axis for place, axis in enumerate(given[0]) if place not in axes)


def _concat(reader: SizeReader, index: int, given: Read) -> Axes:
    along = whole(reader.attrs(index), "axis")
    for axes in given[1:]:
        for place, (one, two) in enumerate(zip(given[0], axes, strict=True)):
            if place != along:
                reader.equate(index, one, two)
    joined = tuple(term for axes in given for term in axes[along])
    return (*given[0][:along], joined, *given[0][along + 1 :])


def _reshape(reader: SizeReader, index: int, given: Read) -> Axes:
    return reader.regrouped(index, given[0], reader.graph.shapes[index])


def _permute(reader: SizeReader, index: int, given: Read) -> Axes:
    return tuple(given[0][axis] for axis in wholes(reader.attrs(index), "order"))


def _slice(reader: SizeReader, index: int, given: Read) -> Axes:
    attrs, axes = reader.attrs(index), given[0]
    along, start, stop, step = (whole(attrs, name) for name in ("axis", "start", "stop", "step"))
    axis = axes[along]
    parts = None
    if step == 1 and (first := reader.widths.cut(axis, start)) is not None:
        parts = first[0], reader.widths.cut(first[1], stop - start)
    if parts is None or parts[1] is None:
        reader.freeze([axis], reader.by(index))
        return (*axes[:along], fixed(reader.graph.shapes[index][along]), *axes[along + 1 :])
    before, (kept, _) = parts[0], parts[1]
    reader.cuts[index] = (before, before + kept)
    return (*axes[:along], kept, *axes[along + 1 :])


def _expand(reader: SizeReader, index: int, given: Read) -> Axes:
    shape = reader.graph.shapes[index]
    return tuple(
        axis if reader.widths.size(axis) == size else reader.widths.new(size)
        for axis, size in zip(given[0], shape, strict=True)
    )


def _pad(reader: SizeReader, index: int, given: Read) -> Axes:
    attrs = reader.attrs(index)
    amounts = wholes(attrs, "amounts")
    result: list[Axis] = []
    for axis, before, after in zip(given[0], amounts[::2], amounts[1::2], strict=True):
        if (before or after) and attrs["mode"] != "constant":
            reader.freeze([axis], reader.by(index))
        result.append((*(fixed(before) if before else ()), *axis, *(fixed(after) if after else ())))
    return tuple(result)


def _fixed_along(reader: SizeReader, index: int, given: Read) -> Axes:
    along = whole(reader.attrs(index), "axis")
    reader.freeze([given[0][along]], reader.by(index))
    if reader.node(index).op == "take":
        reader.freeze(given[1], reader.by(index))
        return (*given[0][:along], fixed(reader.graph.shapes[index][along]), *given[0][along + 1 :])
    return given[0]


_POOLS = (
    "max_pool2d",
    "avg_pool2d",
    "max_pool3d",
    "avg_pool3d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*ACTIVATIONS, *FUNCTIONS), _same),
    **dict.fromkeys(("batch_norm", "layer_norm", "rms_norm", "flip", "cumsum"), _same),
    **dict.fromkeys(("add", "mul", "sub", "div", "maximum", "minimum", "power", "where", "compare"), _broadcast),
    **dict.fromkeys((*_POOLS, "global_avg_pool2d", "upsample"), _windows),
    **dict.fromkeys(("mean", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_var"), _reduce),
    **{f"conv{dims}d": _convolution for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _convolution for dims in (1, 2, 3)},
    **{f"apply_conv{dims}d": _given_convolution for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _given_convolution for dims in (1, 2, 3)},
    "affine": _affine,
    "input": _fixed,
    "constant": _fixed,
    "parameter": _free,
    "linear": _last_axis_made("out_features"),
    "bilinear": _last_axis_made("out_features"),
    "embedding": _last_axis_made("dim"),
    **dict.fromkeys(MESSAGE_PASSING, _last_axis_made("out_features")),
    "gat_conv": _attending,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    "apply_linear": _given_linear,
    "apply_embedding": _given_embedding,
    "apply_layer_norm": _given_norm,
    "group_norm": _group_norm,
    "matmul": _matmul,
    "einsum": _einsum,
    "attention": _attention,
    "prelu": _prelu,
    "pixel_shuffle": _pixel_shuffle,
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _reshape,
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    **dict.fromkeys(("roll", "take"), _fixed_along),
}  # fmt: skip

MAKERS: Mapping[str, str] = {
    **{f"conv{dims}d": "out_channels" for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": "out_channels" for dims in (1, 2, 3)},
    **{"linear": "out_features", "bilinear": "out_features", "embedding": "dim"},
    **dict.fromkeys(MESSAGE_PASSING, "out_features"),
    **dict.fromkeys(("lstm", "gru", "rnn"), "hidden_size"),
}
"""Layers that make an axis, and the attribute that says how long it is."""


def made_by(node: Node) -> str | None:
    """The attribute that says how long the axis is that a node makes. None if it makes none that could change."""
    return None if dict(node.attrs).get("proj_size") else MAKERS.get(node.op)
