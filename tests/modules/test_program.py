"""Running graphs: what is kept in memory, and what is not changed."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, RunContext, buffers_by_node, initial_buffers, initial_parameters
from tests.modules.samples import SPACES, random_inputs, sampled_graphs


class LivingTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts how many results of torch operators are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.most = 0
        self._results: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._results.append(weakref.ref(result))
        self.most = max(self.most, sum(reference() is not None for reference in self._results))
        return result


def most_alive(graph: ComputationalGraph) -> int:
    inputs = [torch.ones(1, 4)]
    living = LivingTensors()
    with torch.no_grad(), living:
        Program(graph)({}, inputs, RunContext(batch_size=1))
    return living.most


def test_values_are_dropped_after_their_last_use() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4,))
    for _ in range(50):
        x = g("tanh", x)
    assert most_alive(g.finish(x)) == 2  # what an operator reads, and what it makes


def test_values_that_are_used_later_and_outputs_are_kept() -> None:
    g = GraphBuilder()
    early = g("relu", g("input", shape=(4,)))
    output = g("relu", early)
    x = output
    for _ in range(50):
        x = g("tanh", x)
    graph = g.finish(output, g("add", x, early))
    assert most_alive(graph) == 4
    first, second = Program(graph)({}, [torch.ones(1, 4)], RunContext(batch_size=1))
    assert torch.equal(first, torch.ones(1, 4))
    assert (second > 1).all()


def test_nothing_that_is_passed_in_is_changed_but_running_statistics_in_training() -> None:
    for graph in sampled_graphs("nasbench201", 3):
        program = Program(graph)
        parameters, (x,) = initial_parameters(graph, seed=0), random_inputs(graph, batch_size=4)
        buffers = initial_buffers(graph)
        before = {name: tensor.clone() for name, tensor in {**parameters, **buffers, "x": x}.items()}
        for training in (False, True):
            context = RunContext(batch_size=4, training=training, buffers=buffers_by_node(buffers))
            first, again = (program(parameters, [x], context)[0] for _ in range(2))
            changed = {name for name, tensor in {**parameters, **buffers, "x": x}.items()
                       if not torch.equal(tensor, before[name])}  # fmt: skip
            assert changed == (set(buffers) if training else set())
            assert torch.equal(first, again)


def test_gradients_reach_every_parameter_that_can_matter() -> None:
    for graph in sampled_graphs("convnet", 5):
        parameters = {name: t.requires_grad_() for name, t in initial_parameters(graph, seed=0).items()}
        (result,) = Program(graph)(
            parameters, random_inputs(graph, batch_size=4), RunContext(batch_size=4, training=True)
        )
        result.square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert all(tensor.grad is not None for tensor in parameters.values())


@pytest.mark.parametrize("space", SPACES)
def test_whether_parameters_want_gradients_does_not_change_a_bit(space: str) -> None:
    for graph in sampled_graphs(space, 4):
        program, inputs = Program(graph), random_inputs(graph, batch_size=4)
        plain = initial_parameters(graph, seed=4)
        wanting = {name: tensor.clone().requires_grad_() for name, tensor in plain.items()}
        (expected,) = program(plain, inputs, RunContext(batch_size=4))
        with torch.inference_mode():
            (inferred,) = program(wanting, inputs, RunContext(batch_size=4))
        (trained,) = program(wanting, inputs, RunContext(batch_size=4))
        assert torch.equal(inferred, expected)
        assert torch.equal(trained, expected)
