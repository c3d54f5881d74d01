"""Fronts and their hypervolume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.search.experience import Observation
from nasgraph.search.pareto import (
    hypervolume,
    hypervolume_so_far,
    is_nondominated,
    pareto_front,
    reference_point,
)
from nasgraph.search.records import TrialState
from nasgraph.seeding import generator
from nasgraph.spaces import sample
from tests.search.toys import Chain

Array = np.ndarray


def brute_front(points: Array) -> list[bool]:
    return [not any((other >= point).all() and (other > point).any() for other in points) for point in points]


def brute_volume(points: Array, reference: Array) -> float:
    """Inclusion and exclusion over all subsets."""
    total = 0.0
    for mask in range(1, 2 ** len(points)):
        chosen = points[[place for place in range(len(points)) if mask >> place & 1]]
        box = np.maximum(chosen.min(axis=0) - reference, 0)
        total += (-1) ** (len(chosen) + 1) * box.prod()
    return total


@given(
    st.integers(1, 5).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(0, 4), min_size=size, max_size=size), min_size=1, max_size=9
        )
    )
)
def test_the_front_and_its_volume_are_what_the_definitions_say(rows: list[list[int]]) -> None:
    points = np.array(rows, dtype=np.float64)
    assert is_nondominated(points).tolist() == brute_front(points)
    reference = np.full(points.shape[1], 0.5)
    assert hypervolume(points, reference) == pytest.approx(brute_volume(points, reference))


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_large_front_has_the_volume_that_random_points_find(num_objectives: int, seed: int) -> None:
    rng = generator(seed, "front", num_objectives)
    points = rng.random((60 if num_objectives < 5 else 25, num_objectives))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # all but a few on the front
    exact = hypervolume(points, np.zeros(num_objectives))
    draws = rng.random((200_000, num_objectives))
    inside = np.zeros(len(draws), dtype=bool)
    for point in points:
        inside |= (draws <= point).all(axis=1)
    assert exact == pytest.approx(inside.mean(), abs=5 * np.sqrt(0.25 / len(draws)))


def test_the_volume_does_not_depend_on_the_order_or_on_beaten_points() -> None:
    rng = generator(0, "order")
    for size in (2, 3, 4):
        points = rng.random((20, size))
        reference = np.full(size, 0.1)
        expected = hypervolume(points, reference)
        assert hypervolume(points[rng.permutation(20)], reference) == pytest.approx(expected)
        assert hypervolume(points[is_nondominated(points)], reference) == pytest.approx(expected)
        beaten = np.vstack([points, points - 0.05, points])
        assert hypervolume(beaten, reference) == pytest.approx(expected)


def test_points_that_do_not_reach_above_the_reference_add_nothing() -> None:
    points = np.array([[0.0, 5.0], [5.0, 1.0], [np.nan, 9.0], [2.0, 3.0]])
    assert hypervolume(points, np.array([0.0, 1.0])) == 2 * 2
    assert hypervolume(np.empty((0, 2)), np.zeros(2)) == 0
    with pytest.raises(ValueError, match="as many objectives"):
        hypervolume(points, np.zeros(3))


def test_a_point_with_nan_is_not_on_the_front_and_beats_nobody() -> None:
    points = np.array([[1.0, 1.0], [np.nan, 2.0], [2.0, 0.0]])
    assert is_nondominated(points).tolist() == [True, False, True]


def test_a_large_plane_front_takes_no_time() -> None:
    x = np.linspace(0, 1, 200_000)
    points = np.column_stack([x, 1 - x])
    assert is_nondominated(points).all()
    assert hypervolume(points, np.zeros(2)) == pytest.approx(0.5, abs=1e-4)


def test_the_reference_lies_a_tenth_of_the_range_below_the_front() -> None:
    points = np.array([[1.0, 10.0], [3.0, 6.0], [0.0, 0.0]])  # the last one is beaten
    assert reference_point(points).tolist() == pytest.approx([1 - 0.2, 6 - 0.4])
    assert reference_point(np.array([[2.0, 0.0]])).tolist() == pytest.approx([1.8, -0.1])
    assert reference_point(np.array([[2.0, -4.0], [np.nan, 9.0]])).tolist() == pytest.approx([1.8, -4.4])
    with pytest.raises(ValueError, match="at least one point"):
        reference_point(np.array([[np.nan, 1.0]]))


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_the_volume_so_far_is_that_of_every_prefix(num_objectives: int) -> None:
    points = generator(4, "prefix").random((40, num_objectives))
    reference = np.full(num_objectives, 0.2)
    curve = hypervolume_so_far(points, reference)
    assert curve.tolist() == pytest.approx([hypervolume(points[: n + 1], reference) for n in range(40)])
    assert (np.diff(curve) >= 0).all()


def test_the_front_of_a_search_leaves_out_what_is_not_complete() -> None:
    def seen(number: int, *gains: float) -> Observation:
        state = TrialState.COMPLETE if gains else TrialState.FAILED
        return Observation(number, sample(Chain(), generator(0, "front", number)), state, gains)

    observations = [seen(0, 1.0, 5.0), seen(1), seen(2, 3.0, 2.0), seen(3, 1.0, 4.0), seen(4, 3.0, 2.0)]
    assert [each.number for each in pareto_front(observations)] == [2, 4, 0]
    assert pareto_front([seen(1)]) == ()
    assert [each.number for each in pareto_front([seen(7, 1.0), seen(3, 2.0), seen(5, 2.0)])] == [3, 5]
