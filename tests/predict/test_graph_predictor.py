"""The predictor for any space, and what a prediction is."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.predict import NotFittedError, Prediction
from nasgraph.predict.ensemble import EnsembleConfig
from nasgraph.predict.graph_predictor import GraphPredictor
from nasgraph.testing import reordered
from tests.modules.samples import sampled_graphs

POOL = sampled_graphs("convnet", 70)
QUICK = EnsembleConfig(members=("gaussian_process", "structure_process"))


def accuracy(graphs: Sequence[ComputationalGraph]) -> Tensor:
    """A made-up accuracy that grows with the logarithm of the size, and a little with depth."""
    costs = [cost_of(graph) for graph in graphs]
    return torch.tensor([np.tanh(np.log(cost.num_parameters) / 12) + cost.depth / 500 for cost in costs])


def size(graphs: Sequence[ComputationalGraph]) -> np.ndarray:
    return np.array([[cost_of(graph).num_parameters] for graph in graphs], dtype=float)


def depth(graphs: Sequence[ComputationalGraph]) -> np.ndarray:
    """Two columns; the first has failures in it."""
    depths = [cost_of(graph).depth for graph in graphs]
    return np.array([[np.nan if d % 7 == 0 else d, -d] for d in depths], dtype=float)


def fitted(**settings: object) -> GraphPredictor:
    predictor = GraphPredictor(config=QUICK, **settings)  # type: ignore[arg-type]  # by name
    predictor.fit(POOL[:30], accuracy(POOL[:30]))
    return predictor


# ---- what it learns


@pytest.mark.parametrize("universal", [False, True])
def test_it_ranks_networks_that_it_has_not_seen(universal: bool) -> None:
    predictor = GraphPredictor(universal=universal)
    predictor.fit(POOL[:40], accuracy(POOL[:40]))
    prediction, truth = predictor.predict(POOL[40:]), accuracy(POOL[40:])
    assert kendalltau(prediction.mean, truth).statistic > 0.5
    assert kendalltau(predictor.left_out().mean, accuracy(POOL[:40])).statistic > 0.5
    low, high = prediction.interval()
    assert prediction.level == 0.9
    assert float(((low <= truth) & (truth <= high)).double().mean()) > 0.7


def test_a_predictor_in_universal_words_serves_spaces_that_it_never_saw() -> None:
    known = [*sampled_graphs("nasbench201", 10), *POOL[:10], *sampled_graphs("mlp", 10)]
    predictor = GraphPredictor(universal=True, config=QUICK)
    predictor.fit(known, accuracy(known))
    foreign = sampled_graphs("vit", 8)
    prediction = predictor.predict(foreign)
    low, high = prediction.interval()
    for part in (prediction.mean, low, high):
        assert bool(part.isfinite().all())
    assert all(warned.is_far for warned in predictor.warnings(foreign))


def test_further_columns_are_looked_at_and_each_is_a_block_of_its_own() -> None:
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(POOL)) / len(POOL))
    number = {graph.fingerprint: float(value) for graph, value in zip(POOL, shuffled, strict=True)}

    def tell(graphs: Sequence[ComputationalGraph]) -> np.ndarray:
        return np.array([[number[graph.fingerprint]] for graph in graphs])

    targets = torch.tensor([number[graph.fingerprint] for graph in POOL], dtype=torch.float64)
    predictor = GraphPredictor(pool=POOL, further=[depth, tell], config=QUICK)
    predictor.fit(POOL[:40], targets[:40])
    assert kendalltau(predictor.predict(POOL[40:]).mean, targets[40:]).statistic > 0.5
    assert predictor._scale is not None
    (first, middle), (second, last) = predictor._scale.blocks[-2:]
    assert middle == second
    assert (middle - first, last - second) == (2, 1)


# ---- the contract of Predictor


def test_equal_fits_give_equal_predictions_and_leave_the_global_generators_alone() -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    found = []
    for _ in range(2):
        predictor = GraphPredictor(pool=POOL, config=EnsembleConfig(seed=3))
        predictor.fit(POOL[:20], accuracy(POOL[:20]))
        found.append(predictor.predict(POOL[20:30]))
    assert torch.equal(found[0].mean, found[1].mean)
    torch.testing.assert_close(found[0].interval(), found[1].interval(), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


def test_a_second_fit_forgets_the_first() -> None:
    twice, once = GraphPredictor(config=QUICK), fitted()
    twice.fit(POOL[30:], -accuracy(POOL[30:]))
    twice.fit(POOL[:30], accuracy(POOL[:30]))
    assert torch.equal(twice.predict(POOL[30:40]).mean, once.predict(POOL[30:40]).mean)


def test_a_fit_that_fails_leaves_the_predictor_as_it_was() -> None:
    predictor = fitted()
    before = predictor.predict(POOL[30:40])
    for graphs, targets in (
        (POOL[30:40], torch.full((10,), float("nan"))),
        ([POOL[0]] * 10, torch.arange(10.0)),
    ):
        with pytest.raises(ValueError):
            predictor.fit(graphs, targets)
    assert torch.equal(predictor.predict(POOL[30:40]).mean, before.mean)


def test_a_prediction_does_not_depend_on_the_company() -> None:
    predictor = fitted(further=[size])
    together = predictor.predict(POOL[30:35]).mean
    alone = torch.cat([predictor.predict([graph]).mean for graph in POOL[30:35]])
    torch.testing.assert_close(together, alone)
    assert len(predictor.predict([])) == 0
    assert predictor.warnings([]) == []


def test_a_prediction_does_not_depend_on_the_order_of_the_nodes() -> None:
    rng = np.random.default_rng(0)
    shuffled = [reordered(graph, rng) for graph in POOL]
    predictor, other = GraphPredictor(pool=POOL, config=QUICK), GraphPredictor(pool=shuffled, config=QUICK)
    predictor.fit(POOL[:20], accuracy(POOL[:20]))
    other.fit(shuffled[:20], accuracy(POOL[:20]))
    expected = predictor.predict(POOL).mean
    torch.testing.assert_close(predictor.predict(shuffled).mean, expected)
    torch.testing.assert_close(other.predict(POOL).mean, expected)


@pytest.mark.parametrize("ask", ["predict", "warnings", "left_out"])
def test_a_question_before_the_fit_is_refused(ask: str) -> None:
    predictor = GraphPredictor()
    with pytest.raises(NotFittedError, match=f"'fit' before '{ask}'"):
        predictor.left_out() if ask == "left_out" else getattr(predictor, ask)(POOL[:1])


@pytest.mark.parametrize(
    ("count", "targets", "message"),
    [
        (9, torch.zeros(10), r"one target per graph \(got 10 for 9\)"),
        (7, torch.arange(7.0), r"at least 8 labelled graphs \(got 7\)"),
        (1, torch.ones(1), r"at least 8 labelled graphs \(got 1\)"),
        (10, torch.full((10,), float("nan")), "finite targets"),
        (10, torch.tensor([float("inf"), *range(9)]), "finite targets"),
        (10, torch.full((10,), 0.25), "All 10 targets are 0.25: there is nothing to learn"),
    ],
)
def test_labels_that_cannot_be_learnt_from_are_refused(count: int, targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphPredictor().fit(POOL[:count], targets)


def test_equal_graphs_with_different_targets_are_refused_without_a_pool_and_averaged_with_one() -> None:
    graphs, targets = [POOL[0]] * 10, torch.arange(10.0)
    with pytest.raises(ValueError, match="No column tells the rows apart"):
        GraphPredictor().fit(graphs, targets)
    predictor = GraphPredictor(pool=POOL, config=QUICK)
    predictor.fit(graphs, targets)
    prediction = predictor.predict(graphs[:1])
    low, high = prediction.interval()
    assert float(prediction.mean) == pytest.approx(4.5, abs=0.5)
    assert float(low) < 1
    assert float(high) > 8


def test_a_pool_and_universal_words_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="a pool or 'universal'"):
        GraphPredictor(pool=POOL, universal=True)


# ---- the pool


def test_the_pool_settles_kinds_and_scales_whatever_is_labelled() -> None:
    predictor, other = GraphPredictor(pool=POOL, config=QUICK), GraphPredictor(pool=POOL, config=QUICK)
    predictor.fit(POOL[:20], accuracy(POOL[:20]))
    other.fit(POOL[40:], accuracy(POOL[40:]))
    assert predictor._features == other._features
    assert predictor._scale is not None
    assert other._scale is not None
    assert predictor._scale.kept == other._scale.kept
    rows = predictor._rows(POOL[:5])
    np.testing.assert_array_equal(predictor._scale(rows), other._scale(rows))


# ---- warnings


def test_graphs_like_the_labelled_ones_are_not_far_and_others_are() -> None:
    predictor = fitted(further=[size])
    assert not any(warned.is_far for warned in predictor.warnings(POOL[:30]))
    graph = GraphBuilder()
    x = graph("input", shape=(1, 8, 8))
    for _ in range(200):
        x = graph("conv2d", x, out_channels=8, kernel_size=7, padding=3)
    (warned,) = predictor.warnings([graph.finish(x)])
    assert warned.is_far
    assert len(warned.outside) == 3
    assert set(warned.outside) <= set(predictor._features.names if predictor._features else ())


# ---- predictions


def test_without_ends_of_its_own_the_interval_is_a_normal_one() -> None:
    mean, std = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.0])
    low, high = Prediction(mean, std, level=0.8).interval()
    expected = norm.interval(0.8, mean.numpy(), std.numpy())
    np.testing.assert_allclose(low, expected[0], rtol=1e-6)
    np.testing.assert_allclose(high, expected[1], rtol=1e-6)


def test_ends_of_its_own_are_the_interval() -> None:
    mean, low, high = torch.tensor([1.0]), torch.tensor([-3.0]), torch.tensor([1.5])
    assert Prediction(mean, torch.tensor([9.0]), low=low, high=high).interval() == (low, high)


def test_a_prediction_without_a_spread_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no spread"):
        Prediction(torch.zeros(3)).interval()


def test_predictions_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="both ends"):
        Prediction(torch.zeros(2), low=torch.zeros(2))
    with pytest.raises(ValueError, match=r"one 'std' per 'mean' \(got \(3,\) and \(2,\)\)"):
        Prediction(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="one 'high' per 'mean'"):
        Prediction(torch.zeros(2), low=torch.zeros(2), high=torch.zeros(3))
