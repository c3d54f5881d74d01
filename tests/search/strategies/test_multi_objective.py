"""Multi-objective evolution."""

from itertools import product

import numpy as np
import pytest

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies._fronts import (
    crowding_distances,
    nondominated_ranks,
    reference_points,
    surviving_by_crowding,
    surviving_by_reference,
)
from nasgraph.search.strategies.multi_objective import GraphNSGA, NSGAConfig, cross_regions
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, SearchSpace, enumerate_candidates
from tests.search.strategies.contract import Make, OptunaContract, SamplerContract, Search
from tests.search.toys import Chain, quality


def maker(**settings: object) -> Make:
    def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
        settings_of_all = {"population": 6, "num_initial": 5, **settings}
        return GraphNSGA(space, seed=seed, config=NSGAConfig(**settings_of_all))  # type: ignore[arg-type]  # of all kinds

    return make


class TestGraphNSGA(SamplerContract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        return maker()


class TestGenerationsWithReferencePoints(SamplerContract):
    @pytest.fixture
    def make(self) -> Make:
        return maker(survival="reference points", offspring=6)


def dominates(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((first >= second).all() and (first > second).any())


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_fronts_are_what_is_left_when_better_fronts_are_taken_away(num_objectives: int) -> None:
    gains = generator(0, num_objectives).integers(6, size=(60, num_objectives)).astype(float)
    ranks = nondominated_ranks(gains)
    left, rank = set(range(60)), 0
    while left:
        front = {i for i in left if not any(dominates(gains[j], gains[i]) for j in left)}
        assert front == set(np.flatnonzero(ranks == rank))
        left, rank = left - front, rank + 1
    assert ranks.max() == rank - 1


def test_crowding_is_the_share_of_the_span_between_both_neighbours() -> None:
    gains = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [4.0, 5.0], [5.0, 0.0]])
    distance = crowding_distances(gains, nondominated_ranks(gains))
    np.testing.assert_allclose(distance, [np.inf, 4 / 5 + 5 / 10, 4 / 5 + 6 / 10, 0.0, np.inf])


def test_better_fronts_survive_and_of_the_last_the_least_crowded() -> None:
    gains = np.array([[0.0, 4.0], [1.0, 3.0], [1.1, 2.9], [1.2, 2.8], [4.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    assert surviving_by_crowding(gains, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert surviving_by_crowding(gains, 4).tolist() in ([0, 1, 3, 4], [0, 2, 3, 4], [0, 1, 2, 4])
    assert surviving_by_crowding(gains, 3)[[0, 2]].tolist() == [0, 4]


@pytest.mark.parametrize(("num_objectives", "divisions"), [(1, 1), (2, 5), (3, 4), (4, 3)])
def test_reference_points_are_all_of_the_simplex_with_equal_steps(
    num_objectives: int, divisions: int
) -> None:
    steps = [p for p in product(range(divisions + 1), repeat=num_objectives) if sum(p) == divisions]
    points = reference_points(num_objectives, at_most=len(steps))
    expected = {tuple(np.array(step) / divisions) for step in steps}
    assert {tuple(point) for point in points} == expected


def test_members_near_every_reference_point_survive() -> None:
    rng = generator(2)
    angles = np.concatenate(
        [rng.uniform(0, 0.2, size=40), rng.uniform(0, np.pi / 2, size=20), [0, np.pi / 2]]
    )
    gains = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = reference_points(2, at_most=6)
    stay = surviving_by_reference(gains, 6, points, rng)
    directions = (gains.max(axis=0) - gains[stay]) @ points.T / np.linalg.norm(points, axis=1)
    assert sorted(directions.argmax(axis=1)) == list(range(6))


def test_a_region_of_the_second_parent_replaces_that_of_the_first() -> None:
    names = [f"stage{stage}.block{block}.{what}" for stage in range(2) for block in range(2) for what in "xy"]
    first = Architecture("s", tuple((name, "1") for name in names))
    second = Architecture("s", tuple((name, "2") for name in names))
    seen = set()
    for draw in range(300):
        child = cross_regions(first, second, generator(0, draw))
        seen.add(tuple(name for name in names if child[name] == "2"))
    assert tuple(names[:4]) in seen  # a stage
    assert tuple(names[2:4]) in seen  # a block
    assert (names[5],) in seen
    assert len(seen) > 20  # and mixtures


def test_what_a_region_depends_on_comes_with_it() -> None:
    first = Architecture("s", (("a.kind", "wide"), ("a.wide.width", 3), ("b", 1)))
    second = Architecture("s", (("a.kind", "deep"), ("a.deep.depth", 2), ("b", 1)))
    children = [cross_regions(first, second, generator(1, draw)) for draw in range(100)]
    deep = [child for child in children if child["a.kind"] == "deep"]
    assert any(child.get("a.deep.depth") == 2 for child in deep)
    assert cross_regions(first, first, generator(0)) == dict(first.choices)


@pytest.mark.parametrize("survival", ["crowding", "reference points"])
def test_it_finds_most_of_the_front(survival: str) -> None:
    space = Chain(num_layers=2, widths=6)
    truth = {
        candidate.graph.fingerprint: (quality(candidate.graph), -float(len(candidate.graph)))
        for candidate in enumerate_candidates(space)
    }
    gains = np.array(list(truth.values()))
    front = {name for name, rank in zip(truth, nondominated_ranks(gains), strict=True) if rank == 0}
    shares = []
    for seed in range(4):
        config = NSGAConfig(survival=survival)  # type: ignore[arg-type]  # one of the allowed texts
        search = Search(GraphNSGA(space, seed=seed, config=config), num_objectives=2)
        search.run(100)
        shares.append(len(front & search.known) / len(front))
    assert np.mean(shares) > 0.7


@pytest.mark.parametrize(
    "settings",
    [{"population": 0}, {"offspring": 0}, {"crossover": 1.5}, {"mutation": -0.1}, {"survival": "luck"}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        NSGAConfig(**settings)  # type: ignore[arg-type]  # what a user might write
