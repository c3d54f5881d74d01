"""What a graph costs before anything is built."""

from dataclasses import dataclass
from math import prod

from nasgraph.ir.graph import ComputationalGraph
from nasgraph.ir.ops import OPS


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one network for one example.

    Attributes:
        num_parameters: Elements of all parameter tensors.
        multiply_adds: Multiply-accumulate operations of one forward pass: convolutions, linear maps and attention
            products. Half of what `torch.utils.flop_counter` counts.
        activation_bytes: Bytes of all node outputs in single precision: what training keeps, at most.
        depth: Nodes on the longest path.
    """

    num_parameters: int
    multiply_adds: int
    activation_bytes: int
    depth: int


def cost_of(graph: ComputationalGraph) -> Cost:
    """Cost of a checked graph, from the operator table alone."""
    multiply_adds = 0
    depth: list[int] = []
    for index, node in enumerate(graph.nodes):
        rule = OPS[node.op].multiply_adds
        multiply_adds += rule(dict(node.attrs), graph.input_shapes(index), graph.shapes[index])
        depth.append(1 + max((depth[source] for source in node.inputs), default=0))
    return Cost(
        num_parameters=sum(prod(spec.shape) for spec in graph.parameters.values()),
        multiply_adds=multiply_adds,
        activation_bytes=4 * sum(prod(shape) for shape in graph.shapes),
        depth=max(depth),
    )
