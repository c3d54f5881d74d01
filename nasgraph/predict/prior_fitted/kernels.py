"""Gaussian processes in closed form over a grid of noise levels: what the network is told about each row.

One eigendecomposition of a kernel matrix gives, for every noise level, the evidence, the exact leave-one-out predictions
of the labelled rows and the predictions of new rows (Rasmussen and Williams 2006, equations 2.25, 2.26, 5.8 and 5.12).
The levels are averaged by their evidence, so nothing is searched and nothing is drawn.

Shape letters: C = labelled rows (context), Q = rows to predict (queries), F = features, L = noise levels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Array = np.ndarray
NOISE = (0.02, 0.06, 0.2, 0.6, 2.0)
"""Noise variances of the grid, in units of the prior variance of the function."""
PRIOR_WEIGHT = 2.0
"""Labels that the prior scale of one is worth; it keeps the scale sound when there are few labels."""


@dataclass(frozen=True, eq=False)
class Smoother:
    """A Gaussian process fitted to one context.

    Attributes:
        vectors: Eigenvectors of the kernel matrix, in columns.
        projected: The targets in the basis of the eigenvectors.
        values: Eigenvalues, not negative.
        level_weight: Posterior weight of each noise level; sums to one.
        scale: Variance of the function at each noise level.
        log_evidence: Log of the mean evidence over the noise levels.
        own_mean: Prediction of each labelled row from the others.
        own_std: Its standard deviation, noise included.
    """

    vectors: Float[Array, "context context"]
    projected: Float[Array, " context"]
    values: Float[Array, " context"]
    level_weight: Float[Array, " levels"]
    scale: Float[Array, " levels"]
    log_evidence: float
    own_mean: Float[Array, " context"]
    own_std: Float[Array, " context"]

    def predict(
        self, cross_QC: Float[Array, "queries context"], prior_Q: Float[Array, " queries"]
    ) -> tuple[Float[Array, " queries"], Float[Array, " queries"]]:
        """Mean and standard deviation, noise included.

        Args:
            cross_QC: Kernel between the rows to predict and the labelled rows.
            prior_Q: Kernel of each row to predict with itself.
        """
        noise = np.asarray(NOISE, dtype=self.values.dtype)
        inverse_LC = 1.0 / (self.values + noise[:, None])
        seen_QC = cross_QC @ self.vectors
        mean_QL = seen_QC @ (inverse_LC * self.projected).T
        left_QL = np.maximum(prior_Q[:, None] - (seen_QC**2) @ inverse_LC.T, 1e-6) + noise
        return _mix(mean_QL, left_QL * self.scale, self.level_weight)


def fit_smoother(
    eigen: tuple[Float[Array, " context"], Float[Array, "context context"]],
    targets: Float[Array, " context"],
) -> Smoother:
    """Fit to targets around zero, from the eigenvalues and eigenvectors of the kernel matrix."""
    values, vectors = np.maximum(eigen[0], 0.0), eigen[1]
    noise = np.asarray(NOISE, dtype=values.dtype)
    projected = vectors.T @ targets
    inverse_LC = 1.0 / (values + noise[:, None])
    weight = len(targets) + PRIOR_WEIGHT
    scale = ((projected**2 * inverse_LC).sum(axis=1) + PRIOR_WEIGHT) / weight
    evidence = -0.5 * weight * np.log(scale) + 0.5 * np.log(inverse_LC).sum(axis=1)
    level_weight = np.exp(evidence - evidence.max())
    log_evidence = float(evidence.max() + np.log(level_weight.mean()))
    level_weight = level_weight / level_weight.sum()
    precision_CL = (vectors**2) @ inverse_LC.T
    alpha_CL = vectors @ (inverse_LC * projected).T
    own_mean, own_std = _mix(targets[:, None] - alpha_CL / precision_CL, scale / precision_CL, level_weight)
    return Smoother(vectors, projected, values, level_weight, scale, log_evidence, own_mean, own_std)


def _mix(
    mean_RL: Float[Array, "rows levels"], var_RL: Float[Array, "rows levels"], weight: Float[Array, " levels"]
) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
    """Mean and standard deviation of a mixture."""
    mean = mean_RL @ weight
    second = (var_RL + mean_RL**2) @ weight
    return mean, np.sqrt(np.maximum(second - mean**2, 1e-8))


def squared_distances(
    a_AF: Float[Array, "some features"], b_BF: Float[Array, "others features"]
) -> Float[Array, "some others"]:
    """Squared Euclidean distances between rows; never negative."""
    cross = a_AF @ b_BF.T
    result: Array = np.maximum((a_AF**2).sum(1)[:, None] + (b_BF**2).sum(1) - 2 * cross, 0.0)
    return result
