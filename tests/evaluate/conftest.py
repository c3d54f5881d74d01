"""The digits, and small networks for them."""

import pytest

from nasgraph.data import SearchData, load_dataset
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from tests.modules.samples import sampled_graphs


@pytest.fixture(scope="session")
def digits() -> SearchData:
    """Training and validation data of the digits that come with scikit-learn."""
    return load_dataset("digits").search


@pytest.fixture(scope="session")
def few_digits(digits: SearchData) -> SearchData:
    """A part of the digits."""
    return digits.subset(200, 100, seed=0)


@pytest.fixture(scope="session")
def convnet() -> ComputationalGraph:
    """The cheapest of some sampled convolutional networks with batch norms."""
    graphs = sampled_graphs("convnet", 30)
    with_norms = [graph for graph in graphs if any(node.op == "batch_norm" for node in graph.nodes)]
    return min(with_norms, key=lambda graph: cost_of(graph).multiply_adds)


@pytest.fixture(scope="session")
def small_network() -> ComputationalGraph:
    """A perceptron with a batch norm and dropout."""
    g = GraphBuilder()
    x = g("linear", g("flatten", g("input", shape=(1, 8, 8))), out_features=16, bias=False)
    x = g("dropout", g("relu", g("batch_norm", x)), p=0.1)
    return g.finish(g("linear", x, out_features=10))
