"""The moving average of parameters."""

import numpy as np
import pytest
import torch
from torch import nn

from nasgraph.hyper.ema import WeightAverage


def moved(module: nn.Linear, rng: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_recursion_with_a_warmed_up_decay(decay: float) -> None:
    module, rng = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    average = WeightAverage(module, decay)
    expected = module.weight.detach().double().numpy().copy()
    for update in range(1, 40):
        moved(module, rng)
        average.update(module)
        share = min(decay, (1 + update) / (10 + update))
        expected = share * expected + (1 - share) * module.weight.detach().double().numpy()
    last = module.weight.detach().clone()
    average.copy_to(module)
    np.testing.assert_allclose(module.weight.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(module.weight, last)


def test_the_first_parameters_leave_no_trace() -> None:
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.fill_(1e6)
    average = WeightAverage(module, 0.999)
    with torch.no_grad():
        module.weight.fill_(1.0)
    for _ in range(100):
        average.update(module)
    average.copy_to(module)
    torch.testing.assert_close(module.weight, torch.ones_like(module.weight), rtol=1e-4, atol=1e-4)


def test_an_average_that_was_saved_goes_on_bit_by_bit() -> None:
    module, rng = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    average = WeightAverage(module, 0.9)
    for _ in range(5):
        moved(module, rng)
        average.update(module)
    again = WeightAverage(nn.Linear(3, 2), 0.9)
    again.load({name: tensor.clone() for name, tensor in average.state().items()})
    for each in (average, again):
        each.update(module)
    ours, theirs = average.state(), again.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_decay_nothing_is_kept_and_nothing_changes() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    average = WeightAverage(module, 0.0)
    average.update(module)
    average.copy_to(module)
    assert average.state() == {}
    assert torch.equal(module.weight, before)
