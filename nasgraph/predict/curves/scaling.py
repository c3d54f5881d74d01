"""Scaling laws: what a loss becomes when the model, or its data, is made larger.

Shape letters: P = points (measured models), S = sizes (such as parameters and tokens), R = resamples.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.predict.curves.curve import Number
from nasgraph.seeding import generator

logger = logging.getLogger(__name__)

Array = np.ndarray
Quantity = Literal["model", "average"]

STEEPEST = 4.0
FLATTEST = 1e-3


class ScalingError(NasGraphError, ValueError):
    """Measurements that no scaling law can be fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingConfig:
    """How a law is fitted.

    Attributes:
        huber: Residual of the log loss beyond which it counts linearly (Hoffmann et al. 2022 use 0.001).
        num_resamples: Fits to points with random weights, for the intervals.
        starts_kept: Best minima from which the resamples start.
        seed: Decides the weights.

    Raises:
        ConfigError: If a number is not positive.
    """

    huber: float = 1e-3
    num_resamples: int = 200
    starts_kept: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("huber", "num_resamples", "starts_kept"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")


@dataclass(frozen=True, slots=True)
class ScalingPrediction:
    """A loss at sizes that may never have been trained.

    Attributes:
        mean: The fitted law there.
        low, high: Ends of the interval.
        coverage: The probability that the interval is meant to hold the truth with.
        distance: How far beyond the largest measured size, in units of the measured range, on a logarithmic scale: 0 inside;
            1 means as far again as from the smallest to the largest. The largest over all sizes. No interval that is
            computed from the points can vouch for the law's form out there; beyond 1 a warning is logged.
    """

    mean: float
    low: float
    high: float
    coverage: float
    distance: float


@dataclass(frozen=True, eq=False)
class ScalingLaw:
    """L = E + sum over sizes of A_s / x_s^alpha_s, as fitted by `fit_scaling_law`.

    Attributes:
        sizes: Names of the sizes.
        floor: E, the loss of an infinitely large model. Weakly determined unless the largest models are close to it.
        factors: A_s.
        exponents: alpha_s.
        objective: Sum of the Huber losses.
        residuals: Of the logarithm of the loss, one per point.
        resampled: Fits to randomly weighted points: columns log E, log A_s, alpha_s.
        widening: Factor of the intervals' widths from the law's own record; see `fit_scaling_law`.
        ranges: Smallest and largest measured value of each size.
    """

    sizes: tuple[str, ...]
    floor: float
    factors: tuple[float, ...]
    exponents: tuple[float, ...]
    objective: float
    residuals: Float[Array, " points"]
    resampled: Float[Array, "resamples parameters"]
    widening: float
    ranges: tuple[tuple[float, float], ...]

    def loss(self, sizes: Mapping[str, Number]) -> float:
        """The law's value. Raises `ScalingError` for a missing, unknown or non-positive size."""
        x = np.log(self._values(sizes))
        return float(np.exp(_log_loss(self._parameters[None], x[None])[0, 0]))

    def predict(
        self, sizes: Mapping[str, Number], *, coverage: float = 0.9, of: Quantity = "model"
    ) -> ScalingPrediction:
        """The loss at other sizes, with an interval.

        Args:
            sizes: A value for each size of the law.
            coverage: Of the interval.
            of: "model": of one more model, residual noise included; "average": of the law itself.

        Raises:
            ScalingError: If a size is missing, unknown or not positive.
        """
        if not 0 < coverage < 1:
            raise ScalingError(f"Expected a coverage between 0 and 1 (got {coverage})")
        if of not in get_args(Quantity):
            raise ScalingError(f"Expected 'of' to be 'model' or 'average' (got {of!r:.40})")
        distance = self._distance(sizes)
        if distance > 1:
            logger.warning(
                "The sizes asked for lie %.1f times the measured range beyond the largest model", distance
            )
        return self._interval(sizes, coverage=coverage, of=of, widening=self.widening, distance=distance)

    def _interval(
        self, sizes: Mapping[str, Number], *, coverage: float, of: Quantity, widening: float, distance: float
    ) -> ScalingPrediction:
        x = np.log(self._values(sizes))
        centre = float(_log_loss(self._parameters[None], x[None])[0, 0])
        draws = _log_loss(self.resampled, x[None])[:, 0]
        if of == "model":
            freedom = max(1, len(self.residuals) - self.resampled.shape[1])
            inflated = self.residuals * math.sqrt(len(self.residuals) / freedom)
            draws = (draws[:, None] + inflated).ravel()
        low, high = np.quantile(draws, [(1 - coverage) / 2, (1 + coverage) / 2])
        return ScalingPrediction(
            mean=math.exp(centre),
            low=math.exp(centre + widening * min(0.0, low - centre)),
            high=math.exp(centre + widening * max(0.0, high - centre)),
            coverage=coverage,
            distance=distance,
        )

    @property
    def _parameters(self) -> Float[Array, " parameters"]:
        return np.array([math.log(self.floor), *np.log(self.factors), *self.exponents])

    def _values(self, sizes: Mapping[str, Number]) -> Float[Array, " sizes"]:
        if set(sizes) != set(self.sizes):
            raise ScalingError(f"Expected the sizes {', '.join(self.sizes)} (got {', '.join(sorted(sizes))})")
        values = np.array([float(sizes[name]) for name in self.sizes])
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ScalingError(f"Expected finite sizes above 0 (got {dict(sizes)})")
        return values

    def _distance(self, sizes: Mapping[str, Number]) -> float:
        beyond = [
            math.log(value / high) / math.log(high / low)
            for value, (low, high) in zip(self._values(sizes), self.ranges, strict=True)
        ]
        return max(0.0, *beyond)


def fit_scaling_law(
    losses: Sequence[Number], sizes: Mapping[str, Sequence[Number]], config: ScalingConfig | None = None
) -> ScalingLaw:
    """Fit L = E + sum of A_s / x_s^alpha_s (Hoffmann et al. 2022, "Training compute-optimal large language models", equation 2).

    With one size it is the power law y = c + a x^-b; with parameters N and tokens D the law of that paper. As there (equation 3)
    the Huber loss of the residuals of the log loss is minimised by L-BFGS from a grid of starts. Besiroglu et al. 2024
    ("Chinchilla scaling: a replication attempt") found what goes wrong with it, and this is what is done about each:

    - *Stopping early.* The published fit minimised the mean of tiny Huber losses, so that the optimiser's tolerance was met
      far from the minimum, and the intervals came out ten times too narrow. Here it is the sum, in units of the squared Huber width, with
      tolerances near machine precision, and every start runs to its end.
    - *Rounding.* The published exponents have two digits, too few to repeat the predictions. Parameters here are doubles;
      predict with the law, not with its printed exponents.
    - *Degenerate data.* If only one size varies, or all vary in proportion, the terms cannot be told apart: refused.
    - *Intervals.* Points get random weights (the Bayesian bootstrap, Rubin 1981), so that no resample lacks the sizes that
      determine the law. What that cannot see, a law that bends beyond the data, is judged by its record: the law is
      fitted without the largest third of the models, and if it misses those by more than its interval allows, all
      intervals are widened by that ratio.

    Accuracies do not fall: pass the error, 1 - accuracy.

    Args:
        losses: Measured losses, above zero.
        sizes: One value per loss for each size, above zero: such as `{"parameters": ..., "tokens": ...}`.
        config: Settings; None: the defaults.

    Raises:
        ScalingError: If there are too few points (two more than parameters: 5 for one size, 7 for two), a value is not
            finite or not positive, a size does not vary, sizes vary in proportion, or the loss does not fall with a size.
    """
    config = config or ScalingConfig()
    names = tuple(sizes)
    y_P, x_PS = _checked(losses, sizes)
    law = _fit(names, y_P, x_PS, config, widening=1.0)
    widening = _record(names, y_P, x_PS, config)
    return replace(law, widening=widening)


def what_if_larger(
    losses: Sequence[Number],
    sizes: Mapping[str, Sequence[Number]],
    larger: Mapping[str, Number],
    *,
    coverage: float = 0.9,
    config: ScalingConfig | None = None,
) -> ScalingPrediction:
    """What if I make it bigger? The loss at larger sizes, from measurements of smaller ones.

    Args:
        losses: Measured losses.
        sizes: What they were measured at; see `fit_scaling_law`.
        larger: The sizes that are asked for.
        coverage: Of the interval.
        config: Settings of the fit.

    Raises:
        ScalingError: If no law can be fitted, or a size is missing.
    """
    return fit_scaling_law(losses, sizes, config).predict(larger, coverage=coverage)


def _checked(losses: Sequence[Number], sizes: Mapping[str, Sequence[Number]]) -> tuple[Array, Array]:
    """Logarithms of losses and sizes, after all checks."""
    if not sizes:
        raise ScalingError("Expected at least one size, such as {'parameters': [...]}")
    y = np.asarray(losses, dtype=float)
    for name, values in {"losses": losses, **sizes}.items():
        column = np.asarray(values, dtype=float)
        if column.shape != y.shape:
            raise ScalingError(f"Expected one value of '{name}' per loss (got {len(column)} for {len(y)})")
        if not (np.isfinite(column).all() and (column > 0).all()):
            raise ScalingError(f"Expected finite values of '{name}' above 0")
    needed = 3 + 2 * len(sizes)
    if len(y) < needed:
        raise ScalingError(f"Expected at least {needed} points to fit {needed - 2} parameters (got {len(y)})")
    x = np.log(np.stack([np.asarray(values, dtype=float) for values in sizes.values()], axis=1))
    for name, column in zip(sizes, x.T, strict=True):
        if len(np.unique(column)) < 3:
            raise ScalingError(
                f"Expected at least three different values of '{name}' (got {len(np.unique(column))}). "
                "A size that does not vary tells nothing: leave it out, or measure others"
            )
    centred = x - x.mean(axis=0)
    if np.linalg.cond(centred / centred.std(axis=0)) > 100:
        raise ScalingError(
            f"The sizes {', '.join(sizes)} vary in proportion, so that their effects cannot be told apart. "
            "Vary them separately, or keep one"
        )
    log_y = np.log(y)
    slopes = np.linalg.lstsq(centred, log_y - log_y.mean(), rcond=None)[0]
    for name, slope in zip(sizes, slopes, strict=True):
        if slope >= 0:
            raise ScalingError(
                f"Expected losses that fall with '{name}' (they rise or stay). For an accuracy pass the error, 1 - accuracy"
            )
    return log_y, x


def _fit(
    names: tuple[str, ...], y_P: Array, x_PS: Array, config: ScalingConfig, *, widening: float
) -> ScalingLaw:
    """The law and its resamples, in centred coordinates inside and in those of the sizes outside."""
    centre = x_PS.mean(axis=0)
    x_PS = x_PS - centre
    minima = sorted(
        (
            _minimise(start, y_P, x_PS, np.ones(len(y_P)), config.huber, exact=True)
            for start in _starts(y_P, x_PS)
        ),
        key=lambda found: found[0],
    )
    objective, best = minima[0]
    rng = generator(config.seed, "weights")
    rows = []
    for _ in range(config.num_resamples):
        weights = rng.exponential(size=len(y_P))
        weights *= len(y_P) / weights.sum()
        starts = [parameters for _, parameters in minima[: config.starts_kept]]
        tries = [_minimise(start, y_P, x_PS, weights, config.huber, exact=False) for start in starts]
        rows.append(min(tries, key=lambda found: found[0])[1])
    fitted, resampled = (_uncentred(np.atleast_2d(values), centre) for values in (best, np.stack(rows)))
    count = x_PS.shape[1]
    return ScalingLaw(
        sizes=names,
        floor=float(np.exp(fitted[0, 0])),
        factors=tuple(float(value) for value in np.exp(fitted[0, 1 : 1 + count])),
        exponents=tuple(float(value) for value in fitted[0, 1 + count :]),
        objective=objective,
        residuals=y_P - _log_loss(best[None], x_PS)[0],
        resampled=resampled,
        widening=widening,
        ranges=tuple(
            (float(np.exp(low)), float(np.exp(high)))
            for low, high in zip((x_PS + centre).min(axis=0), (x_PS + centre).max(axis=0), strict=True)
        ),
    )


def _uncentred(parameters: Array, centre: Array) -> Array:
    moved: Array = parameters.copy()
    count = len(centre)
    moved[:, 1 : 1 + count] += parameters[:, 1 + count :] * centre
    return moved


def _starts(y_P: Array, x_PS: Array) -> list[Array]:
    """A grid of floors and exponents; the factors divide what the floor leaves."""
    starts = []
    for share, *exponents in product((0.02, 0.5, 0.8, 0.95), *[(0.1, 0.4, 1.0)] * x_PS.shape[1]):
        floor = share * np.exp(y_P.min())
        rest = np.log(np.median(np.exp(y_P)) - floor) - np.log(len(exponents))
        starts.append(np.array([np.log(floor), *[rest] * len(exponents), *exponents]))
    return starts


def _minimise(
    start: Array, y_P: Array, x_PS: Array, weights_P: Array, huber: float, *, exact: bool
) -> tuple[float, Array]:
    """The nearest minimum of the weighted sum of Huber losses: its value, and where it lies.

    Resampled fits (`exact` is False) end at a relative change of 1e-8 per step, far below their spread.
    """
    from scipy.optimize import minimize

    count = x_PS.shape[1]
    low = y_P.min()
    bounds = [(low - 12, low), *[(low - 12, y_P.max() + 5)] * count, *[(FLATTEST, STEEPEST)] * count]
    found = minimize(
        _objective,
        start,
        args=(y_P, x_PS, weights_P, huber),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={
            "maxiter": 3000 if exact else 300,
            "maxfun": 6000 if exact else 400,
            "ftol": 1e-13 if exact else 1e-8,
            "gtol": 1e-6,
            "maxcor": 20,
        },
    )
    return float(found.fun), np.asarray(found.x)


def _objective(
    parameters: Array, y_P: Array, x_PS: Array, weights_P: Array, huber: float
) -> tuple[float, Array]:
    """Sum of Huber losses divided by the squared Huber width, and its gradient."""
    count = x_PS.shape[1]
    terms = np.empty((len(y_P), 1 + count))
    terms[:, 0] = parameters[0]
    terms[:, 1:] = parameters[1 : 1 + count] - parameters[1 + count :] * x_PS
    top = terms.max(axis=1, keepdims=True)
    shares = np.exp(terms - top)
    total = shares.sum(axis=1, keepdims=True)
    shares /= total
    residuals = (top + np.log(total))[:, 0] - y_P
    size = np.abs(residuals)
    value = np.where(size <= huber, residuals**2 / (2 * huber**2), size / huber - 0.5)
    slope = weights_P * np.clip(residuals / huber, -1, 1) / huber
    by_term = slope @ shares
    by_exponent = -np.einsum("p,ps,ps->s", slope, shares[:, 1:], x_PS)
    return float(weights_P @ value), np.concatenate([by_term, by_exponent])


def _log_loss(parameters: Array, x_PS: Array) -> Array:
    """Logarithm of the law for rows of parameters at logarithms of sizes: rows by points."""
    count = x_PS.shape[1]
    terms = parameters[:, None, 1 : 1 + count] - parameters[:, None, 1 + count :] * x_PS
    floor = np.broadcast_to(parameters[:, None, :1], (*terms.shape[:2], 1))
    joined = np.concatenate([floor, terms], axis=2)
    top = joined.max(axis=2)
    logarithm: Array = top + np.log(np.exp(joined - top[..., None]).sum(axis=2))
    return logarithm


def _record(names: tuple[str, ...], y_P: Array, x_PS: Array, config: ScalingConfig) -> float:
    """How much wider the intervals must be for the largest models to lie in those of the others; at least 1."""
    order = np.argsort(x_PS.sum(axis=1), kind="stable")
    smaller = order[: math.ceil(2 * len(order) / 3)]
    larger = order[len(smaller) :]
    varies = all(len(np.unique(column)) >= 3 for column in x_PS[smaller].T)
    if len(smaller) < 3 + 2 * len(names) or not varies:
        return 1.0
    law = _fit(names, y_P[smaller], x_PS[smaller], config, widening=1.0)
    ratios = []
    for row in larger:
        sizes = dict(zip(names, np.exp(x_PS[row]).tolist(), strict=True))
        said = law._interval(sizes, coverage=0.9, of="model", widening=1.0, distance=0.0)
        miss = y_P[row] - math.log(said.mean)
        room = math.log(said.high / said.mean) if miss > 0 else math.log(said.mean / said.low)
        ratios.append(abs(miss) / max(room, 1e-6))
    return max(1.0, float(np.quantile(ratios, 0.9)))
