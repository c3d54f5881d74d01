"""Graphs that the tests of hypernetworks share."""

from nasgraph.ir import ComputationalGraph, GraphBuilder


def perceptron(
    inputs: int = 6,
    width: int = 5,
    outputs: int = 3,
    *,
    norm: str | None = None,
    dropout: float | None = None,
) -> ComputationalGraph:
    """Two hidden layers."""
    g = GraphBuilder()
    x = g("input", shape=(inputs,))
    for _ in range(2):
        x = g("linear", x, out_features=width)
        if norm is not None:
            x = g(norm, x)
        x = g("relu", x)
        if dropout is not None:
            x = g("dropout", x, p=dropout)
    return g.finish(g("linear", x, out_features=outputs))


def convolutions(*, dropout: float = 0.3) -> ComputationalGraph:
    """Two convolutions, one without a bias, a group norm, dropout, a linear map over tokens."""
    g = GraphBuilder()
    x = g("input", shape=(2, 6, 6))
    x = g("relu", g("conv2d", x, out_channels=4, kernel_size=3, padding=1))
    x = g("dropout", x, p=dropout)
    x = g("conv2d", x, out_channels=6, kernel_size=3, stride=2, bias=False)
    x = g("relu", g("group_norm", x, groups=2))
    x = g("permute", g("reshape", x, shape=(6, 4)), order=(1, 0))
    x = g("gelu", g("linear", x, out_features=5))
    return g.finish(g("linear", g("flatten", x), out_features=3))
