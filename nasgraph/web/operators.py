"""What the pages say about the operators of a graph."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from nasgraph.draw.labels import family_of, label_of, shape_text
from nasgraph.ir import OPS, ComputationalGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """One node of a graph in words.

    Attributes:
        node: Its index.
        op: Name of its operator.
        label: Short name with the settings that matter.
        family: Its colour family.
        settings: Every attribute with its value.
        reads: Nodes that it reads with their labels, in the order of its arguments.
        input_shapes: Their shapes.
        output_shape: Its own shape.
        parameters: Its parameter tensors with their shapes.
        num_parameters: Elements of these.
        multiply_adds: Multiply-accumulate operations for one example.
    """

    node: int
    op: str
    label: str
    family: str
    settings: tuple[tuple[str, str], ...]
    reads: tuple[tuple[int, str], ...]
    input_shapes: tuple[str, ...]
    output_shape: str
    parameters: tuple[tuple[str, str], ...]
    num_parameters: int
    multiply_adds: int


def operator_facts(graph: ComputationalGraph, nodes: Iterable[int]) -> tuple[OperatorFacts, ...]:
    """Facts about some nodes, in the order given."""
    return tuple(_facts(graph, index) for index in nodes)


def _facts(graph: ComputationalGraph, index: int) -> OperatorFacts:
    node, shapes = graph.nodes[index], graph.input_shapes(index)
    op, attrs = OPS[node.op], dict(node.attrs)
    parameters = op.parameters(attrs, shapes)
    return OperatorFacts(
        node=index,
        op=node.op,
        label=label_of(node, shapes),
        family=family_of(node.op),
        settings=tuple((name, _value_text(value)) for name, value in node.attrs),
        reads=tuple(
            (source, label_of(graph.nodes[source], graph.input_shapes(source))) for source in node.inputs
        ),
        input_shapes=tuple(map(shape_text, shapes)),
        output_shape=shape_text(graph.shapes[index]),
        parameters=tuple((name, shape_text(spec.shape)) for name, spec in parameters.items()),
        num_parameters=sum(prod(spec.shape) for spec in parameters.values()),
        multiply_adds=op.multiply_adds(attrs, shapes, graph.shapes[index]),
    )


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
