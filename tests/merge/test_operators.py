"""Arithmetic on weights: the laws that each operator promises."""

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasgraph.merge import (
    MergeError,
    dare,
    karcher_mean,
    linear,
    model_stock,
    slerp,
    task_arithmetic,
    ties,
)
from tests.merge.networks import random_state, small_convnet

GRAPH = small_convnet()
State = Mapping[str, Tensor]


def states(number: int, *, seed: int = 0) -> list[dict[str, Tensor]]:
    return [random_state(GRAPH, seed=seed + place) for place in range(number)]


def assert_equal(a: State, b: State) -> None:
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-9)


def test_the_mean_of_equal_states_is_the_state() -> None:
    (state,) = states(1)
    for merged in (linear([state] * 3), karcher_mean([state] * 3), slerp(state, state, 0.4)):
        assert_equal(merged, state)


def test_a_weight_of_one_chooses() -> None:
    a, b = states(2)
    assert_equal(linear([a, b], [0.0, 1.0]), b)
    with pytest.raises(MergeError, match="one weight per model"):
        linear([a, b], [1.0])


@given(seed=st.integers(0, 1000), t=st.floats(0.05, 0.95))
def test_slerp_turns_evenly_and_keeps_lengths(seed: int, t: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    a, b = ({"n1.weight": torch.randn(7, generator=rng, dtype=torch.float64)} for _ in range(2))
    x, y, z = a["n1.weight"], b["n1.weight"], slerp(a, b, t)["n1.weight"]

    def angle(u: Tensor, v: Tensor) -> float:
        return math.acos(max(-1.0, min(1.0, float(u @ v / (u.norm() * v.norm())))))

    assert float(z.norm()) == pytest.approx(float((1 - t) * x.norm() + t * y.norm()))
    assert angle(x, z) == pytest.approx(t * angle(x, y), abs=1e-6)


def test_slerp_is_exact_at_both_ends_and_linear_where_there_is_no_angle() -> None:
    a, b = states(2)
    assert all(torch.equal(slerp(a, b, 0.0)[name], a[name]) for name in a)
    assert all(torch.equal(slerp(a, b, 1.0)[name], b[name]) for name in b)
    zero = {name: torch.zeros_like(tensor) for name, tensor in a.items()}
    assert_equal(slerp(a, zero, 0.25), linear([a, zero], [0.75, 0.25]))


def test_the_karcher_mean_of_two_is_slerp_half_way() -> None:
    a, b = states(2)
    assert_equal(karcher_mean([a, b]), slerp(a, b, 0.5))


def test_task_arithmetic_adds_differences() -> None:
    base, a, b = states(3)
    assert_equal(task_arithmetic(base, [a, b], scale=0.0), base)
    assert_equal(task_arithmetic(base, [a]), a)
    assert_equal(task_arithmetic(base, [a, base], scale=0.5), linear([base, a]))
    undone = task_arithmetic(task_arithmetic(base, [a]), [base], scale=1.0)
    assert_equal(undone, base)


def test_ties_of_one_model_that_keeps_all_is_that_model() -> None:
    base, a = states(2)
    assert_equal(ties(base, [a], density=1.0), a)


def test_ties_of_models_that_agree_in_sign_is_their_mean() -> None:
    base, a = states(2)
    further = task_arithmetic(base, [a], scale=3.0)
    assert_equal(ties(base, [a, further], density=1.0), linear([a, further]))


def test_ties_trims_elects_and_averages_what_agrees() -> None:
    """By hand, after the figure of the paper: entries of 3, -1 and 2 elect plus, and 3 and 2 are averaged."""
    base = {"n1.weight": torch.zeros(4)}
    models = [
        {"n1.weight": torch.tensor(values)}
        for values in ([3.0, -4.0, 0.1, 0.0], [-1.0, -2.0, 0.2, 0.0], [2.0, 1.0, 0.3, 0.0])
    ]
    assert ties(base, models, density=0.5)["n1.weight"].tolist() == [2.5, -3.0, 0.0, 0.0]
    with pytest.raises(MergeError, match="'density' above 0"):
        ties(base, models, density=0.0)


def test_dare_keeps_the_difference_on_average() -> None:
    base, a = states(2)
    draws = [dare(a, base, drop=0.7, seed=seed) for seed in range(400)]
    for name in ("n1.weight", "n2.running_mean"):
        stacked = torch.stack([draw[name] for draw in draws])
        error = (stacked.mean(0) - a[name]).abs()
        standard = stacked.std(0) / math.sqrt(len(draws))
        assert (error <= 5 * standard + 1e-12).all()
        dropped = (stacked == base[name]).double().mean()
        assert float(dropped) == pytest.approx(0.7, abs=0.03)
    assert_equal(dare(a, base, drop=0.0, seed=0), a)
    assert_equal(dare(a, base, drop=0.5, seed=4), dare(a, base, drop=0.5, seed=4))
    with pytest.raises(MergeError, match="'drop' of at least 0"):
        dare(a, base, drop=1.0, seed=0)


def test_model_stock_lies_between_base_and_mean_as_far_as_the_models_agree() -> None:
    base, a = states(2)
    assert_equal(model_stock(base, [a, a]), a)  # cosine 1: the mean
    opposite = task_arithmetic(base, [a], scale=-1.0)
    assert_equal(model_stock(base, [a, opposite]), base)  # cosine -1 counts as 0: the base
    zero = {"n1.weight": torch.zeros(2, dtype=torch.float64)}
    pair = [{"n1.weight": torch.tensor(v, dtype=torch.float64)} for v in ([1.0, 0.0], [0.5, math.sqrt(0.75)])]
    share = 2 * 0.5 / (1 + 0.5)  # at an angle of 60 degrees
    torch.testing.assert_close(
        model_stock(zero, pair)["n1.weight"], share * (pair[0]["n1.weight"] + pair[1]["n1.weight"]) / 2
    )
    with pytest.raises(MergeError, match="at least two"):
        model_stock(base, [a])


def test_nothing_given_is_changed_and_constants_stay() -> None:
    base, a, b = ({**state, "n9.value": torch.tensor([7])} for state in states(3))
    before = {name: tensor.clone() for name, tensor in base.items()}
    merges = (
        linear([base, a, b]),
        slerp(base, a, 0.5),
        task_arithmetic(base, [a, b]),
        ties(base, [a, b]),
        dare(a, base, drop=0.5, seed=0),
        model_stock(base, [a, b]),
        karcher_mean([base, a, b]),
    )
    assert all(torch.equal(base[name], before[name]) for name in before)
    for merged in merges:
        assert merged["n9.value"].tolist() == [7]
        assert merged["n9.value"].dtype == torch.int64
