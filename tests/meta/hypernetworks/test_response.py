"""Responses to hyper-parameters against closed solutions, and self-tuning networks against the network they stand for."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nasgraph.data import Split
from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.hypernetworks import (
    Box,
    JointConfig,
    ResponseConfig,
    SelfTuningConfig,
    conditional_graph,
    fit_response,
    self_tune,
    tune,
    tune_jointly,
)
from nasgraph.meta.hypernetworks.self_tuning import _Training
from nasgraph.modules import Program, RunContext, initial_parameters, run_network
from tests.meta.hypernetworks.graphs import convolutions, perceptron
from tests.modules.samples import random_inputs


class Ridge:
    """Ridge regression with one output: its response is known in closed form."""

    def __init__(self, inputs: int = 4) -> None:
        rng = torch.Generator().manual_seed(0)
        truth = torch.zeros(inputs)
        truth[0] = 1.0
        self.x, self.x_new = torch.randn(12, inputs, generator=rng), torch.randn(200, inputs, generator=rng)
        self.y = self.x @ truth + torch.randn(12, generator=rng)
        self.y_new = self.x_new @ truth
        g = GraphBuilder()
        self.graph = g.finish(g("linear", g("input", shape=(inputs,)), out_features=1, bias=False))

    def train_loss(self, parameters: dict[str, Tensor], values: Tensor) -> Tensor:
        weight = parameters["n1.weight"][0]
        return (self.x @ weight - self.y).square().mean() + (values.exp() * weight.square()).sum()

    def validation_loss(self, parameters: dict[str, Tensor]) -> Tensor:
        loss: Tensor = (self.x_new @ parameters["n1.weight"][0] - self.y_new).square().mean()
        return loss

    def solution(self, values: Tensor) -> Tensor:
        penalty = torch.diag(values.exp().expand(self.x.shape[1]))
        found: Tensor = torch.linalg.solve(self.x.t() @ self.x / 12 + penalty, self.x.t() @ self.y / 12)
        return found


def test_the_response_to_one_penalty_is_that_of_ridge_regression() -> None:
    ridge = Ridge()
    box = Box.cube(-4.0, 2.0, 1)
    response = fit_response(ridge.graph, ridge.train_loss, box, ResponseConfig(steps=800, learning_rate=1e-2))
    grid = torch.linspace(-4, 2, 61).unsqueeze(1)
    made = response.parameters(grid)["n1.weight"][:, 0].detach()
    exact = torch.stack([ridge.solution(values) for values in grid])
    assert float((made - exact).abs().max()) < 0.05
    truth = torch.stack([ridge.validation_loss({"n1.weight": row.unsqueeze(0)}) for row in exact])
    tuned = tune(response, ridge.validation_loss, steps=60)
    assert abs(float(tuned.values) - float(grid[truth.argmin()])) <= 0.2
    assert tuned.loss == pytest.approx(float(ridge.validation_loss(tuned.parameters)), abs=1e-5)


def test_many_penalties_tuned_jointly_beat_the_best_single_one() -> None:
    ridge = Ridge()
    grid = torch.linspace(-6, 4, 81).unsqueeze(1)

    def exact_loss(values: Tensor) -> float:
        return float(ridge.validation_loss({"n1.weight": ridge.solution(values).unsqueeze(0)}))

    scalar = min(exact_loss(values) for values in grid)
    tuned = tune_jointly(
        ridge.graph,
        ridge.train_loss,
        ridge.validation_loss,
        Box.cube(-6.0, 4.0, 4),
        ResponseConfig(steps=300, learning_rate=1e-2),
        JointConfig(rounds=300, learning_rate=2e-2),
    )
    assert exact_loss(tuned.values) < 0.8 * scalar
    assert tuned.values[0] < tuned.values[1:].min()  # only the first input matters
    assert len(tuned.trace) == 300


def test_equal_seeds_give_equal_responses() -> None:
    ridge = Ridge()
    box, config = Box.cube(-4.0, 2.0, 1), ResponseConfig(steps=5)
    first, second = (fit_response(ridge.graph, ridge.train_loss, box, config, seed=3) for _ in range(2))
    for name, tensor in first.hypernetwork.state_dict().items():
        assert torch.equal(tensor, second.hypernetwork.state_dict()[name])


def test_bad_boxes_settings_and_losses_are_named() -> None:
    ridge = Ridge()
    with pytest.raises(ConfigError, match="each low below its high"):
        Box(torch.zeros(2), torch.zeros(2))
    box = Box.cube(-1.0, 1.0, 2)
    torch.testing.assert_close(box.to_unit(box.from_unit(torch.tensor([0.2, 0.7]))), torch.tensor([0.2, 0.7]))
    with pytest.raises(NasGraphError, match=r"'start' of shape \(2,\)"):
        tune_jointly(ridge.graph, ridge.train_loss, ridge.validation_loss, box, start=torch.zeros(3))
    with pytest.raises(NasGraphError, match="not finite"):
        fit_response(ridge.graph, lambda own, values: (own["n1.weight"] * values[0]).sum() / 0, box)
    response = fit_response(ridge.graph, ridge.train_loss, Box.cube(-1.0, 1.0, 1), ResponseConfig(steps=1))
    with pytest.raises(NasGraphError, match="settings of 1 hyper-parameters"):
        response.parameters(torch.zeros(2))


@pytest.mark.parametrize("graph", [perceptron(dropout=0.2), convolutions()], ids=["linear", "conv"])
def test_a_conditional_graph_computes_what_the_plain_graph_does_with_the_parameters_of_a_setting(
    graph: ComputationalGraph,
) -> None:
    conditional = conditional_graph(graph, 3)
    parameters = {
        name: torch.randn(tensor.shape, dtype=torch.double, generator=torch.Generator().manual_seed(7))
        for name, tensor in initial_parameters(conditional.graph, seed=0).items()
    }
    setting = torch.tensor([0.3, -1.0, 0.5], dtype=torch.double)
    (inputs,) = random_inputs(conditional.plain, batch_size=5, dtype=torch.double)
    masks = [torch.ones(1, *conditional.plain.shapes[n], dtype=torch.double) for n in conditional.dropouts]
    (wanted,) = run_network(conditional.plain, conditional.plain_parameters(parameters, setting), [inputs])
    context = RunContext(batch_size=5)
    found = Program(conditional.graph)(parameters, [inputs, setting.expand(5, 3), *masks], context)[0]
    torch.testing.assert_close(found, wanted)


def test_the_squares_of_each_example_are_those_of_its_own_weights() -> None:
    config = SelfTuningConfig(tune_weight_decay=True)
    training = _Training(perceptron(dropout=0.2), config, seed=0, rng=torch.Generator().manual_seed(0))
    drawn = training.settings.drawn(4, torch.Generator().manual_seed(1))
    for row, square in zip(drawn, training._squares(drawn), strict=True):
        weights = training.conditional.plain_parameters(training.parameters, row - training.settings.first_D)
        wanted = sum(
            float(w.detach().square().sum()) / 2 for name, w in weights.items() if name.endswith("weight")
        )
        assert float(square.detach()) == pytest.approx(wanted, rel=1e-5)


def noisy(count: int, seed: int) -> Split:
    """Few examples, many inputs without a meaning, some wrong labels: dropout helps."""
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 30, generator=rng)
    return Split(inputs, (inputs[:, 0] + 0.8 * torch.randn(count, generator=rng) > 0).long())


def test_tuning_raises_dropout_where_the_network_over_fits_and_gives_a_plain_network() -> None:
    graph = perceptron(30, 32, 2, dropout=0.05)
    train, validation = noisy(60, 0), noisy(400, 1)
    seen = []

    def on_check(step: int, own: ComputationalGraph, parameters: dict[str, Tensor]) -> None:
        seen.append((step, set(parameters) == set(own.parameters)))

    found = self_tune(
        graph,
        train,
        validation,
        SelfTuningConfig(steps=500, warm_up=200, value_rate=5e-2, learning_rate=3e-3),
        on_check=on_check,
    )
    assert seen == [(step, True) for step in range(100, 600, 100)]
    rates = [rate for name, rate in found.values.items() if name.startswith("dropout")]
    assert max(rates) > 0.15
    assert [node.attr("p") for node in found.graph.nodes if node.op == "dropout"] == pytest.approx(rates)
    context = RunContext(batch_size=400)
    logits = Program(found.graph)(found.parameters, [validation.inputs], context)[0]
    assert logits.shape == (400, 2)
    assert torch.isfinite(logits).all()


def test_decay_and_noise_are_tuned_in_a_network_without_dropout() -> None:
    train, validation = noisy(60, 0), noisy(400, 1)
    config = SelfTuningConfig(steps=200, warm_up=20, tune_weight_decay=True, tune_input_noise=True)
    found = self_tune(perceptron(30, 16, 2), train, validation, config)
    assert set(found.values) == {"weight_decay", "input_noise"}
    assert all(value > 0 for value in found.values.values())
    again = self_tune(perceptron(30, 16, 2), train, validation, config)
    assert again.values == found.values


def test_what_cannot_be_tuned_is_named() -> None:
    data = Split(torch.zeros(4, 6), torch.zeros(4, dtype=torch.long))
    with pytest.raises(NasGraphError, match="nothing to tune"):
        self_tune(perceptron(), data, data)
    with pytest.raises(NasGraphError, match=r"'batch_norm' \(node 2\)"):
        self_tune(perceptron(norm="batch_norm", dropout=0.1), data, data)
    with pytest.raises(NasGraphError, match="validation examples of shape"):
        self_tune(perceptron(dropout=0.1), data, Split(torch.zeros(4, 5), data.targets))
    with pytest.raises(NasGraphError, match="beyond the outputs"):
        self_tune(perceptron(dropout=0.1), data, Split(data.inputs, data.targets + 3))
    with pytest.raises(ConfigError, match="'value_rate'"):
        replace(SelfTuningConfig(), value_rate=0.0)
