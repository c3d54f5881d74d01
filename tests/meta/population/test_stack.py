"""Training many networks of one architecture at once."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import DataSet, Split, load_dataset
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.population import (
    NetworkSettings,
    PopulationError,
    Ranges,
    draw_settings,
    initial_stack,
    measure_stack,
    perceptron,
    small_convnet,
    stack_outputs,
    train_stack,
    unstack,
)
from nasgraph.meta.population.stack import batch_order, noisy_targets
from nasgraph.modules import build, check_state


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_dataset("digits")


RANGES = Ranges(steps=(3, 12), momentum=(0.0, 0.9))
GRAPHS = {
    "perceptron": perceptron((8, 6)),
    "batch norm": perceptron((8,), norm="batch"),
    "layer norm": perceptron((8,), norm="layer", activation="tanh"),
    "convnet": small_convnet((4, 6), norm="batch", residual=True),
}


def _trained_alone(
    graph: ComputationalGraph, start: dict[str, Tensor], data: Split, settings: NetworkSettings
) -> tuple[dict[str, Tensor], list[float]]:
    """The same training with a torch module and torch's own optimiser."""
    module = build(graph)
    module.load_state_dict(start)
    module.train()
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    targets = noisy_targets(data.targets, settings, num_classes=10)
    losses = []
    for batch in batch_order(data.targets, settings, batch_size=16):
        loss = F.cross_entropy(module(data.inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        losses.append(float(loss.detach()))
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}, losses


@pytest.mark.parametrize("name", GRAPHS)
def test_a_stack_trains_each_network_as_torch_trains_it_alone(name: str, digits: DataSet) -> None:
    graph = GRAPHS[name]
    settings = [draw_settings(RANGES, seed=3, index=index) for index in range(5)]
    assert len({each.steps for each in settings}) > 1
    assert {each.momentum for each in settings} == {0.0, 0.9}
    initial = initial_stack(graph, settings)
    trained = train_stack(graph, initial, digits.search.train, settings, batch_size=16)
    for row, each in enumerate(settings):
        alone, losses = _trained_alone(graph, unstack(initial, row), digits.search.train, each)
        for key, tensor in unstack(trained.state, row).items():
            torch.testing.assert_close(tensor, alone[key], rtol=1e-4, atol=1e-5)
        assert trained.losses[row, : each.steps].tolist() == pytest.approx(losses, rel=1e-4, abs=1e-5)
        assert trained.losses[row, each.steps :].isnan().all()
        check_state(graph, unstack(trained.state, row))


def test_a_network_does_not_depend_on_the_others_of_its_stack(digits: DataSet) -> None:
    settings = [draw_settings(RANGES, seed=0, index=index) for index in range(7)]
    graph = GRAPHS["perceptron"]
    whole = train_stack(graph, initial_stack(graph, settings), digits.search.train, settings)
    part = train_stack(graph, initial_stack(graph, settings[4:6]), digits.search.train, settings[4:6])
    for name, tensor in part.state.items():
        torch.testing.assert_close(tensor, whole.state[name][4:6], rtol=1e-5, atol=1e-6)


def test_a_network_that_diverges_stays_finite_and_spoils_no_other(digits: DataSet) -> None:
    calm = [draw_settings(RANGES, seed=1, index=index) for index in range(3)]
    wild = replace(calm[1], learning_rate=1e30)
    graph = GRAPHS["batch norm"]
    expected = train_stack(graph, initial_stack(graph, calm), digits.search.train, calm)
    mixed = [calm[0], wild, calm[2]]
    trained = train_stack(graph, initial_stack(graph, mixed), digits.search.train, mixed, snapshots=(0.5, 1))
    assert trained.diverged.tolist()[0::2] == [-1, -1]
    assert 0 <= trained.diverged[1] < wild.steps
    for name, tensor in trained.state.items():
        assert tensor.isfinite().all()
        torch.testing.assert_close(tensor[[0, 2]], expected.state[name][[0, 2]])
        torch.testing.assert_close(trained.snapshots[1][name], tensor)


def test_snapshots_are_what_shorter_trainings_end_with(digits: DataSet) -> None:
    graph = GRAPHS["batch norm"]
    settings = [draw_settings(RANGES, seed=2, index=index) for index in range(4)]
    trained = train_stack(
        graph, initial_stack(graph, settings), digits.search.train, settings, snapshots=(0.0, 0.5, 1.0)
    )
    short = [
        replace(each, steps=int(steps))
        for each, steps in zip(settings, trained.snapshot_steps[:, 1], strict=True)
    ]
    half = train_stack(graph, initial_stack(graph, short), digits.search.train, short)
    for name, tensor in initial_stack(graph, settings).items():
        assert torch.equal(trained.snapshots[0][name], tensor)
        torch.testing.assert_close(trained.snapshots[1][name], half.state[name])
        assert torch.equal(trained.snapshots[2][name], trained.state[name])


def test_measured_accuracy_is_that_of_the_module(digits: DataSet) -> None:
    graph = GRAPHS["convnet"]
    settings = [draw_settings(RANGES, seed=5, index=index) for index in range(3)]
    stack = initial_stack(graph, settings)
    outputs = stack_outputs(graph, stack, digits.test.inputs, batch_size=100)
    subset = (1, 3, 4)
    _, accuracy = measure_stack(graph, stack, digits.test, classes=[(), subset, ()])
    seen = torch.isin(digits.test.targets, torch.tensor(subset))
    for row in range(3):
        module = build(graph)
        module.load_state_dict(unstack(stack, row))
        with torch.no_grad():
            logits = module.eval()(digits.test.inputs)
        torch.testing.assert_close(outputs[row], logits, rtol=1e-4, atol=1e-5)
        hit = (logits.argmax(1) == digits.test.targets).float()
        assert float(accuracy[row]) == pytest.approx(float(hit[seen].mean() if row == 1 else hit.mean()))


def test_a_network_on_a_class_subset_sees_no_other_class(digits: DataSet) -> None:
    settings = NetworkSettings(seed=1, initial_seed=1, steps=40, classes=(2, 5, 7), label_noise=0.5)
    order = batch_order(digits.search.train.targets, settings, batch_size=32)
    assert set(digits.search.train.targets[order.flatten()].tolist()) == {2, 5, 7}
    targets = noisy_targets(digits.search.train.targets, settings, num_classes=10)[order.flatten()]
    assert set(targets.tolist()) == {2, 5, 7}


def test_label_noise_changes_that_share_of_the_labels(digits: DataSet) -> None:
    targets = digits.search.train.targets
    settings = NetworkSettings(seed=1, initial_seed=1, label_noise=0.4)
    changed = (noisy_targets(targets, settings, num_classes=10) != targets).float().mean()
    assert float(changed) == pytest.approx(0.4, abs=0.05)


def _with(op: str) -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph(op, graph("flatten", graph("input", shape=(1, 8, 8))))
    return graph.finish(graph("linear", x, out_features=10))


def test_what_cannot_be_trained_in_a_stack_is_named(digits: DataSet) -> None:
    settings = [draw_settings(RANGES, seed=0, index=0)]
    with pytest.raises(PopulationError, match="'dropout'"):
        train_stack(_with("dropout"), {}, digits.search.train, settings)
    graph = GRAPHS["perceptron"]
    with pytest.raises(
        PopulationError, match=r"'n2\.weight' of the stack to have shape \(1, 8, 64\) \(got nothing\)"
    ):
        train_stack(graph, {}, digits.search.train, settings)
    wrong = perceptron((8, 6), input_shape=(64,))
    with pytest.raises(PopulationError, match="reads inputs of shape"):
        train_stack(wrong, initial_stack(wrong, settings), digits.search.train, settings)
    with pytest.raises(PopulationError, match="No training examples"):
        train_stack(
            graph, initial_stack(graph, settings), digits.search.train, [replace(settings[0], classes=(77,))]
        )


@pytest.mark.parametrize("wrong", [{"gain": 0.0}, {"label_noise": 1.0}, {"steps": -1}, {"classes": (2, 1)}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PopulationError, match=next(iter(wrong))):
        NetworkSettings(**{"seed": 0, "initial_seed": 0, **wrong})  # type: ignore[arg-type]  # on purpose
