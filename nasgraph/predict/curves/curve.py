"""What is known of a learning curve so far, and the scale on which it is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from nasgraph.errors import NasGraphError

Array = np.ndarray
Direction = Literal["maximize", "minimize"]
Number = float | int  # the type checker of the tests takes `float` at its word


class CurveError(NasGraphError, ValueError):
    """A learning curve that cannot be read: too short, not finite, out of its range, or out of order."""


@dataclass(frozen=True, slots=True)
class CurveScale:
    """Turns a metric into a number in [0, 1] where 1 is the best possible, and back.

    The map is linear: `(value - worst) / (best - worst)`. For an accuracy that is the accuracy itself. For a loss it is the
    share of the way from `worst` (what a model reaches that knows nothing, such as the logarithm of the number of classes)
    to `best` (0, or a known lower bound). A loss above `worst`, which the first steps of a training often have, counts
    as `worst`; everything else outside the range is an error, for it means that the scale is not that of the metric.

    Attributes:
        worst: Value that becomes 0.
        best: Value that becomes 1. Below `worst` for metrics that fall.

    Raises:
        CurveError: If a bound is not finite, or both are equal.
    """

    worst: Number = 0.0
    best: Number = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.worst) and math.isfinite(self.best)) or self.worst == self.best:
            raise CurveError(
                f"Expected two different finite bounds of the metric (got worst={self.worst}, best={self.best})"
            )

    @property
    def direction(self) -> Direction:
        """Whether the metric is to rise or to fall."""
        return "maximize" if self.best > self.worst else "minimize"

    def normalised(self, values: Sequence[Number] | Float[Array, " values"]) -> Float[Array, " values"]:
        """Values on the scale from 0 to 1.

        Raises:
            CurveError: If a value is not finite or outside the range.
        """
        raw = np.asarray(values, dtype=float)
        if not np.isfinite(raw).all():
            place = int(np.flatnonzero(~np.isfinite(raw))[0])
            raise CurveError(f"Expected finite values in the curve (got {raw[place]} at position {place})")
        scaled = (raw - self.worst) / (self.best - self.worst)
        if self.direction == "minimize":
            scaled = np.maximum(scaled, 0.0)
        if (outside := (scaled < -1e-9) | (scaled > 1 + 1e-9)).any():
            low, high = sorted((self.worst, self.best))
            place = int(np.flatnonzero(outside)[0])
            raise CurveError(
                f"Expected values between {low:g} and {high:g}, the range of the scale (got {raw[place]:g} at position "
                f"{place}). Give the scale of this metric: CurveScale(worst=..., best=...)"
            )
        inside: Array = np.clip(scaled, 0.0, 1.0)
        return inside

    def restored(self, scaled: Float[Array, " values"]) -> Float[Array, " values"]:
        """Values in the units of the metric."""
        return self.worst + scaled * (self.best - self.worst)


ACCURACY = CurveScale(worst=0.0, best=1.0)
"""Shares in [0, 1], higher is better."""

PERCENT = CurveScale(worst=0.0, best=100.0)
"""Percentages, higher is better."""


def loss_scale(worst: Number, *, best: Number = 0.0) -> CurveScale:
    """The scale of a metric that falls from `worst` (knowing nothing) towards `best`.

    Raises:
        CurveError: If `worst` is not above `best`.
    """
    if not worst > best:
        raise CurveError(f"Expected 'worst' of a loss above 'best' (got {worst} and {best})")
    return CurveScale(worst=worst, best=best)


def scale_for(direction: str, *, worst: Number, best: Number) -> CurveScale:
    """A scale whose direction is stated, so that swapped bounds are noticed.

    Raises:
        CurveError: If the direction is unknown, or the bounds run the other way.
    """
    if direction not in get_args(Direction):
        raise CurveError(f"Expected 'direction' to be 'maximize' or 'minimize' (got {direction!r:.40})")
    scale = CurveScale(worst=worst, best=best)
    if scale.direction != direction:
        raise CurveError(
            f"Expected 'best' {'above' if direction == 'maximize' else 'below'} 'worst' to {direction} "
            f"(got worst={worst:g} and best={best:g})"
        )
    return scale


@dataclass(frozen=True, slots=True)
class PartialCurve:
    """A learning curve as far as it is known.

    Attributes:
        values: The metric in its own units, in order of time; at least one, all finite and within the scale.
        horizon: Steps of a whole training, in the unit of `steps`.
        steps: When each value was measured: above zero, rising, at most the horizon. Empty: 1, 2, 3, ...
        scale: The range of the metric.

    Raises:
        CurveError: If anything is otherwise.
    """

    values: tuple[Number, ...]
    horizon: Number
    steps: tuple[Number, ...] = ()
    scale: CurveScale = ACCURACY

    def __post_init__(self) -> None:
        if not self.values:
            raise CurveError("Expected at least one value of the curve (got none)")
        if not self.steps:
            object.__setattr__(self, "steps", tuple(float(i + 1) for i in range(len(self.values))))
        if len(self.steps) != len(self.values):
            raise CurveError(
                f"Expected one step per value (got {len(self.steps)} steps and {len(self.values)} values)"
            )
        if not (math.isfinite(self.horizon) and self.horizon > 0):
            raise CurveError(f"Expected a finite 'horizon' above 0 (got {self.horizon})")
        steps = np.asarray(self.steps, dtype=float)
        if not (np.isfinite(steps).all() and steps[0] > 0 and (np.diff(steps) > 0).all()):
            raise CurveError("Expected steps above 0 that rise")
        if steps[-1] > self.horizon:
            raise CurveError(
                f"Expected steps of at most the horizon {self.horizon:g} (got {steps[-1]:g}). "
                "Give the length of the whole training"
            )
        self.scale.normalised(self.values)

    @property
    def times(self) -> Float[Array, " points"]:
        """When each value was measured, as a share of the horizon in (0, 1]."""
        return np.asarray(self.steps, dtype=float) / self.horizon

    @property
    def heights(self) -> Float[Array, " points"]:
        """The values on the scale from 0 to 1, where 1 is best."""
        return self.scale.normalised(self.values)

    def target_time(self, step: Number | None) -> float:
        """The share of the horizon at which a prediction is asked for; None means the end.

        Raises:
            CurveError: If the step is already observed, or beyond the horizon.
        """
        wanted = self.horizon if step is None else step
        if not self.steps[-1] < wanted <= self.horizon:
            raise CurveError(
                f"Expected a step above {self.steps[-1]:g}, the last one observed, and at most the horizon "
                f"{self.horizon:g} (got {wanted:g})"
            )
        return wanted / self.horizon
