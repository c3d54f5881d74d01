"""Well-known networks written down as graphs, with the number of parameters that they are known to have."""

from nasgraph.ir import ComputationalGraph, GraphBuilder


def resnet50() -> ComputationalGraph:
    """ResNet-50 for ImageNet (He et al. 2016), 25,557,032 parameters."""
    g = GraphBuilder()

    def conv(x: int, channels: int, kernel: int, stride: int = 1) -> int:
        y = g("conv2d", x, out_channels=channels, kernel_size=kernel, stride=stride, padding=kernel // 2)
        return g("batch_norm", y)

    x = g("relu", conv(g("input", shape=(3, 224, 224)), 64, 7, 2))
    x = g("max_pool2d", x, kernel_size=3, stride=2, padding=1)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = g("relu", conv(x, width, 1))
            y = g("relu", conv(y, width, 3, stride))
            y = conv(y, 4 * width, 1)
            shortcut = x if block else conv(x, 4 * width, 1, stride)
            x = g("relu", g("add", y, shortcut))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=1000))


def deep_convnet(num_nodes: int = 800) -> ComputationalGraph:
    """A residual network of narrow blocks with about `num_nodes` nodes: 814 nodes and 64,122,856 parameters for 800."""
    g = GraphBuilder()
    x = g("relu", g("conv2d", g("input", shape=(3, 64, 64)), out_channels=64, kernel_size=3, padding=1))
    blocks = (num_nodes - 4) // 10
    nodes_per_stage = -(-blocks // 4)
    for block in range(blocks):
        stage, place = divmod(block, nodes_per_stage)
        width, stride = 48 * 2**stage, 2 if stage and not place else 1
        y = g("relu", g("batch_norm", g("conv2d", x, out_channels=width, kernel_size=1)))
        y = g("conv2d", y, out_channels=width, kernel_size=3, stride=stride, padding=1)
        y = g("relu", g("batch_norm", y))
        y = g("batch_norm", g("conv2d", y, out_channels=4 * width, kernel_size=1))
        shortcut = x if place else g("conv2d", x, out_channels=4 * width, kernel_size=1, stride=stride)
        x = g("relu", g("add", y, shortcut))
    return g.finish(g("linear", g("global_avg_pool2d", x), out_features=1000))


def _transformer_blocks(g: GraphBuilder, x: int, *, depth: int, dim: int, heads: int, causal: bool) -> int:
    for _ in range(depth):
        y = g("layer_norm", x)
        query, key, value = (g("linear", y, out_features=dim) for _ in range(3))
        y = g("attention", query, key, value, num_heads=heads, causal=causal)
        x = g("add", x, g("linear", y, out_features=dim))
        y = g("gelu", g("linear", g("layer_norm", x), out_features=4 * dim))
        x = g("add", x, g("linear", y, out_features=dim))
    return g("layer_norm", x)


def vit_small() -> ComputationalGraph:
    """ViT-S/16 for ImageNet (Touvron et al. 2021), 22,050,664 parameters."""
    g = GraphBuilder()
    dim = 384
    x = g("conv2d", g("input", shape=(3, 224, 224)), out_channels=dim, kernel_size=16, stride=16, bias=True)
    x = g("permute", g("reshape", x, shape=(dim, 196)), order=(1, 0))
    x = g("concat", g("parameter", shape=(1, dim)), x, axis=0)
    x = g("add", x, g("parameter", shape=(197, dim)))
    x = _transformer_blocks(g, x, depth=12, dim=dim, heads=6, causal=False)
    return g.finish(g("linear", g("mean", x, axis=0), out_features=1000))


def gpt2(*, depth: int = 12, dim: int = 768, heads: int = 12) -> ComputationalGraph:
    """The body of GPT-2 (Radford et al. 2019) without its tied head: 124,439,808 parameters for the small one.

    `gpt2(depth=24, dim=1024, heads=16)` is GPT-2 medium, 354,823,168 parameters.
    """
    g = GraphBuilder()
    tokens = g("input", shape=(1024,), dtype="int")
    x = g("embedding", tokens, num_embeddings=50257, dim=dim)
    x = g("add", x, g("parameter", shape=(1024, dim)))
    return g.finish(_transformer_blocks(g, x, depth=depth, dim=dim, heads=heads, causal=True))
