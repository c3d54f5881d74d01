"""The prior over learning curves: random sums of parametric curves that rise, and noise.

Shape letters: C = curves, P = points of time.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError

Array = np.ndarray

LONGEST = 100
"""Times in (0, 1] are multiplied by this before they enter the formulas, which were made for curves of 100 epochs."""

REFERENCE_TIMES = np.arange(1, LONGEST + 1) / LONGEST


@dataclass(frozen=True, kw_only=True)
class CurvePriorConfig:
    """Which curves are thought possible. The defaults are the prior of Adriaensen et al. 2023 ("Efficient Bayesian learning
    curve extrapolation using prior-data fitted networks", section 3.1 and appendix A): a noisy sum of three families.

    The other fields widen it by what trainings really do; each is a probability, and zero switches it off.

    Attributes:
        log_noise_mean, log_noise_std: Normal distribution of the logarithm of the noise's standard deviation. (The paper
            misprints the mean; this is the one of its code.)
        schedule: That a falling learning rate lifts the end: the gap to 1 shrinks by a share g u^p, g ~ Beta(1, 4),
            p ~ U(1, 6).
        decline: That the curve falls again after a time (overfitting), by up to an exponentially distributed depth.
        delay: That nothing is learnt for up to 30 % of the time.
        calming: That the noise shrinks linearly over the time by a share ~ U(0, 1).
        spikes: That each point has a chance of 5 % to lie lower, by an exponentially distributed 0.1.
        steps: That values are multiples of 1/n, as accuracies on n examples are, n log-uniform between 50 and 5000.
        running_best: That the best value so far is reported instead of the present one.

    Raises:
        ConfigError: If a probability is outside [0, 1], or the spread of the noise is negative.
    """

    log_noise_mean: float = -4.0
    log_noise_std: float = 1.0
    schedule: float = 0.0
    decline: float = 0.0
    delay: float = 0.0
    calming: float = 0.0
    spikes: float = 0.0
    steps: float = 0.0
    running_best: float = 0.0

    def __post_init__(self) -> None:
        for name in ("schedule", "decline", "delay", "calming", "spikes", "steps", "running_best"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"Expected the probability '{name}' in [0, 1] (got {getattr(self, name)})")
        if self.log_noise_std < 0:
            raise ConfigError(f"Expected 'log_noise_std' of at least 0 (got {self.log_noise_std})")


PAPER_PRIOR = CurvePriorConfig()
"""The prior of Adriaensen et al. 2023."""

WIDE_PRIOR = CurvePriorConfig(
    log_noise_mean=-4.5,
    log_noise_std=1.2,
    schedule=0.4,
    decline=0.15,
    delay=0.15,
    calming=0.5,
    spikes=0.2,
    steps=0.3,
    running_best=0.2,
)
"""What the shipped network was trained on: the paper's families, and what real trainings add. Chosen once, from what training
code does (schedules, overfitting, finite validation sets) and two curves on digits; never changed after a score was seen."""


@dataclass(frozen=True)
class CurveDraws:
    """Noise-free curves of the prior: columns of parameters, one row per curve, which can be evaluated at any time.

    `pow3`: c - a x^-alpha; `ilog2`: c - a / ln(x + 1); `janoschek`: a - (a - b) exp(-k x^delta); x = 100 times the time.
    """

    weights: Float[Array, "curves 3"]
    pow3: Float[Array, "curves 3"]
    ilog2: Float[Array, "curves 2"]
    janoschek: Float[Array, "curves 4"]
    log_noise: Float[Array, " curves"]

    def __len__(self) -> int:
        return len(self.weights)

    def at(self, times_CP: Float[Array, "curves points"]) -> Float[Array, "curves points"]:
        """Heights at times in (0, 1]; times below 0.01 count as 0.01, before which the formulas were never meant."""
        x_CP = np.maximum(times_CP, 1 / LONGEST) * LONGEST
        log_x_CP = np.log(x_CP)
        a, c, alpha = (column[:, None] for column in self.pow3.T)
        power = c - a * np.exp(-alpha * log_x_CP)
        a, c = (column[:, None] for column in self.ilog2.T)
        logarithmic = c - a / np.log1p(x_CP)
        a, b, k, delta = (column[:, None] for column in self.janoschek.T)
        growth = a - (a - b) * np.exp(-k * np.exp(delta * log_x_CP))
        w1, w2, w3 = (column[:, None] for column in self.weights.T)
        heights_CP: Array = w1 * power + w2 * logarithmic + w3 * growth
        return heights_CP

    def take(self, rows: Array) -> "CurveDraws":
        """Some of the curves: indices or a mask."""
        return CurveDraws(
            self.weights[rows], self.pow3[rows], self.ilog2[rows], self.janoschek[rows], self.log_noise[rows]
        )


def draw_curves(count: int, config: CurvePriorConfig, rng: np.random.Generator) -> CurveDraws:
    """Draw noise-free curves: each lies in [0, 1] at all times 0.01, 0.02, ..., 1, and ends above its start.

    Rejection sampling, in vectors; about one proposal in five is kept.

    Args:
        count: How many.
        config: The prior; only the noise and the families matter here.
        rng: Source of randomness.
    """
    parts, found = [], 0
    while found < count:
        proposals = _propose(max(64, 6 * (count - found)), config, rng)
        kept = proposals.take(_is_learning(proposals))
        parts.append(kept)
        found += len(kept)
    joined = CurveDraws(
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.pow3 for part in parts]),
        np.concatenate([part.ilog2 for part in parts]),
        np.concatenate([part.janoschek for part in parts]),
        np.concatenate([part.log_noise for part in parts]),
    )
    return joined.take(np.arange(count))


def _propose(count: int, config: CurvePriorConfig, rng: np.random.Generator) -> CurveDraws:
    pow3 = [rng.uniform(-0.6, 0.6, count), rng.uniform(0, 1.25, count), np.exp(rng.normal(0, 2, count))]
    ilog2 = [rng.uniform(-0.5, 0.5, count), rng.uniform(0, 1, count)]
    janoschek = [
        rng.uniform(0, 1, count),
        rng.uniform(0, 2, count),
        np.exp(rng.normal(-2, 1, count)),
        np.exp(rng.normal(0, 0.5, count)),
    ]
    return CurveDraws(
        weights=rng.uniform(0, 1, (count, 3)),
        pow3=np.stack(pow3, axis=1),
        ilog2=np.stack(ilog2, axis=1),
        janoschek=np.stack(janoschek, axis=1),
        log_noise=rng.normal(config.log_noise_mean, config.log_noise_std, count),
    )


def _is_learning(draws: CurveDraws) -> Array:
    """Which proposals end above their start and never leave [0, 1].

    Four points reject most of them at a twentieth of the cost; the rest is looked at everywhere.
    """
    kept = np.zeros(len(draws), dtype=bool)
    rows = np.arange(len(draws))
    for times in (REFERENCE_TIMES[[0, 2, 20, 99]], REFERENCE_TIMES):
        heights = draws.take(rows).at(np.broadcast_to(times, (len(rows), len(times))))
        good = (heights[:, -1] > heights[:, 0]) & ((heights >= 0) & (heights <= 1)).all(axis=1)
        rows = rows[good]
    kept[rows] = True
    return kept


def sample_curves(
    num_curves: int, num_epochs: int, config: CurvePriorConfig, rng: np.random.Generator
) -> Float[Array, "curves epochs"]:
    """Draw noisy curves as a training of `num_epochs` epochs would report them; every value lies in [0, 1].

    Equal generators give equal curves.

    Args:
        num_curves: How many.
        num_epochs: Values per curve, at the times 1/T, 2/T, ..., 1.
        config: The prior.
        rng: Source of randomness.
    """
    draws = draw_curves(num_curves, config, rng)
    times_CP = np.broadcast_to(np.arange(1, num_epochs + 1) / num_epochs, (num_curves, num_epochs))
    delay = np.where(rng.random(num_curves) < config.delay, rng.uniform(0, 0.3, num_curves), 0.0)[:, None]
    heights_CP = draws.at((times_CP - delay) / (1 - delay))
    heights_CP = _lift_end(heights_CP, times_CP, config, rng)
    heights_CP = _let_decline(heights_CP, times_CP, config, rng)
    noisy_CP = heights_CP + _noise(np.exp(draws.log_noise), times_CP, config, rng)
    noisy_CP = _round_some(np.clip(noisy_CP, 0.0, 1.0), config, rng)
    best_CP = np.maximum.accumulate(noisy_CP, axis=1)
    return np.where((rng.random(num_curves) < config.running_best)[:, None], best_CP, noisy_CP)


def without_extras(config: CurvePriorConfig) -> CurvePriorConfig:
    """The families and the noise of a prior alone: what a closed likelihood can be written for."""
    return replace(
        config, schedule=0.0, decline=0.0, delay=0.0, calming=0.0, spikes=0.0, steps=0.0, running_best=0.0
    )


def _lift_end(
    heights_CP: Array, times_CP: Array, config: CurvePriorConfig, rng: np.random.Generator
) -> Array:
    count = len(heights_CP)
    gain = np.where(rng.random(count) < config.schedule, rng.beta(1, 4, count), 0.0)[:, None]
    power = rng.uniform(1, 6, count)[:, None]
    lifted: Array = heights_CP + (1 - heights_CP) * gain * times_CP**power
    return lifted


def _let_decline(
    heights_CP: Array, times_CP: Array, config: CurvePriorConfig, rng: np.random.Generator
) -> Array:
    count = len(heights_CP)
    depth = np.where(rng.random(count) < config.decline, rng.exponential(0.08, count), 0.0)[:, None]
    start = rng.uniform(0.05, 0.9, count)[:, None]
    declined: Array = heights_CP - depth * np.maximum(times_CP - start, 0) / (1 - start)
    return declined


def _noise(std: Array, times_CP: Array, config: CurvePriorConfig, rng: np.random.Generator) -> Array:
    count, _ = times_CP.shape
    calmer = np.where(rng.random(count) < config.calming, rng.uniform(0, 1, count), 0.0)[:, None]
    noise_CP = rng.normal(size=times_CP.shape) * std[:, None] * (1 - calmer * times_CP)
    has_spikes: Array = np.asarray(rng.random(count) < config.spikes)[:, None]
    is_spike_CP: Array = rng.random(times_CP.shape) < 0.05
    spikes_CP = is_spike_CP * rng.exponential(0.1, times_CP.shape)
    noisy: Array = noise_CP - np.where(has_spikes, spikes_CP * (1 - times_CP), 0.0)
    return noisy


def _round_some(values_CP: Array, config: CurvePriorConfig, rng: np.random.Generator) -> Array:
    count = len(values_CP)
    examples = np.round(np.exp(rng.uniform(np.log(50), np.log(5000), count)))[:, None]
    is_rounded = (rng.random(count) < config.steps)[:, None]
    return np.where(is_rounded, np.round(values_CP * examples) / examples, values_CP)
