"""Costs against numbers worked out by hand."""

from nasgraph.ir import Cost, GraphBuilder, cost_of


def test_a_convolutional_network() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(3, 8, 8))  # 192 values
    x = graph("conv2d", x, out_channels=4, kernel_size=3, padding=1)  # 4 * 3 * 9 = 108 weights, 256 values
    x = graph("batch_norm", x)  # 8 parameters, 256 values
    x = graph("relu", x)  # 256 values
    y = graph(
        "conv2d", x, out_channels=4, kernel_size=3, padding=1, groups=2, bias=True
    )  # 4 * 2 * 9 + 4, 256 values
    x = graph("add", x, y)  # 256 values
    x = graph("global_avg_pool2d", x)  # 4 values
    result = cost_of(graph.finish(graph("linear", x, out_features=10)))  # 40 + 10 parameters, 10 values
    assert result == Cost(
        num_parameters=108 + 8 + 76 + 50,
        multiply_adds=256 * 27 + 256 * 18 + 40,
        activation_bytes=4 * (192 + 256 * 5 + 4 + 10),
        depth=8,
    )


def test_a_transformer_layer() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(5, 8))
    q, k, v = (graph("linear", x, out_features=8, bias=False) for _ in range(3))
    result = cost_of(graph.finish(graph("attention", q, k, v, num_heads=2)))
    assert result == Cost(
        num_parameters=3 * 64,
        multiply_adds=3 * 5 * 64 + 2 * 5 * 5 * 8,  # maps; scores and weighted sums
        activation_bytes=4 * 5 * 40,
        depth=3,
    )


def test_look_up_tables_and_free_parameters_cost_memory_but_no_multiply_adds() -> None:
    graph = GraphBuilder()
    tokens = graph("embedding", graph("input", shape=(6,), dtype="int"), num_embeddings=100, dim=4)
    result = cost_of(graph.finish(graph("add", tokens, graph("parameter", shape=(6, 4)))))
    assert (result.num_parameters, result.multiply_adds, result.depth) == (400 + 24, 0, 3)


def test_depth_is_the_longest_path() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    long = graph("relu", graph("relu", graph("relu", x)))
    assert cost_of(graph.finish(graph("add", long, x))).depth == 5


def test_products_of_matrices_and_recurrent_layers() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(5, 8))
    steps = graph("lstm", x, hidden_size=3)  # 5 steps of 4 gates of 3 cells that read 8 + 3 numbers
    scores = graph("matmul", steps, graph("permute", steps, order=(1, 0)))  # (5, 3) @ (3, 5)
    mixed = graph("einsum", scores, steps, equation="ij,jk->ik")  # 5 * 5 * 3
    table = graph("parameter", shape=(11, 3), role="embedding")
    result = cost_of(graph.finish(graph("apply_linear", mixed, table)))  # 5 * 3 * 11
    assert result.multiply_adds == 5 * 12 * 11 + 75 + 75 + 165
    assert result.num_parameters == 12 * 8 + 12 * 3 + 24 + 33
