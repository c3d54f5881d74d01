"""Predictors that learn from features of graphs."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.linear_model import BayesianRidge

from nasgraph.encode import batch_graphs
from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.predict import (
    REGRESSORS,
    EmbeddingFeatures,
    FeaturePredictor,
    NormalScores,
    NotFittedError,
    Prediction,
    Predictor,
    StackedPredictor,
)
from tests.hyper.toy import tiny_config
from tests.modules.samples import sampled_graphs

POOL = sampled_graphs("convnet", 60)


def size_and_depth(graphs: Sequence[ComputationalGraph]) -> np.ndarray:
    """Two columns of numbers; the second has a failure in it."""
    costs = [cost_of(graph) for graph in graphs]
    depth = [-np.inf if cost.depth % 7 == 0 else cost.depth for cost in costs]
    return np.array([[cost.num_parameters for cost in costs], depth], dtype=float).T


def accuracy(graphs: Sequence[ComputationalGraph]) -> torch.Tensor:
    """A made-up accuracy that grows with the logarithm of the size, and a little with depth."""
    costs = [cost_of(graph) for graph in graphs]
    return torch.tensor([np.tanh(np.log(cost.num_parameters) / 12) + cost.depth / 500 for cost in costs])


def embeddings() -> EmbeddingFeatures:
    return EmbeddingFeatures(GraphHyperNetwork(tiny_config("transformer"), seed=2))


def predictors() -> list[Predictor]:
    heads = [FeaturePredictor(size_and_depth, regressor=name) for name in sorted(REGRESSORS)]
    stacked = StackedPredictor(size_and_depth, [FeaturePredictor(embeddings(), regressor="ridge")])
    return [*heads, stacked, FeaturePredictor(embeddings())]


@pytest.mark.parametrize("index", range(len(predictors()) - 1))
def test_a_predictor_ranks_networks_that_it_has_not_seen(index: int) -> None:
    predictor = predictors()[index]
    predictor.fit(POOL[:40], accuracy(POOL[:40]))
    prediction = predictor.predict(POOL[40:])
    assert kendalltau(prediction.mean, accuracy(POOL[40:])).statistic > 0.5
    assert prediction.std is not None
    assert bool((prediction.std > 0).all())
    assert float((prediction.mean - accuracy(POOL[40:])).abs().mean()) < 0.1


def test_a_head_on_embeddings_ranks_networks_by_the_operators_they_are_made_of() -> None:
    def share(graphs: Sequence[ComputationalGraph]) -> torch.Tensor:
        ops = [[node.op in ("relu", "gelu", "silu", "hardswish") for node in graph.nodes] for graph in graphs]
        return torch.tensor([sum(each) / len(each) for each in ops])

    head = FeaturePredictor(embeddings())
    head.fit(POOL[:40], share(POOL[:40]))
    assert kendalltau(head.predict(POOL[40:]).mean, share(POOL[40:])).statistic > 0.5


@pytest.mark.parametrize("index", range(len(predictors())))
def test_equal_fits_give_equal_predictions_and_leave_the_global_generators_alone(index: int) -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    found: list[Prediction] = []
    for predictor in (predictors()[index], predictors()[index]):
        predictor.fit(POOL[:20], accuracy(POOL[:20]))
        found.append(predictor.predict(POOL[20:30]))
    assert torch.equal(found[0].mean, found[1].mean)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


@pytest.mark.parametrize("index", range(len(predictors())))
def test_a_second_fit_forgets_the_first(index: int) -> None:
    twice, once = predictors()[index], predictors()[index]
    twice.fit(POOL[30:], -accuracy(POOL[30:]))
    for predictor in (twice, once):
        predictor.fit(POOL[:20], accuracy(POOL[:20]))
    assert torch.equal(twice.predict(POOL[20:30]).mean, once.predict(POOL[20:30]).mean)


@pytest.mark.parametrize("index", range(len(predictors())))
def test_a_prediction_does_not_depend_on_the_company(index: int) -> None:
    predictor = predictors()[index]
    predictor.fit(POOL[:20], accuracy(POOL[:20]))
    together = predictor.predict(POOL[20:25]).mean
    alone = torch.cat([predictor.predict([graph]).mean for graph in POOL[20:25]])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_units_of_features_do_not_matter() -> None:
    def bent(graphs: Sequence[ComputationalGraph]) -> np.ndarray:
        return np.column_stack([np.log(size_and_depth(graphs)[:, 0]), 5 * size_and_depth(graphs)[:, 1]])

    # New values are interpolated, so only known ones are exactly the same.
    plain, other = FeaturePredictor(size_and_depth), FeaturePredictor(bent)
    for predictor in (plain, other):
        predictor.fit(POOL[:30], accuracy(POOL[:30]))
    torch.testing.assert_close(plain.predict(POOL[:30]).mean, other.predict(POOL[:30]).mean)


def test_ridge_is_scikit_learns_on_normal_scores() -> None:
    features, targets = size_and_depth(POOL[:20]), accuracy(POOL[:20]).double().numpy()
    scales = [NormalScores.of(column) for column in features.T]
    known = np.column_stack([scale(column) for scale, column in zip(scales, features.T, strict=True)])
    scale = NormalScores.of(targets)
    expected = scale.inverse(BayesianRidge().fit(known, scale(targets)).predict(known))
    predictor = FeaturePredictor(size_and_depth, regressor="ridge")
    predictor.fit(POOL[:20], torch.from_numpy(targets))
    np.testing.assert_allclose(predictor.predict(POOL[:20]).mean, expected)


def test_embeddings_are_those_of_the_hypernetwork_however_many_graphs_there_are() -> None:
    features = embeddings()
    found = features([*POOL, *POOL[:10]])
    expected = features.ghn.embed(batch_graphs(POOL[:10])).detach().double().numpy()
    assert found.shape == (70, features.ghn.config.dim)
    np.testing.assert_allclose(found[:10], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[60:], expected, rtol=1e-3, atol=1e-5)
    assert features([]).shape == (0, features.ghn.config.dim)


class Memory(Predictor):
    """Knows the labels by heart and nothing else; notes what it was asked."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}
        self.asked_known: list[bool] = []

    def fit(self, graphs: Sequence[ComputationalGraph], targets: torch.Tensor) -> None:
        self.known = {g.fingerprint: float(t) for g, t in zip(graphs, targets, strict=True)}

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        self.asked_known += [graph.fingerprint in self.known for graph in graphs]
        return Prediction(torch.tensor([self.known.get(graph.fingerprint, 0.0) for graph in graphs]))


def test_a_stack_judges_its_members_by_graphs_they_have_not_seen() -> None:
    distinct = list({graph.fingerprint: graph for graph in POOL}.values())[:30]
    memory = Memory()
    stacked = StackedPredictor(size_and_depth, [memory])
    stacked.fit(distinct, accuracy(distinct))
    assert memory.asked_known == [False] * 30
    alone = FeaturePredictor(size_and_depth, regressor="ridge")
    with_memory = StackedPredictor(size_and_depth, [memory], regressor="ridge")
    for predictor in (alone, with_memory):
        predictor.fit(distinct, accuracy(distinct))
    # What it knows by heart earns it no trust.
    torch.testing.assert_close(alone.predict(distinct).mean, with_memory.predict(distinct).mean)


@pytest.mark.parametrize("index", range(len(predictors())))
def test_a_prediction_before_the_fit_is_refused(index: int) -> None:
    with pytest.raises(NotFittedError, match="'fit' before 'predict'"):
        predictors()[index].predict(POOL[:1])


@pytest.mark.parametrize(
    ("count", "targets", "message"),
    [
        (9, torch.zeros(10), r"one target per graph \(got 10 for 9\)"),
        (7, torch.zeros(7), r"at least 8 labelled graphs \(got 7\)"),
        (10, torch.full((10,), float("nan")), "finite targets"),
    ],
)
def test_labels_that_cannot_be_learnt_from_are_refused(
    count: int, targets: torch.Tensor, message: str
) -> None:
    for predictor in predictors():
        with pytest.raises(ValueError, match=message):
            predictor.fit(POOL[:count], targets)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"No regressor named 'rigde'\. Close: 'ridge'"):
        FeaturePredictor(size_and_depth, regressor="rigde")
    with pytest.raises(UnknownNameError, match="No regressor named 'rigde'"):
        StackedPredictor(size_and_depth, [], regressor="rigde")
    with pytest.raises(ConfigError, match=r"'num_folds' of at least 2 \(got 1\)"):
        StackedPredictor(size_and_depth, [], num_folds=1)
