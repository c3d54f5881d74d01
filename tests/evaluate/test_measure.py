"""Measuring a network with given parameters."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import SearchData, Split
from nasgraph.evaluate import measure
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, build, initial_buffers, initial_parameters


def state_of(graph: ComputationalGraph) -> dict[str, Tensor]:
    """Random parameters, and running statistics that are not those of a fresh network."""
    rng = torch.Generator().manual_seed(1)
    buffers = {name: torch.rand(t.shape, generator=rng) + 0.1 for name, t in initial_buffers(graph).items()}
    return {**initial_parameters(graph, seed=0), **buffers}


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_loss_and_accuracy_are_those_of_torch(
    few_digits: SearchData, convnet: ComputationalGraph, batch_size: int
) -> None:
    state = state_of(convnet)
    module = build(convnet).eval()
    module.load_state_dict(state)
    split = few_digits.validation
    with torch.no_grad():
        logits = module(split.inputs)
    loss, accuracy = measure(Program(convnet), state, split, batch_size=batch_size)
    assert loss == pytest.approx(float(F.cross_entropy(logits, split.targets)), rel=1e-5)
    assert accuracy == float((logits.argmax(1) == split.targets).double().mean())


def test_measuring_twice_gives_the_same_bits_and_changes_nothing(
    few_digits: SearchData, convnet: ComputationalGraph
) -> None:
    state = state_of(convnet)
    before = {name: tensor.clone() for name, tensor in state.items()}
    first, again = (measure(Program(convnet), state, few_digits.train, batch_size=64) for _ in range(2))
    assert first == again
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_parameters_that_want_gradients_are_measured_alike(
    few_digits: SearchData, convnet: ComputationalGraph
) -> None:
    state = state_of(convnet)
    wanting = {
        name: tensor.clone().requires_grad_(name in convnet.parameters) for name, tensor in state.items()
    }
    first, again = (
        measure(Program(convnet), s, few_digits.validation, batch_size=64) for s in (state, wanting)
    )
    assert first == again


@pytest.mark.parametrize("count", [33, 65])
def test_without_statistics_a_last_batch_is_never_a_single_example(
    few_digits: SearchData, small_network: ComputationalGraph, count: int
) -> None:
    parameters = initial_parameters(small_network, seed=0)
    split = few_digits.train
    split = Split(split.inputs[:count], split.targets[:count])
    loss, accuracy = measure(Program(small_network), parameters, split, batch_size=32)
    assert 0 < loss < 10
    assert (accuracy * count) == pytest.approx(round(accuracy * count))


def test_every_example_counts_once(few_digits: SearchData, convnet: ComputationalGraph) -> None:
    state = state_of(convnet)
    split = few_digits.validation
    for batch_size in (3, 9, 11, 33, 98, 99):  # 100 = 33 * 3 + 1 = 11 * 9 + 1 = 9 * 11 + 1 ...
        loss, accuracy = measure(Program(convnet), state, split, batch_size=batch_size)
        expected = measure(Program(convnet), state, split, batch_size=100)
        assert loss == pytest.approx(expected[0], rel=1e-5)
        assert accuracy == expected[1]
