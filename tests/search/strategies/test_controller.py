"""The policy-gradient controller."""

import numpy as np
import pytest

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies.controller import Controller, ControllerConfig, _rewards
from nasgraph.spaces import SearchSpace
from tests.search.strategies.contract import Make, OptunaContract, SamplerContract, Search
from tests.search.toys import Chain, quality


class TestController(SamplerContract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
            config = ControllerConfig(batch=4, window=16, hidden_dim=8)
            return Controller(space, seed=seed, config=config)

        return make


def test_the_policy_learns() -> None:
    gains = []
    for seed in range(4):
        search = Search(Controller(Chain(num_layers=6), seed=seed))
        search.run(240)
        values = [quality(candidate.graph) for candidate in search.candidates]
        gains.append(np.mean(values[-60:]) - np.mean(values[:60]))
    assert np.mean(gains) > 0.1
    assert min(gains) > 0


def test_rewards_are_ranks_and_failures_have_none() -> None:
    rewards = _rewards(np.array([3.0, -np.inf, 1e9, 3.0, -np.inf]))
    assert rewards.tolist() == [0.625, 0.0, 1.0, 0.625, 0.0]


@pytest.mark.parametrize(
    "settings",
    [{"batch": 0}, {"window": 4}, {"learning_rate": 0.0}, {"entropy": -1.0}, {"baseline_decay": 1.0}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        ControllerConfig(**settings)  # type: ignore[arg-type]  # what a user might write
