"""From recorded calls to the graph language: where the batch axis is, which node owns which parameter, the nodes.

A recorded tensor has a batch axis; the values of a graph have none. The recording is made with a prime number of
examples that divides no other size, so the axis shows, also where it was merged with others. Rules (one for each
torch function) write a call as nodes over per-example values; a call that no rule can write becomes an opaque node.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from nasgraph.errors import InvalidGraphError, UnsupportedOpError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules.tracing.recording import Call, Recording, Value

Dims = tuple[int, ...]
Rule = Callable[["Lowering", Call], None]

MAX_CONSTANT_ELEMENTS = 2**24


class UntranslatableError(Exception):
    """A call uses its function in a way that the graph language cannot express. It becomes an opaque node."""


_RULE_ERRORS = (
    UntranslatableError, InvalidGraphError, TypeError, ValueError, IndexError, KeyError, AssertionError, StopIteration, ZeroDivisionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """Where a value's examples lie: axis `axis` has size `outer * batch_size * inner`, in this order."""

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def rest(self) -> int:
        """What remains of the axis for one example."""
        return self.outer * self.inner


def split_axis(tensor: Tensor, batch: Batch, size: int) -> Tensor:
    """The tensor with an axis of the examples of its own in front: `[size, ...]`, what was merged with it apart."""
    sides = (batch.outer, size, batch.inner)
    shape = (*tensor.shape[: batch.axis], *sides, *tensor.shape[batch.axis + 1 :])
    return tensor.reshape(shape).movedim(batch.axis + 1, 0)


@dataclass(frozen=True, slots=True)
class Owner:
    """Which of the module's parameters a parameter of the graph is.

    Attributes:
        name: Name in `module.named_parameters()`.
        order: Axes of the graph's tensor in the order of the module's tensor.
        shape: Shape of the module's tensor.
    """

    name: str
    order: Dims
    shape: Dims


_RESHAPES = frozenset(("reshape", "flatten"))
TRANSPOSES = frozenset(("t", "T", "mT", "transpose", "permute", "adjoint", "movedim", "numpy_T"))
SAME = frozenset(
    ("to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous", "detach", "clone", "alias", "data", "cpu",
     "cuda", "requires_grad_", "_to_copy", "lift_fresh_copy", "detach_", "squeeze_copy")
)  # fmt: skip
"""Functions that change neither shape nor (up to precision) values."""
SCALES = frozenset(("mul", "div", "mul_", "div_"))
SHIFTS = frozenset(("add", "sub", "add_", "sub_", "rsub"))
PRODUCTS = frozenset(
    ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "linear", "rmatmul", "tensordot", "conv1d", "conv2d", "conv3d",
     "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "bilinear", "_weight_norm", "mv", "grouped_mm", "_grouped_mm")
)  # fmt: skip


class Lowering:
    """Writes a recording as a graph.

    Args:
        recording: What to write.
        rules: One rule for each torch function known.
        allow_unknown: Let an unknown operator that reads a parameter become an opaque node.
    """

    def __init__(
        self, recording: Recording, rules: Mapping[str, Rule], *, allow_unknown: bool = False
    ) -> None:
        self.g = GraphBuilder()
        self.recording = recording
        self.batch_size = recording.batch_size
        self.owners: dict[str, Owner] = {}
        self.constants: dict[int, Tensor] = {}
        self.statistics: dict[int, tuple[Tensor, Tensor]] = {}
        self.reasons: dict[str, str] = {}
        self._rules = rules
        self._allow_unknown = allow_unknown
        self._sources: list[tuple[int, ...]] = []
        self._ops: list[str] = []
        self._nodes: dict[Value, int] = {}
        self._sources_of_parameters: set[int] = set()
        self._layouts: dict[Value, Batch | None] = {}
        self._aliases: dict[Value, tuple[Value, Dims]] = {}
        self._uses: dict[str, int] = {}
        self._roles: dict[str, tuple[str, int]] = {}

    def run(self) -> list[int]:
        """Write everything that an output needs; return the output nodes, in the order of the recording's outputs."""
        for value in self.recording.inputs:
            dims = self.dims(value)
            self._nodes[value] = self.emit("input", shape=dims or (1,), dtype=kind_in_graph(value))
        calls = self.recording.live_calls()
        self._count_uses(calls)
        for call in calls:
            if call.outputs[0] not in self._aliases:
                self._lower(call)
        return [self.node(value) for _, value in self.recording.outputs]

    # ---- parameters

    def _count_uses(self, calls: Sequence[Call]) -> None:
        for call in calls:
            source = call.args[0] if call.args else None
            if isinstance(source, Value) and len(call.outputs) == 1 and self.base(source).parameter:
                root, order = self.root(source)
                if call.name in SAME:
                    self._aliases[call.outputs[0]] = (root, order)
                    continue
                step = _transposed(call, len(order)) if call.name in TRANSPOSES else None
                if step is not None:
                    self._aliases[call.outputs[0]] = (root, tuple(order[axis] for axis in step))
                    continue
            for value in call.inputs():
                root = self.base(value)
                if root.parameter:
                    self._uses[root.parameter] = self._uses.get(root.parameter, 0) + 1
                    self._roles.setdefault(root.parameter, _role(call, value))

    def root(self, value: Value) -> tuple[Value, Dims]:
        """The value that this one is a transposed (or equal) view of, and the order of its axes."""
        return self._aliases.get(value) or (value, tuple(range(len(value.shape))))

    def base(self, value: Value) -> Value:
        """The first result of `root`."""
        found = self._aliases.get(value)
        return value if found is None else found[0]

    def alias(self, value: Value, root: Value, order: Dims) -> None:
        """Note that a value is a transposed view of another."""
        self._aliases[value] = (root, order)

    def owned(self, value: object) -> tuple[str, Dims] | None:
        """Name and order of axes of a parameter that a node may own: used once, and as it is or transposed."""
        if not isinstance(value, Value):
            return None
        root, order = self.root(value)
        if not root.parameter or self._uses.get(root.parameter, 0) != 1:
            return None
        return root.parameter, order

    def own(self, node: int, name: str, value: Value) -> None:
        """Note that parameter `name` of `node` is this value, which must be one that `owned` allows."""
        root, order = self.root(value)
        back = tuple(order.index(axis) for axis in range(len(order)))
        self.owners[f"n{node}.{name}"] = Owner(root.parameter, back, root.shape)

    def _is_source(self, name: str) -> bool:
        return int(name[1:].split(".")[0]) in self._sources_of_parameters

    def _parameter_node(self, value: Value) -> int:
        if prod(value.shape) == 0:
            raise UntranslatableError("reads a parameter without elements")
        role, fan_in = self._roles.get(value.parameter, ("position", 0))
        if role == "weight" and len(value.shape) < 2:
            role, fan_in = "position", 0
        node = self.emit("parameter", shape=value.shape or (1,), role=role, fan_in=fan_in)
        self._sources_of_parameters.add(node)
        self.owners[f"n{node}.weight"] = Owner(
            value.parameter, tuple(range(max(1, len(value.shape)))), value.shape
        )
        return node

    # ---- the batch axis

    def layout(self, value: Value) -> Batch | None:
        """Where the examples of a value lie; None if it is the same for all."""
        if value not in self._layouts:
            self._layouts[value] = None if self.base(value).parameter else self._guess(value, ())
        return self._layouts[value]

    def _guess(self, value: Value, inputs: Sequence[Value]) -> Batch | None:
        axes = [axis for axis, size in enumerate(value.shape) if size and size % self.batch_size == 0]
        if not axes:
            return None
        for other in inputs:
            batch = self.layout(other)
            if batch is None:
                continue
            if batch.axis in axes and value.shape[batch.axis] == batch.rest * self.batch_size:
                return batch
        axis = axes[0]
        return Batch(axis, 1, value.shape[axis] // self.batch_size)

    def dims(self, value: Value) -> Dims:
        """Shape of one example: `()` for one number."""
        return self.strip(value.shape, self.layout(value))

    def strip(self, shape: Dims, batch: Batch | None) -> Dims:
        """A full shape without the examples."""
        if batch is None:
            return shape
        rest = (batch.rest,) if batch.rest > 1 else ()
        return (*shape[: batch.axis], *rest, *shape[batch.axis + 1 :])

    def axis(self, value: Value, axis: int) -> int:
        """Number of a full axis among those of one example.

        Raises:
            UntranslatableError: If it is the axis of the examples.
        """
        axis %= max(1, len(value.shape))
        batch = self.layout(value)
        if batch is None:
            return axis
        if axis == batch.axis:
            raise UntranslatableError("works across the examples of a batch")
        return axis - 1 if axis > batch.axis and batch.rest == 1 else axis

    # ---- nodes

    def node(self, value: Value) -> int:
        """The node that gives a value; sources are written when they are first asked for."""
        found = self._nodes.get(value)
        if found is not None:
            return found
        root, order = self.root(value)
        if root is not value:
            node = self.node(root)
            if order != tuple(range(len(order))):
                node = self.emit("permute", node, order=order)
        elif value.parameter:
            node = self._parameter_node(value)
        elif value.tensor is not None:
            node = self._constant_node(value)
        else:
            raise AssertionError(f"{value} was never computed")
        self._nodes[value] = node
        return node

    def _constant_node(self, value: Value) -> int:
        tensor = value.tensor
        assert tensor is not None
        if (
            tensor.numel() > MAX_CONSTANT_ELEMENTS * self.batch_size
            or tensor.is_complex()
            or tensor.numel() == 0
        ):
            raise UntranslatableError(f"reads a constant of shape {tuple(tensor.shape)}")
        batch = self.layout(value)
        if batch is not None:
            split = split_axis(tensor, batch, self.batch_size)
            if not torch.equal(split, split[:1].expand_as(split)):
                raise UntranslatableError("reads a constant that differs from example to example")
            tensor = split[0]
        dims = self.dims(value) or (1,)
        kind = kind_in_graph(value)
        return self.constant(tensor.reshape(dims), kind)

    def constant(self, tensor: Tensor, kind: str) -> int:
        """A node that gives a fixed tensor, the same for every example."""
        node = self.emit("constant", shape=tuple(tensor.shape), dtype=kind)
        self.constants[node] = (tensor.long() if kind == "int" else tensor.float()).clone().contiguous()
        return node

    def set(self, value: Value, node: int, batch: Batch | str | None = "guess") -> None:
        """Note that `node` gives `value`. A shape that does not fit shows that the rule does not apply."""
        if not isinstance(batch, str):
            self._layouts[value] = batch
        if self.g.shape(node) != (self.dims(value) or (1,)):
            raise UntranslatableError(
                f"gives {self.g.shape(node)} in place of {self.dims(value)} for each example"
            )
        self._nodes[value] = node

    def emit(self, op: str, *nodes: int, **attrs: object) -> int:
        """A node, new or not: reshapes of reshapes become one, and those that change nothing none.

        So `AdaptiveAvgPool2d`, `Flatten`, `Linear` gives the three nodes that a search space writes, and not a tensor
        of shape (channels, 1, 1) between them, which no hypernetwork has seen in training.
        """
        if op in _RESHAPES:
            source = nodes[0]
            while self._ops[source] in _RESHAPES:
                source = self._sources[source][0]
            before = self.g.shape(source)
            after = (prod(before),) if op == "flatten" else attrs["shape"]
            if before == after:
                return source
            nodes = (source,)
            if op == "reshape" and after == (prod(before),):
                op, attrs = "flatten", {}
        node = self.g(op, *nodes, **attrs)
        self._sources.append(nodes)
        self._ops.append(op)
        return node

    def finish(self, outputs: Sequence[int]) -> tuple[ComputationalGraph, dict[int, int]]:
        """The checked graph, without nodes that no output needs, and the new number of every node that stays."""
        keep = set(outputs) | {self._nodes[value] for value in self.recording.inputs}
        for node in range(len(self._sources) - 1, -1, -1):
            if node in keep:
                keep.update(self._sources[node])
        return self.g.finish(*outputs), {old: new for new, old in enumerate(sorted(keep))}

    def fit(self, node: int, dims: Dims) -> int:
        """The node with this shape, by reshaping if it has another."""
        dims = dims or (1,)
        return node if self.g.shape(node) == dims else self.emit("reshape", node, shape=dims)

    def operand(self, value: Value, rank: int, batch: Batch | None) -> int:
        """A value as an operand of an element-wise function whose result has this rank and layout."""
        shape = (1,) * (rank - len(value.shape)) + value.shape
        own = self.layout(value)
        if own is None:
            if batch is not None:
                if shape[batch.axis] != 1:
                    raise UntranslatableError("combines a fixed tensor with single examples")
                shape = self.strip(shape, Batch(batch.axis)) if batch.rest == 1 else shape
            return self.fit(self.node(value), shape)
        if batch is None or own.axis + rank - len(value.shape) != batch.axis or own.rest != batch.rest:
            raise UntranslatableError("combines examples of a batch with each other")
        return self.fit(self.node(value), self.strip(shape, batch))

    def scalar(self, argument: object) -> float | None:
        """A number known while tracing: a Python number or a constant tensor of one element."""
        if isinstance(argument, bool | int | float):
            return float(argument)
        if isinstance(argument, Value) and argument.tensor is not None and argument.tensor.numel() == 1:
            if argument.tensor.is_complex() or len(argument.shape) > 1:
                return None
            return float(argument.tensor.reshape(()).item())
        return None

    # ---- calls

    def _lower(self, call: Call) -> None:
        inputs = list(call.inputs())
        for value in call.outputs:
            if value not in self._layouts:
                self._layouts[value] = self._guess(value, inputs)
        guesses = {value: self._layouts[value] for value in call.outputs}
        num_owned = len(self.owners)
        name = call.name[:-1] if call.name.endswith("_") and not call.name.endswith("__") else call.name
        rule = self._rules.get(name)
        if rule is not None:
            try:
                rule(self, call)
            except _RULE_ERRORS as error:  # torch's functions take arguments in more ways than rules foresee
                self.reasons.setdefault(name, str(error) or type(error).__name__)
                self._layouts.update(guesses)
                for owned in list(self.owners)[num_owned:]:
                    if not self._is_source(owned):
                        del self.owners[owned]
            else:
                plain = [value for value in inputs if not self.base(value).parameter]
                for position, value in enumerate(call.outputs):
                    if value not in self._nodes:
                        self.reasons.setdefault(name, f"its result number {position + 1} has no counterpart")
                        self._opaque(name, [call.outputs[0], *plain], value)
                return
        elif not self._allow_unknown and any(self.base(value).parameter for value in inputs):
            name_of_first = next(self.base(v).parameter for v in inputs if self.base(v).parameter)
            raise UnsupportedOpError(
                f"The operator '{call.name}' reads the parameter '{name_of_first}', and nasgraph does not know what it does with "
                "it. Use 'allow_unknown' to trace it as an opaque operator whose parameters have no known role"
            )
        for value in call.outputs:
            self._opaque(name, inputs, value)

    def _opaque(self, name: str, inputs: Sequence[Value], value: Value) -> None:
        """Write a value that the language cannot express: the inputs that it depends on, and its shape."""
        sources = []
        for source in dict.fromkeys(inputs):
            if source.tensor is None and prod(self.base(source).shape) > 0:
                sources.append(self.node(source))
        dims = tuple(max(1, size) for size in self.dims(value)) or (1,)
        if len(dims) > 8:
            dims = (*dims[:7], prod(dims[7:]))
        safe = "".join(c if c.isalnum() or c in "_.:" else "_" for c in name)[:100] or "unknown"
        self._nodes[value] = self.emit(
            "opaque",
            *dict.fromkeys(sources),
            name=safe,
            shape=dims,
            dtype=kind_in_graph(value),
        )
        self.reasons.setdefault(name, "it is not known")


def kind_in_graph(value: Value) -> str:
    """The graph language's word for the type of a value: truth values are integers there."""
    return "int" if value.dtype in ("int", "bool") else "float"


def _transposed(call: Call, rank: int) -> Dims | None:
    """The order of axes that a transposing call gives; None if it is not plain."""
    axes = list(range(rank))
    if call.name in ("t", "T", "numpy_T"):
        return tuple(axes[::-1]) if rank <= 2 or call.name != "t" else None
    if call.name in ("mT", "adjoint") and rank >= 2:
        return (*axes[:-2], axes[-1], axes[-2])
    if call.name == "transpose":
        first, second = call.argument(1, "dim0"), call.argument(2, "dim1")
        if isinstance(first, int) and isinstance(second, int) and rank:
            axes[first], axes[second] = axes[second], axes[first]
            return tuple(axes)
    if call.name == "permute":
        order = tuple(integers(call.args[1:] or (call.kwargs.get("dims"),)))
        if len(order) == rank:
            return tuple(axis % rank for axis in order)
    return None


def integers(arguments: Sequence[object]) -> Iterator[int]:
    """Integers given one by one or as one list."""
    for argument in arguments:
        if isinstance(argument, int):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from integers(argument)
        else:
            raise UntranslatableError(f"expected integers (got {argument!r:.60})")


def _role(call: Call, value: Value) -> tuple[str, int]:
    """Role and fan-in of a parameter that reaches its first call as an ordinary value."""
    name = call.name
    if name in ("embedding", "embedding_bag", "aten_embedding", "aten_embedding_bag"):
        return "embedding", 0
    if name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        return ("weight" if len(value.shape) > 1 else "bias"), 0
    largest = max(value.shape, default=1)
    if name in PRODUCTS and len(value.shape) > 1:
        if name in ("matmul", "mm", "bmm", "addmm", "baddbmm", "grouped_mm", "_grouped_mm"):
            return "weight", value.shape[-2]
        return "weight", 0
    if name in SCALES and prod(value.shape) == largest:
        return "scale", 0
    if name in SHIFTS and prod(value.shape) == largest:
        return "shift", 0
    if name in ("linear", "addmm") and len(value.shape) == 1:
        return "bias", 0
    if name in ("getitem", "select", "unbind", "index_select", "mul") and len(value.shape) > 2:
        return "weight", value.shape[-1]  # packed weights of experts or heads
    return "position", 0
