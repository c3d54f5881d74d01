"""Comparing observations by one objective or several. Higher is better; N = observations, M = objectives."""

import numpy as np
from jaxtyping import Float

from nasgraph.search.experience import Observation

Array = np.ndarray
WORST = float("-inf")


def gains_of(observation: Observation, num_objectives: int) -> tuple[float, ...]:
    """One finite number per objective, or minus infinity for each: of what failed, was pruned, or is not a number, nobody
    knows more than that it should not be repeated."""
    gains = observation.gains
    if len(gains) == num_objectives and all(np.isfinite(gains)):
        return gains
    return (WORST,) * num_objectives


def dominates(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Whether `first` is nowhere worse and somewhere better."""
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))


def draw_weights(num_objectives: int, rng: np.random.Generator) -> Float[Array, " objectives"]:
    """Weights that sum to one, uniform among all such."""
    return np.ones(1) if num_objectives == 1 else rng.dirichlet(np.ones(num_objectives))


def scalar_gains(
    gains_NM: Float[Array, "observations objectives"], weights_M: Float[Array, " objectives"]
) -> Float[Array, " observations"]:
    """One number for each row, higher is better; a row that dominates another never gets less.

    A single objective stays as it is. Several become the augmented Chebyshev scalar of ParEGO (Knowles 2006, equation 2) over
    ranks instead of values, so that no objective's unit or outlier counts; with weights drawn anew for every proposal, all
    parts of the front are looked for.
    """
    if gains_NM.shape[1] == 1:
        return gains_NM[:, 0]
    order = np.sort(gains_NM, axis=0)
    shortfall = np.stack(
        [
            1.0 - np.searchsorted(order[:, place], gains_NM[:, place], side="right") / len(gains_NM)
            for place in range(gains_NM.shape[1])
        ],
        axis=1,
    )
    weighted = shortfall * weights_M
    scalar = -(weighted.max(axis=1) + 0.05 * weighted.sum(axis=1))
    scalar[np.isneginf(gains_NM).any(axis=1)] = WORST
    return np.asarray(scalar)
