"""Loss prompts, and networks as tokens."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasgraph.errors import CheckpointError
from nasgraph.meta.generate import GenerateError, LossPrompter, PromptConfig
from nasgraph.meta.generate.prompt import PromptNetwork
from nasgraph.meta.generate.space import flatten_stack, shapes_of
from nasgraph.meta.generate.unit_tokens import UnitTokens
from nasgraph.meta.population import (
    NetworkSettings,
    Stack,
    initial_stack,
    perceptron,
    small_convnet,
    stack_states,
    unstack,
)
from nasgraph.modules import check_state
from nasgraph.symmetry import permute_units, random_orders, symmetry_table

ONE, TWO = perceptron((6,), norm="layer"), perceptron((5, 4), norm="batch")
CONFIG = PromptConfig(width=16, depth=1, heads=2, timesteps=6, steps=60, batch_size=16, learning_rate=3e-3)


def _starts(graph_of: str, count: int) -> Stack:
    graph = {"one": ONE, "two": TWO, "conv": small_convnet((3, 4), norm="batch")}[graph_of]
    return initial_stack(graph, [NetworkSettings(seed=i, initial_seed=i) for i in range(count)])


@pytest.mark.parametrize("name", ["one", "two", "conv"])
def test_tokens_are_a_bijection(name: str) -> None:
    graph = {"one": ONE, "two": TWO, "conv": small_convnet((3, 4), norm="batch")}[name]
    stack = _starts(name, 3)
    tokens = UnitTokens(graph, shapes_of(stack))
    rows = flatten_stack(stack)
    torch.testing.assert_close(tokens.scatter(tokens.gather(rows)), rows, rtol=0, atol=1e-6)


def test_a_prompter_of_one_hidden_layer_is_equivariant() -> None:
    """Reordering the units of the current and of the noisy network reorders what comes out."""
    stack = _starts("one", 1)
    table = symmetry_table(ONE)
    orders = random_orders(table, seed=3)
    moved = stack_states([permute_units(table, unstack(stack, 0), orders)])
    tokens = UnitTokens(ONE, shapes_of(stack))
    network = PromptNetwork([each.shape[1] for each in tokens.index], CONFIG).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)

    def run(state: Stack) -> Tensor:
        rows = flatten_stack(state).double()
        half = torch.full((1,), 0.5, dtype=torch.float64)
        found: Tensor = tokens.scatter(
            network(tokens.gather(rows), tokens.gather(rows * 2), half, half, half)
        )
        return found.detach()

    places = {}
    start = 0
    for name, shape in shapes_of(stack).items():
        size = int(torch.tensor(shape).prod())
        places[name] = torch.arange(start, start + size).reshape(shape)
        start += size
    order = flatten_stack({n: t[None] for n, t in permute_units(table, places, orders).items()})[0]
    torch.testing.assert_close(run(moved)[0], run(stack)[0][order], rtol=1e-9, atol=1e-9)


def _shrinking(count: int) -> tuple[list[Stack], Tensor]:
    """Runs whose weights shrink towards zero while the loss halves: what a prompter should learn."""
    start = _starts("one", count)
    shares = (1.0, 0.75, 0.5, 0.25)
    trajectories = [{name: tensor * share for name, tensor in start.items()} for share in shares]
    return trajectories, torch.tensor([[2.0 * share for share in shares]]).expand(count, 4)


def test_a_prompter_moves_the_weights_as_far_as_the_prompt_asks(tmp_path: Path) -> None:
    trajectories, losses = _shrinking(40)
    config = PromptConfig(
        width=32, depth=1, heads=2, timesteps=10, steps=200, batch_size=32, learning_rate=3e-3
    )
    prompter = LossPrompter.fit(ONE, trajectories, losses, config)
    start = {name: tensor[:5] for name, tensor in trajectories[0].items()}
    sizes = []
    for wanted in (1.5, 1.0, 0.5):
        made = prompter.generate(
            start, loss_B=torch.full((5,), 2.0), wanted_B=torch.full((5,), wanted), seed=0
        )
        check_state(ONE, unstack(made, 0))
        sizes.append(
            float((flatten_stack(made) * flatten_stack(start)).sum() / flatten_stack(start).square().sum())
        )
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes == pytest.approx([0.75, 0.5, 0.25], abs=0.12)
    prompter.save(tmp_path, recipe={})
    again = LossPrompter.load(tmp_path)
    repeated = again.generate(start, loss_B=torch.full((5,), 2.0), wanted_B=torch.full((5,), 0.5), seed=0)
    assert torch.equal(flatten_stack(repeated), flatten_stack(made))


def test_what_a_prompter_cannot_learn_from_is_refused(tmp_path: Path) -> None:
    trajectories, losses = _shrinking(4)
    with pytest.raises(GenerateError, match="two or more runs"):
        LossPrompter.fit(ONE, trajectories[:1], losses[:, :1], CONFIG)
    with pytest.raises(GenerateError, match="leave diverged runs out"):
        LossPrompter.fit(ONE, trajectories, losses * torch.nan, CONFIG)
    with pytest.raises(GenerateError, match="'heads' to divide"):
        PromptConfig(width=10, heads=3)
    prompter = LossPrompter.fit(ONE, trajectories, losses, PromptConfig(width=8, heads=2, depth=1, steps=1))
    with pytest.raises(GenerateError, match="one architecture"):
        prompter.generate(_starts("two", 2), loss_B=torch.ones(2), wanted_B=torch.ones(2), seed=0)
    with pytest.raises(CheckpointError, match="No loss prompter"):
        LossPrompter.load(tmp_path)
