# ruff: noqa: N815  shape letters after array names, in fields too
"""A Gaussian process over blocks of columns, with leave-one-out predictions for nothing.

Our own rather than a library's, because three things are needed at once that none of them offers together: one kernel per
block of columns, weak priors on its settings (with thirty labels the marginal likelihood alone runs to the bounds), and
the closed form of leaving one out, which weights and intervals of `Ensemble` rest on.

Shape letters: N = fitted rows, M = other rows, F = columns, P = settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Array = np.ndarray
MeanAndStd = tuple[Float[Array, " rows"], Float[Array, " rows"]]
Block = tuple[int, int]
"""First column and the one after the last."""

MAX_ITERATIONS = 60
JITTER = 1e-6
CHUNK = 4096
"""Rows that are predicted at once."""
NOISE_PRIOR = (log(0.05), 1.0)
"""Mean and standard deviation of the logarithm of the noise variance, for targets of variance 1."""
LENGTH_PRIOR = (0.0, 0.7)
"""The same of a length, in units of the root mean squared distance that standardised columns give."""
VARIANCE_PRIOR_STD = 1.5
"""Of the logarithm of a block's variance; the mean is an even share."""


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A posterior: Matérn-5/2 kernels, one per block of columns, added up, and noise (Rasmussen and Williams 2006, eq. 2.25).

    Settings are the mode of their posterior: marginal likelihood (eq. 5.8) times log-normal priors, by L-BFGS.
    """

    _x_NF: Tensor
    _target_N: Tensor
    _blocks: tuple[Block, ...]
    _settings_P: Tensor
    _cholesky_NN: Tensor
    _weight_N: Tensor

    @staticmethod
    def fit(
        x_NF: Float[Array, "rows columns"], targets: Float[Array, " rows"], blocks: Sequence[Block] = ()
    ) -> "GaussianProcess":
        """Fit to rows whose columns are near standard normal, and to targets of about mean 0 and variance 1.

        Uses no seed: equal arguments give an equal result.

        Args:
            x_NF: Finite.
            targets: Finite.
            blocks: Divide the columns; all in one block if not given. Blocks without columns are left out.

        Raises:
            ValueError: If there is no column.
        """
        parts = tuple(block for block in (blocks or ((0, x_NF.shape[1]),)) if block[1] > block[0])
        if not parts:
            raise ValueError("Expected at least one column for a Gaussian process")
        x, y = (
            torch.from_numpy(np.array(x_NF, dtype=np.float64)),
            torch.from_numpy(np.array(targets, dtype=np.float64)),
        )
        distances = [_distances(x[:, low:high], x[:, low:high]) for low, high in parts]
        settings = _mode(distances, y)
        with torch.no_grad():
            cholesky = _cholesky(_kernel(distances, settings), settings)
            weight = torch.cholesky_solve(y.unsqueeze(1), cholesky).squeeze(1)
        return GaussianProcess(x, y, parts, settings, cholesky, weight)

    @property
    def noise(self) -> float:
        """Variance of the noise."""
        return float(self._settings_P[-1].exp())

    @torch.no_grad()
    def predict(self, x_MF: Float[Array, "others columns"]) -> MeanAndStd:
        """Mean and standard deviation of what would be measured (noise included) for other rows."""
        means, stds = [np.zeros(0)], [np.zeros(0)]
        total = self._variance() + self._settings_P[-1].exp()
        for start in range(0, len(x_MF), CHUNK):
            x = torch.from_numpy(np.array(x_MF[start : start + CHUNK], dtype=np.float64))
            distances = [_distances(x[:, low:high], self._x_NF[:, low:high]) for low, high in self._blocks]
            kernel_MN = _kernel(distances, self._settings_P)
            means.append((kernel_MN @ self._weight_N).numpy())
            explained = (
                torch.linalg.solve_triangular(self._cholesky_NN, kernel_MN.T, upper=False).square().sum(0)
            )
            stds.append((total - explained).clamp_min(JITTER).sqrt().numpy())
        return np.concatenate(means), np.concatenate(stds)

    @torch.no_grad()
    def leave_one_out(self) -> MeanAndStd:
        """What the others say of each fitted row (eq. 5.12), settings kept; noise included in the spread."""
        inverse = torch.cholesky_inverse(self._cholesky_NN).diagonal()
        return (self._target_N - self._weight_N / inverse).numpy(), inverse.rsqrt().numpy()

    def _variance(self) -> Tensor:
        return self._settings_P[: len(self._blocks)].exp().sum()


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances per column, so that standardised columns give 2 in the mean."""
    squares = first.square().sum(1).unsqueeze(1) + second.square().sum(1)
    return (squares - 2 * first @ second.T).clamp_min(0) / first.shape[1]


def _kernel(distances: Sequence[Tensor], settings: Tensor) -> Tensor:
    """Sum of Matérn-5/2 kernels. Settings: logarithms of variances, lengths and, last, of the noise variance."""
    B = len(distances)
    parts = []
    for index, squared in enumerate(distances):
        r = sqrt(5) * (squared + 1e-12).sqrt() / settings[B + index].exp()
        parts.append(settings[index].exp() * (1 + r + r.square() / 3) * torch.exp(-r))
    return torch.stack(parts).sum(0)


def _cholesky(kernel: Tensor, settings: Tensor) -> Tensor:
    noise = (settings[-1].exp() + JITTER) * torch.eye(len(kernel), dtype=kernel.dtype)
    factor: Tensor = torch.linalg.cholesky(kernel + noise)
    return factor


def _mode(distances: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Settings with the largest posterior."""
    start = _start(len(distances))
    settings = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([settings], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = _surprise(distances, targets, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    try:
        optimiser.step(objective)  # type: ignore[no-untyped-call]
    except torch.linalg.LinAlgError:
        return start  # the line search left the numbers where a kernel can be factored; the priors' modes always can
    found = settings.detach()
    return found if bool(found.isfinite().all()) else start


def _start(B: int) -> Tensor:
    """Settings that the search begins at."""
    return torch.tensor([-log(B)] * B + [LENGTH_PRIOR[0]] * B + [log(0.1)], dtype=torch.float64)


def _surprise(distances: Sequence[Tensor], targets: Tensor, settings: Tensor) -> Tensor:
    """Minus the logarithm of the posterior of settings, but for a constant."""
    B = len(distances)
    center = torch.tensor([-log(B)] * B + [LENGTH_PRIOR[0]] * B + [NOISE_PRIOR[0]], dtype=torch.float64)
    width = torch.tensor(
        [VARIANCE_PRIOR_STD] * B + [LENGTH_PRIOR[1]] * B + [NOISE_PRIOR[1]], dtype=torch.float64
    )
    cholesky = _cholesky(_kernel(distances, settings), settings)
    white: Tensor = torch.linalg.solve_triangular(cholesky, targets.unsqueeze(1), upper=False)
    fit = white.square().sum() / 2 + cholesky.diagonal().log().sum()
    return fit + ((settings - center) / width).square().sum() / 2
