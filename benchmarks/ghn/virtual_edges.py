"""CPU seconds for all shortest paths of a graph, beside networkx, with the equality of the results asserted.

    python -m benchmarks.ghn.virtual_edges

networkx is asked twice: for all distances, and for those up to 50 only, as the published graph hypernetworks do
(our result holds 50 for all that are longer, so it has to look at these paths too).
"""

import networkx
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import save
from benchmarks.ghn.measure import interleaved
from benchmarks.ghn.networks import deep_convnet
from nasgraph.encode import signed_distances
from nasgraph.encode.distances import MAX_DISTANCE
from nasgraph.ir import ComputationalGraph, GraphBuilder


def dense_convnet(num_nodes: int) -> ComputationalGraph:
    """Blocks of twelve layers, each of which reads all earlier layers of its block (Huang et al. 2017)."""
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(3, 32, 32)), out_channels=16, kernel_size=3, padding=1)
    count = 2
    while count < num_nodes - 2:
        layers = [x]
        for _ in range(12):
            joined = g("concat", *layers) if len(layers) > 1 else layers[0]
            y = g("relu", g("batch_norm", joined))
            layers.append(g("conv2d", y, out_channels=12, kernel_size=3, padding=1))
        x = g("conv2d", g("concat", *layers), out_channels=16, kernel_size=1)
        count = x + 1
    return g.finish(x)


def distances_of_networkx(digraph: networkx.DiGraph, size: int) -> NDArray[np.int64]:
    result = np.zeros((size, size), np.int64)
    for source, lengths in networkx.all_pairs_shortest_path_length(digraph):
        for target, length in lengths.items():
            result[source, target] += min(length, MAX_DISTANCE)
            result[target, source] -= min(length, MAX_DISTANCE)
    return result


def measure(graph: ComputationalGraph) -> dict[str, object]:
    digraph = networkx.DiGraph(graph.to_networkx())
    assert np.array_equal(signed_distances(graph), distances_of_networkx(digraph, len(graph)))
    times = interleaved(
        {
            "nasgraph": lambda: signed_distances(graph),
            "networkx": lambda: dict(networkx.all_pairs_shortest_path_length(digraph)),
            "networkx, up to 50": lambda: dict(
                networkx.all_pairs_shortest_path_length(digraph, cutoff=MAX_DISTANCE)
            ),
        },
        repeats=9,
    )
    ours = times["nasgraph"]["median s"]
    assert ours is not None
    return {
        "nodes": len(graph),
        "edges": digraph.number_of_edges(),
        "equal": True,
        "CPU seconds": times,
        "times as fast as": {name: (time["median s"] or 0) / ours for name, time in times.items()},
    }


def main() -> None:
    result = {
        f"{name}, {size} nodes": measure(make(size))
        for size in (500, 2000)
        for name, make in (("residual", deep_convnet), ("dense", dense_convnet))
    }
    print(save("ghn_virtual_edges", {"threads": 1, **result}).read_text())


if __name__ == "__main__":
    main()
