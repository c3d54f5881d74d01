"""Small regressors with a spread, for tens to hundreds of labels.

Shape letters: G = graphs, F = features.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Float

Array = np.ndarray
MeanAndStd = tuple[Float[Array, " graphs"], Float[Array, " graphs"]]
NUM_TREES = 200


class Regressor(Protocol):
    """Fits `targets` to `features` and returns what predicts mean and standard deviation for other features."""

    def __call__(
        self, features: Float[Array, "graphs features"], targets: Float[Array, " graphs"], *, seed: int
    ) -> Callable[[Float[Array, "others features"]], MeanAndStd]:
        """Features and targets are near standard normal, column by column. Equal arguments, equal result."""


def ridge(
    features: Float[Array, "graphs features"], targets: Float[Array, " graphs"], *, seed: int
) -> Callable[[Float[Array, "others features"]], MeanAndStd]:
    """Bayesian ridge regression: a linear map whose shrinkage is set by the evidence (MacKay 1992). Uses no seed."""
    from sklearn.linear_model import BayesianRidge

    del seed
    model = BayesianRidge().fit(features, targets)
    return lambda x: model.predict(x, return_std=True)


def gaussian_process(
    features: Float[Array, "graphs features"], targets: Float[Array, " graphs"], *, seed: int
) -> Callable[[Float[Array, "others features"]], MeanAndStd]:
    """A Gaussian process with one radial kernel and noise.

    The kernel's length, scale and noise are the best of a fixed grid by marginal likelihood: no optimiser, which with this
    few labels wanders to the bounds, and no seed. The unit of length is the root of the number of features.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    del seed
    unit = np.sqrt(features.shape[1])
    candidates = [
        GaussianProcessRegressor(
            float(targets.var() + 1e-12) * (RBF(unit * length) + WhiteKernel(noise)), optimizer=None
        ).fit(features, targets)
        for length in (0.5, 1.0, 2.0, 4.0)
        for noise in (0.03, 0.1, 0.3, 1.0)
    ]
    model = max(candidates, key=lambda candidate: float(candidate.log_marginal_likelihood_value_))
    return lambda x: model.predict(x, return_std=True)


def trees(
    features: Float[Array, "graphs features"], targets: Float[Array, " graphs"], *, seed: int
) -> Callable[[Float[Array, "others features"]], MeanAndStd]:
    """Extremely randomised trees (Geurts et al. 2006); the spread is that between trees."""
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=2, random_state=seed % 2**32).fit(
        features, targets
    )

    def predict(x: Float[Array, "others features"]) -> MeanAndStd:
        each = np.stack([tree.predict(x) for tree in model.estimators_])
        return each.mean(axis=0), each.std(axis=0)

    return predict


def blend(
    features: Float[Array, "graphs features"], targets: Float[Array, " graphs"], *, seed: int
) -> Callable[[Float[Array, "others features"]], MeanAndStd]:
    """The mean of `ridge`, `gaussian_process` and `trees`; the spread holds theirs and their disagreement."""
    members = [fit(features, targets, seed=seed) for fit in (ridge, gaussian_process, trees)]

    def predict(x: Float[Array, "others features"]) -> MeanAndStd:
        means, stds = (np.stack(part) for part in zip(*(member(x) for member in members), strict=True))
        return means.mean(axis=0), np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))

    return predict


REGRESSORS: Mapping[str, Regressor] = {
    "ridge": ridge,
    "gaussian_process": gaussian_process,
    "trees": trees,
    "blend": blend,
}
"""Every regressor by its name."""
