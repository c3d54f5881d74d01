"""The order-preserving flow network."""

import numpy as np
import pytest
import torch

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies.gflownet import GFlowNetConfig, OrderPreservingGFlowNet, order_weights
from nasgraph.seeding import generator
from nasgraph.spaces import SearchSpace
from tests.search.strategies.contract import Make, OptunaContract, SamplerContract, Search
from tests.search.toys import Chain, quality


class TestGFlowNet(SamplerContract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
            config = GFlowNetConfig(num_initial=6, group_size=4, hidden_dim=8)
            return OrderPreservingGFlowNet(space, seed=seed, config=config)

        return make


def test_the_loss_is_the_cross_entropy_with_those_that_none_dominates() -> None:
    rng = generator(0)
    gains = rng.integers(3, size=(20, 6, 2)).astype(float)
    gains[0] = -np.inf
    gains[1, :3] = -np.inf
    log_rewards = rng.normal(size=(20, 6))
    leaf = torch.tensor(log_rewards, requires_grad=True)
    for group in range(1, 20):
        best = [
            i
            for i in range(6)
            if np.isfinite(gains[group, i, 0])
            and not any(
                (gains[group, j] >= gains[group, i]).all() and (gains[group, j] > gains[group, i]).any()
                for j in range(6)
            )
        ]
        torch.autograd.backward(-leaf[group].log_softmax(0)[best].mean())
    assert leaf.grad is not None
    np.testing.assert_allclose(order_weights(gains, log_rewards), -leaf.grad.numpy(), atol=1e-12)


def test_only_the_order_of_the_objective_matters() -> None:
    space = Chain(num_layers=4)
    plain, bent = (Search(OrderPreservingGFlowNet(space, seed=1)) for _ in range(2))
    plain.run(40)
    bent.candidates += plain.candidates
    bent.known |= plain.known
    for seen in plain.observations:
        gains = (np.exp(20 * seen.gain) - 7,)
        bent.observations.append(type(seen)(seen.number, seen.candidate, seen.state, gains))
    for number in range(40, 45):
        proposals = [
            search.sampler.propose(search.experience, number=number).architecture for search in (plain, bent)
        ]
        assert proposals[0] == proposals[1]


def test_it_learns_and_stays_diverse() -> None:
    shares = []
    for seed in range(4):
        search = Search(OrderPreservingGFlowNet(Chain(num_layers=6), seed=seed))
        search.run(200)
        values = np.array([quality(candidate.graph) for candidate in search.candidates])
        shares.append(np.mean(values[-60:]) - np.mean(values[:20]))
        late = {candidate.architecture.choices[0] for candidate in search.candidates[-60:]}
        assert len(late) > 1
    assert np.mean(shares) > 0.1


@pytest.mark.parametrize(
    "settings", [{"group_size": 1}, {"groups": 0}, {"learning_rate": 0.0}, {"explore": 1.5}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        GFlowNetConfig(**settings)  # type: ignore[arg-type]  # what a user might write
