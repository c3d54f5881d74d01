"""What a graph hypernetwork and zero-cost proxies say of graphs, as columns to combine.

`mean_of_ranks` combines the columns without labels, a `FeaturePredictor` or `StackedPredictor` with some.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nasgraph.data import Split
from nasgraph.errors import UnknownNameError
from nasgraph.evaluate.anytime import AnytimeScorer, TuningCurve
from nasgraph.ir import ComputationalGraph
from nasgraph.predict import Prediction, mean_of_ranks, proxy_scores
from nasgraph.predict.zero_cost import load_proxy

Array = np.ndarray


@dataclass(frozen=True)
class ScoreFeatures:
    """Describes graphs by their scores with predicted weights and by zero-cost proxies. `nasgraph.predict.Features`.

    Higher is better in every column. A graph's row does not depend on the others.

    Attributes:
        scorer: Gives the curve of every graph. Its `steps` decide the columns, see `curve_columns`.
        proxies: Names in `nasgraph.predict.PROXIES`, or of plug-ins.
        proxy_examples: Training examples that the proxies look at.
        seed: First seed of the proxies' random weights.
        num_seeds: Draws of these weights, see `proxy_scores`.

    Raises:
        UnknownNameError: If there is no proxy of a name.
    """

    scorer: AnytimeScorer
    proxies: tuple[str, ...] = ("num_parameters", "multiply_adds", "synflow", "nwot", "jacov")
    proxy_examples: int = 64
    seed: int = 0
    num_seeds: int = 3

    def __post_init__(self) -> None:
        for name in self.proxies:
            load_proxy(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return (*curve_columns(self.scorer.config.steps), *self.proxies)

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row per graph, one column per name."""
        train = self.scorer.data.train
        batch = Split(train.inputs[: self.proxy_examples], train.targets[: self.proxy_examples])
        curves = [curve_scores(curve) for curve in self.scorer(graphs)]
        found = proxy_scores(graphs, batch, names=self.proxies, seed=self.seed, num_seeds=self.num_seeds)
        rows = [{**curve, **scores} for curve, scores in zip(curves, found, strict=True)]
        return np.array([[row[name] for name in self.names] for row in rows]).reshape(-1, len(self.names))


@dataclass(frozen=True)
class ConsensusScorer:
    """Ranks graphs without any label: the mean of their ranks in some columns of `features`. A `nasgraph.predict.Scorer`.

    Depends on the company, see `mean_of_ranks`: score all candidates in one call.

    Attributes:
        features: Scores the graphs.
        columns: Names of the columns that count, each once.

    Raises:
        UnknownNameError: If `features` has no column of a name.
    """

    features: ScoreFeatures
    columns: tuple[str, ...] = ("num_parameters", "nwot", "jacov", "minus_loss_0")

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in self.features.names:
                raise UnknownNameError("column", name, self.features.names)

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Mean and spread of the ranks, in (0, 1); the best near 1."""
        rows = self.features(graphs)
        return mean_of_ranks([rows[:, self.features.names.index(name)] for name in self.columns])


def curve_columns(steps: Sequence[int]) -> tuple[str, ...]:
    """Names of what `curve_scores` gives for curves of these steps."""
    return tuple(
        name
        for k in steps
        for name in (f"minus_loss_{k}", f"accuracy_{k}", *([f"minus_training_loss_sum_{k}"] if k else []))
    )


def curve_scores(curve: TuningCurve) -> dict[str, float]:
    """A curve as scores of which higher is better, by name and steps: validation loss and accuracy, training loss."""
    scores = {}
    for k, loss, accuracy in zip(curve.steps, curve.losses, curve.accuracies, strict=True):
        scores[f"minus_loss_{k}"], scores[f"accuracy_{k}"] = -loss, accuracy
        if k:
            scores[f"minus_training_loss_sum_{k}"] = -curve.training_loss_sum(k)
    return scores
