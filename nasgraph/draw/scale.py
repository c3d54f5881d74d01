"""Axes: where a value lies, and which values get a label."""

import math
from dataclasses import dataclass, replace

_MAX_TICKS = 6
_LEAST, _SHORTEST = 1e-200, 1e-12
"""Smallest highest value of a logarithmic axis, and its lowest as a share of its highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Turns values into places.

    Attributes:
        low: Value at `start`.
        high: Value at `end`, above `low`.
        start: Place of `low`.
        end: Place of `high`.
        is_log: Whether equal factors, not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; also of one that lies outside."""
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def can_show(self, value: float) -> bool:
        """Whether a value has a place."""
        return math.isfinite(value) and (value > 0 or not self.is_log)

    def clamped(self, value: float) -> float:
        """The place of a value, or of the end of the axis if it has none."""
        return self(value) if self.can_show(value) else self(self.low)

    def placed(self, *, start: float, end: float) -> "Scale":
        """The same axis elsewhere."""
        return replace(self, start=start, end=end)


def scale_of(
    low: float, high: float, *, start: float, end: float, is_log: bool = False, margin: float = 0.0
) -> Scale:
    """An axis that shows all values from `low` to `high`, with a margin as a share of its length.

    Equal ends are moved apart. A logarithmic axis shows twelve powers of ten at most.
    """
    if is_log:
        high = max(high, _LEAST)
        low = max(low, high * _SHORTEST)
        high = max(high, low * 1.01)
        factor = (high / low) ** margin
        return Scale(low=low / factor, high=high * factor, start=start, end=end, is_log=True)
    if high <= low:
        pad = max(abs(low) * 0.05, 0.5)
        low, high = low - pad, high + pad
    pad = (high - low) * margin
    return Scale(low=low - pad, high=high + pad, start=start, end=end)


def tick_values(scale: Scale) -> list[float]:
    """Round values on the axis, at most six or so."""
    if scale.is_log:
        return _log_ticks(scale.low, scale.high)
    step = tick_step(scale.high - scale.low)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def tick_step(length: float) -> float:
    """1, 2 or 5 times a power of ten, so that at most six steps fit into a length."""
    rough = length / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [
            factor * 10.0**power
            for power in range(first, last + 1)
            for factor in factors
            if low <= factor * 10.0**power <= high
        ]
        if len(found) <= _MAX_TICKS + 1:
            break
    else:
        found = found[:: math.ceil(len(found) / _MAX_TICKS)]
    return found or [low]


def tick_texts(scale: Scale) -> list[tuple[float, str]]:
    """Places of the labelled values, and their labels."""
    values = tick_values(scale)
    if scale.is_log:
        return [(scale(value), f"{value:.3g}") for value in values]
    step = tick_step(scale.high - scale.low)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 6 or abs(max(values, key=abs, default=0.0)) >= 1e7:
        return [(scale(value), f"{value:.3g}") for value in values]
    return [(scale(value), f"{value + 0.0:,.{decimals}f}") for value in values]
