"""The predictor for any space: graph features, what else is known of the graphs, and an ensemble over both.

Shape letters: G = graphs, F = columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.columns import ColumnScale, Familiarity
from nasgraph.predict.ensemble import Blocks, EnsembleConfig, FittedEnsemble, fit_ensemble
from nasgraph.predict.graph_features import GraphFeatures
from nasgraph.predict.prediction import NotFittedError, Prediction, Predictor
from nasgraph.predict.surrogate import Features, check_labels

Array = np.ndarray
MAX_NAMED = 3


@dataclass(frozen=True)
class Warned:
    """What to know before a prediction is believed.

    Attributes:
        distance: Distance to the nearest labelled graph, as a multiple of what 99 in 100 labelled graphs have to theirs.
        outside: Names of columns that lie outside of what labelled graphs show, the farthest first.
    """

    distance: float
    outside: tuple[str, ...]

    @property
    def is_far(self) -> bool:
        """Whether the graph is unlike the labelled ones, so that the interval promises nothing."""
        return self.distance > 1


@dataclass(eq=False)
class GraphPredictor(Predictor):
    """Learns performance from the features of graphs of any space, with intervals.

    Columns are ranked within the pool, so neither units nor outliers matter; the pool sees no labels. Targets must not be
    all equal.

    Args:
        pool: Graphs that the kinds of operators and the scales of the columns are taken from: the space, or a sample of
            it. If there are none, the labelled graphs serve.
        further: Other descriptions of graphs, such as zero-cost scores or embeddings, each a block of its own.
        universal: Describe graphs in words that all spaces share, see `GraphFeatures.universal`. For graphs of several
            spaces, or of a space that was never seen.
        config: Settings of the ensemble.

    Raises:
        ConfigError: If `universal` and a pool are given: the shared words need no pool, and the scales of a pool would
            not fit other spaces.
    """

    pool: Sequence[ComputationalGraph] = ()
    further: Sequence[Features] = ()
    universal: bool = False
    config: EnsembleConfig = field(default_factory=EnsembleConfig)
    _features: GraphFeatures | None = field(default=None, init=False)
    _scale: ColumnScale | None = field(default=None, init=False)
    _ensemble: FittedEnsemble | None = field(default=None, init=False)
    _familiarity: Familiarity | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.universal and self.pool:
            raise ConfigError("Expected a pool or 'universal', not both")

    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from at least eight graphs with two different targets, which the columns can tell apart."""
        check_labels(graphs, targets)
        check_varied(targets)
        pool = self.pool or graphs
        features = GraphFeatures.universal() if self.universal else GraphFeatures.of(pool)
        parts: list[Features] = [features, *self.further]
        described = [part(graphs) for part in parts]
        rows = np.column_stack(described)
        pool_rows = np.column_stack([part(pool) for part in parts]) if self.pool else rows
        ends = np.cumsum([len(features.names), *(each.shape[1] for each in described[1:])]).tolist()
        scale = ColumnScale.of(pool_rows, (*features.blocks, *pairwise(ends)))
        own = len(features.blocks)
        blocks = Blocks(scale.blocks[:own], scale.blocks[own:])
        y = targets.double().cpu().numpy()
        self._ensemble = fit_ensemble(scale(rows), y, self.config, blocks=blocks)
        self._features, self._scale, self._familiarity = features, scale, Familiarity.of(rows)

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict, with intervals that hold `config.level` of graphs drawn as the labelled ones were."""
        if self._ensemble is None or self._scale is None:
            raise NotFittedError("Expected 'fit' before 'predict'")
        return self._ensemble.predict(self._scale(self._rows(graphs)))

    def left_out(self) -> Prediction:
        """What would have been predicted of each labelled graph without its label: how good the predictor is.

        Raises:
            NotFittedError: If `fit` was never called.
        """
        if self._ensemble is None:
            raise NotFittedError("Expected 'fit' before 'left_out'")
        return self._ensemble.left_out

    def warnings(self, graphs: Sequence[ComputationalGraph]) -> list[Warned]:
        """How unlike the labelled graphs each graph is.

        Raises:
            NotFittedError: If `fit` was never called.
        """
        if self._familiarity is None or self._features is None:
            raise NotFittedError("Expected 'fit' before 'warnings'")
        rows = self._rows(graphs)
        named = len(self._features.names)
        return [
            Warned(float(distance), tuple(self._features.names[c] for c in columns if c < named)[:MAX_NAMED])
            for distance, columns in zip(
                self._familiarity.distance(rows), self._familiarity.outside(rows), strict=True
            )
        ]

    def _rows(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs columns"]:
        assert self._features is not None
        return np.column_stack([self._features(graphs), *(each(graphs) for each in self.further)])


def check_varied(targets: Float[Tensor, " labels"]) -> None:
    """Raise `ValueError` if all targets are equal."""
    if bool((targets == targets[0]).all()):
        raise ValueError(f"All {len(targets)} targets are {float(targets[0]):.6g}: there is nothing to learn")
