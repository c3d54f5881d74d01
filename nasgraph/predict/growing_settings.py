# ruff: noqa: N815  shape letters after array names, in fields too
"""Settings of a Gaussian process with Matérn-5/2 kernels, one per block of columns: the mode of their posterior, and draws from it.

Settings are the logarithms of the blocks' variances, of their lengths and, last, of the variance of the noise.

Shape letters: N = labelled rows, F = columns, B = blocks, P = settings.
"""

from dataclasses import dataclass
from math import inf, log

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_solve, cholesky, solve_triangular

from nasgraph.predict.gaussian_process import JITTER, NOISE_PRIOR, VARIANCE_PRIOR_STD

Array = np.ndarray
CHAIN_STEPS = 15
"""Steps of the Markov chain from one draw of settings to the next."""
STEP_LENGTH = 0.35
STEP_SHARE = 0.3
"""A step changes this share of the settings, by so many standard deviations of their priors."""
WIDEST = 7.0
"""Settings stay within so many units of the logarithm around their priors."""


LengthPrior = tuple[float, float]
"""Mean and standard deviation of the logarithm of a length; see `gaussian_process.LENGTH_PRIOR`."""


def first_settings(num_blocks: int, length_prior: LengthPrior) -> Float[Array, " settings"]:
    """Logarithms of variances, lengths and, last, of the noise variance."""
    return np.array([-log(num_blocks)] * num_blocks + [length_prior[0]] * num_blocks + [log(0.1)])


def squared_distances(x_NF: Float[Array, "labelled columns"], squares: Float[Array, " labelled"]) -> Array:
    """Squared distances per column."""
    found: Array = np.maximum(squares[:, None] + squares - 2 * x_NF @ x_NF.T, 0) / x_NF.shape[1]
    return found


@dataclass(frozen=True, eq=False)
class SettingsPosterior:
    """The posterior of settings: marginal likelihood times log-normal priors."""

    _root_BNN: Float[Array, "blocks labelled labelled"]
    _targets: Float[Array, " labelled"]
    _center_P: Float[Array, " settings"]
    _width_P: Float[Array, " settings"]

    @staticmethod
    def of(
        distances_BNN: Float[Array, "blocks labelled labelled"],
        targets: Float[Array, " labelled"],
        length_prior: LengthPrior,
    ) -> "SettingsPosterior":
        """For labelled rows at these squared distances per column in each block."""
        B = len(distances_BNN)
        center = np.array([-log(B)] * B + [length_prior[0]] * B + [NOISE_PRIOR[0]])
        width = np.array([VARIANCE_PRIOR_STD] * B + [length_prior[1]] * B + [NOISE_PRIOR[1]])
        return SettingsPosterior(np.sqrt(5 * (distances_BNN + 1e-12)), targets, center, width)

    def mode(self, start_P: Float[Array, " settings"], steps: int) -> Float[Array, " settings"]:
        """Settings with the largest density, as far as so many steps lead."""
        from scipy.optimize import minimize

        def loss(settings: Array) -> tuple[float, Array]:
            value, slope = _evidence(self._root_BNN, self._targets, settings)
            away = (settings - self._center_P) / self._width_P
            return value + float(away @ away) / 2, slope + away / self._width_P

        bounds = [(middle - WIDEST, middle + WIDEST) for middle in self._center_P]
        found = minimize(
            loss, start_P, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
        )
        best: Array = found.x
        return best if np.isfinite(best).all() else start_P

    def draws(
        self, start_P: Float[Array, " settings"], count: int, rng: np.random.Generator
    ) -> Float[Array, "draws settings"]:
        """Some draws by the Metropolis algorithm, which changes a few settings at a time."""
        here, density, found = start_P, self._log_density(start_P), []
        for step in range(1, count * CHAIN_STEPS + 1):
            is_changed = rng.random(len(here)) < STEP_SHARE
            there = here + STEP_LENGTH * self._width_P * rng.standard_normal(len(here)) * is_changed
            other = self._log_density(there)
            if log(1 - rng.random()) < other - density:
                here, density = there, other
            if step % CHAIN_STEPS == 0:
                found.append(here)
        return np.stack(found)

    def _log_density(self, settings_P: Float[Array, " settings"]) -> float:
        """But for a constant; minus infinity where there is no telling."""
        away = (settings_P - self._center_P) / self._width_P
        if np.abs(settings_P - self._center_P).max() > WIDEST:
            return -inf
        B, N = len(self._root_BNN), len(self._targets)
        variance, length = np.exp(settings_P[:B]), np.exp(settings_P[B : 2 * B])
        r = self._root_BNN / length[:, None, None]
        kernel = (variance[:, None, None] * (1 + r + r**2 / 3) * np.exp(-r)).sum(axis=0)
        try:
            factor = cholesky(kernel + (np.exp(settings_P[-1]) + JITTER) * np.eye(N), lower=True)
        except np.linalg.LinAlgError:
            return -inf
        white = solved(factor, self._targets)
        return -float(white @ white + away @ away) / 2 - float(np.log(np.diag(factor)).sum())


def _evidence(
    root_BNN: Float[Array, "blocks labelled labelled"],
    targets: Float[Array, " labelled"],
    settings: Float[Array, " settings"],
) -> tuple[float, Float[Array, " settings"]]:
    """Minus the logarithm of the marginal likelihood and its slope (Rasmussen and Williams 2006, eq. 5.8 and 5.9)."""
    B, N = len(root_BNN), len(targets)
    variance, length, noise = np.exp(settings[:B]), np.exp(settings[B : 2 * B]), float(np.exp(settings[-1]))
    r = root_BNN / length[:, None, None]
    decay = np.exp(-r)
    kernels_BNN = variance[:, None, None] * (1 + r + r**2 / 3) * decay
    factor = cholesky(kernels_BNN.sum(0) + (noise + JITTER) * np.eye(N), lower=True)
    weight = cho_solve((factor, True), targets)
    inner = cho_solve((factor, True), np.eye(N)) - np.outer(weight, weight)
    by_length = variance[:, None, None] * r**2 * (1 + r) * decay / 3
    slope = np.concatenate(
        [
            np.einsum("nm,bnm->b", inner, kernels_BNN),
            np.einsum("nm,bnm->b", inner, by_length),
            [noise * np.trace(inner)],
        ]
    )
    value = float(targets @ weight) / 2 + float(np.log(np.diag(factor)).sum())
    return value, slope / 2


def solved(factor_NN: Array, right: Array) -> Array:
    """The inverse of a lower triangular matrix times something."""
    if not len(factor_NN):
        return right
    result: Array = solve_triangular(factor_NN, right, lower=True, check_finite=False)
    return result
