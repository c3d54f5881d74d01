"""Networks to draw."""

from nasgraph.ir import ComputationalGraph, GraphBuilder


def mlp(num_layers: int = 3) -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph("input", shape=(16,))
    for _ in range(num_layers):
        x = graph("relu", graph("batch_norm", graph("linear", x, out_features=16)))
    return graph.finish(graph("linear", x, out_features=10))


def residual(num_blocks: int) -> ComputationalGraph:
    """A stem, equal residual blocks, a head."""
    graph = GraphBuilder()
    x = graph("conv2d", graph("input", shape=(3, 8, 8)), out_channels=4, kernel_size=3, padding=1)
    for _ in range(num_blocks):
        y = graph("relu", graph("batch_norm", graph("conv2d", x, out_channels=4, kernel_size=3, padding=1)))
        y = graph("batch_norm", graph("conv2d", y, out_channels=4, kernel_size=3, padding=1))
        x = graph("relu", graph("add", x, y))
    return graph.finish(graph("linear", graph("global_avg_pool2d", x), out_features=10))


def transformer(depth: int) -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph("add", graph("input", shape=(9, 8)), graph("parameter", shape=(9, 8)))
    for _ in range(depth):
        normed = graph("layer_norm", x)
        query, key, value = (graph("linear", normed, out_features=8) for _ in range(3))
        x = graph(
            "add", x, graph("linear", graph("attention", query, key, value, num_heads=2), out_features=8)
        )
        y = graph("gelu", graph("linear", graph("layer_norm", x), out_features=16))
        x = graph("add", x, graph("linear", y, out_features=8))
    return graph.finish(graph("mean", graph("layer_norm", x), axis=0))


def dense(num_layers: int) -> ComputationalGraph:
    """Every layer reads all earlier ones: as many long edges as there can be."""
    graph = GraphBuilder()
    values = [graph("input", shape=(2, 4, 4))]
    for _ in range(num_layers):
        x = graph("concat", *values) if len(values) > 1 else values[0]
        values.append(graph("relu", graph("conv2d", x, out_channels=2, kernel_size=1)))
    return graph.finish(graph("concat", *values))


def wide(num_branches: int) -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph("input", shape=(2, 4, 4))
    branches = [graph("conv2d", x, out_channels=2, kernel_size=1) for _ in range(num_branches)]
    return graph.finish(graph("concat", *branches))


def tangled(num_nodes: int, *, seed: int = 0) -> ComputationalGraph:
    """Random additions, convolutions and activations; every loose end is an output."""
    import numpy as np

    rng = np.random.default_rng(seed)
    graph = GraphBuilder()
    values = [graph("input", shape=(2, 4, 4))]
    read: set[int] = set()
    while len(values) < num_nodes:
        first, second = (values[-1 - int(rng.integers(min(len(values), 8)))] for _ in range(2))
        kind = rng.integers(4)
        read.add(first)
        if kind == 0:
            read.add(second)
            values.append(graph("add", first, second))
        elif kind == 1:
            values.append(graph("relu", first))
        else:
            values.append(graph("conv2d", first, out_channels=2, kernel_size=3, padding=1))
    loose = [value for value in values if value not in read]
    return graph.finish(graph("add", *loose) if len(loose) > 1 else loose[0])
