"""Predicting latency and energy from operator costs and other devices."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.predict import (
    CostColumns,
    HardwarePredictor,
    NotFittedError,
    fit_hardware,
    operator_costs,
)
from nasgraph.predict.hardware import _non_negative, most_similar
from nasgraph.seeding import generator
from tests.modules.samples import sampled_graphs

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def graphs() -> Sequence[ComputationalGraph]:
    return sampled_graphs("convnet", 60)


def device(
    graphs: Sequence[ComputationalGraph], *, speed: float, per_call: float, noise: float = 0.0, seed: int = 0
) -> Tensor:
    """A made-up device: time per operator, per multiply-add and per element moved, times noise."""
    rng = generator(seed, "device")
    times = []
    for graph in graphs:
        costs = operator_costs(graph).values()
        own = sum(per_call * count + work / speed + 3 * moved / speed for count, work, moved in costs)
        times.append(own * np.exp(noise * rng.normal()))
    return torch.tensor(times, dtype=torch.float64)


def test_operators_are_counted_with_their_work_and_traffic() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4, 8, 8))
    x = g("conv2d", x, out_channels=6, kernel_size=3, padding=1, bias=True)  # 6 * 4 * 9 weights, 6 biases
    x = g("conv2d", x, out_channels=6, kernel_size=5, padding=2, groups=6, bias=False)
    x = g("conv2d", g("relu", x), out_channels=6, kernel_size=1, groups=2, bias=False)
    graph = g.finish(g("flatten", g("identity", x)))
    pixels = 64
    assert operator_costs(graph) == {
        "conv2d 3x3": (1, 6 * 4 * 9 * pixels, 4 * pixels + 6 * pixels + 6 * 4 * 9 + 6),
        "conv2d 5x5 depthwise": (1, 6 * 25 * pixels, 2 * 6 * pixels + 6 * 25),
        "conv2d 1x1 grouped": (1, 6 * 3 * pixels, 2 * 6 * pixels + 6 * 3),
        "relu": (1, 0, 2 * 6 * pixels),
    }


def test_the_kinds_add_up_to_the_whole(graphs: Sequence[ComputationalGraph]) -> None:
    for graph in graphs[:10]:
        assert sum(work for _, work, _ in operator_costs(graph).values()) == cost_of(graph).multiply_adds


def test_columns_do_not_depend_on_company_or_node_order(graphs: Sequence[ComputationalGraph]) -> None:
    columns = CostColumns.of(graphs)
    together = columns(graphs)
    assert together.shape == (60, len(columns.names))
    assert (together >= 0).all()
    np.testing.assert_array_equal(columns([graphs[5]])[0], together[5])
    np.testing.assert_array_equal(columns([graph.canonical() for graph in graphs[:5]]), together[:5])
    assert columns([]).shape == (0, len(columns.names))


def test_operators_never_measured_are_told(
    graphs: Sequence[ComputationalGraph], caplog: pytest.LogCaptureFixture
) -> None:
    g = GraphBuilder()
    strange = g.finish(g("erf", g("input", shape=(3, 8, 8))))
    with caplog.at_level(logging.WARNING):
        CostColumns.of(graphs[:5])([strange])
    assert "erf" in caplog.text


def test_a_device_that_adds_up_is_learnt_from_thirty_networks(graphs: Sequence[ComputationalGraph]) -> None:
    times = device(graphs, speed=1e6, per_call=0.05)
    predictor = HardwarePredictor()
    predictor.fit(graphs[:30], times[:30])
    said = predictor.predict(graphs[30:]).mean
    off = (said - times[30:]).abs() / times[30:]
    assert float(off.median()) < 0.1
    assert spearmanr(said, times[30:]).statistic > 0.98


def test_it_orders_better_than_multiply_adds_do(graphs: Sequence[ComputationalGraph]) -> None:
    times = device(graphs, speed=1e9, per_call=0.05, noise=0.05)
    predictor = HardwarePredictor()
    predictor.fit(graphs[:20], times[:20])
    said = predictor.predict(graphs[20:]).mean
    multiply_adds = [cost_of(graph).multiply_adds for graph in graphs[20:]]
    assert spearmanr(said, times[20:]).statistic > spearmanr(multiply_adds, times[20:]).statistic + 0.05


def test_predictions_scale_with_the_unit_of_the_targets(graphs: Sequence[ComputationalGraph]) -> None:
    times = device(graphs, speed=1e6, per_call=0.05, noise=0.1)
    plain = HardwarePredictor()
    plain.fit(graphs[:12], times[:12])
    one = plain.predict(graphs)
    assert one.std is not None
    for unit in (1000, 1024):
        scaled = HardwarePredictor()
        scaled.fit(graphs[:12], unit * times[:12])
        other = scaled.predict(graphs)
        assert other.std is not None
        torch.testing.assert_close(unit * one.mean, other.mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(unit * one.std, other.std, rtol=1e-6, atol=0)


def test_equal_calls_give_equal_predictions_and_fitting_again_forgets(
    graphs: Sequence[ComputationalGraph],
) -> None:
    times = device(graphs, speed=1e6, per_call=0.05, noise=0.1)
    first, again = HardwarePredictor(), HardwarePredictor()
    first.fit(graphs[:20], times[:20])
    again.fit(graphs[20:50], 5 * times[20:50])
    again.fit(graphs[:20], times[:20])
    assert torch.equal(first.predict(graphs).mean, again.predict(graphs).mean)


def test_one_absurd_label_does_not_rule_the_fit(graphs: Sequence[ComputationalGraph]) -> None:
    times = device(graphs, speed=1e6, per_call=0.05)
    spoilt = times.clone()
    spoilt[3] *= 1e-4
    spoilt[7] *= 50
    predictor = HardwarePredictor()
    predictor.fit(graphs[:40], spoilt[:40])
    off = (predictor.predict(graphs[40:]).mean - times[40:]).abs() / times[40:]
    assert float(off.median()) < 0.2


def test_coefficients_are_those_of_scipy_on_exact_sums_and_never_negative() -> None:
    rng = generator(0, "columns")
    columns = np.column_stack([np.ones(50), rng.uniform(size=(50, 5)) * 10.0 ** np.arange(5)])
    truth = np.array([1.0, 0.0, 0.2, 0.0, 1e-3, 0.0])
    found = _non_negative(columns, columns @ truth)
    assert (found >= 0).all()
    np.testing.assert_allclose(columns @ found, columns @ truth, rtol=0.02)


def test_nine_of_ten_networks_lie_in_the_interval() -> None:
    graphs = sampled_graphs("convnet", 240)
    inside = []
    for seed in range(6):
        times = device(graphs, speed=1e6, per_call=0.05, noise=0.2, seed=seed)
        predictor = HardwarePredictor()
        predictor.fit(graphs[:40], times[:40])
        low, high = predictor.interval(graphs[40:])
        assert bool((low < high).all())
        inside.append(float(((low <= times[40:]) & (times[40:] <= high)).double().mean()))
    assert 0.83 <= np.mean(inside) <= 0.97


@pytest.fixture(scope="module")
def known(graphs: Sequence[ComputationalGraph]) -> dict[str, HardwarePredictor]:
    """Predictors of three devices: one like the target, one not, and one that only counts operators."""
    found = {}
    for name, speed, per_call in (("twin", 1e9, 0.05), ("slow", 1e5, 0.05), ("caller", 1e15, 1.0)):
        found[name] = HardwarePredictor()
        found[name].fit(graphs[:50], device(graphs, speed=speed, per_call=per_call)[:50])
    return found


def test_known_devices_help_when_labels_are_few(
    graphs: Sequence[ComputationalGraph], known: dict[str, HardwarePredictor]
) -> None:
    times = 3 * device(graphs, speed=1e9, per_call=0.05, noise=0.02)
    off = []
    for devices in ({}, known):
        predictor = HardwarePredictor(known=devices)
        predictor.fit(graphs[:8], times[:8])
        off.append(float(((predictor.predict(graphs[8:]).mean - times[8:]).abs() / times[8:]).mean()))
    assert off[1] < off[0]


def test_the_most_similar_device_comes_first(
    graphs: Sequence[ComputationalGraph], known: dict[str, HardwarePredictor]
) -> None:
    predictor = HardwarePredictor(known=known, num_similar=2)
    predictor.fit(graphs[:30], device(graphs, speed=1e5, per_call=0.05)[:30])
    assert predictor.similar[0] == "slow"
    assert len(predictor.similar) == 2
    assert sum(predictor.weights.values()) == pytest.approx(1)


def test_similarity_is_spearmans_and_opposite_devices_are_left_out() -> None:
    rng = generator(0, "similar")
    known, targets = rng.normal(size=(40, 6)), rng.normal(size=40)
    known[:, 2] = np.exp(targets)
    known[:, 4] = -targets
    rho = np.array([spearmanr(column, targets).statistic for column in known.T])
    expected = [int(column) for column in np.argsort(-rho) if rho[column] > 0]
    assert list(most_similar(known, targets)) == expected
    assert expected[0] == 2
    assert 4 not in expected


def test_constant_targets_give_that_constant(graphs: Sequence[ComputationalGraph]) -> None:
    predictor = HardwarePredictor()
    predictor.fit(graphs[:20], torch.full((20,), 7.0))
    prediction = predictor.predict(graphs[20:])
    torch.testing.assert_close(
        prediction.mean, torch.full((40,), 7.0, dtype=torch.float64), rtol=0.05, atol=0
    )
    assert prediction.std is not None
    assert bool(prediction.std.isfinite().all())


def test_no_graphs_give_no_predictions(graphs: Sequence[ComputationalGraph]) -> None:
    predictor = HardwarePredictor()
    predictor.fit(graphs[:10], device(graphs, speed=1e6, per_call=0.05)[:10])
    assert len(predictor.predict([])) == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_that_are_no_cost_are_refused(graphs: Sequence[ComputationalGraph], bad: float) -> None:
    targets: Float[Tensor, " graphs"] = torch.ones(10)
    targets[4] = bad
    with pytest.raises(ValueError, match="Expected"):
        HardwarePredictor().fit(graphs[:10], targets)


def test_misuse_is_refused(graphs: Sequence[ComputationalGraph]) -> None:
    predictor = HardwarePredictor()
    for ask in (
        lambda: predictor.predict(graphs),
        lambda: predictor.interval(graphs),
        lambda: predictor.similar,
    ):
        with pytest.raises(NotFittedError):
            ask()
    with pytest.raises(ValueError, match="at least 8"):
        predictor.fit(graphs[:1], torch.ones(1))
    with pytest.raises(ConfigError, match="num_similar"):
        HardwarePredictor(num_similar=0)
    predictor.fit(graphs[:10], device(graphs, speed=1e6, per_call=0.05)[:10])
    with pytest.raises(ValueError, match="coverage"):
        predictor.interval(graphs, coverage=90.0)


def test_columns_alone_can_be_learnt_from() -> None:
    rng = generator(3, "columns")
    costs = rng.uniform(1, 10, size=(200, 4))
    targets = costs @ np.array([1.0, 0.0, 2.0, 0.5])
    model = fit_hardware(costs[:50], targets[:50])
    mean, std = model(costs[50:])
    np.testing.assert_allclose(np.exp(mean), targets[50:], rtol=0.05)
    assert (std > 0).all()
