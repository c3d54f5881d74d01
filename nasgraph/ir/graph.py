"""Computational graphs: immutable, checked, hashable records of a network's operators, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

from nasgraph.errors import InvalidGraphError
from nasgraph.files import canonical_json
from nasgraph.ir.canonical import canonical_order
from nasgraph.ir.ops import MAX_ELEMENTS, MAX_SIZE, OPS, ParameterSpec, Scalar, Shape

if TYPE_CHECKING:
    import networkx

MAX_NODES = 100_000


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
    if op not in OPS:
        raise InvalidGraphError(f"No operator named {op!r:.80}. Known: {', '.join(sorted(OPS))}")
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
    return Node(op, tuple(inputs), tuple(values))


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
    def shapes(self) -> tuple[Shape, ...]:
        """Output shape of every node, per example. Raises `InvalidGraphError` where shapes do not fit."""
        return infer_shapes(self)

    @cached_property
    def parameters(self) -> dict[str, ParameterSpec]:
        """Every parameter tensor by its name `n<node>.<parameter>`, in node order."""
        return {
            f"n{index}.{name}": spec
            for index, node in enumerate(self.nodes)
            for name, spec in OPS[node.op].parameters(dict(node.attrs), self.input_shapes(index)).items()
        }

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
    shapes: list[Shape] = []
    for index, node in enumerate(graph.nodes):
        inputs = tuple(shapes[source] for source in node.inputs)
        attrs = dict(node.attrs)
        try:
            shape = OPS[node.op].shape(attrs, inputs)
            _refuse_absurd(shape)
            for spec in OPS[node.op].parameters(attrs, inputs).values():
                _refuse_absurd(spec.shape)
        except InvalidGraphError as error:
            raise InvalidGraphError(f"Node {index} ({node.op}): {error}") from error
        shapes.append(shape)
    return tuple(shapes)


def _refuse_absurd(shape: Shape) -> None:
    elements = 1
    for size in shape:
        elements *= size
        if size > MAX_SIZE * 1024 or elements > MAX_ELEMENTS:
            raise InvalidGraphError(
                f"a tensor of shape {shape} is too large (at most {MAX_ELEMENTS:,} elements)"
            )


def check_graph(graph: ComputationalGraph) -> None:
    """Check every rule of the graph language. A graph that passes can be built and run.

    Rules: 1 to 100,000 nodes; known operators with normal attributes; the right number of inputs; inputs
    before users (hence no cycle); at least one input node and one output; every node but
    inputs reaches an output; integers go to embeddings only; shapes fit.

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
    _check_integers(graph)
    graph.shapes  # noqa: B018  computed here so that every later use is free and cannot fail


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


def _check_integers(graph: ComputationalGraph) -> None:
    integers = {index for index in graph.inputs if graph.nodes[index].attr("dtype") == "int"}
    for index, node in enumerate(graph.nodes):
        reads_integers = any(source in integers for source in node.inputs)
        if reads_integers != (node.op == "embedding"):
            kind = "integers" if node.op == "embedding" else "real numbers"
            raise InvalidGraphError(f"Node {index} ({node.op}) can read {kind} only")


def _reaching(graph: ComputationalGraph) -> set[int]:
    reached = set(graph.outputs)
    for index in reversed(range(len(graph.nodes))):
        if index in reached:
            reached.update(graph.nodes[index].inputs)
    return reached


def without_dead_nodes(graph: ComputationalGraph) -> ComputationalGraph:
    """The graph without nodes that reach no output. Input nodes always stay: they are the interface."""
    keep = _reaching(graph) | set(graph.inputs)
    return graph._reordered([index for index in range(len(graph.nodes)) if index in keep])


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
        self._shapes: list[Shape] = []

    def __call__(self, op: str, /, *inputs: int, **attrs: object) -> int:
        """Add a node and return its index. Raises `InvalidGraphError` if it cannot run on its inputs."""
        node = make_node(op, inputs, **attrs)
        index = len(self._nodes)
        _check_arguments(index, node)
        try:
            shape = OPS[op].shape(dict(node.attrs), [self._shapes[source] for source in inputs])
        except InvalidGraphError as error:
            raise InvalidGraphError(f"Node {index} ({op}): {error}") from error
        self._nodes.append(node)
        self._shapes.append(shape)
        return index

    def shape(self, index: int) -> Shape:
        """Shape of a node's value, per example."""
        return self._shapes[index]

    def finish(self, *outputs: int) -> ComputationalGraph:
        """The checked graph with these outputs, without what does not reach them.

        Raises:
            InvalidGraphError: If a rule of `check_graph` is broken.
        """
        graph = ComputationalGraph(tuple(self._nodes), outputs)
        _check_length(graph)
        _check_outputs(graph)
        graph = without_dead_nodes(graph)
        _check_whole(graph)  # the single nodes were checked when they were added
        return graph
