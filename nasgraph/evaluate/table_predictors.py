"""Predictors of rows of a table: what they may see, and how predictors of graphs become such.

Shape letters: R = rows, F = features.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nasgraph.evaluate.table import Table
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.plugins import load_callable, plugin_names
from nasgraph.predict import (
    FeaturePredictor,
    Features,
    NotFittedError,
    Prediction,
    Predictor,
    fit_features,
)
from nasgraph.predict.columns import ColumnScale
from nasgraph.predict.ensemble import Blocks, EnsembleConfig, FittedEnsemble, fit_ensemble
from nasgraph.predict.graph_features import GraphFeatures, NeighbourhoodFeatures
from nasgraph.predict.graph_predictor import check_varied
from nasgraph.predict.surrogate import MIN_LABELS, check_labels

Array = np.ndarray
Rows = Int[Array, " rows"]
GROUP = "nasgraph.predictors"


@dataclass(frozen=True, eq=False)
class TableView:
    """What a predictor may see of a table: graphs, and numbers that stand beside them. No labels.

    Attributes:
        graphs: One per row, each an object of its own, even where two are equal.
        side: Columns that a predictor may look at in every row, such as stored zero-cost proxies; NaN where one is missing.
        side_names: Names of these columns.
    """

    graphs: Sequence[ComputationalGraph]
    side: Float[Array, "rows columns"]
    side_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.graphs)


def view_of(table: Table, rows: Rows, *, side_columns: Sequence[str] = ()) -> TableView:
    """Some rows of a table without their labels; row i of the view is `rows[i]` of the table.

    Raises:
        UnknownNameError: If the table has no column of a name.
        TableError: If a graph is not valid.
    """
    columns = [table.column(name)[rows].astype(np.float64) for name in side_columns]
    side = np.column_stack(columns) if columns else np.zeros((len(rows), 0))
    return TableView([copy.copy(graph) for graph in table.graphs(rows)], side, tuple(side_columns))


@runtime_checkable  # so that the type checker of the tests can look
class RowPredictor(Protocol):
    """Learns from some rows of a view what the others reach. Rows are places in the view."""

    def fit(self, rows: Rows, targets: Float[Tensor, " rows"]) -> None:
        """Learn what some rows reached; higher is better. Raises `ValueError` if there are too few."""

    def predict(self, rows: Rows) -> Prediction:
        """Predict what rows reach, in the units of the targets."""


Seeded = Callable[[int], RowPredictor]
"""Makes a predictor whose random decisions a seed settles. Called once per repetition."""
RowPredictorFactory = Callable[[TableView], Seeded]
"""Prepares for a table what does not depend on labels, such as features; called once per table."""


# ---- predictors of graphs


@dataclass(eq=False)
class RememberedFeatures:
    """Features that are computed once per graph. `Features`.

    Sound because a graph's row depends on the graph alone. Graphs are told apart by object, which is quick; among new ones, equal
    graphs are described once. Holds on to the graphs that it has seen.

    Attributes:
        features: Describes the graphs.
    """

    features: Features
    _rows: dict[int, tuple[ComputationalGraph, Float[Array, " features"]]] = field(
        default_factory=dict, init=False
    )

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row per graph; graphs that have not been seen are described in one batch."""
        new = {id(graph): graph for graph in graphs if id(graph) not in self._rows}
        if new or not graphs:
            distinct = list(dict.fromkeys(new.values()))
            described = self.features(distinct)
            if not graphs:
                return described
            rows = dict(zip(distinct, described, strict=True))
            self._rows |= {key: (graph, rows[graph]) for key, graph in new.items()}
        return np.stack([self._rows[id(graph)][1] for graph in graphs])


@dataclass(frozen=True, eq=False)
class SideFeatures:
    """The side columns of a view as features of its graphs, so that a predictor of graphs can look at them. `Features`.

    Rows are found by the graph object, for two rows may have equal graphs and other numbers. So only graphs of the view,
    passed on untouched, have features.

    Attributes:
        view: Holds the graphs and their numbers.
    """

    view: TableView
    _row_of: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row_of", {id(graph): row for row, graph in enumerate(self.view.graphs)})

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row per graph, one column per side column.

        Raises:
            KeyError: If a graph is not an object of the view.
        """
        return self.view.side[[self._row_of[id(graph)] for graph in graphs]]


@dataclass(frozen=True, eq=False)
class GraphRowPredictor:
    """A predictor of graphs as one of rows. `RowPredictor`.

    Attributes:
        view: Holds the graphs.
        predictor: Is fitted and asked.
    """

    view: TableView
    predictor: Predictor

    def fit(self, rows: Rows, targets: Float[Tensor, " rows"]) -> None:
        """Fit the predictor to the graphs of rows."""
        self.predictor.fit([self.view.graphs[row] for row in rows], targets)

    def predict(self, rows: Rows) -> Prediction:
        """What the predictor says of the graphs of rows."""
        return self.predictor.predict([self.view.graphs[row] for row in rows])


def on_graphs(make: Callable[[int], Predictor]) -> RowPredictorFactory:
    """Use predictors of graphs, which do not look at side columns. `make` gets the seed."""
    return lambda view: lambda seed: GraphRowPredictor(view, make(seed))


def on_features(
    make: Callable[[Features, int], Predictor],
    features_of: Callable[[Sequence[ComputationalGraph]], Features],
) -> RowPredictorFactory:
    """Use predictors that are made of features.

    Args:
        make: Gets the features, joined with the side columns, and the seed.
        features_of: Gets all graphs of a table and chooses their features, such as `GraphFeatures.of`. These are computed once
            per table.
    """

    def prepare(view: TableView) -> Seeded:
        remembered, side = RememberedFeatures(features_of(view.graphs)), SideFeatures(view)
        remembered(view.graphs)

        def joined(graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
            return np.column_stack([remembered(graphs), side(graphs)])

        return lambda seed: GraphRowPredictor(view, make(joined, seed))

    return prepare


# ---- the ensemble


@dataclass(eq=False)
class EnsembleRowPredictor:
    """An ensemble on rows that are described and scaled already. `RowPredictor`.

    Attributes:
        rows: Scaled rows of a view.
        blocks: Which columns belong together.
        config: Settings of the ensemble.
    """

    rows: Float[Array, "rows columns"]
    blocks: Blocks
    config: EnsembleConfig
    _fitted: FittedEnsemble | None = field(default=None, init=False)

    def fit(self, rows: Rows, targets: Float[Tensor, " rows"]) -> None:
        """Learn from at least eight rows with two different targets."""
        check_labels(rows.tolist(), targets)
        check_varied(targets)
        y = targets.double().cpu().numpy()
        self._fitted = fit_ensemble(self.rows[rows], y, self.config, blocks=self.blocks)

    def predict(self, rows: Rows) -> Prediction:
        """Predict rows, with intervals.

        Raises:
            NotFittedError: If `fit` was never called.
        """
        if self._fitted is None:
            raise NotFittedError("Expected 'fit' before 'predict'")
        return self._fitted.predict(self.rows[rows])


def on_ensemble(view: TableView, *, members: tuple[str, ...] = EnsembleConfig().members) -> Seeded:
    """`fit_ensemble` on graph features, neighbourhoods and side columns.

    Kinds of operators and scales of columns come from all rows of the view, whose labels play no part.
    """
    distinct = list(dict.fromkeys(view.graphs))
    place = {graph: index for index, graph in enumerate(distinct)}
    row_of = np.array([place[graph] for graph in view.graphs])
    features, around = GraphFeatures.of(distinct), NeighbourhoodFeatures.of(distinct)
    own = np.column_stack([features(distinct), around(distinct)])[row_of]
    ends = np.cumsum([features.blocks[-1][1], len(around.known), view.side.shape[1]]).tolist()
    blocks = (*features.blocks, (ends[0], ends[1]), (ends[1], ends[2]))
    rows = np.column_stack([own, view.side])
    scale = ColumnScale.of(rows, blocks)
    scaled = scale(rows)
    used = Blocks(scale.blocks[:-1], tuple(block for block in scale.blocks[-1:] if block[1] > block[0]))
    return lambda seed: EnsembleRowPredictor(scaled, used, EnsembleConfig(members=members, seed=seed))


# ---- plain predictors, for comparison


def on_regressor(view: TableView, *, regressor: str) -> Seeded:
    """One of `nasgraph.predict.REGRESSORS` on graph features and side columns."""
    made_up = torch.arange(MIN_LABELS, dtype=torch.float64)
    fit_features(np.eye(MIN_LABELS), made_up, regressor=regressor, seed=0)  # imports what is slow to import

    def make(features: Features, seed: int) -> Predictor:
        return FeaturePredictor(features, regressor=regressor, seed=seed)

    return on_features(make, GraphFeatures.of)(view)


@dataclass(frozen=True, eq=False)
class FixedScorePredictor:
    """Says the same whatever the labels. `RowPredictor`.

    Attributes:
        scores: What it says of every row of a view.
    """

    scores: Float[Array, " rows"]

    def fit(self, rows: Rows, targets: Float[Tensor, " rows"]) -> None:
        """Learn nothing."""

    def predict(self, rows: Rows) -> Prediction:
        """The scores of rows, without a spread."""
        return Prediction(torch.from_numpy(self.scores[rows]))


def on_multiply_adds(view: TableView) -> Seeded:
    """The baseline to beat: more multiply-adds are better, and more nodes where they are equal."""
    costs = [(cost_of(graph).multiply_adds, len(graph)) for graph in view.graphs]
    order = np.unique(np.array(costs), axis=0, return_inverse=True)[1]
    fixed = FixedScorePredictor(order.reshape(-1).astype(np.float64))
    return lambda seed: fixed  # noqa: ARG005  there is nothing to seed


PREDICTORS: Mapping[str, RowPredictorFactory] = {
    "ensemble": on_ensemble,
    "blend": partial(on_regressor, regressor="blend"),
    "trees": partial(on_regressor, regressor="trees"),
    "gaussian_process": partial(on_regressor, regressor="gaussian_process"),
    "ridge": partial(on_regressor, regressor="ridge"),
    "multiply_adds": on_multiply_adds,
}
"""Every predictor of rows by its name. Plug-ins in the entry-point group `nasgraph.predictors` come beside these: callables that
take a seed and return a `Predictor`."""
DEFAULT_PREDICTOR = "ensemble"


def predictor_names() -> tuple[str, ...]:
    """Names of all predictors of rows, plug-ins among them, sorted."""
    return tuple(sorted({*PREDICTORS, *plugin_names(GROUP)}))


def load_predictor(name: str) -> RowPredictorFactory:
    """The predictor of a name.

    Raises:
        UnknownNameError: If there is none; the message offers close ones.
        NasGraphError: If a plug-in cannot be called.
    """
    if name in PREDICTORS:
        return PREDICTORS[name]
    return on_graphs(load_callable(GROUP, name, kind="predictor", called_with="a seed", shipped=PREDICTORS))
