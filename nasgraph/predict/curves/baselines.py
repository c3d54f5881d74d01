"""Plain extrapolations of learning curves, behind the same interface as the network.

Shape letters: C = curves, P = points, N = draws, S = sizes of the noise, G = settings of a family.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.predict.curves.curve import Number, PartialCurve
from nasgraph.predict.curves.posterior import CurvePosterior, CurvePredictor
from nasgraph.predict.curves.prior import PAPER_PRIOR, CurveDraws, CurvePriorConfig, draw_curves
from nasgraph.seeding import generator

Array = np.ndarray

NUM_BARS = 1000
LONELY_STD = 0.2
"""Spread of a prediction from a single point, of which nothing else can be said."""

SMALLEST_STD = 2e-3
"""Residuals of zero do not make a prediction certain."""


@dataclass(frozen=True)
class LastValue(CurvePredictor):
    """Says that nothing will change. The spread is that of a random walk with the steps seen so far."""

    def predict(self, curves: Sequence[PartialCurve], *, step: Number | None = None) -> list[CurvePosterior]:
        """See `CurvePredictor.predict`."""
        return [self._one(curve, curve.target_time(step)) for curve in curves]

    def _one(self, curve: PartialCurve, target: float) -> CurvePosterior:
        times, heights = curve.times, curve.heights
        std = LONELY_STD
        if len(heights) > 1:
            passed = (target - times[-1]) / ((times[-1] - times[0]) / (len(times) - 1))
            std = float(np.sqrt(np.mean(np.diff(heights) ** 2) * passed))
        return student_posterior(float(heights[-1]), std, freedom=None).in_units(curve.scale)


@dataclass(frozen=True)
class LeastSquares(CurvePredictor):
    """Fits one parametric curve by least squares and extrapolates it.

    `pow3` is c - a x^-alpha, `mmf` (Morgan, Mercer and Flodin 1975) is c - (c - b) / (1 + k x^delta), both as in Domhan et al.
    2015 ("Speeding up automatic hyperparameter optimization of deep neural networks by extrapolation of learning curves",
    table 1). Both are linear but for one or two settings, so a grid over those finds the global minimum. The spread is the
    usual one of a regression: residuals and the uncertainty of the linearised parameters, Student-t. With fewer than five
    points it falls back on `LastValue`.

    Attributes:
        family: `pow3` or `mmf`.

    Raises:
        UnknownNameError: If there is no such family.
    """

    family: str = "pow3"

    def __post_init__(self) -> None:
        if self.family not in _FAMILIES:
            raise UnknownNameError("family of curves", self.family, _FAMILIES)

    def predict(self, curves: Sequence[PartialCurve], *, step: Number | None = None) -> list[CurvePosterior]:
        """See `CurvePredictor.predict`."""
        shape, settings = _FAMILIES[self.family]
        num_parameters = 2 + settings.shape[1]
        found = []
        for curve in curves:
            target = curve.target_time(step)
            if len(curve.values) < 5:
                found += LastValue().predict([curve], step=step)
                continue
            best = _best_setting(shape, settings, curve.times, curve.heights)
            mean, std = _regression(shape, best, curve.times, curve.heights, target)
            freedom = len(curve.values) - num_parameters
            found.append(student_posterior(mean, std, freedom=max(1, freedom)).in_units(curve.scale))
        return found


Shape = Callable[[Array, Array], Array]
"""Settings (rows) and times -> the part of the curve that is multiplied by a free factor."""


def _power(settings_G: Array, times_P: Array) -> Array:
    shape: Array = (100 * times_P) ** -np.exp(settings_G[:, :1])
    return shape


def _mmf(settings_G: Array, times_P: Array) -> Array:
    log_k, log_delta = settings_G[:, :1], settings_G[:, 1:]
    shape: Array = 1 / (1 + np.exp(log_k) * (100 * times_P) ** np.exp(log_delta))
    return shape


def _grid(*axes: Array) -> Array:
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)


_FAMILIES: dict[str, tuple[Shape, Array]] = {
    "pow3": (_power, _grid(np.linspace(np.log(0.02), np.log(8.0), 60))),
    "mmf": (_mmf, _grid(np.linspace(-8, 4, 30), np.linspace(np.log(0.2), np.log(5.0), 20))),
}


def _best_setting(shape: Shape, settings: Array, times: Array, heights: Array) -> Array:
    """The setting with the least squared residuals when offset and factor are chosen best."""
    basis_GP = shape(settings, times)
    centred_GP = basis_GP - basis_GP.mean(axis=1, keepdims=True)
    y = heights - heights.mean()
    scale_G = (centred_GP**2).sum(axis=1)
    explained_G = np.where(scale_G > 1e-12, (centred_GP @ y) ** 2 / np.maximum(scale_G, 1e-12), 0.0)
    best: Array = settings[int(explained_G.argmax())]
    return best


def _regression(
    shape: Shape, setting: Array, times: Array, heights: Array, target: float
) -> tuple[float, float]:
    """Mean and standard deviation of a new value at `target`, by linearising the curve at its best fit."""
    everywhere = np.append(times, target)
    basis = shape(setting[None], everywhere)[0]
    design = np.stack([np.ones_like(basis), basis], axis=1)
    solution, *_ = np.linalg.lstsq(design[:-1], heights, rcond=None)
    slopes = [
        solution[1] * (shape((setting + change)[None], everywhere)[0] - basis) / 1e-4
        for change in 1e-4 * np.eye(len(setting))
    ]
    jacobian = np.column_stack([design, *slopes])
    residuals = heights - design[:-1] @ solution
    freedom = max(1, len(times) - jacobian.shape[1])
    variance = max(float(residuals @ residuals) / freedom, SMALLEST_STD**2)
    known, new = jacobian[:-1], jacobian[-1]
    information = known.T @ known + 1e-9 * np.eye(known.shape[1])
    leverage = float(new @ np.linalg.solve(information, new))
    return float(design[-1] @ solution), float(np.sqrt(variance * (1 + max(0.0, leverage))))


def student_posterior(mean: float, std: float, *, freedom: Number | None) -> CurvePosterior:
    """A normal (or Student-t) distribution cut to [0, 1], as bars of about equal mass.

    Args:
        mean: Its centre; one outside [0, 1] is moved to the nearer end.
        std: Its scale; widened to 0.002 if smaller.
        freedom: Degrees of freedom; None: normal.
    """
    from scipy.stats import norm, t

    std = max(std, SMALLEST_STD)
    centre = float(np.clip(mean, 0.0, 1.0))
    law = norm(centre, std) if freedom is None else t(freedom, centre, std)
    low, high = law.cdf(0.0), law.cdf(1.0)
    inner = law.ppf(np.linspace(low, high, 401)[1:-1])
    borders = np.unique(np.concatenate([[0.0], np.clip(inner, 0.0, 1.0), [1.0]]))
    masses = np.maximum(np.diff(law.cdf(borders)), 0.0) + 1e-12
    return CurvePosterior(borders, masses / masses.sum())


@dataclass(eq=False)
class SampledPrior(CurvePredictor):
    """Bayesian inference with the prior itself: importance sampling.

    What Domhan et al. 2015 and Adriaensen et al. 2023 do by Markov chains is done here by weighting draws of the prior with
    their likelihood; the noise is integrated over a grid of its prior. Exact as the number of draws grows. With too few draws
    near the curve the answer would rest on one of them and be far too narrow; then the likelihood is flattened (raised to a
    power below one) until it rests on `min_effective`, which can only widen it.

    Attributes:
        prior: Families and noise; its other fields have no closed likelihood and are left out.
        num_draws: Draws of the prior.
        min_effective: Least effective number of draws, (sum w)^2 / sum w^2.
        seed: Decides the draws.
    """

    prior: CurvePriorConfig = PAPER_PRIOR
    num_draws: int = 50_000
    min_effective: Number = 30.0
    seed: int = 0
    _curves: CurveDraws = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.num_draws < 1 or self.min_effective < 1:
            raise ConfigError("Expected 'num_draws' and 'min_effective' of at least 1")
        self._curves = draw_curves(self.num_draws, self.prior, generator(self.seed, "draws"))

    def predict(self, curves: Sequence[PartialCurve], *, step: Number | None = None) -> list[CurvePosterior]:
        """See `CurvePredictor.predict`. Curves that were measured at the same times share most of the work."""
        found: dict[int, CurvePosterior] = {}
        groups: dict[tuple[float, ...], list[int]] = {}
        for index, curve in enumerate(curves):
            groups.setdefault((*curve.times, curve.target_time(step)), []).append(index)
        noise_S, log_prior_S = noise_grid(self.prior)
        for times, members in groups.items():
            heights_NP = self._curves.at(np.broadcast_to(np.array(times), (self.num_draws, len(times))))
            for index in members:
                posterior = weighted_posterior(
                    heights_NP[:, :-1],
                    heights_NP[:, -1],
                    curves[index].heights,
                    noise_S=noise_S,
                    log_prior_S=log_prior_S,
                    min_effective=self.min_effective,
                )
                found[index] = posterior.in_units(curves[index].scale)
        return [found[index] for index in range(len(curves))]


def noise_grid(prior: CurvePriorConfig) -> tuple[Float[Array, " sizes"], Float[Array, " sizes"]]:
    """Standard deviations of the noise and the logarithms of their prior masses."""
    if prior.log_noise_std == 0:
        return np.exp([prior.log_noise_mean]), np.zeros(1)
    offsets = np.linspace(-3, 3, 19)
    log_mass = -0.5 * offsets**2
    log_mass -= np.log(np.exp(log_mass).sum())
    return np.exp(prior.log_noise_mean + prior.log_noise_std * offsets), log_mass


def weighted_posterior(
    known_NP: Float[Array, "draws points"],
    future_N: Float[Array, " draws"],
    heights_P: Float[Array, " points"],
    *,
    noise_S: Float[Array, " sizes"],
    log_prior_S: Float[Array, " sizes"],
    min_effective: Number = 1.0,
) -> CurvePosterior:
    """The distribution of a future noisy value, given noisy values of one of the draws.

    Args:
        known_NP: Each draw where values are known.
        future_N: Each draw where the value is asked for.
        heights_P: The known values.
        noise_S: Possible standard deviations of the noise.
        log_prior_S: Logarithms of their prior masses.
        min_effective: See `SampledPrior`.

    Returns:
        The distribution over [0, 1]; mass outside goes to the outermost bars, for measured values are cut there too.
    """
    squares_N = ((known_NP - heights_P) ** 2).sum(axis=1)
    log_likelihood_NS = -len(heights_P) * np.log(noise_S) - squares_N[:, None] / (2 * noise_S**2)
    power = _flattening(log_prior_S, log_likelihood_NS, min_effective)
    log_weight_NS = log_prior_S + power * log_likelihood_NS
    weight_NS = np.exp(log_weight_NS - log_weight_NS.max())
    weight_NS /= weight_NS.sum()
    masses = np.zeros(NUM_BARS)
    bars_N = np.clip((future_N * NUM_BARS).astype(int), 0, NUM_BARS - 1)
    for noise, weight_N in zip(noise_S, weight_NS.T, strict=True):
        if weight_N.sum() > 1e-9:
            masses += _blurred(np.bincount(bars_N, weight_N, minlength=NUM_BARS), float(noise))
    masses = np.maximum(masses, 0.0) + 1e-9 / NUM_BARS
    return CurvePosterior(np.linspace(0, 1, NUM_BARS + 1), masses / masses.sum())


def effective_draws(log_prior_S: Array, log_likelihood_NS: Array, power: Number) -> float:
    """How many draws the answer rests on when the likelihood is raised to a power."""
    log_weight_NS = log_prior_S + power * log_likelihood_NS
    weight_N = np.exp(log_weight_NS - log_weight_NS.max()).sum(axis=1)
    return float(weight_N.sum() ** 2 / (weight_N**2).sum())


def _flattening(log_prior_S: Array, log_likelihood_NS: Array, min_effective: Number) -> float:
    """The largest power in (0, 1], within one in a thousand, that leaves enough effective draws."""
    if effective_draws(log_prior_S, log_likelihood_NS, 1.0) >= min_effective:
        return 1.0
    near = np.argsort(log_likelihood_NS.max(axis=1))[-20_000:]  # the others weigh nothing where it matters
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        enough = effective_draws(log_prior_S, log_likelihood_NS[near], middle) >= min_effective
        low, high = (middle, high) if enough else (low, middle)
    return low


def _blurred(masses: Float[Array, " bars"], noise: float) -> Float[Array, " bars"]:
    """Bars of a distribution after normal noise is added; what leaves [0, 1] goes to the outermost bars."""
    from scipy.special import ndtr

    count = len(masses)
    reach = int(min(count, np.ceil(6 * noise * count) + 1))
    edges = (np.arange(-reach, reach + 2) - 0.5) / (count * noise)
    kernel = np.diff(ndtr(edges))
    spread = np.convolve(masses, kernel / kernel.sum())
    inside: Array = spread[reach : reach + count].copy()
    inside[0] += spread[:reach].sum()
    inside[-1] += spread[reach + count :].sum()
    return inside
