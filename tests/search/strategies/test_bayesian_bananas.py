"""BANANAS."""

import numpy as np
import pytest

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.predict.ensemble import Blocks, EnsembleConfig, fit_ensemble
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies.bananas import BananasConfig, BananasSampler, EnsembleBelief
from nasgraph.search.strategies.bayesian_search import PoolConfig
from nasgraph.spaces import SearchSpace, enumerate_candidates
from tests.search.strategies.contract import Make, OptunaContract, Search
from tests.search.strategies.test_bayesian import Contract
from tests.search.toys import Chain, quality

SMALL = PoolConfig(
    num_initial=8, pool_size=24, enumerate_limit=0, max_labelled=32, fit_every=10, fit_growth=1.0
)


class TestBananas(Contract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
            config = BananasConfig(members=("gaussian_process",), pool=SMALL)
            return BananasSampler(space, seed=seed, config=config)

        return make


def test_it_finds_good_graphs_before_chance_would() -> None:
    space = Chain()
    search = Search(BananasSampler(space, seed=0))
    search.run(50)
    ranked = sorted((quality(c.graph) for c in enumerate_candidates(space)), reverse=True)
    assert max(o.gain for o in search.observations) >= ranked[20]  # of 4,096; by chance rank 80


def test_what_it_says_of_a_row_does_not_depend_on_when_the_row_came() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 3))
    y = rows[:20, 0]
    config = EnsembleConfig(members=("gaussian_process",))
    late, early = (EnsembleBelief(rows[:count], Blocks(((0, 3),)), config) for count in (30, 40))
    for belief in (late, early):
        belief.add_all(range(20))
        belief.fit_settings(y)
    late.extend(rows[30:])
    expected = fit_ensemble(rows[:20], y, config, blocks=Blocks(((0, 3),))).predict(rows)
    assert expected.std is not None
    for belief in (late, early):
        mean, std = belief.posterior(y)
        np.testing.assert_allclose(mean, expected.mean.numpy(), atol=1e-9)
        np.testing.assert_allclose(std, expected.std.numpy(), atol=1e-9)
    late.keep([5, 35])
    np.testing.assert_allclose(late.posterior(y)[0], expected.mean.numpy()[[5, 35]], atol=1e-9)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 8"):
        BananasConfig(pool=PoolConfig(num_initial=5))
    with pytest.raises(UnknownNameError, match="No member of an ensemble named 'oracle'"):
        BananasConfig(members=("oracle",))
