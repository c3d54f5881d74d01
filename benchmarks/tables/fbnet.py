"""Rows of the FBNet table as graphs: the whole network for ImageNet, with real operators and shapes.

    python -m benchmarks.tables.fbnet           builds some graphs, and compares their costs with the table's own

Macro architecture: Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", 2019, table 1 (22 searchable layers); blocks: figure 3 and table 2.
"""

import time
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import SHARED_DATA
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of

STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
"""Output channels, layers, and stride of the first layer of each stage."""
STEM_CHANNELS, HEAD_CHANNELS, NUM_CLASSES = 16, 1984, 1000


def fbnet_graph(blocks: Sequence[str], *, side: int = 224) -> ComputationalGraph:
    """The network with these blocks.

    Args:
        blocks: For each of the 22 layers "skip" or "k<kernel>_e<expansion>", with "_g2" for grouped pointwise convolutions.
        side: Height and width of the image.

    Raises:
        ValueError: If there are not 22 blocks.
    """
    plan = [
        (channels, stride if place == 0 else 1)
        for channels, count, stride in STAGES
        for place in range(count)
    ]
    if len(blocks) != len(plan):
        raise ValueError(f"Expected {len(plan)} blocks (got {len(blocks)})")
    g = GraphBuilder()
    x = g("input", shape=(3, side, side))
    x = g("relu", _conv_norm(g, x, STEM_CHANNELS, 3, stride=2))
    for block, (channels, stride) in zip(blocks, plan, strict=True):
        x = _block(g, x, block, channels, stride)
    x = g("relu", _conv_norm(g, x, HEAD_CHANNELS, 1))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=NUM_CLASSES))


def fbnet_graphs(rows: Sequence[int] | None = None) -> list[ComputationalGraph]:
    """Graphs of the table's rows."""
    with np.load(SHARED_DATA / "fbnet_hardware.npz", allow_pickle=False) as table:
        names, chosen = [str(name) for name in table["op_names"]], table["arch"]
    picked = chosen if rows is None else chosen[list(rows)]
    return [fbnet_graph([names[op] for op in row]) for row in picked]


def _block(g: GraphBuilder, x: int, block: str, channels: int, stride: int) -> int:
    before = g.shape(x)[0]
    keeps_shape = stride == 1 and before == channels
    if block == "skip":
        return x if keeps_shape else g("relu", _conv_norm(g, x, channels, 1, stride=stride))
    kernel, expansion, *grouped = (int(part[1:]) for part in block.split("_"))
    groups = grouped[0] if grouped else 1
    inner = before * expansion
    y = g("relu", _conv_norm(g, x, inner, 1, groups=groups))
    y = _shuffled(g, y, groups) if groups > 1 else y
    y = g("relu", _conv_norm(g, y, inner, kernel, stride=stride, groups=inner))
    y = _conv_norm(g, y, channels, 1, groups=groups)
    return g("add", x, y) if keeps_shape else y


def _conv_norm(
    g: GraphBuilder, x: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> int:
    x = g(
        "conv2d",
        x,
        out_channels=channels,
        kernel_size=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )
    return g("batch_norm", x)


def _shuffled(g: GraphBuilder, x: int, groups: int) -> int:
    """Channels interleaved between groups (Zhang et al. 2018, ShuffleNet)."""
    channels, height, width = g.shape(x)
    x = g("reshape", x, shape=(groups, channels // groups, height, width))
    return g("reshape", g("permute", x, order=(1, 0, 2, 3)), shape=(channels, height, width))


def main() -> None:
    rows = range(0, 5000, 25)
    started = time.perf_counter()
    graphs = fbnet_graphs(rows)
    seconds = time.perf_counter() - started
    with np.load(SHARED_DATA / "fbnet_hardware.npz", allow_pickle=False) as table:
        own = table["zero_cost"][list(rows)]
        names = list(table["proxy_names"])
    costs = [cost_of(graph) for graph in graphs]
    flops = spearmanr([c.multiply_adds for c in costs], own[:, names.index("flops")]).statistic
    params = spearmanr([c.num_parameters for c in costs], own[:, names.index("params")]).statistic
    print(f"{len(graphs)} graphs of {len(graphs[0])} nodes, {1e3 * seconds / len(graphs):.2f} ms each")
    print(f"Spearman with the table: multiply-adds {flops:.4f}, parameters {params:.4f}")


if __name__ == "__main__":
    main()
