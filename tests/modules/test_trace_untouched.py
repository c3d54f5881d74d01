"""Tracing leaves the module and the world as they were."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nasgraph.errors import TraceError
from nasgraph.modules import trace


class Busy(nn.Module):
    """Changes everything a forward pass can change: attributes, lists, dictionaries, hooks, buffers, children, parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.seen = 0, list[int]()
        self.table: dict[str, object] = {"a": 1}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(len(x))
        self.table["last"] = x
        self.table["a"] = 2
        self.get_buffer("count").add_(1)
        self.cached = x * 2
        self.child = nn.Identity()
        self.layer.register_forward_hook(lambda *_: None)
        self.layer.weight.requires_grad = False
        self.layer.weight.data.mul_(2.0)
        self.norm.running_mean = torch.ones(4)
        return self.norm(self.layer(x)) + torch.rand(4)


class Trained(nn.Module):
    """Batch norm and dropout, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4))
        self.body[0].eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def photograph(module: nn.Module) -> dict[str, object]:
    """Everything about a module that may be compared."""
    found: dict[str, object] = {"random": torch.get_rng_state(), "grad mode": torch.is_grad_enabled()}
    for name, child in module.named_modules():
        for key, value in child.__dict__.items():
            found[f"{name}:{key}"] = (
                dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        found[f"content {name}"] = tensor.detach().clone()
        found[f"identity {name}"] = (
            id(tensor),
            tensor.data_ptr(),
            tensor.requires_grad,
            tensor._version,
            dict(tensor.__dict__),
        )
        found[f"gradient {name}"] = None if tensor.grad is None else (id(tensor.grad), tensor.grad.clone())
    return found


def same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return bool(torch.equal(first, second))
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return first is second or bool(first == second)


@pytest.mark.parametrize("route", [None, "meta", "real", "export"])
@pytest.mark.parametrize("make", [Busy, Trained])
def test_the_module_is_left_as_it_was(make: Callable[[], nn.Module], route: str | None) -> None:
    module, x = make().train(), torch.randn(5, 4)
    nn.Linear(4, 1)(module(x) if make is Trained else x).sum().backward()
    before, given = photograph(module), x.clone()
    try:
        trace(module, x, route=route)  # type: ignore[arg-type]  # pytest's parameter is a string
    except TraceError:
        assert (make, route) == (Busy, "export")  # torch.export refuses such a module
    after = photograph(module)
    assert [
        name for name in before.keys() | after.keys() if not same(before.get(name), after.get(name))
    ] == []
    assert torch.equal(x, given)
    assert x.__dict__ == {}


def test_a_module_whose_forward_raises_is_left_as_it_was() -> None:
    class Fails(Busy):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise RuntimeError("no")

    module, x = Fails().train(), torch.randn(5, 4)
    before = photograph(module)
    with pytest.raises(TraceError, match="no"):
        trace(module, x)
    after = photograph(module)
    assert [name for name in before if not same(before[name], after[name])] == []
    assert torch.zeros(2).sum() == 0  # no recorder is left active


def test_the_middle_of_a_training_step_goes_on() -> None:
    torch.manual_seed(0)
    twins = [Trained().train() for _ in range(2)]
    twins[1].load_state_dict(twins[0].state_dict())
    x, grads = torch.randn(5, 4), []
    for module, is_traced in zip(twins, (False, True), strict=True):
        torch.manual_seed(1)
        loss = module(x).square().sum()
        if is_traced:
            trace(module, x)
        loss.backward()
        grads.append([parameter.grad for parameter in module.parameters()])
    assert same(grads[0], grads[1])


def test_a_traced_graph_does_not_depend_on_what_the_module_becomes() -> None:
    module, x = Trained().eval(), torch.randn(5, 4)
    traced = trace(module, x)
    built = traced.build(module)
    with torch.no_grad():
        expected = module(x)
        for parameter in module.parameters():
            parameter.zero_()
        torch.testing.assert_close(built(x), expected)
