# ruff: noqa: N815  shape letters after array names, in fields too
"""A Gaussian process over a fixed pool of rows that learns one label at a time: what a search needs.

The model is that of `GaussianProcess`: Matérn-5/2 kernels, one per block of columns, added up, noise, and weak priors. What
differs is the cost. With settings kept, one more label costs one row of the Cholesky factor and one pass over the pool;
settings are fitted anew only when the caller says so, and from where they were.

Shape letters: M = rows of the pool, N = labelled rows, F = columns, B = blocks, P = settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log, sqrt

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_solve, cholesky, solve_triangular

from nasgraph.predict.gaussian_process import (
    JITTER,
    LENGTH_PRIOR,
    NOISE_PRIOR,
    VARIANCE_PRIOR_STD,
    Block,
    MeanAndStd,
)

Array = np.ndarray
FIRST_ITERATIONS = 60
WARM_ITERATIONS = 15
"""Steps of the optimiser when it starts from settings that fitted fewer labels."""
WIDEST = 7.0
"""Settings stay within so many units of the logarithm around their priors."""


@dataclass(eq=False)
class GrowingProcess:
    """A posterior over the rows of a pool. Uses no seed: equal calls give equal results.

    Attributes:
        pool_MF: All rows that are ever asked about; finite, columns near standard normal.
        blocks: Divide the columns; all in one block if not given. Blocks without columns are left out.
    """

    pool_MF: Float[Array, "rows columns"]
    blocks: Sequence[Block] = ()
    _labelled: list[int] = field(default_factory=list, init=False)
    _parts: list[Float[Array, "rows _"]] = field(init=False)
    _squares: list[Float[Array, " rows"]] = field(init=False)
    _settings_P: Float[Array, " settings"] = field(init=False)
    _is_fitted: bool = field(default=False, init=False)
    _white_NM: Float[Array, "labelled rows"] = field(init=False)
    _factor_NN: Float[Array, "labelled labelled"] = field(init=False)
    _explained_M: Float[Array, " rows"] = field(init=False)

    def __post_init__(self) -> None:
        blocks = [block for block in (self.blocks or ((0, self.pool_MF.shape[1]),)) if block[1] > block[0]]
        if not blocks:
            raise ValueError("Expected at least one column to tell rows apart by")
        self._parts = [
            np.ascontiguousarray(self.pool_MF[:, low:high], dtype=np.float64) for low, high in blocks
        ]
        self._squares = [np.einsum("mf,mf->m", part, part) for part in self._parts]
        self._settings_P = _start(len(blocks))
        self._forget()

    @property
    def labelled(self) -> tuple[int, ...]:
        """Rows that have a label, in the order in which they came."""
        return tuple(self._labelled)

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return float(np.exp(self._settings_P[-1]))

    def add(self, row: int) -> None:
        """Take a row among the labelled ones, settings kept. A row may come twice: two measurements of one thing.

        This is one step of a Cholesky factorisation, in which what is left of the row's kernel goes over to the whole pool.
        """
        n = len(self._labelled)
        self._reserve(n + 1)
        own = self._white_NM[:n, row]
        kernel_M = self._kernel_row(row)
        rest = float(kernel_M[row]) + self.noise + JITTER - float(own @ own)
        diagonal = sqrt(max(rest, JITTER))
        self._factor_NN[n, :n], self._factor_NN[n, n] = own, diagonal
        self._white_NM[n] = (kernel_M - own @ self._white_NM[:n]) / diagonal
        self._explained_M += self._white_NM[n] ** 2
        self._labelled.append(row)

    def fit_settings(self, targets: Float[Array, " labelled"]) -> None:
        """Move the settings to the mode of their posterior, from where they are.

        Args:
            targets: One per labelled row, in their order; about mean 0 and variance 1.
        """
        index = np.array(self._labelled)
        distances = np.stack(
            [
                _distances(part[index], squares[index])
                for part, squares in zip(self._parts, self._squares, strict=True)
            ]
        )
        steps = WARM_ITERATIONS if self._is_fitted else FIRST_ITERATIONS
        self._settings_P = _mode(distances, targets, self._settings_P, steps)
        self._is_fitted = True
        rows = self._labelled
        self._labelled = []
        self._forget()
        for row in rows:
            self.add(row)

    def posterior(self, targets: Float[Array, " labelled"]) -> MeanAndStd:
        """Mean and standard deviation of the function, without noise, at every row of the pool.

        Args:
            targets: One per labelled row, in their order. They may be others at every call: only the settings remember.
        """
        n = len(self._labelled)
        white = solve_triangular(self._factor_NN[:n, :n], targets, lower=True)
        variance = np.exp(self._settings_P[: len(self._parts)]).sum() - self._explained_M
        return white @ self._white_NM[:n], np.sqrt(np.maximum(variance, JITTER))

    def _kernel_row(self, row: int) -> Float[Array, " rows"]:
        B = len(self._parts)
        total = np.zeros(len(self.pool_MF))
        for index, (part, squares) in enumerate(zip(self._parts, self._squares, strict=True)):
            squared = np.maximum(squares + squares[row] - 2 * (part @ part[row]), 0) / part.shape[1]
            r = np.sqrt(5 * (squared + 1e-12)) / np.exp(self._settings_P[B + index])
            total += np.exp(self._settings_P[index]) * (1 + r + r**2 / 3) * np.exp(-r)
        return total

    def _forget(self) -> None:
        """No labelled rows."""
        rows = len(self.pool_MF)
        self._white_NM, self._factor_NN = np.zeros((0, rows)), np.zeros((0, 0))
        self._explained_M = np.zeros(rows)

    def _reserve(self, count: int) -> None:
        """Room for so many labelled rows; it doubles when it is full."""
        held = len(self._factor_NN)
        if count <= held:
            return
        room = max(16, 2 * held, count)
        white, factor = np.zeros((room, len(self.pool_MF))), np.zeros((room, room))
        white[:held], factor[:held, :held] = self._white_NM, self._factor_NN
        self._white_NM, self._factor_NN = white, factor


def _start(num_blocks: int) -> Float[Array, " settings"]:
    """Logarithms of variances, lengths and, last, of the noise variance."""
    return np.array([-log(num_blocks)] * num_blocks + [LENGTH_PRIOR[0]] * num_blocks + [log(0.1)])


def _distances(x_NF: Float[Array, "labelled columns"], squares: Float[Array, " labelled"]) -> Array:
    """Squared distances per column."""
    found: Array = np.maximum(squares[:, None] + squares - 2 * x_NF @ x_NF.T, 0) / x_NF.shape[1]
    return found


def _mode(
    distances_BNN: Float[Array, "blocks labelled labelled"],
    targets: Float[Array, " labelled"],
    start: Float[Array, " settings"],
    steps: int,
) -> Float[Array, " settings"]:
    """Settings with the largest posterior, as far as so many steps lead."""
    from scipy.optimize import minimize

    B = len(distances_BNN)
    center = np.array([-log(B)] * B + [LENGTH_PRIOR[0]] * B + [NOISE_PRIOR[0]])
    width = np.array([VARIANCE_PRIOR_STD] * B + [LENGTH_PRIOR[1]] * B + [NOISE_PRIOR[1]])
    root_BNN = np.sqrt(5 * (distances_BNN + 1e-12))

    def loss(settings: Array) -> tuple[float, Array]:
        value, slope = _evidence(root_BNN, targets, settings)
        away = (settings - center) / width
        return value + float(away @ away) / 2, slope + away / width

    bounds = [(middle - WIDEST, middle + WIDEST) for middle in center]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    best: Array = found.x
    return best if np.isfinite(best).all() else start


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
