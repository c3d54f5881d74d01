"""Synthetic tables: features of architecture-like things, and noisy performance. The prior that the network is fitted to.

No label of any benchmark enters. Features and targets are prepared as `nasgraph.predict.fit_features` prepares real ones:
normal quantiles of their places among the labelled rows; or, in a part of the tables, merely scaled.

Shape letters: C = labelled rows, Q = rows to predict, F = features, K = targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nasgraph.predict.prior_fitted.functions import add_noise, sample_function, standard, warp
from nasgraph.predict.prior_fitted.matrices import normal_scores, sample_matrix
from nasgraph.predict.ranks import NormalScores

Array = np.ndarray
MAX_PROXIES = 14


@dataclass(frozen=True, eq=False)
class Tables:
    """One matrix of features with several targets.

    Attributes:
        known: Features of the labelled rows, near standard normal.
        others: Features of the rows to predict, on the same scale.
        labels: Targets of the labelled rows, mean 0 and variance 1.
        hidden: Targets of the rows to predict, on the same scale.
    """

    known: Float[Array, "context features"]
    others: Float[Array, "queries features"]
    labels: Float[Array, "targets context"]
    hidden: Float[Array, "targets queries"]


def sample_tables(
    num_context: int,
    num_queries: int,
    num_targets: int,
    rng: np.random.Generator,
    *,
    bank: Sequence[Float[Array, "_ _"]] = (),
) -> Tables:
    """Draw tables that share their features; hidden qualities are shared by targets and by columns that stand for proxies.

    Args:
        num_context: Labelled rows.
        num_queries: Rows to predict.
        num_targets: Targets over the same features.
        rng: Source of all randomness.
        bank: Matrices of real features, without labels.
    """
    num_rows = num_context + num_queries
    raw = sample_matrix(num_rows, rng, bank=bank)
    x = normal_scores(raw, raw)
    x = x[:, x.std(axis=0) > 1e-6]
    if not x.shape[1]:
        x = rng.standard_normal((num_rows, 1))
        raw = x
    main = _main_axes(x, rng)
    qualities = [sample_function(_seen(x, main, rng), rng) for _ in range(int(rng.integers(2, 6)))]
    targets = [_target(_seen(x, main, rng), qualities, rng) for _ in range(num_targets)]
    if rng.random() < 0.65:
        raw = np.concatenate([raw, _proxies(x, qualities, rng)], axis=1)
    raw = raw[:, rng.permutation(raw.shape[1])]
    x_CF, x_QF = _prepared(raw, num_context, rng)
    y = np.stack([_prepared_target(target, num_context, rng) for target in targets])
    return Tables(x_CF, x_QF, y[:, :num_context], y[:, num_context:])


def _main_axes(x: Float[Array, "rows features"], rng: np.random.Generator) -> Float[Array, "rows axes"]:
    """A few main axes of the features: performance mostly follows what varies most."""
    count = min(int(rng.integers(2, 9)), *x.shape)
    left = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[0][:, :count]
    result: Array = left * np.sqrt(len(x))
    return result


def _seen(
    x: Float[Array, "rows features"], main: Float[Array, "rows axes"], rng: np.random.Generator
) -> Float[Array, "rows columns"]:
    """What a function depends on: the features, a few of them, or their main axes."""
    kind = rng.random()
    if kind < 0.35:
        return main
    if kind < 0.6:
        return x[:, rng.choice(x.shape[1], min(int(rng.integers(1, 9)), x.shape[1]), replace=False)]
    return x


def _target(
    x: Float[Array, "rows features"], qualities: Sequence[Float[Array, " rows"]], rng: np.random.Generator
) -> Float[Array, " rows"]:
    """A measured performance: some of the hidden qualities or a function of its own, with noise."""
    if rng.random() < 0.5:
        clean = np.stack(qualities, axis=1) @ rng.dirichlet(np.full(len(qualities), 0.5))
        if rng.random() < 0.5:
            clean = standard(clean) + rng.uniform(0.0, 1.0) * sample_function(x, rng)
    else:
        clean = sample_function(x, rng)
    if not clean.std() > 1e-6:
        clean = x @ rng.standard_normal(x.shape[1])
    noisy = add_noise(standard(clean), rng)
    return warp(noisy, rng)


def _proxies(
    x: Float[Array, "rows features"], qualities: Sequence[Float[Array, " rows"]], rng: np.random.Generator
) -> Float[Array, "rows proxies"]:
    """Columns that speak of the hidden qualities, each with an error that is partly a function of the features."""
    columns = []
    for _ in range(int(rng.integers(1, MAX_PROXIES))):
        told = np.stack(qualities, axis=1) @ rng.dirichlet(np.full(len(qualities), 0.4))
        error = rng.uniform(0.0, 1.0) * sample_function(x, rng) + rng.uniform(0.0, 0.6) * rng.standard_normal(
            len(x)
        )
        columns.append(warp(rng.choice([-1.0, 1.0]) * (standard(told) + error), rng))
    return np.stack(columns, axis=1)


def _prepared(
    raw: Float[Array, "rows features"], num_context: int, rng: np.random.Generator
) -> tuple[Float[Array, "context features"], Float[Array, "queries features"]]:
    if rng.random() < 0.75:
        x = normal_scores(raw[:num_context], raw)
    else:
        known = raw[:num_context]
        spread = known.std(axis=0)
        x = np.where(spread > 1e-9, (raw - known.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0), 0.0)
        x = np.clip(x, -10, 10)
    return x[:num_context], x[num_context:]


def _prepared_target(
    target: Float[Array, " rows"], num_context: int, rng: np.random.Generator
) -> Float[Array, " rows"]:
    """Mean 0 and variance 1 on the labelled rows; mostly by normal scores, which go on linearly beyond the ends."""
    if rng.random() < 0.75:
        target = _linear_ends(NormalScores.of(target[:num_context]), target)
    known = target[:num_context]
    result: Array = np.clip((target - known.mean()) / max(float(known.std()), 1e-6), -8, 8)
    return result


def _linear_ends(scale: NormalScores, values: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """Normal scores; beyond the known values with the mean slope, as `NormalScores.inverse` goes on."""
    low, high = scale.known[0], scale.known[-1]
    slope = (scale.quantile[-1] - scale.quantile[0]) / max(float(high - low), 1e-9)
    inside = np.clip(values, low, high)
    result: Array = scale(inside) + slope * (values - inside)
    return result
