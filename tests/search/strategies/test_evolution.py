"""Regularised evolution."""

import pytest

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies.evolution import EvolutionConfig, RegularisedEvolution
from nasgraph.spaces import SearchSpace
from tests.search.strategies.contract import Make, OptunaContract, SamplerContract, Search
from tests.search.toys import Chain, quality


def maker(**settings: float) -> Make:
    def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
        config = EvolutionConfig(population=8, sample=4, **settings)  # type: ignore[arg-type]  # see below
        return RegularisedEvolution(space, seed=seed, config=config)

    return make


class TestEvolution(SamplerContract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        return maker()


class TestEvolutionWithCrossover(SamplerContract):
    @pytest.fixture
    def make(self) -> Make:
        return maker(crossover=0.5)


def test_without_crossover_a_child_differs_from_a_living_member_in_one_choice() -> None:
    space = Chain(num_layers=4)
    search = Search(RegularisedEvolution(space, seed=0, config=EvolutionConfig(population=10, sample=10)))
    search.run(60)
    one_step = 0
    for number in range(10, 60):
        living = search.candidates[number - 10 : number]
        best = max(living, key=lambda candidate: quality(candidate.graph)).architecture.choices
        child = search.candidates[number].architecture.choices
        one_step += sum(a != b for a, b in zip(best, child, strict=True)) == 1
    assert one_step >= 35  # the others were known, and changed again


def test_the_oldest_member_dies_however_good_it_is() -> None:
    space = Chain()
    config = EvolutionConfig(population=5, sample=5)
    whole = Search(RegularisedEvolution(space, seed=0, config=config))
    whole.run(30)
    # Only the latest five matter, as long as the same graphs are known.
    sampler = RegularisedEvolution(space, seed=0, config=config)
    short = Search(sampler, observations=whole.observations[-5:], known=whole.known)
    proposals = [
        search.sampler.propose(search.experience, number=30).architecture for search in (whole, short)
    ]
    assert proposals[0] == proposals[1]


def test_evolution_finds_better_graphs_than_its_random_beginning() -> None:
    space = Chain(num_layers=6)
    better = 0
    for seed in range(5):
        search = Search(RegularisedEvolution(space, seed=seed))
        search.run(150)
        values = [quality(candidate.graph) for candidate in search.candidates]
        better += max(values[30:]) > max(values[:30])
    assert better == 5


@pytest.mark.parametrize(
    "settings", [{"sample": 0}, {"population": 3, "sample": 4}, {"crossover": 1.5}, {"max_steps": 0}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        EvolutionConfig(**settings)  # type: ignore[arg-type]  # what a user might write
