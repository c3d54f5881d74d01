"""Graphs for tests of retrieval."""

import numpy as np

from nasgraph.ir import ComputationalGraph, GraphBuilder, Node
from nasgraph.spaces import load_space, sample, space_names

IMAGES, VECTORS = (3, 32, 32), (64,)
ON_VECTORS = ("gpt", "gnn", "nasbench-graph")


def sampled_graphs(seed: int = 0, *, each: int = 1) -> list[ComputationalGraph]:
    """Graphs of every installed space."""
    rng = np.random.default_rng(seed)
    graphs = []
    for name in space_names():
        shape = VECTORS if name in ON_VECTORS else IMAGES
        space = load_space(name, input_shape=shape, num_classes=10)
        graphs += [sample(space, rng).graph for _ in range(each)]
    return graphs


def reordered(graph: ComputationalGraph, rng: np.random.Generator) -> tuple[ComputationalGraph, list[int]]:
    """The same graph in another topological order, and the new index of each node. Inputs keep their order."""
    waiting = [len(set(node.inputs)) for node in graph.nodes]
    users: list[list[int]] = [[] for _ in waiting]
    for index, node in enumerate(graph.nodes):
        for source in set(node.inputs):
            users[source].append(index)
    ready = [index for index, number in enumerate(waiting) if number == 0]
    order = []
    while ready:
        index = ready.pop(int(rng.integers(len(ready))))
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    inputs = iter(graph.inputs)
    order = [next(inputs) if graph.nodes[index].op == "input" else index for index in order]
    place = [0] * len(order)
    for new, old in enumerate(order):
        place[old] = new
    nodes = [
        Node(
            graph.nodes[old].op,
            tuple(place[source] for source in graph.nodes[old].inputs),
            graph.nodes[old].attrs,
        )
        for old in order
    ]
    return ComputationalGraph(tuple(nodes), tuple(place[index] for index in graph.outputs)), place


def residual_network(blocks: int, *, width: int = 16, classes: int = 10) -> ComputationalGraph:
    """A stem, equal residual blocks of seven nodes, and a head of two."""
    g = GraphBuilder()
    x = g("input", shape=IMAGES)
    x = g("relu", g("batch_norm", g("conv2d", x, out_channels=width, kernel_size=3, padding=1)))
    for _ in range(blocks):
        y = g("relu", g("batch_norm", g("conv2d", x, out_channels=width, kernel_size=3, padding=1)))
        y = g("batch_norm", g("conv2d", y, out_channels=width, kernel_size=3, padding=1))
        x = g("relu", g("add", x, y))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=classes))


def staged_network(stages: tuple[int, ...] = (3, 4, 6, 3)) -> ComputationalGraph:
    """Residual stages as in ResNet-34 (He et al. 2016): sixteen blocks, the first of each later stage with a projection."""
    g = GraphBuilder()
    x = g("input", shape=IMAGES)
    x = g("relu", g("batch_norm", g("conv2d", x, out_channels=8, kernel_size=3, padding=1)))
    for stage, number in enumerate(stages):
        width = 8 * 2**stage
        for block in range(number):
            stride = 2 if stage and not block else 1
            y = g("conv2d", x, out_channels=width, kernel_size=3, stride=stride, padding=1)
            y = g("relu", g("batch_norm", y))
            y = g("batch_norm", g("conv2d", y, out_channels=width, kernel_size=3, padding=1))
            if stride == 2:
                x = g("batch_norm", g("conv2d", x, out_channels=width, kernel_size=1, stride=2))
            x = g("relu", g("add", x, y))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=10))
