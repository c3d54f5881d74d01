"""Small networks and metanetworks that the tests of metanetworks share."""

import torch

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import ParameterGraph, parameter_graph
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig
from nasgraph.meta.population import perceptron, small_convnet
from tests.meta.graph.networks import attention, full_state

GRAPHS = {
    "perceptron": perceptron((7, 6)),
    "normed perceptron": perceptron((7, 6), norm="batch", activation="gelu"),
    "tanh perceptron": perceptron((7, 6), activation="tanh"),
    "convolutions": small_convnet((4, 5), norm="batch"),
    "residual convolutions": small_convnet((4, 4), residual=True),
    "attention": attention(),
}


def read(graph: ComputationalGraph, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> ParameterGraph:
    """The parameter graph of a network with random numbers everywhere."""
    return parameter_graph(graph, full_state(graph, seed=seed, dtype=dtype))


def perturbed(metanetwork: Metanetwork, *, seed: int = 0, std: float = 0.1) -> Metanetwork:
    """The metanetwork with noise on all weights, so that no map is zero any more."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in metanetwork.parameters():
            noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
            parameter.add_(noise.to(parameter), alpha=std)
    return metanetwork.eval()


def make(kind: str, *, dtype: torch.dtype = torch.float64, use_max: bool = False) -> Metanetwork:
    """A small metanetwork with random weights."""
    config = MetanetworkConfig(
        kind=kind, layers=3, node_dim=16, edge_dim=8, graph_dim=12, heads=4, use_max=use_max, targets=2
    )
    return perturbed(Metanetwork(config, seed=1).to(dtype))
