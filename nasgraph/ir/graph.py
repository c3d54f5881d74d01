"""Computational graphs: immutable, checked, hashable records of a network's operators, without torch."""

import marshal
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from nasgraph.errors import InvalidGraphError
from nasgraph.files import canonical_json
from nasgraph.ir.canonical import canonical_order
from nasgraph.ir.ops import MAX_ELEMENTS, MAX_LENGTH, OPS, Dtype, ParameterSpec, Scalar, Shape

if TYPE_CHECKING:
    import networkx

MAX_NODES = 100_000

_Attrs = tuple[tuple[str, Scalar], ...]
_NORMAL: dict[tuple[str, bytes], _Attrs] = {}
_MAX_REMEMBERED = 8192
_SEE_OPS = "All are in 'nasgraph.ir.OPS'"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator application.

    Attributes:
        op: Name of an operator in `nasgraph.ir.ops.OPS`.
        inputs: Indices of the nodes it reads, in the order of its arguments.
        attrs: Every attribute of the operator, sorted by name. `make_node` fills in defaults.
    """

    op: str
    inputs: tuple[int, ...] = ()
    attrs: tuple[tuple[str, Scalar], ...] = ()

    def attr(self, name: str) -> Scalar:
        """Value of one attribute. Raises `KeyError` if the node has none of that name."""
        return dict(self.attrs)[name]


def make_node(op: str, inputs: Sequence[int] = (), /, **attrs: object) -> Node:
    """Make a node with defaults filled in and attributes in normal form.

    Raises:
        InvalidGraphError: If the operator is unknown, or an attribute is unknown, missing or out of bounds.
    """
    try:
        # Format 2 writes equal values alike and, unlike equality, tells 1 from True and 1.0.
        key = (op, marshal.dumps(attrs, 2))
    except ValueError:  # something that is not a plain value; 'normalise' knows what to say
        return Node(op, tuple(inputs), _normal_attrs(op, attrs))
    known = _NORMAL.get(key)
    if known is None:
        known = _normal_attrs(op, attrs)
        if len(_NORMAL) >= _MAX_REMEMBERED:
            _NORMAL.clear()
        _NORMAL[key] = known
    return Node(op, tuple(inputs), known)


def _normal_attrs(op: str, attrs: dict[str, object]) -> _Attrs:
    if op not in OPS:
        close = ", ".join(get_close_matches(op[:40], OPS, n=3, cutoff=0.5))
        raise InvalidGraphError(f"No operator named {op!r:.80}. {f'Close: {close}' if close else _SEE_OPS}")
    known = OPS[op].attrs
    unknown = sorted(set(attrs) - set(known))
    if unknown:
        known_names = ", ".join(sorted(known)) or "none"
        raise InvalidGraphError(f"'{op}' has no attribute {unknown[0]!r:.80}. It has: {known_names}")
    values: list[tuple[str, Scalar]] = []
    for name in sorted(known):
        default = known[name].default
        if name in attrs:
            try:
                values.append((name, known[name].normalise(attrs[name])))
            except InvalidGraphError as error:
                raise InvalidGraphError(f"Attribute '{name}' of '{op}': {error}") from error
        elif default is None:
            raise InvalidGraphError(f"'{op}' needs the attribute '{name}': {known[name].describe()}")
        else:
            values.append((name, default))
    return tuple(values)


class _Value(NamedTuple):
    """What is known of a node's value before anything runs, and of the parameters that make it."""

    shape: Shape
    dtype: Dtype
    parameters: dict[str, ParameterSpec]


@dataclass(frozen=True)
class ComputationalGraph:
    """A network as a directed acyclic graph of operators.

    Nodes come in topological order. Input nodes are fed in the order in which they stand. Construction checks
    nothing; `check_graph` does, and every reader and builder in nasgraph calls it. Two graphs are `==` if they
    are written down alike; they are isomorphic if their `canonical()` forms are `==`.

    Attributes:
        nodes: Operators in topological order.
        outputs: Indices of the nodes whose values are returned.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Indices of the input nodes, in the order in which they are fed."""
        return tuple(index for index, node in enumerate(self.nodes) if node.op == "input")

    @cached_property
    def _values(self) -> tuple[_Value, ...]:
        return _infer(self.nodes)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of every node, per example. Raises `InvalidGraphError` where shapes do not fit."""
        return tuple(value.shape for value in self._values)

    @cached_property
    def dtypes(self) -> tuple[Dtype, ...]:
        """Whether each node gives real numbers or integers. Raises `InvalidGraphError` where types do not fit."""
        return tuple(value.dtype for value in self._values)

    @cached_property
    def parameters(self) -> dict[str, ParameterSpec]:
        """Every parameter tensor by its name `n<node>.<parameter>`, in node order."""
        return {
            f"n{index}.{name}": spec
            for index, value in enumerate(self._values)
            for name, spec in value.parameters.items()
        }

    @property
    def is_executable(self) -> bool:
        """Whether every operator can be run: no node is `opaque`."""
        return all(node.op != "opaque" for node in self.nodes)

    @property
    def reads_edges(self) -> bool:
        """Whether an operator passes messages: the examples are nodes of a data graph, whose edges a run needs."""
        return any(OPS[node.op].reads_edges for node in self.nodes)

    def input_shapes(self, index: int) -> tuple[Shape, ...]:
        """Shapes of what node `index` reads."""
        return tuple(self.shapes[source] for source in self.nodes[index].inputs)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that do not depend on the order of the nodes.

        Equal for isomorphic graphs; different for others, but for a chance of 2**-64. One shared node
        and two equal nodes with parameters of their own give different fingerprints.
        """
        graph = self.canonical()
        text = canonical_json([[node.op, node.inputs, node.attrs] for node in graph.nodes] + [graph.outputs])
        return sha256(text.encode()).hexdigest()[:16]

    def canonical(self) -> "ComputationalGraph":
        """The isomorphic graph whose nodes stand in canonical order. Input nodes come first, in their order."""
        inputs = self.inputs
        rest = [index for index in range(len(self.nodes)) if self.nodes[index].op != "input"]
        graph = self._reordered([*inputs, *rest])
        order = canonical_order(
            _labels(graph),
            [node.inputs for node in graph.nodes],
            [OPS[node.op].commutative for node in graph.nodes],
            first=len(inputs),
        )
        return graph._reordered(order)

    def _reordered(self, order: Sequence[int]) -> "ComputationalGraph":
        place = {old: new for new, old in enumerate(order)}
        nodes = []
        for old in order:
            node = self.nodes[old]
            inputs = tuple(place[source] for source in node.inputs)
            nodes.append(
                Node(node.op, tuple(sorted(inputs)) if OPS[node.op].commutative else inputs, node.attrs)
            )
        return ComputationalGraph(tuple(nodes), tuple(place[index] for index in self.outputs))

    def to_networkx(self) -> "networkx.MultiDiGraph":
        """The graph for networkx: nodes carry `op`, `attrs` and `output` (positions among the outputs),
        edges carry `position`, the place among the arguments, or -1 where the order has no meaning."""
        import networkx

        result = networkx.MultiDiGraph()
        for index, (node, label) in enumerate(zip(self.nodes, _labels(self), strict=True)):
            outputs = tuple(place for place, output in enumerate(self.outputs) if output == index)
            result.add_node(index, op=node.op, attrs=node.attrs, output=outputs, label=label)
            for position, source in enumerate(node.inputs):
                result.add_edge(source, index, position=-1 if OPS[node.op].commutative else position)
        return result


def _labels(graph: ComputationalGraph) -> list[str]:
    """What tells nodes apart by themselves: operator, attributes, place among the inputs and the outputs."""
    outputs: dict[int, list[int]] = {}
    for place, index in enumerate(graph.outputs):
        outputs.setdefault(index, []).append(place)
    places = {index: place for place, index in enumerate(graph.inputs)}
    return [
        canonical_json([node.op, node.attrs, places.get(index, -1), outputs.get(index, [])])
        for index, node in enumerate(graph.nodes)
    ]


def infer_shapes(graph: ComputationalGraph) -> tuple[Shape, ...]:
    """Output shape of every node, per example.

    Raises:
        InvalidGraphError: If an operator cannot run on what it reads, or a tensor would be absurdly large.
            The message names the node.
    """
    return tuple(value.shape for value in _infer(graph.nodes))


def _infer(nodes: Sequence[Node]) -> tuple[_Value, ...]:
    values: list[_Value] = []
    for index, node in enumerate(nodes):
        values.append(_infer_node(index, node, [values[source] for source in node.inputs]))
    return tuple(values)


def _infer_node(index: int, node: Node, inputs: Sequence[_Value]) -> _Value:
    """Apply the rules of one operator. Raises `InvalidGraphError` with the node where one is broken."""
    op = OPS[node.op]
    attrs = dict(node.attrs)
    shapes = tuple([value.shape for value in inputs])
    dtypes = [value.dtype for value in inputs]
    _check_dtypes(index, node, dtypes)
    try:
        shape = op.shape(attrs, shapes)
        _refuse_absurd(shape)
        parameters = op.parameters(attrs, shapes)
        for spec in parameters.values():
            _refuse_absurd(spec.shape)
    except InvalidGraphError as error:
        raise InvalidGraphError(f"Node {index} ({node.op}): {error}") from error
    return _Value(shape, op.gives(attrs, dtypes), parameters)


def _check_dtypes(index: int, node: Node, dtypes: Sequence[Dtype]) -> None:
    reads = OPS[node.op].reads
    for place, dtype in enumerate(dtypes):
        wanted = reads[min(place, len(reads) - 1)]
        if wanted not in (dtype, "any"):
            kind = "integers" if wanted == "int" else "real numbers"
            where = f" as input {place}" if len(set(reads)) > 1 else ""
            raise InvalidGraphError(f"Node {index} ({node.op}) can read {kind} only{where}")


def _refuse_absurd(shape: Shape) -> None:
    elements = 1
    for size in shape:
        elements *= size
        if size > MAX_LENGTH or elements > MAX_ELEMENTS:
            raise InvalidGraphError(
                f"a tensor of shape {shape} is too large (at most {MAX_ELEMENTS:,} elements)"
            )


def check_graph(graph: ComputationalGraph) -> None:
    """Check every rule of the graph language. A graph that passes can be built and run.

    Rules: 1 to 100,000 nodes; known operators with normal attributes; the right number of inputs; inputs
    before users (hence no cycle); at least one input node and one output; every node but
    inputs reaches an output; shapes fit; integers go to operators that read integers.

    Raises:
        InvalidGraphError: For the first rule broken, in words, with the node.
    """
    _check_length(graph)
    for index, node in enumerate(graph.nodes):
        _check_node(index, node)
    _check_whole(graph)


def _check_length(graph: ComputationalGraph) -> None:
    if not 1 <= len(graph.nodes) <= MAX_NODES:
        raise InvalidGraphError(f"Expected 1 to {MAX_NODES:,} nodes (got {len(graph.nodes):,})")


def _check_whole(graph: ComputationalGraph) -> None:
    """The rules of `check_graph` that are not about length or a single node."""
    _check_outputs(graph)
    if not graph.outputs or not graph.inputs:
        raise InvalidGraphError("Expected at least one input node and one output")
    dead = sorted(set(range(len(graph.nodes))) - _reaching(graph) - set(graph.inputs))
    if dead:
        raise InvalidGraphError(f"Node {dead[0]} ({graph.nodes[dead[0]].op}) does not reach an output")
    graph._values  # noqa: B018  computed here so that every later use is free and cannot fail


def _check_outputs(graph: ComputationalGraph) -> None:
    for output in graph.outputs:
        if type(output) is not int or not 0 <= output < len(graph.nodes):
            raise InvalidGraphError(f"Output {output} is no node: there are {len(graph.nodes)}")


def _check_node(index: int, node: Node) -> None:
    try:
        expected = make_node(node.op, node.inputs, **dict(node.attrs))
    except InvalidGraphError as error:
        raise InvalidGraphError(f"Node {index}: {error}") from error
    if node != expected or any(
        type(a) is not type(b) for (_, a), (_, b) in zip(node.attrs, expected.attrs, strict=True)
    ):
        raise InvalidGraphError(
            f"Node {index} ({node.op}): attributes are not in normal form; use 'make_node'"
        )
    _check_arguments(index, node)


def _check_arguments(index: int, node: Node) -> None:
    fewest, most = OPS[node.op].num_inputs
    if not fewest <= len(node.inputs) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise InvalidGraphError(
            f"Node {index} ({node.op}): expected {wanted} inputs (got {len(node.inputs)})"
        )
    for source in node.inputs:
        if type(source) is not int:  # numpy's integers, say, would give another text and fingerprint
            raise InvalidGraphError(
                f"Node {index} ({node.op}): expected node indices as inputs (got {source!r:.60})"
            )
        if not 0 <= source < index:
            raise InvalidGraphError(
                f"Node {index} ({node.op}) reads node {source}, which does not come before it: "
                "a cycle, or nodes that are not in topological order"
            )


def _reaching(graph: ComputationalGraph) -> set[int]:
    reached = set(graph.outputs)
    for index in reversed(range(len(graph.nodes))):
        if index in reached:
            reached.update(graph.nodes[index].inputs)
    return reached


def without_dead_nodes(graph: ComputationalGraph) -> ComputationalGraph:
    """The graph without nodes that reach no output. Input nodes always stay: they are the interface."""
    return graph._reordered(_kept(graph))


def _kept(graph: ComputationalGraph) -> list[int]:
    keep = _reaching(graph) | set(graph.inputs)
    return [index for index in range(len(graph.nodes)) if index in keep]


class GraphBuilder:
    """Writes a graph down node by node; each call returns the new node's index.

    `builder("conv2d", x, out_channels=8, kernel_size=3)` applies the operator `conv2d` to node `x`, and so for every
    operator of the table.
    Shapes are inferred as nodes are added, so a mistake is reported where it is made.

    Example:
        >>> g = GraphBuilder()
        >>> image = g("input", shape=(1, 8, 8))
        >>> features = g("relu", g("conv2d", image, out_channels=4, kernel_size=3, padding=1))
        >>> graph = g.finish(g("linear", g("global_avg_pool2d", features), out_features=10))
        >>> graph.shapes[-1]
        (10,)
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._values: list[_Value] = []

    def __call__(self, op: str, /, *inputs: int, **attrs: object) -> int:
        """Add a node and return its index. Raises `InvalidGraphError` if it cannot run on its inputs."""
        node = make_node(op, inputs, **attrs)
        index = len(self._nodes)
        _check_arguments(index, node)
        if OPS[op].commutative:  # one way to write a sum down
            node = Node(op, tuple(sorted(node.inputs)), node.attrs)
        self._values.append(_infer_node(index, node, [self._values[source] for source in node.inputs]))
        self._nodes.append(node)
        return index

    def __len__(self) -> int:
        return len(self._nodes)

    def shape(self, index: int) -> Shape:
        """Shape of a node's value, per example."""
        return self._values[index].shape

    def dtype(self, index: int) -> Dtype:
        """Whether a node gives real numbers or integers."""
        return self._values[index].dtype

    def finish(self, *outputs: int) -> ComputationalGraph:
        """The checked graph with these outputs, without what does not reach them.

        Raises:
            InvalidGraphError: If a rule of `check_graph` is broken.
        """
        graph = ComputationalGraph(tuple(self._nodes), outputs)
        _check_length(graph)
        _check_outputs(graph)
        kept = _kept(graph)
        if len(kept) < len(graph):
            graph = graph._reordered(kept)
        # What the builder knows already need not be inferred again. The single nodes were checked when added.
        graph.__dict__["_values"] = tuple([self._values[index] for index in kept])
        _check_whole(graph)
        return graph
