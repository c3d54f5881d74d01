"""What a prediction of performance is, and who makes it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

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
        low: Lower end of an interval that shall hold the truth with probability `level`; None if there is none better
            than what `interval` makes of `std`.
        high: Its upper end. The two need not lie at equal distances from the mean.
        level: Probability of the interval.
    """

    mean: Float[Tensor, " graphs"]
    std: Float[Tensor, " spreads"] | None = None
    low: Float[Tensor, " lows"] | None = None
    high: Float[Tensor, " highs"] | None = None
    level: float = 0.9

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("Expected both ends of the interval, or none")
        for name, value in (("std", self.std), ("low", self.low), ("high", self.high)):
            if value is not None and value.shape != self.mean.shape:
                raise ValueError(
                    f"Expected one '{name}' per 'mean' (got {tuple(value.shape)} and {tuple(self.mean.shape)})"
                )

    def interval(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Both ends of the interval of probability `level`: the predictor's own, or a normal one from `std`.

        Raises:
            ValueError: If the predictor gave neither.
        """
        if self.low is not None and self.high is not None:
            return self.low, self.high
        if self.std is None:
            raise ValueError("This prediction has no spread, so it has no interval")
        width = NormalDist().inv_cdf((1 + self.level) / 2) * self.std
        return self.mean - width, self.mean + width

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
