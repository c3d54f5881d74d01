"""A search space around a torch module."""

from collections.abc import Mapping

from torch import nn

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph, Node, make_node
from nasgraph.modules.trace import ExampleInputs, TracedGraph, trace
from nasgraph.spaces.around import AroundConfig, AroundGraph


def around(
    module: nn.Module,
    example_inputs: ExampleInputs,
    *,
    name: str | None = None,
    config: AroundConfig | None = None,
    learn_constants: bool = False,
) -> AroundGraph:
    """The space of variants of a module: other widths, kernels, depths and operators, and the module itself.

    The module is traced, once, without data; it stays as it is. Choices are named after its children, such as
    `layer2.0.conv1 width`. See `AroundGraph` for guarantees.

    Args:
        module: Any module that `trace` can write as a graph without opaque operators.
        example_inputs: A tensor, positional or keyword arguments of the forward pass, as `trace` takes them.
        name: Name of the space; None: `around-`, the module's class and the beginning of the graph's fingerprint.
        config: What is varied.
        learn_constants: Make real-valued constants of the module, such as sine positions, free parameters. A graph does not
            hold the content of constants, so evaluators can train graphs without any only.

    Raises:
        UnsupportedOpError: If the graph has opaque operators, or a parameter is read by one that is not known.
        TraceError: If the module cannot be traced.
        NasGraphError: If nothing in it can be varied.
    """
    traced = trace(module, example_inputs)
    if traced.opaque:
        listed = ", ".join(f"'{op}' ({traced.reasons.get(op, 'unknown')})" for op in sorted(traced.opaque))
        raise UnsupportedOpError(
            f"{type(module).__name__} uses operators that cannot be built anew: {listed}"
        )
    graph = with_learnt_constants(traced.graph) if learn_constants else traced.graph
    if name is None:
        name = f"around-{type(module).__name__.lower()}-{graph.fingerprint[:8]}"
    return AroundGraph(graph, name=name, node_names=module_paths(traced), config=config)


def module_paths(traced: TracedGraph) -> tuple[str, ...]:
    """For every node the path of the module whose parameters it has, such as `layer1.0.conv1`; `""` for nodes without any."""
    paths = [""] * len(traced.graph)
    for parameter, owner in traced.owners.items():
        index = int(parameter[1:].partition(".")[0])
        paths[index] = paths[index] or _path(owner.name)
    return tuple(paths)


def _path(parameter: str) -> str:
    """`layer1.conv` of `layer1.conv.weight`, `attention.in_proj` of `attention.in_proj_weight`, others as they are."""
    path, _, last = parameter.rpartition(".")
    for ending in ("weight", "bias"):
        if last == ending:
            return path
        last = last.removesuffix(f"_{ending}").removeprefix(
            f"{ending}_ih_"
        )  # attention's and recurrent layers'
    return f"{path}.{last}" if path else last


def with_learnt_constants(graph: ComputationalGraph) -> ComputationalGraph:
    """The graph with free parameters in place of real-valued constants."""

    def learnt(node: Node) -> Node:
        attrs: Mapping[str, object] = dict(node.attrs)
        if node.op != "constant" or attrs["dtype"] != "float":
            return node
        return make_node("parameter", (), shape=attrs["shape"], role="position")

    return ComputationalGraph(tuple(map(learnt, graph.nodes)), graph.outputs)
