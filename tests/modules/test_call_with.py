"""Calling a module with parameters that are not its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nasgraph.modules import build, call_with, initial_parameters
from tests.modules.samples import sampled_graphs


class HandWritten(nn.Module):
    """A module that nasgraph has not built, with a norm and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.last = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, 10]."""
        self.get_buffer("calls").add_(1)
        result: Tensor = self.last(self.norm(self.first(x)).relu().mean((2, 3)))
        return result


def built() -> nn.Module:
    """A sampled network with batch norms."""
    return build(sampled_graphs("nasbench201", 1)[0])


MODULES = pytest.mark.parametrize("make", [HandWritten, built])


def others(module: nn.Module) -> dict[str, Tensor]:
    """Parameters for the module that are not its own."""
    rng = torch.Generator().manual_seed(7)
    return {name: torch.randn(p.shape, generator=rng) / 5 for name, p in module.named_parameters()}


def images() -> Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@MODULES
@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_left_untouched(make: Callable[[], nn.Module], training: bool) -> None:
    module = make().train(training)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    identities = {name: id(tensor) for name, tensor in module.named_parameters()}
    call_with(module, others(module), images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert {name: id(tensor) for name, tensor in module.named_parameters()} == identities
    assert all(part.training is training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


@MODULES
@pytest.mark.parametrize("training", [True, False])
def test_the_result_is_that_of_a_module_with_these_parameters(
    make: Callable[[], nn.Module], training: bool
) -> None:
    module, twin = make().train(training), make().train(training)
    twin.load_state_dict({**twin.state_dict(), **others(module)})
    assert torch.equal(call_with(module, others(module), images()), twin(images()))


@MODULES
def test_gradients_flow_to_the_parameters_and_not_into_the_module(make: Callable[[], nn.Module]) -> None:
    module = make()
    parameters = {name: tensor.requires_grad_() for name, tensor in others(module).items()}
    call_with(module, parameters, images()).square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in parameters.values())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_parameter_that_is_left_out_keeps_its_own_value() -> None:
    graph = sampled_graphs("mlp", 1)[0]
    module = build(graph, seed=0).eval()
    name, tensor = next(iter(initial_parameters(graph, seed=1).items()))
    twin = build(graph, seed=0).eval()
    twin.load_state_dict({**twin.state_dict(), name: tensor})
    assert torch.equal(call_with(module, {name: tensor}, images()), twin(images()))
    assert torch.equal(call_with(module, {}, images()), module(images()))


@MODULES
def test_a_wrong_name_or_shape_is_refused_in_words(make: Callable[[], nn.Module]) -> None:
    module = make()
    name, parameter = next(iter(module.named_parameters()))
    with pytest.raises(ValueError, match=r"no parameter named 'n999\.weight'"):
        call_with(module, {"n999.weight": parameter}, images())
    shape = str(tuple(parameter.shape)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"Expected '{name}' to have shape {shape} \(got \(2, 3\)\)"):
        call_with(module, {name: torch.zeros(2, 3)}, images())
