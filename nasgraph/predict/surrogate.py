"""Surrogates: predictors that learn from features of graphs.

Shape letters: G = graphs, F = features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.encode import batch_graphs
from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.prediction import NotFittedError, Prediction, Predictor
from nasgraph.predict.ranks import NormalScores
from nasgraph.predict.regressors import REGRESSORS
from nasgraph.seeding import derive_seed, generator

Array = np.ndarray
Features = Callable[[Sequence[ComputationalGraph]], Float[Array, "graphs features"]]
"""Describes graphs by numbers, one row each, columns always the same. NaN and infinities are allowed; a graph's row does
not depend on the others."""

MIN_LABELS = 8
EMBED_BATCH = 64


@dataclass(frozen=True)
class EmbeddingFeatures:
    """Describes graphs by the mean node state of a graph hypernetwork: `GraphHyperNetwork.embed`. `Features`.

    Attributes:
        ghn: Reads the graphs. Not changed.
    """

    ghn: GraphHyperNetwork

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row of `ghn.config.dim` numbers per graph."""
        parts = [graphs[start : start + EMBED_BATCH] for start in range(0, len(graphs), EMBED_BATCH)]
        with torch.no_grad():
            rows = [self.ghn.embed(batch_graphs(part).to(self.ghn.device)) for part in parts]
        if not rows:
            return np.zeros((0, self.ghn.config.dim))
        joined: Array = torch.cat(rows).cpu().double().numpy()
        return joined


@dataclass(eq=False)
class FeaturePredictor(Predictor):
    """Learns performance from features of graphs; with `EmbeddingFeatures` it is a performance head of the hypernetwork.

    Features and targets are replaced by the normal quantiles of their ranks among the labelled graphs, so that neither
    units nor outliers matter. Predictions come back in the units of the targets.

    Args:
        features: Describes the graphs.
        regressor: A name in `REGRESSORS`.
        seed: Seed of the regressor, if it draws anything.

    Raises:
        UnknownNameError: If there is no such regressor.
    """

    features: Features
    regressor: str = "blend"
    seed: int = 0
    _fitted: Callable[[Float[Array, "graphs features"]], Prediction] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.regressor not in REGRESSORS:
            raise UnknownNameError("regressor", self.regressor, REGRESSORS)

    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from at least eight graphs."""
        check_labels(graphs, targets)
        self._fitted = fit_features(self.features(graphs), targets, regressor=self.regressor, seed=self.seed)

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict; the spread is the regressor's own."""
        if self._fitted is None:
            raise NotFittedError("Expected 'fit' before 'predict'")
        return self._fitted(self.features(graphs))


@dataclass(eq=False)
class StackedPredictor(Predictor):
    """Combines features with what other predictors say (stacked generalisation, Wolpert 1992).

    The regressor must learn how far to trust a member on graphs that the member has not seen. So it is fitted to the
    members' predictions for labelled graphs that were left out of their fit, fold by fold; then the members are fitted
    to all labels.

    Args:
        features: Describes the graphs: scores of a hypernetwork, proxies, sizes.
        members: Further predictors; fitted here.
        regressor: A name in `REGRESSORS`.
        num_folds: Parts into which the labelled graphs are divided.
        seed: Decides the division.

    Raises:
        ConfigError: If there are fewer than two folds.
        UnknownNameError: If there is no such regressor.
    """

    features: Features
    members: Sequence[Predictor]
    regressor: str = "blend"
    num_folds: int = 5
    seed: int = 0
    _fitted: Callable[[Float[Array, "graphs features"]], Prediction] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ConfigError(f"Expected 'num_folds' of at least 2 (got {self.num_folds})")
        if self.regressor not in REGRESSORS:
            raise UnknownNameError("regressor", self.regressor, REGRESSORS)

    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from enough graphs that eight are left when a fold is taken out."""
        check_labels(graphs, targets)
        left_out = [self._left_out(member, graphs, targets) for member in self.members]
        columns = np.column_stack([self.features(graphs), *left_out])
        self._fitted = fit_features(
            columns, targets, regressor=self.regressor, seed=derive_seed(self.seed, "regressor")
        )
        for member in self.members:
            member.fit(graphs, targets)

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict; the spread is the regressor's own."""
        if self._fitted is None:
            raise NotFittedError("Expected 'fit' before 'predict'")
        said = [member.predict(graphs).mean.double().numpy() for member in self.members]
        return self._fitted(np.column_stack([self.features(graphs), *said]))

    def _left_out(
        self, member: Predictor, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]
    ) -> Float[Array, " graphs"]:
        """What a member says of each labelled graph when its fold is left out."""
        order = generator(self.seed, "folds").permutation(len(graphs))
        result = np.empty(len(graphs))
        for fold in np.array_split(order, self.num_folds):
            rest = np.setdiff1d(order, fold)
            member.fit([graphs[i] for i in rest], targets[torch.from_numpy(rest)])
            result[fold] = member.predict([graphs[i] for i in fold]).mean.double().numpy()
        return result


def check_labels(graphs: Sequence[object], targets: Float[Tensor, " labels"]) -> None:
    """Raise `ValueError` unless there is one finite target per graph, and at least eight."""
    if len(graphs) != len(targets):
        raise ValueError(f"Expected one target per graph (got {len(targets)} for {len(graphs)})")
    if len(graphs) < MIN_LABELS:
        raise ValueError(f"Expected at least {MIN_LABELS} labelled graphs (got {len(graphs)})")
    if not bool(targets.isfinite().all()):
        raise ValueError("Expected finite targets. Leave graphs out that could not be measured")


def fit_features(
    features: Float[Array, "graphs features"], targets: Float[Tensor, " graphs"], *, regressor: str, seed: int
) -> Callable[[Float[Array, "others features"]], Prediction]:
    """Fit a regressor to normal scores of features and targets; return what predicts in the units of the targets."""
    scales = [NormalScores.of(column) for column in features.T]
    target_scale = NormalScores.of(targets.double().cpu().numpy())

    def scaled(rows: Float[Array, "others features"]) -> Float[Array, "others features"]:
        return np.column_stack([scale(column) for scale, column in zip(scales, rows.T, strict=True)])

    model = REGRESSORS[regressor](scaled(features), target_scale(targets.double().cpu().numpy()), seed=seed)

    def predict(rows: Float[Array, "others features"]) -> Prediction:
        mean, std = model(scaled(rows))
        low, high = target_scale.inverse(mean - std), target_scale.inverse(mean + std)
        return Prediction(torch.from_numpy(target_scale.inverse(mean)), torch.from_numpy((high - low) / 2))

    return predict
