"""How well a measure ranks networks: granulated Kendall tau and robust sign error.

Shape letters: N = networks, H = hyper-parameters.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def granulated_tau(
    measure: ArrayLike, target: ArrayLike, settings: Mapping[str, Sequence[object]]
) -> dict[str, float]:
    """Kendall's tau among networks that differ in one hyper-parameter alone.

    Jiang et al. 2020, equations 4 and 5: for each hyper-parameter the mean of tau over the groups of networks whose other settings are
    equal; `mean` is the mean of these. A measure that only tells widths apart ranks high by plain tau, and low by this. Groups in which all
    measures or all targets are equal say nothing and are left out. Here tau is tau-a over pairs whose setting differs: two seeds of one setting are
    no pair of that hyper-parameter.

    Args:
        measure: One number per network.
        target: What it should rank, such as the gap between training and test accuracy.
        settings: For each hyper-parameter its value for each network.

    Returns:
        By hyper-parameter, and `mean`. NaN for one that is never varied alone.
    """
    x, y = _pair(measure, target, settings)
    result = {}
    for name in settings:
        taus = []
        for group in _groups(settings, name):
            signs = [
                np.sign(x[a] - x[b]) * np.sign(y[a] - y[b])
                for a, b in combinations(group, 2)
                if settings[name][a] != settings[name][b]
            ]
            if signs and np.ptp(x[group]) > 0 and np.ptp(y[group]) > 0:
                taus.append(float(np.mean(signs)))
        result[name] = float(np.mean(taus)) if taus else float("nan")
    known = [tau for tau in result.values() if not np.isnan(tau)]
    result["mean"] = float(np.mean(known)) if known else float("nan")
    return result


def robust_sign_error(
    measure: ArrayLike,
    target: ArrayLike,
    settings: Mapping[str, Sequence[object]],
    *,
    min_pairs: int = 5,
) -> dict[str, float]:
    """Chance that a measure orders two networks wrongly, by environment, and in the worst of them.

    Dziugaite, Drouin, Neal, Rajkumar, Caballero, Wang, Mitliagkas and Roy, "In Search of Robust Measures of Generalization", 2020, section 5: an
    environment is one change of one hyper-parameter, from one value to another, with all others equal. The error is (1 - mean of the products of
    signs) / 2; a tie of the measure counts one half. Pairs with equal targets are left out.

    Args:
        measure: One number per network.
        target: What it should rank.
        settings: For each hyper-parameter its value for each network.
        min_pairs: Environments with fewer pairs are left out.

    Returns:
        `name:a>b` for each environment, `worst` (what Dziugaite et al. call robust) and `mean`, both NaN if there is none.
    """
    x, y = _pair(measure, target, settings)
    products: dict[str, list[float]] = defaultdict(list)
    for name, values in settings.items():
        for group in _groups(settings, name):
            for a, b in combinations(group, 2):
                first, second = sorted((a, b), key=lambda place: _key(values[place]))
                if values[first] != values[second] and y[first] != y[second]:
                    label = f"{name}:{values[first]}>{values[second]}"
                    products[label].append(
                        float(np.sign(x[first] - x[second]) * np.sign(y[first] - y[second]))
                    )
    errors = {
        label: (1 - float(np.mean(signs))) / 2
        for label, signs in sorted(products.items())
        if len(signs) >= min_pairs
    }
    values_ = list(errors.values()) or [float("nan")]
    return {**errors, "worst": max(values_), "mean": float(np.mean(values_))}


def _key(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _groups(settings: Mapping[str, Sequence[object]], name: str) -> list[list[int]]:
    """Networks whose settings other than `name` are equal."""
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place in range(len(settings[name])):
        found[tuple(values[place] for other, values in settings.items() if other != name)].append(place)
    return [group for group in found.values() if len(group) > 1]


def _pair(
    measure: ArrayLike, target: ArrayLike, settings: Mapping[str, Sequence[object]]
) -> tuple[Float[Array, " networks"], Float[Array, " networks"]]:
    x, y = np.asarray(measure, dtype=np.float64), np.asarray(target, dtype=np.float64)
    lengths = {len(x), len(y), *(len(values) for values in settings.values())}
    if x.ndim != 1 or y.ndim != 1 or len(lengths) != 1 or not settings:
        raise ValueError(
            f"Expected a measure, a target and settings for each network (got lengths {sorted(lengths)})"
        )
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("Expected measures and targets without NaN: leave such networks out")
    return x, y
