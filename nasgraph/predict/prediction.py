"""What a prediction of performance is, and who makes it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph


class NotFittedError(NasGraphError, RuntimeError):
    """A predictor was asked before it had seen any labels."""


@dataclass(frozen=True)
class Prediction:
    """Scores of some graphs. A predictor never returns a bare number.

    Attributes:
        mean: The score of each graph, in the units of the targets that the predictor was fitted to. Higher is better.
        std: How far off it may be (one standard deviation, same units); None if the predictor cannot tell.
    """

    mean: Float[Tensor, " graphs"]
    std: Float[Tensor, " spreads"] | None = None

    def __post_init__(self) -> None:
        if self.std is not None and self.std.shape != self.mean.shape:
            raise ValueError(
                f"Expected one 'std' per 'mean' (got {tuple(self.std.shape)} and {tuple(self.mean.shape)})"
            )

    def __len__(self) -> int:
        return len(self.mean)


Scorer = Callable[[Sequence[ComputationalGraph]], Prediction]
"""Scores graphs in batches, in their order."""


class Predictor(ABC):
    """Learns from measured graphs what others will reach.

    `fit` may be called again, with other labels; it forgets what it knew. Equal calls give equal predictions on one
    machine. Graphs and targets are never changed. Called by one thread at a time.
    """

    @abstractmethod
    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from graphs and what they reached; higher is better.

        Raises:
            ValueError: If counts differ, there are too few graphs, or a target is not finite.
        """

    @abstractmethod
    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict what graphs would reach, in the units of the targets. Fitted graphs may be among them.

        Raises:
            NotFittedError: If `fit` was never called.
        """
