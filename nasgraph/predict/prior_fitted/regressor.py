"""The prior-fitted network as a regressor: fit and predict in one pass, without any training on the user's data.

Shape letters: C = labelled rows, Q = rows to predict, F = features, P = probabilities.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from nasgraph.predict.prior_fitted.checkpoint import load_prior_fitted
from nasgraph.predict.prior_fitted.mixture import Mixture
from nasgraph.predict.prior_fitted.network import PriorFittedNetwork, Reading
from nasgraph.predict.prior_fitted.rows import Context, Scaling, describe, scaling, table
from nasgraph.predict.regressors import MeanAndStd

Array = np.ndarray
MIN_CONTEXT, MAX_CONTEXT = 4, 1024
"""Labelled rows that are accepted. The shipped network has seen 6 to 512 of them in training."""
CHUNK = 4096
NUM_TREES = 96


@dataclass(frozen=True, eq=False)
class PriorFittedPosterior:
    """What the network says after it has seen the labelled rows. Rows to predict do not influence each other.

    Calling it gives mean and standard deviation, as a `Regressor` must; the standard deviation includes the noise of a label.

    Attributes:
        network: Read only.
        scale: Scaling of the features.
        context: The labelled rows, described.
        reading: What the network makes of them.
        center: Mean of the targets.
        unit: Standard deviation of the targets.
    """

    network: PriorFittedNetwork
    scale: Scaling
    context: Context
    reading: Reading
    center: float
    unit: float

    def __call__(self, features: Float[Array, "others features"]) -> MeanAndStd:
        """Mean and standard deviation of each row, in the units of the targets.

        Raises:
            ValueError: If the number of columns differs from that of the labelled rows, or a value is not finite.
        """
        parts = [mixture.moments() for mixture in self._mixtures(features)]
        mean, std = (torch.cat([part[i] for part in parts]).double().numpy() for i in (0, 1))
        return self.center + self.unit * mean, self.unit * std

    def quantiles(
        self, features: Float[Array, "others features"], probabilities: Sequence[float]
    ) -> Float[Array, "others probabilities"]:
        """Values below which each row's label lies with the given probabilities. See `__call__` for errors."""
        parts = [
            torch.stack([mixture.quantile(p) for p in probabilities], dim=1)
            for mixture in self._mixtures(features)
        ]
        result: Array = self.center + self.unit * torch.cat(parts).double().numpy()
        return result

    def log_density(
        self, features: Float[Array, "others features"], targets: Float[Array, " others"]
    ) -> Float[Array, " others"]:
        """Log of the predictive density at one value per row. See `__call__` for errors."""
        z = torch.from_numpy((np.asarray(targets, dtype=np.float64) - self.center) / self.unit).float()
        parts = [
            mixture.log_density(part)
            for mixture, part in zip(self._mixtures(features), torch.split(z, CHUNK), strict=True)
        ]
        result: Array = torch.cat(parts).double().numpy() - np.log(self.unit)
        return result

    def mixture(self, features: Float[Array, "others features"]) -> Mixture:
        """The whole predictive distributions, in units in which the targets have mean zero and variance one."""
        parts = list(self._mixtures(features))
        return Mixture(
            torch.cat([part.log_weight for part in parts]),
            torch.cat([part.mean for part in parts]),
            torch.cat([part.scale for part in parts]),
        )

    def _mixtures(self, features: Float[Array, "others features"]) -> Iterator[Mixture]:
        x_QF = np.asarray(features, dtype=np.float64)
        if x_QF.ndim != 2 or x_QF.shape[1] != self.scale.num_features:
            raise ValueError(
                f"Expected rows of {self.scale.num_features} features, as the labelled rows have (got shape {x_QF.shape})"
            )
        _check_finite(x_QF)
        for first in range(0, max(1, len(x_QF)), CHUNK):
            rows = self.context.describe(self.scale(x_QF[first : first + CHUNK]))
            with torch.no_grad():
                made = self.network.predict(self.reading, torch.from_numpy(rows).float().unsqueeze(0))
            yield Mixture(made.log_weight[0], made.mean[0], made.scale[0])


def fit_prior_fitted(
    network: PriorFittedNetwork,
    features: Float[Array, "graphs features"],
    targets: Float[Array, " graphs"],
    *,
    seed: int,
) -> PriorFittedPosterior:
    """Condition the network on labelled rows.

    The result does not depend on the order of the rows or of the columns, up to rounding. Columns that are constant over
    the labelled rows are left out; if all are, every row is predicted from the targets alone.

    Args:
        network: See `load_prior_fitted`. Not changed.
        features: Near standard normal, column by column.
        targets: Likewise.
        seed: Of the forest among the smoothers.

    Raises:
        ValueError: If there are too few or too many rows, a value is not finite, or all targets are equal.
    """
    x_CF, y_C = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    _check(x_CF, y_C)
    center, unit = float(y_C.mean()), float(y_C.std())
    scale = scaling(x_CF)
    standard = (y_C - center) / unit
    context = describe(table(scale(x_CF)), standard, num_trees=NUM_TREES, seed=seed)
    with torch.no_grad():
        reading = network.read(
            torch.from_numpy(context.rows).float().unsqueeze(0),
            torch.from_numpy(standard).float().unsqueeze(0),
        )
    return PriorFittedPosterior(network, scale, context, reading, center, unit)


def prior_fitted(folder: Path) -> "PriorFittedRegressor":
    """The network in a folder as a `Regressor`. The folder is read now, and errors are raised now.

    Raises:
        CheckpointError: If there is no sound network in the folder.
    """
    return PriorFittedRegressor(load_prior_fitted(folder))


@dataclass(frozen=True, eq=False)
class PriorFittedRegressor:
    """A `Regressor`: conditions a network on labelled rows, see `fit_prior_fitted`.

    Attributes:
        network: Read only.
    """

    network: PriorFittedNetwork

    def __call__(
        self, features: Float[Array, "graphs features"], targets: Float[Array, " graphs"], *, seed: int
    ) -> PriorFittedPosterior:
        """Features and targets are near standard normal, column by column. Equal arguments, equal result."""
        return fit_prior_fitted(self.network, features, targets, seed=seed)


def _check(x_CF: Float[Array, "context features"], y_C: Float[Array, " context"]) -> None:
    if x_CF.ndim != 2 or y_C.ndim != 1 or len(x_CF) != len(y_C):
        raise ValueError(f"Expected one row of features per target (got shapes {x_CF.shape} and {y_C.shape})")
    if not MIN_CONTEXT <= len(y_C) <= MAX_CONTEXT:
        raise ValueError(
            f"Expected {MIN_CONTEXT} to {MAX_CONTEXT} labelled rows (got {len(y_C)}). "
            "With more labels use the regressor 'gaussian_process' or 'trees'"
        )
    _check_finite(x_CF)
    if not np.isfinite(y_C).all():
        raise ValueError("Expected finite targets. Leave rows out that could not be measured")
    if not y_C.std() > 1e-9 * max(1.0, float(np.abs(y_C).max())):
        raise ValueError(
            f"Expected targets that differ (got {len(y_C)} times {y_C[0]:g}): nothing can be learnt"
        )


def _check_finite(x: Float[Array, "rows features"]) -> None:
    if not np.isfinite(x).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(
            f"Expected finite features (row {row}, column {column} is {x[row, column]}). Use `NormalScores` or fill them in"
        )
