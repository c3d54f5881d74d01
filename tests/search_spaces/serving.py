"""What every space owes at every image size: networks that run, cost something and can be predicted."""

import numpy as np
import torch

from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import build, call_with
from nasgraph.spaces import SearchSpace, sample
from tests.hyper.toy import tiny_config

LARGEST_TO_RUN = 64
"""Side of the largest image that is really put through a network."""


def assert_serves(space: SearchSpace, *, seed: int = 0) -> None:
    """A sample builds without memory, costs what its parameters say, and runs on images that are not too large."""
    graph = sample(space, np.random.default_rng(seed)).graph
    assert graph.shapes[graph.inputs[0]] == space.input_shape
    assert graph.shapes[graph.outputs[0]] == (space.num_classes,)
    cost = cost_of(graph)
    assert cost.multiply_adds > 0
    module = build(graph, device="meta")
    assert sum(tensor.numel() for tensor in module.parameters()) == cost.num_parameters
    if max(space.input_shape[1:]) <= LARGEST_TO_RUN:
        images = torch.randn(2, *space.input_shape, generator=torch.Generator().manual_seed(seed))
        assert torch.isfinite(build(graph)(images)).all()


def assert_predictable(graph: ComputationalGraph) -> None:
    """A hypernetwork predicts every parameter once with its shape, and the network runs with them."""
    (predicted,) = GraphHyperNetwork(tiny_config(), seed=0).predict([graph])
    assert {name: tuple(tensor.shape) for name, tensor in predicted.items()} == {
        name: spec.shape for name, spec in graph.parameters.items()
    }
    images = torch.randn(2, *graph.shapes[graph.inputs[0]], generator=torch.Generator().manual_seed(0))
    output = call_with(build(graph), {name: tensor.detach() for name, tensor in predicted.items()}, images)
    assert output.shape[0] == 2
    assert torch.isfinite(output).all()
