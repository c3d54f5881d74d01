"""The recurrent policy beside torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nasgraph.search.strategies._policy import PolicyChooser, RecurrentPolicy, Trajectory
from nasgraph.seeding import generator
from nasgraph.spaces import Question, realise
from tests.search.strategies.contract import Blocks
from tests.search.toys import Chain

QUESTIONS = (
    (Question("a", (1, 2, 3), 2), Question("b", range(5), 4), Question("c", (False, True), True)),
    (Question("a", (1, 2, 3), 3), Question("d", ("x",), "x")),
    (Question("c", (False, True), False),),
)


def random_policy() -> RecurrentPolicy:
    policy = RecurrentPolicy(3, hidden_dim=5, learning_rate=0.1)
    for questions in QUESTIONS:
        policy.trajectory(questions)
    rng = generator(0, "weights")
    policy.tables = {key: rng.normal(size=value.shape) for key, value in policy.tables.items()}
    return policy


def always(weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda log_likelihoods: weights  # noqa: ARG005


def in_torch(tables: dict[str, torch.Tensor], trajectory: Trajectory) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithm of the probability, and the sum of the entropies."""
    state = torch.zeros(5, dtype=torch.double)
    total, entropy = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
    for start, size, place in zip(trajectory.starts, trajectory.sizes, trajectory.places, strict=True):
        logits = tables["read"][start : start + size] @ state + tables["bias"][start : start + size]
        log_p = logits.log_softmax(0)
        total = total + log_p[place]
        entropy = entropy - (log_p.exp() * log_p).sum()
        state = torch.tanh(tables["recurrent"] @ state + tables["embed"][start + place])
    return total, entropy


def test_likelihoods_equal_those_in_torch() -> None:
    policy = random_policy()
    trajectories = [policy.trajectory(questions) for questions in QUESTIONS]
    tables = {key: torch.from_numpy(value) for key, value in policy.tables.items()}
    expected = [float(in_torch(tables, trajectory)[0]) for trajectory in trajectories]
    np.testing.assert_allclose(policy.log_likelihoods(trajectories), expected, rtol=1e-12)


@pytest.mark.parametrize("entropy", [0.0, 0.7])
def test_three_steps_equal_those_of_torch_and_its_adam(entropy: float) -> None:
    policy = random_policy()
    trajectories = [policy.trajectory(questions) for questions in QUESTIONS]
    tables = {key: torch.tensor(value, requires_grad=True) for key, value in policy.tables.items()}
    adam = torch.optim.Adam(tables.values(), lr=0.1, maximize=True)
    for weights in generator(1).normal(size=(3, 3)):
        policy.ascend(trajectories, always(weights), entropy=entropy)
        adam.zero_grad()
        pairs = [in_torch(tables, trajectory) for trajectory in trajectories]
        likelihood = (torch.from_numpy(weights) * torch.stack([pair[0] for pair in pairs])).sum()
        bonus = entropy * torch.stack([pair[1] for pair in pairs]).mean()
        torch.autograd.backward(likelihood + bonus)
        adam.step()
    for key, value in policy.tables.items():
        np.testing.assert_allclose(value, tables[key].detach().numpy(), rtol=1e-9, atol=1e-12)


def test_a_new_policy_is_uniform_and_its_draws_are() -> None:
    policy = RecurrentPolicy(0, hidden_dim=8, learning_rate=0.1)
    space = Chain(num_layers=1)
    widths = [
        dict(realise(space, PolicyChooser(policy, generator(0, draw)))[0].architecture.choices)["width0"]
        for draw in range(400)
    ]
    counts = np.bincount(np.array(widths, dtype=int), minlength=5)[1:]
    assert counts.min() > 70
    [likelihood] = policy.log_likelihoods([policy.trajectory(QUESTIONS[0])])
    assert likelihood == pytest.approx(-np.log(3 * 5 * 2))


def test_the_order_in_which_questions_come_up_does_not_matter() -> None:
    first, second = (RecurrentPolicy(4, hidden_dim=6, learning_rate=0.05) for _ in range(2))
    for questions in reversed(QUESTIONS):
        second.trajectory(questions)
    for policy in (first, second):
        for _ in range(5):
            trajectories = [policy.trajectory(questions) for questions in QUESTIONS]
            policy.ascend(trajectories, always(np.array([1.0, -0.5, 0.2])), entropy=0.1)
    likelihoods = [
        policy.log_likelihoods([policy.trajectory(q) for q in QUESTIONS]) for policy in (first, second)
    ]
    assert likelihoods[0].tolist() == likelihoods[1].tolist()


def test_what_is_rewarded_becomes_likely_though_questions_depend_on_answers() -> None:
    space = Blocks(input_shape=(4,), num_classes=3)
    policy = RecurrentPolicy(0, hidden_dim=12, learning_rate=0.05)
    for draw in range(60):
        batch = [realise(space, PolicyChooser(policy, generator(0, draw, i))) for i in range(8)]
        rewards = np.array([sum(node.op == "relu" for node in c.graph.nodes) for c, _ in batch], dtype=float)
        trajectories = [policy.trajectory(questions) for _, questions in batch]
        policy.ascend(trajectories, always(rewards - rewards.mean()))
    last = [realise(space, PolicyChooser(policy, generator(1, i)))[0].graph for i in range(40)]
    assert np.mean([sum(node.op == "relu" for node in graph.nodes) for graph in last]) > 3.0
