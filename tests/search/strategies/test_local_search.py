"""Local search."""

import pytest

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies.local_search import LocalSearch, LocalSearchConfig
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, SearchSpace, enumerate_candidates, neighbours
from tests.search.strategies.contract import Make, OptunaContract, SamplerContract, Search
from tests.search.toys import Chain, quality


def maker(num_initial: int) -> Make:
    def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
        return LocalSearch(space, seed=seed, config=LocalSearchConfig(num_initial=num_initial))

    return make


class TestLocalSearch(SamplerContract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        return maker(6)


class TestLocalSearchFromOnePlace(SamplerContract):
    @pytest.fixture
    def make(self) -> Make:
        return maker(1)


def distance(first: Architecture, second: Architecture) -> int:
    return sum(a != b for a, b in zip(first.choices, second.choices, strict=True))


def test_it_tries_neighbours_of_the_best_until_none_is_left_and_then_begins_anew() -> None:
    space = Chain(num_layers=2, widths=3)
    search = Search(LocalSearch(space, seed=1, config=LocalSearchConfig(num_initial=1)))
    search.run(70)
    restarts = 0
    for number in range(1, 70):
        before = search.candidates[:number]
        candidate = search.candidates[number]
        if any(distance(candidate.architecture, earlier.architecture) == 1 for earlier in before[-64:]):
            continue
        restarts += 1
        known = {earlier.graph.fingerprint for earlier in before}
        best = max(before, key=lambda earlier: quality(earlier.graph))
        near = neighbours(space, best.architecture, generator(0))
        assert {neighbour.graph.fingerprint for neighbour in near} <= known
    assert restarts <= 10


def test_it_reaches_a_local_optimum_before_it_restarts() -> None:
    space = Chain(num_layers=3)
    best = max(quality(candidate.graph) for candidate in enumerate_candidates(space))
    found = 0
    for seed in range(5):
        search = Search(LocalSearch(space, seed=seed))
        search.run(150)
        found += max(quality(candidate.graph) for candidate in search.candidates) == best
    assert found >= 4


@pytest.mark.parametrize("settings", [{"num_initial": 0}, {"max_draws": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        LocalSearchConfig(**settings)
