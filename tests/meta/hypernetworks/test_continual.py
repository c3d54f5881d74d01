"""Continual learning: nothing is forgotten, nothing is half learnt, and a saved learner goes on as if never saved."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasgraph.data import Split
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError, UnknownNameError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.hypernetworks import ContinualConfig, ContinualLearner, HypernetworkConfig
from nasgraph.modules import run_network
from tests.meta.hypernetworks.graphs import perceptron

SHAPE = HypernetworkConfig(
    condition_dim=16, condition="free", generator="chunked", hidden_dim=24, chunk_size=24, chunk_dim=8
)
CONFIG = ContinualConfig(steps=250, beta=1.0, learning_rate=5e-3, batch_size=32)
GRAPH = perceptron(6, 8, 2)


def halves(angle: float, *, count: int = 200, seed: int = 0) -> Split:
    """Points on the two sides of a line through the origin: tasks of different angles contradict each other."""
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    direction = torch.tensor([torch.tensor(angle).cos(), torch.tensor(angle).sin()])
    return Split(inputs, (inputs[:, :2] @ direction > 0).long())


TASKS = {"east": halves(0.0), "north": halves(1.57), "west": halves(3.14)}


@cache  # read only
def learnt(beta: float, generator: str = "chunked") -> ContinualLearner:
    learner = ContinualLearner(GRAPH, replace(SHAPE, generator=generator), replace(CONFIG, beta=beta), seed=1)
    for name, data in TASKS.items():
        learner.learn(name, data, held_out=data)
    return learner


@pytest.mark.parametrize("generator", ["chunked", "recurrent"])
def test_contradictory_tasks_are_kept_apart_and_not_forgotten(generator: str) -> None:
    scores = learnt(1.0, generator).scores(TASKS)
    assert scores.mean_accuracy > 0.88
    assert abs(scores.forgetting) < 0.03


def test_without_the_penalty_tasks_are_forgotten() -> None:
    forgetful, careful = learnt(0.0, "chunked").scores(TASKS), learnt(1.0, "chunked").scores(TASKS)
    assert forgetful.forgetting > careful.forgetting + 0.1
    assert forgetful.mean_accuracy < careful.mean_accuracy - 0.1


def test_forgetting_is_the_mean_fall_since_each_task_but_the_last_was_learnt() -> None:
    learner = learnt(0.0, "chunked")
    falls = [
        task.accuracy - learner.accuracy(task.name, TASKS[task.name])
        for task in learner.record[:-1]
        if task.accuracy is not None
    ]
    assert learner.scores(TASKS).forgetting == pytest.approx(sum(falls) / 2)


def test_a_saved_learner_goes_on_bit_by_bit(tmp_path: Path) -> None:
    learner = ContinualLearner(GRAPH, SHAPE, replace(CONFIG, steps=20), seed=2)
    learner.learn("east", TASKS["east"], held_out=TASKS["east"])
    learner.save(tmp_path)
    read = ContinualLearner.load(tmp_path)
    assert read.record == learner.record
    for each in (learner, read):
        each.learn("north", TASKS["north"])
    assert torch.equal(read.embeddings, learner.embeddings)
    for name, tensor in learner.hypernetwork.state_dict().items():
        assert torch.equal(read.hypernetwork.state_dict()[name], tensor)


def test_a_task_that_is_cut_off_leaves_the_learner_as_it_was() -> None:
    learner = ContinualLearner(GRAPH, SHAPE, replace(CONFIG, steps=20))
    learner.learn("east", TASKS["east"])
    before = {name: tensor.clone() for name, tensor in learner.hypernetwork.state_dict().items()}

    def stop(step: int, loss: float) -> None:
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.learn("north", TASKS["north"], on_step=stop)
    assert list(learner.tasks) == ["east"]
    assert len(learner.embeddings) == 1
    for name, tensor in learner.hypernetwork.state_dict().items():
        assert torch.equal(before[name], tensor)
    learner.learn("north", TASKS["north"])
    assert list(learner.tasks) == ["east", "north"]


def test_the_parameters_of_a_task_are_an_ordinary_network() -> None:
    learner = learnt(1.0, "chunked")
    inputs = TASKS["west"].inputs
    (logits,) = run_network(GRAPH, learner.parameters_for("west"), [inputs])
    assert torch.equal(logits, learner.predict("west", inputs))


def test_an_inferred_task_is_the_one_of_least_entropy() -> None:
    learner = learnt(1.0, "chunked")
    inputs = TASKS["east"].inputs[:20]

    def entropy(name: str) -> Tensor:
        probability = learner.predict(name, inputs).double().softmax(1)
        logp = probability.log()
        return -(probability * logp).sum(1)

    least = torch.stack([entropy(name) for name in learner.tasks]).argmin(0)
    assert learner.infer_task(inputs) == [learner.tasks[index] for index in least.tolist()]


def test_an_unknown_task_is_named_with_those_that_are_close() -> None:
    learner = ContinualLearner(GRAPH, SHAPE, replace(CONFIG, steps=1))
    with pytest.raises(NasGraphError, match="No task was learnt yet"):
        learner.infer_task(TASKS["east"].inputs)
    with pytest.raises(NasGraphError, match="No task was learnt"):
        learner.scores({})
    learner.learn("north", TASKS["north"])
    with pytest.raises(UnknownNameError, match=r"No task named 'nort'. Close: 'north'. Learn it first"):
        learner.predict("nort", TASKS["north"].inputs)
    with pytest.raises(NasGraphError, match="Expected a new name for the task"):
        learner.learn("north", TASKS["north"])
    with pytest.raises(NasGraphError, match="'north' has no held-out examples"):
        learner.scores(TASKS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Split(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long)), "inputs of shape"),
        (Split(torch.zeros(3, 6), torch.full((3,), 2)), "labels from 0 to 1"),
        (Split(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)), "no examples"),
    ],
)
def test_examples_that_do_not_fit_are_refused(data: Split, message: str) -> None:
    learner = ContinualLearner(GRAPH, SHAPE, CONFIG)
    with pytest.raises(NasGraphError, match=message):
        learner.learn("task", data)
    assert learner.tasks == ()


def test_inputs_that_are_not_finite_leave_the_learner_as_it_was() -> None:
    learner = ContinualLearner(GRAPH, SHAPE, CONFIG)
    data = Split(torch.full((8, 6), torch.nan), torch.zeros(8, dtype=torch.long))
    with pytest.raises(NasGraphError, match="not finite at step 0"):
        learner.learn("task", data)
    assert learner.tasks == ()


@pytest.mark.parametrize(
    ("graph", "message"),
    [(perceptron(norm="batch_norm"), "batch norm at node 2"), (perceptron(), None)],
)
def test_batch_norms_and_unit_conditions_are_refused(graph: ComputationalGraph, message: str | None) -> None:
    if message is not None:
        with pytest.raises(NasGraphError, match=message):
            ContinualLearner(graph, SHAPE)
    else:
        with pytest.raises(ConfigError, match="'free'"):
            ContinualLearner(graph, replace(SHAPE, condition="unit"))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    learner = ContinualLearner(GRAPH, SHAPE, replace(CONFIG, steps=2))
    learner.learn("east", TASKS["east"])
    learner.save(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"name": "east"', '"title": "east"'))
    with pytest.raises(CheckpointError, match="Not a record of a task"):
        ContinualLearner.load(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"beta": 1.0', '"beta": -1.0'))
    with pytest.raises(CheckpointError, match="'beta'"):
        ContinualLearner.load(tmp_path)
