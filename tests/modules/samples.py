"""Graphs that the tests of modules, encoders, hypernetworks and evaluators share."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, Node
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample

SPACES = ("convnet", "mlp", "nasbench201", "vit")


@cache
def sampled_graphs(
    space: str, count: int, *, seed: int = 0, input_shape: tuple[int, ...] = (1, 8, 8)
) -> tuple[ComputationalGraph, ...]:
    """The first `count` architectures that a seed draws from a search space, for images and ten classes."""
    built = load_space(space, input_shape=input_shape, num_classes=10)
    rng = generator(seed, "sampled_graphs", space)
    return tuple(sample(built, rng).graph for _ in range(count))


def single_op_graph(
    op: str, input_shapes: tuple[tuple[int, ...], ...], attrs: dict[str, object]
) -> ComputationalGraph:
    """One input node per shape, and one operator that reads them all."""
    graph = GraphBuilder()
    reads = OPS[op].reads
    sources = [
        graph("input", shape=shape, dtype="int" if reads[min(place, len(reads) - 1)] == "int" else "float")
        for place, shape in enumerate(input_shapes)
    ]
    if OPS[op].num_inputs == (0, 0):  # reads nothing, but a graph needs an input
        return graph.finish(graph(op, **attrs))
    return graph.finish(graph(op, *sources, **attrs))


def random_inputs(
    graph: ComputationalGraph,
    *,
    batch_size: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list[Tensor]:
    """One tensor per input node: normal numbers, or the integers 0 to 2. Drawn on the CPU, the same on every device."""
    rng = torch.Generator().manual_seed(seed)
    tensors = []
    for index in graph.inputs:
        shape = (batch_size, *graph.shapes[index])
        if graph.nodes[index].attr("dtype") == "int":
            tensors.append(torch.randint(0, 3, shape, generator=rng).to(device))
        else:
            tensors.append(torch.randn(shape, generator=rng).to(device, dtype))
    return tensors


def random_constants(graph: ComputationalGraph, *, seed: int = 0) -> dict[str, Tensor]:
    """A value for each constant: normal numbers, or the integers 0 to 2."""
    rng = torch.Generator().manual_seed(seed)
    return {
        f"n{index}.value": torch.randint(0, 3, graph.shapes[index], generator=rng)
        if graph.dtypes[index] == "int"
        else torch.randn(graph.shapes[index], generator=rng)
        for index, node in enumerate(graph.nodes)
        if node.op == "constant"
    }


def wide_graph() -> ComputationalGraph:
    """A network with every role of a parameter, wider and with larger kernels than small decoders have blocks for."""
    graph = GraphBuilder()
    image = graph("input", shape=(3, 12, 12))
    x = graph("conv2d", image, out_channels=40, kernel_size=(9, 5), padding=(4, 2), bias=True)
    x = graph("batch_norm", x)
    x = graph("conv2d", x, out_channels=200, kernel_size=3, stride=3, groups=5)
    x = graph("group_norm", x, groups=4)
    x = graph("relu", x)
    x = graph("permute", graph("reshape", x, shape=(200, 16)), order=(1, 0))
    x = graph("add", x, graph("parameter", shape=(16, 200)))
    x = graph("mul", x, graph("parameter", shape=(1, 200)))
    x = graph("attention", x, x, x, num_heads=4)
    words = graph("input", shape=(7,), dtype="int")
    text = graph("layer_norm", graph("embedding", words, num_embeddings=50, dim=200))
    x = graph("mean", graph("concat", x, text, axis=0), axis=0)
    x = graph("mul", x, graph("parameter", shape=(200,)))
    return graph.finish(graph("linear", x, out_features=10), graph("linear", x, out_features=3, bias=False))


def permuted(graph: ComputationalGraph, *, seed: int) -> tuple[ComputationalGraph, list[int]]:
    """The graph in another topological order, and the old index of each new node.

    Arguments without an order are shuffled; input nodes keep their order among themselves.
    """
    rng = np.random.default_rng(seed)
    inputs, order = list(graph.inputs), list[int]()
    while len(order) < len(graph):
        ready = [
            index
            for index, node in enumerate(graph.nodes)
            if index not in order and set(node.inputs) <= set(order) and index not in inputs[1:]
        ]
        order.append(int(rng.choice(ready)))
        if order[-1] in inputs:
            inputs.pop(0)
    place = {old: new for new, old in enumerate(order)}
    nodes = []
    for old in order:
        sources = [place[source] for source in graph.nodes[old].inputs]
        if OPS[graph.nodes[old].op].commutative:
            rng.shuffle(sources)
        nodes.append(Node(graph.nodes[old].op, tuple(sources), graph.nodes[old].attrs))
    return ComputationalGraph(tuple(nodes), tuple(place[output] for output in graph.outputs)), order
