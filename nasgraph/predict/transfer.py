"""From a predictor that knows other spaces to one that knows this space, with few labels.

Shape letters: G = graphs, L = labelled graphs, F = features, S = scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.graph_network import Description, PathFeatures, PretrainedPredictor, fit_process
from nasgraph.predict.prediction import NotFittedError, Prediction, Predictor
from nasgraph.predict.ranks import NormalScores
from nasgraph.predict.surrogate import Features, check_labels
from nasgraph.seeding import generator

Array = np.ndarray
Rows = Float[Array, "graphs _"]

MAX_LABELS = 1000
LEAST_SPREAD = 0.05
CHUNK = 2048
BELIEFS = (0.0, -1.0, -1.0, -3.0, -1.5)
"""Logarithm of how likely each known score is the one to build on: the base, its halves, multiply-adds, base and multiply-adds."""
_MULTIPLY_ADDS = PathFeatures().names.index("multiply-adds")


@dataclass(eq=False)
class TransferPredictor(Predictor):
    """Predicts performance in a new space from few labels and a base that was pre-trained on others.

    The base is frozen. Its scores are the prior mean of a Gaussian process over path features, embeddings of the base and further
    features (`fit_process`): with ten labels the prediction stays near the base, with hundreds it is that of the labels. The
    multiply-adds of a graph stand among the known scores, by themselves and together with the base, so that labels can
    choose them if the base is no good here. Every setting has the weight of its marginal
    likelihood and of a fixed prior that leans on the base (`BELIEFS`); nothing is tuned.

    This is the frozen base with an adapter of AIO-P (Mills et al., "AIO-P: Expanding Neural Performance Predictors Beyond
    Image Classification", 2023) with the adapter replaced by a Gaussian process. Tuning the weights of the base instead is
    `GraphNetworkPredictor(start=base.networks, tuning=...)`. (GENNAPE, Mills et al., "GENNAPE: Towards Generalized Neural
    Architecture Performance Estimators", 2023, is the reference for zero-shot transfer between families of cells.)

    Predictions without any label are `base(graphs)`.

    Args:
        base: Frozen; not changed.
        features: Further columns, such as `GraphFeatures`: what this space has that others lack.
        seed: Decides which labels are kept if there are more than a thousand.
    """

    base: PretrainedPredictor
    features: Features | None = None
    seed: int = 0
    _fitted: Callable[[Description, Rows], Prediction] | None = field(default=None, init=False)

    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from at least eight graphs; of more than a thousand, a thousand are drawn."""
        check_labels(graphs, targets)
        kept = np.sort(generator(self.seed, "labels").permutation(len(graphs))[:MAX_LABELS])
        chosen = [graphs[row] for row in kept]
        self._fitted = fit_transfer(
            self.base.describe(chosen), self._further(chosen), targets[torch.from_numpy(kept)]
        )

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict in the units of the targets; the spread holds the noise of the labels."""
        if self._fitted is None:
            raise NotFittedError("Expected 'fit' before 'predict'. Without labels, call 'base'")
        return self._fitted(self.base.describe(graphs), self._further(graphs))

    def _further(self, graphs: Sequence[ComputationalGraph]) -> Rows:
        return np.zeros((len(graphs), 0)) if self.features is None else self.features(graphs)


def fit_transfer(
    labelled: Description, further: Float[Array, "rows _"], targets: Float[Tensor, " labels"]
) -> Callable[[Description, Rows], Prediction]:
    """Fit to labelled graphs that a base has described; return what predicts for other descriptions.

    Args:
        labelled: What the base says of the labelled graphs.
        further: More columns of them, at any scale, NaN allowed; may have no columns.
        targets: What they reached; higher is better.

    Raises:
        ConfigError: If counts differ.
    """
    if not len(labelled) == len(further) == len(targets):
        raise ConfigError(
            f"Expected as many descriptions, rows and targets (got {len(labelled)}, {len(further)} and {len(targets)})"
        )
    values = targets.double().cpu().numpy()
    scale, view = NormalScores.of(values), _View.of(labelled, further)
    process = fit_process(
        view.blocks(labelled, further), view.scores(labelled), scale(values), beliefs=BELIEFS
    )

    def predict(graphs: Description, more: Float[Array, "graphs _"]) -> Prediction:
        means, stds = [np.zeros(0)], [np.zeros(0)]
        for start in range(0, len(graphs), CHUNK):  # kernels of all pairs would not fit
            part = graphs.rows(range(start, min(start + CHUNK, len(graphs))))
            mean, std = process(view.blocks(part, more[start : start + CHUNK]), view.scores(part))
            means.append(mean)
            stds.append(std)
        mean, std = np.concatenate(means), np.concatenate(stds)
        low, high = scale.inverse(mean - std), scale.inverse(mean + std)
        return Prediction(torch.from_numpy(scale.inverse(mean)), torch.from_numpy((high - low) / 2))

    return predict


@dataclass(frozen=True)
class _View:
    """Descriptions in units of the labelled graphs, as the process wants them."""

    columns: "_Scale"
    embedding: "_Scale"
    further: tuple[NormalScores, ...]
    known: "_Scale"
    both: "_Scale"

    @staticmethod
    def of(labelled: Description, further: Rows) -> "_View":
        known = _Scale.of(_known_scores(labelled))
        return _View(
            _Scale.of(labelled.columns_GK),
            _Scale.of(labelled.embedding_GD),
            tuple(NormalScores.of(column) for column in further.T),
            known,
            _Scale.of(_both(known(_known_scores(labelled)))),
        )

    def blocks(self, graphs: Description, further: Rows) -> list[Rows]:
        """Features to compare: path features, embeddings, further columns; without those that do not exist."""
        ranked = [scale(column) for scale, column in zip(self.further, further.T, strict=True)]
        found = [self.columns(graphs.columns_GK), self.embedding(graphs.embedding_GD), *_stacked(ranked)]
        return [block for block in found if block.shape[1]]

    def scores(self, graphs: Description) -> Rows:
        """Scores that need no labels, near unit variance."""
        alone = self.known(_known_scores(graphs))
        return np.concatenate([alone, self.both(_both(alone))], axis=1)


def _stacked(columns: Sequence[Float[Array, " graphs"]]) -> list[Rows]:
    return [np.stack(columns, axis=1)] if columns else []


def _known_scores(graphs: Description) -> Rows:
    """Scores that need no labels: the base, its halves, and multiply-adds."""
    base = graphs.zero_shot().mean.numpy()
    size = graphs.columns_GK[:, _MULTIPLY_ADDS]
    return np.stack([base, graphs.path_score_G, graphs.network_score_G, size], axis=1)


def _both(known: Rows) -> Rows:
    """The base and the multiply-adds together."""
    result: Array = (known[:, :1] + known[:, 3:]) / 2
    return result


@dataclass(frozen=True)
class _Scale:
    """Standardises columns as they are spread among the labelled graphs; constant ones stay near zero."""

    centre: Float[Array, " features"]
    unit: Float[Array, " features"]

    @staticmethod
    def of(rows: Float[Array, "labels features"]) -> "_Scale":
        return _Scale(rows.mean(axis=0), np.maximum(rows.std(axis=0), LEAST_SPREAD))

    def __call__(self, rows: Float[Array, "graphs features"]) -> Rows:
        result: Array = (rows - self.centre) / self.unit
        return result
