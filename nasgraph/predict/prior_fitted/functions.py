"""Random functions from features to performance: the second half of the prior.

Shape letters: N = rows, F = features, H = hidden units.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray
Matrix = Float[Array, "rows features"]
Column = Float[Array, " rows"]


def sample_function(x: Matrix, rng: np.random.Generator) -> Column:
    """Values of a random function at the rows of `x`, whose columns are near standard normal; mean 0, variance 1."""
    total = np.zeros(len(x))
    for _ in range(int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))):
        kind = FUNCTIONS[int(rng.choice(len(FUNCTIONS), p=ODDS))]
        total += rng.normal() * standard(kind(x, rng))
    if rng.random() < 0.15:  # performance saturates
        total = -np.exp(-rng.uniform(0.5, 2.0) * standard(total))
    return standard(total)


def standard(values: Column) -> Column:
    """Values with mean 0 and variance 1, or zeros if they are all equal; nothing beyond ten."""
    spread = float(values.std())
    if not spread > 1e-9:
        return np.zeros_like(values)
    result: Array = np.clip((values - values.mean()) / spread, -10, 10)
    return result


def _columns(num_features: int, rng: np.random.Generator, *, most: int) -> Int[Array, " some"]:
    """A sparse subset: one to `most` columns, small numbers more often."""
    size = int(np.exp(rng.uniform(0.0, np.log(most + 1))))
    return rng.choice(num_features, min(size, num_features), replace=False)


def _linear(x: Matrix, rng: np.random.Generator) -> Column:
    used = _columns(x.shape[1], rng, most=x.shape[1])
    return x[:, used] @ rng.laplace(size=len(used))


def _additive(x: Matrix, rng: np.random.Generator) -> Column:
    """A sum of curves of one column each: bends, steps, bumps, saturating rises."""
    used = _columns(x.shape[1], rng, most=15)
    z = x[:, used] - rng.normal(size=len(used))
    steep = rng.lognormal(0.5, 0.8, size=len(used))
    kind = rng.integers(5, size=len(used))
    curves = (np.maximum(z, 0), (z > 0).astype(float), np.exp(-0.5 * (steep * z) ** 2), np.tanh(steep * z), z)
    return np.choose(kind, curves) @ (rng.normal(size=len(used)))


def _gaussian_process(x: Matrix, rng: np.random.Generator) -> Column:
    """A draw from a Gaussian process with its own length for each column, by random Fourier features.

    The spectrum is that of a radial or, with heavy tails, of a rougher kernel (Rahimi and Recht 2007).
    """
    used = _columns(x.shape[1], rng, most=min(60, x.shape[1]))
    z = x[:, used] / np.sqrt(len(used))
    num_hidden = 96
    length = rng.lognormal(0.0, rng.uniform(0.0, 1.0), size=len(used)) * np.exp(rng.uniform(-0.7, 1.2))
    frequency = rng.standard_normal((len(used), num_hidden)) / length[:, None]
    if rng.random() < 0.4:
        frequency /= np.sqrt(rng.chisquare(3, size=num_hidden) / 3)
    waves = np.cos(z @ frequency + rng.uniform(0, 2 * np.pi, num_hidden))
    result: Array = waves @ rng.standard_normal(num_hidden)
    return result


def _network(x: Matrix, rng: np.random.Generator) -> Column:
    """A small multilayer perceptron with random weights."""
    used = _columns(x.shape[1], rng, most=min(60, x.shape[1]))
    h = x[:, used]
    for _ in range(int(rng.integers(1, 4))):
        width = int(np.exp(rng.uniform(np.log(2), np.log(32))))
        h = h @ (rng.standard_normal((h.shape[1], width)) * rng.lognormal(0.3, 0.4) / np.sqrt(h.shape[1]))
        h = ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))](h + rng.standard_normal(width) * 0.7)
    return h @ rng.standard_normal(h.shape[1])


def _trees(x: Matrix, rng: np.random.Generator) -> Column:
    """A sum of trees whose levels each ask one question; thresholds lie at values that occur."""
    num_trees, depth = int(np.exp(rng.uniform(0.0, np.log(30)))), int(rng.integers(1, 6))
    used = _columns(x.shape[1], rng, most=20)
    feature = used[rng.integers(len(used), size=(num_trees, depth))]
    cut = x[rng.integers(len(x), size=(num_trees, depth)), feature]
    leaf = ((x[:, feature] > cut) << np.arange(depth)).sum(axis=2)
    value = rng.standard_normal((num_trees, 2**depth))
    result: Array = value[np.arange(num_trees), leaf].sum(axis=1)
    return result


def _saturation(x: Matrix, rng: np.random.Generator) -> Column:
    """Rises with a few columns, as accuracy does with cost, and levels off."""
    used = _columns(x.shape[1], rng, most=6)
    weight = np.abs(rng.standard_normal(len(used))) * np.where(rng.random(len(used)) < 0.8, 1, -1)
    rise = standard(x[:, used] @ weight)
    return -np.logaddexp(0.0, -rng.uniform(0.5, 4.0) * (rise - rng.normal(-0.7, 0.7)))


def _products(x: Matrix, rng: np.random.Generator) -> Column:
    """Products, minima and ratios of pairs of columns."""
    used = _columns(x.shape[1], rng, most=12)
    left, right = x[:, rng.choice(used, 2 * len(used))], x[:, rng.choice(used, 2 * len(used))]
    kind = rng.integers(3, size=left.shape[1])
    pairs = np.choose(kind, (left * right, np.minimum(left, right), left / (1.0 + np.abs(right))))
    result: Array = pairs @ rng.standard_normal(left.shape[1])
    return result


def _weakest_part(x: Matrix, rng: np.random.Generator) -> Column:
    """The least of several linear functions: a network is as good as its weakest part."""
    used = _columns(x.shape[1], rng, most=10)
    planes = x[:, used] @ rng.standard_normal((len(used), int(rng.integers(2, 6))))
    result: Array = (planes / np.sqrt(len(used)) + rng.standard_normal(planes.shape[1])).min(axis=1)
    return result


ACTIVATIONS: tuple[Callable[[Array], Array], ...] = (
    np.tanh,
    lambda h: np.maximum(h, 0),
    np.sin,
    np.abs,
    lambda h: (h > 0).astype(float),
)
FUNCTIONS = (
    _linear, _additive, _gaussian_process, _network, _trees, _saturation, _products, _weakest_part,
)  # fmt: skip
ODDS = (0.14, 0.14, 0.18, 0.16, 0.16, 0.1, 0.07, 0.05)


def add_noise(clean: Column, rng: np.random.Generator) -> Column:
    """What is measured: noise that may depend on the row, be skewed or heavy in the tail, and collapsed runs."""
    scale = np.exp(rng.uniform(np.log(0.03), np.log(0.8)))
    local = np.exp(rng.uniform(0.0, 0.8) * rng.choice([-1, 1]) * clean) if rng.random() < 0.4 else 1.0
    draw = rng.standard_normal(len(clean))
    shape = rng.random()
    if shape < 0.2:
        draw /= np.sqrt(rng.chisquare(4, size=len(clean)) / 4)
    elif shape < 0.4:
        draw = 1.0 - rng.exponential(size=len(clean))
    noisy = clean + scale * local * draw
    if rng.random() < 0.12:
        lost = rng.random(len(clean)) < rng.uniform(0.01, 0.08)
        noisy = np.where(lost, noisy.min() - np.abs(rng.standard_normal(len(clean))), noisy)
    result: Array = noisy
    return result


def warp(values: Column, rng: np.random.Generator) -> Column:
    """A monotone map: accuracies have a heavy lower tail, losses an upper one."""
    z = standard(values)
    tail = rng.uniform(-1.0, 1.0)
    if abs(tail) < 0.3:
        return z
    return standard(np.sign(tail) * np.exp(np.clip(np.sign(tail) * z * abs(tail), -8, 8)))
