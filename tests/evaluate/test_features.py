"""Scores as columns, and their combination without labels."""

import numpy as np
import pytest
import torch

from nasgraph.data import SearchData, Split
from nasgraph.errors import UnknownNameError
from nasgraph.evaluate import (
    AnytimeConfig,
    AnytimeScorer,
    ConsensusScorer,
    ScoreFeatures,
    curve_columns,
    curve_scores,
)
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.predict import PROXIES, FeaturePredictor, scaled_ranks
from tests.hyper.toy import tiny_config
from tests.modules.samples import sampled_graphs

GRAPHS = [*sampled_graphs("mlp", 5), *sampled_graphs("nasbench201", 5)]
CONFIG = AnytimeConfig(steps=(0, 2), num_examples=64, batch_size=32, tune_batch=32)


def features(data: SearchData) -> ScoreFeatures:
    ghn = GraphHyperNetwork(tiny_config("transformer"), seed=2)
    return ScoreFeatures(AnytimeScorer(ghn, data, CONFIG), proxy_examples=16, num_seeds=3)


def test_columns_are_the_curve_and_the_median_of_each_proxy(few_digits: SearchData) -> None:
    own = features(few_digits)
    rows = own(GRAPHS)
    curves = own.scorer(GRAPHS)
    train = few_digits.train
    batch = Split(train.inputs[:16], train.targets[:16])
    assert rows.shape == (len(GRAPHS), len(own.names))
    for graph, curve, row in zip(GRAPHS, curves, rows, strict=True):
        found = dict(zip(own.names, row, strict=True))
        assert found["minus_loss_0"] == pytest.approx(-curve.losses[0])
        assert found["accuracy_2"] == curve.accuracies[1]
        assert found["minus_training_loss_sum_2"] == pytest.approx(-sum(curve.training_losses))
        for name in own.proxies:
            assert found[name] == sorted(PROXIES[name](graph, batch, seed=seed) for seed in range(3))[1]


def test_the_names_of_columns_are_those_of_the_scores_of_a_curve(few_digits: SearchData) -> None:
    own = features(few_digits)
    (curve,) = own.scorer(GRAPHS[:1])
    assert tuple(curve_scores(curve)) == curve_columns(curve.steps) == own.names[:5]


def test_no_graphs_give_no_rows(few_digits: SearchData) -> None:
    own = features(few_digits)
    assert own([]).shape == (0, len(own.names))


def test_the_consensus_is_the_mean_of_the_ranks_of_its_columns(few_digits: SearchData) -> None:
    own = features(few_digits)
    rows = own(GRAPHS)
    found = ConsensusScorer(own, columns=("nwot", "minus_loss_0"))(GRAPHS)
    chosen = [rows[:, own.names.index(name)] for name in ("nwot", "minus_loss_0")]
    expected = np.mean([scaled_ranks(column) for column in chosen], axis=0)
    np.testing.assert_allclose(found.mean, expected)
    assert found.std is not None


def test_a_predictor_learns_from_the_columns(few_digits: SearchData) -> None:
    predictor = FeaturePredictor(features(few_digits), regressor="ridge")
    targets = torch.linspace(0, 1, len(GRAPHS))
    predictor.fit(GRAPHS, targets)
    assert float((predictor.predict(GRAPHS).mean - targets).abs().mean()) < 0.3


def test_unknown_columns_and_proxies_are_refused(few_digits: SearchData) -> None:
    own = features(few_digits)
    with pytest.raises(UnknownNameError, match=r"No zero-cost proxy named 'nwto'. Close: 'nwot'"):
        ScoreFeatures(own.scorer, proxies=("nwto",))
    with pytest.raises(UnknownNameError, match="No column named 'minus_loss_9'"):
        ConsensusScorer(own, columns=("minus_loss_9",))
