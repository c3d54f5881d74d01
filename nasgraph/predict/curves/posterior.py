"""What a prediction of a learning curve is, and who makes it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nasgraph.predict.curves.curve import CurveScale, Number, PartialCurve

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class CurvePosterior:
    """The distribution of one future value: a bar chart, uniform within each bar (the Riemann distribution of Mueller et
    al. 2022, "Transformers can do Bayesian inference", section 4).

    Attributes:
        borders: Ends of the bars in the units of the metric, rising. Nothing lies outside.
        probabilities: Mass of each bar; they sum to one.

    Raises:
        ValueError: If the counts do not fit, borders do not rise, or the masses are negative or do not sum to one.
    """

    borders: Float[Array, " borders"]
    probabilities: Float[Array, " bars"]

    def __post_init__(self) -> None:
        if len(self.borders) != len(self.probabilities) + 1:
            raise ValueError(
                f"Expected one border more than bars (got {len(self.borders)} and {len(self.probabilities)})"
            )
        if not (np.diff(self.borders) > 0).all():
            raise ValueError("Expected borders that rise")
        if not (self.probabilities >= 0).all() or abs(self.probabilities.sum() - 1) > 1e-6:
            raise ValueError(
                f"Expected masses that sum to one (got a sum of {float(self.probabilities.sum()):.6g})"
            )

    @property
    def mean(self) -> float:
        """The expected value."""
        return float(self.probabilities @ self._centres)

    @property
    def std(self) -> float:
        """The standard deviation, that within the bars included."""
        within = np.diff(self.borders) ** 2 / 12
        return float(np.sqrt(self.probabilities @ ((self._centres - self.mean) ** 2 + within)))

    @property
    def median(self) -> float:
        """The value that is passed with probability one half."""
        return self.quantile(0.5)

    def quantile(self, share: Number) -> float:
        """The value below which a share of the mass lies.

        Raises:
            ValueError: If the share is outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise ValueError(f"Expected a share between 0 and 1 (got {share})")
        below, filled = self._cumulative, np.flatnonzero(self.probabilities)
        bar = filled[min(int(np.searchsorted(below[filled + 1], share)), len(filled) - 1)]
        part = np.clip((share - below[bar]) / self.probabilities[bar], 0.0, 1.0)
        return float(self.borders[bar] + part * (self.borders[bar + 1] - self.borders[bar]))

    def interval(self, coverage: float = 0.9) -> tuple[float, float]:
        """The central interval that holds a share of the mass."""
        return self.quantile((1 - coverage) / 2), self.quantile((1 + coverage) / 2)

    def probability_below(self, threshold: Number) -> float:
        """The probability that the value lies below a threshold."""
        return float(np.interp(threshold, self.borders, self._cumulative))

    def probability_above(self, threshold: Number) -> float:
        """The probability that the value lies above a threshold."""
        return 1.0 - self.probability_below(threshold)

    def log_density(self, value: Number) -> float:
        """Natural logarithm of the density at a value, in units of the metric; minus infinity where there is no mass."""
        bar = int(np.searchsorted(self.borders, value, side="right")) - 1
        if value == self.borders[-1]:
            bar -= 1
        if not 0 <= bar < len(self.probabilities) or self.probabilities[bar] == 0:
            return float("-inf")
        return float(np.log(self.probabilities[bar] / (self.borders[bar + 1] - self.borders[bar])))

    def in_units(self, scale: CurveScale) -> "CurvePosterior":
        """This distribution over [0, 1] in the units of a metric."""
        borders = scale.restored(self.borders)
        if scale.direction == "minimize":
            return CurvePosterior(borders[::-1].copy(), self.probabilities[::-1].copy())
        return CurvePosterior(borders, self.probabilities)

    @property
    def _centres(self) -> Float[Array, " bars"]:
        centres: Array = (self.borders[1:] + self.borders[:-1]) / 2
        return centres

    @property
    def _cumulative(self) -> Float[Array, " borders"]:
        return np.concatenate([[0.0], np.cumsum(self.probabilities)])


class CurvePredictor(ABC):
    """Extrapolates learning curves.

    `predict` changes nothing and draws nothing: equal curves give equal answers on one machine, whatever else is in the
    call. Implementations hold their knowledge from the start (a prior, trained weights); there is no `fit`.
    """

    @abstractmethod
    def predict(self, curves: Sequence[PartialCurve], *, step: Number | None = None) -> list[CurvePosterior]:
        """The distribution of the value that will be measured at `step`, for each curve, in the units of its metric.

        Args:
            curves: Curves as far as they are known.
            step: When; None means each curve's horizon.

        Raises:
            CurveError: If a curve is already known at that step, or the step is beyond the horizon.
        """
