"""Rows of a table as the network sees them: a fixed number of columns, whatever the features were.

A row is described by where it lies (principal components, supervised directions, the features that go best with the
targets), by what simple smoothers say of it (Gaussian processes with six kernels in closed form, and a forest), and by how
well they do on this table. Labelled rows are described as if their own label were not known, as far as closed forms allow:
the smoothers leave it out exactly, while the directions and the weights of the features do use it.

Nothing depends on the order of the columns, and nothing but the random forest on the order of the rows; both are sorted
before the forest draws. Rows to predict have no influence on anything but their own description.

Shape letters: C = labelled rows, Q = rows to predict, F = features, D = columns of a description, S = smoothers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from nasgraph.predict.prior_fitted.forest import Forest, correlations, grow
from nasgraph.predict.prior_fitted.kernels import Smoother, fit_smoother, squared_distances
from nasgraph.seeding import generator

Array = np.ndarray
Eigen = tuple[Array, Array]
NUM_COMPONENTS, NUM_DIRECTIONS, NUM_FEATURES = 12, 3, 8
SMOOTHERS = ("linear", "radial 1", "radial 2", "rough", "weighted radial", "weighted rough", "forest")
NUM_GAUSSIAN = 6
NUM_FACTS = 6 + NUM_GAUSSIAN + 2 * len(SMOOTHERS)
NUM_PLACES = NUM_COMPONENTS + NUM_DIRECTIONS + NUM_FEATURES
NUM_COLUMNS = NUM_PLACES + 2 * len(SMOOTHERS) + NUM_FACTS
CLIP = 5.0
FLAT = 1e-6
"""Standard deviation, in units of the feature's largest value, under which a feature counts as constant."""
LEAST_STD = 0.05
_spurious_flags = np.errstate(invalid="ignore", divide="ignore", over="ignore")
"""OpenBLAS now and then sets flags in products of finite single-precision matrices whose result is finite; inputs are checked
where they enter."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Centres and scales features by the labelled rows; leaves constant ones out.

    Attributes:
        num_features: Features before any is left out.
        keep: Those that are kept.
        mean: Their means.
        std: Their standard deviations.
    """

    num_features: int
    keep: Int[Array, " kept"]
    mean: Float[Array, " kept"]
    std: Float[Array, " kept"]

    def __call__(self, x_F: Float[Array, "rows features"]) -> Float[Array, "rows kept"]:
        """Scaled features. What lies far outside of the labelled rows is cut to five standard deviations."""
        result: Array = np.clip((x_F[:, self.keep] - self.mean) / self.std, -CLIP, CLIP)
        return result


def scaling(x_CF: Float[Array, "context features"]) -> Scaling:
    """The scaling that the labelled rows define."""
    mean, std = x_CF.mean(axis=0), x_CF.std(axis=0)
    keep = np.flatnonzero(std > FLAT * np.maximum(1.0, np.abs(x_CF).max(axis=0)))
    return Scaling(x_CF.shape[1], keep, mean[keep], std[keep])


@dataclass(frozen=True, eq=False)
class Table:
    """What a matrix of labelled rows says before any target is known; serves several targets.

    Attributes:
        features: Scaled features, as they are for new rows.
        linear: Eigenvalues and eigenvectors of the linear kernel.
        others: The same for the other kernels that see no targets, by their place in `SMOOTHERS`.
    """

    features: Float[Array, "context features"]
    linear: Eigen
    others: tuple[Eigen, ...]


@_spurious_flags
def table(x_CF: Float[Array, "context features"]) -> Table:
    """Decompose the kernels of scaled features; with no feature at all, of one column of zeros."""
    x = x_CF if x_CF.shape[1] else np.zeros((len(x_CF), 1), dtype=x_CF.dtype)
    flat = x / np.sqrt(x.shape[1])
    distance = squared_distances(flat, flat)
    gram = flat @ flat.T
    return Table(x, np.linalg.eigh(gram), tuple(np.linalg.eigh(k) for k in _plain_kernels(distance)))


def _plain_kernels(distance: Float[Array, "rows others"]) -> tuple[Array, ...]:
    return np.exp(-0.5 * distance), np.exp(-0.125 * distance), np.exp(-np.sqrt(distance) / 1.5)


def _weighted_kernels(distance: Float[Array, "rows others"]) -> tuple[Array, ...]:
    return np.exp(-0.5 * distance), np.exp(-np.sqrt(distance) / 1.5)


@dataclass(frozen=True, eq=False)
class Context:
    """A table with its targets, described, and all that is needed to describe further rows.

    Attributes:
        rows: Descriptions of the labelled rows.
        table: Features of the labelled rows.
        eigenmap: From the linear kernel to principal components.
        directions: From the linear kernel to supervised directions.
        best: Features that go best with the targets, and their signs.
        root_weight: Root of each feature's weight in the weighted kernels.
        gaussian: The Gaussian processes, in the order of `SMOOTHERS`.
        forest: The forest; its features are sorted by `order`.
        order: See `forest`.
        forest_noise: Variance of the labels around the forest, beyond the spread between its trees.
        facts: Columns that all rows of the table share.
    """

    rows: Float[Array, "context columns"]
    table: Table
    eigenmap: Float[Array, "context components"]
    directions: Float[Array, "context directions"]
    best: tuple[Int[Array, " best"], Float[Array, " best"]]
    root_weight: Float[Array, " features"]
    gaussian: tuple[Smoother, ...]
    forest: Forest
    order: Int[Array, " features"]
    forest_noise: float
    facts: Float[Array, " facts"]

    @_spurious_flags
    def describe(self, x_QF: Float[Array, "queries features"]) -> Float[Array, "queries columns"]:
        """Descriptions of further rows, from scaled features."""
        x_C = self.table.features
        x_Q = x_QF if x_QF.shape[1] else np.zeros((len(x_QF), 1), dtype=x_C.dtype)
        root = np.sqrt(x_C.shape[1]).astype(x_C.dtype)
        cross, own = (x_Q / root) @ (x_C / root).T, (x_Q**2).sum(axis=1) / root**2
        plain = _plain_kernels(squared_distances(x_Q / root, x_C / root))
        weighted = _weighted_kernels(squared_distances(x_Q * self.root_weight, x_C * self.root_weight))
        priors = (own, *[np.ones_like(own)] * (NUM_GAUSSIAN - 1))
        kernels = (cross, *plain, *weighted)
        said = [g.predict(k, prior) for g, k, prior in zip(self.gaussian, kernels, priors, strict=True)]
        mean, spread = self.forest.predict(x_Q[:, self.order])
        said.append((mean, np.sqrt(spread**2 + self.forest_noise)))
        places = _places(x_Q, cross, self.eigenmap, self.directions, self.best)
        return _join(places, said, self.facts)


@_spurious_flags
def describe(table: Table, targets: Float[Array, " context"], *, num_trees: int, seed: int) -> Context:
    """Describe the labelled rows of a table for targets of mean zero and variance one."""
    x_CF, num_rows = table.features, len(targets)
    share = correlations(x_CF, targets)
    weight = np.maximum(share**2 - 1 / num_rows, 0.0) + 0.02 / x_CF.shape[1]
    root_weight = np.sqrt(weight / weight.sum())
    weighted = squared_distances(x_CF * root_weight, x_CF * root_weight)
    eigen = (table.linear, *table.others, *(np.linalg.eigh(k) for k in _weighted_kernels(weighted)))
    gaussian = tuple(fit_smoother(each, targets) for each in eigen)
    order, grown, forest = _grow_sorted(x_CF, targets, share, num_trees=num_trees, seed=seed)
    gram = x_CF @ x_CF.T / x_CF.shape[1]
    eigenmap = _eigenmap(table.linear, targets)
    directions = _supervised_directions(gram, targets)
    top = order[:NUM_FEATURES]
    best = top, np.where(share[top] < 0, -1.0, 1.0).astype(x_CF.dtype)
    left = ((targets - grown[0]) ** 2).mean() - (grown[1] ** 2).mean()
    noise = max(float(left), LEAST_STD**2)
    said = [(each.own_mean, each.own_std) for each in gaussian]
    said.append((grown[0], np.sqrt(grown[1] ** 2 + noise)))
    facts = _facts(table, targets, gaussian, said)
    rows = _join(_places(x_CF, gram, eigenmap, directions, best), said, facts)
    return Context(
        rows, table, eigenmap, directions, best, root_weight, gaussian, forest, order, noise, facts
    )


def _grow_sorted(
    x_CF: Float[Array, "context features"],
    targets: Float[Array, " context"],
    share: Float[Array, " features"],
    *,
    num_trees: int,
    seed: int,
) -> tuple[Int[Array, " features"], tuple[Array, Array], Forest]:
    """A forest that does not depend on the order of rows and columns: both are sorted by what they hold."""
    skew = np.round((x_CF**3).mean(axis=0), 5)
    order = np.lexsort((skew, -np.round(np.abs(share), 5)))
    rows = np.lexsort((np.round(x_CF @ share, 5), np.round(targets, 5)))
    forest = grow(
        x_CF[rows][:, order], targets[rows], num_trees=num_trees, rng=generator(seed, "prior-fitted forest")
    )
    back = np.argsort(rows)
    return order, (forest.own_mean[back], forest.own_std[back]), forest


def _eigenmap(linear: Eigen, targets: Float[Array, " context"]) -> Float[Array, "context components"]:
    """Principal components by falling variance, each turned so that it rises with the targets."""
    values, vectors = linear[0][::-1][:NUM_COMPONENTS], linear[1][:, ::-1][:, :NUM_COMPONENTS]
    large = values > 1e-5 * max(float(values[0]), 1e-9)
    sign = np.where(targets @ vectors < 0, -1.0, 1.0)
    scale = np.where(large, np.sqrt(len(targets)) / np.where(large, values, 1.0), 0.0)
    result = np.zeros((len(targets), NUM_COMPONENTS), dtype=vectors.dtype)
    result[:, : len(values)] = vectors * (sign * scale).astype(vectors.dtype)
    return result


def _supervised_directions(
    gram: Float[Array, "context others"], targets: Float[Array, " context"]
) -> Float[Array, "context directions"]:
    """Coefficients of the first directions of partial least squares, in its Krylov form (Helland 1988)."""
    found: list[Array] = []
    coefficients = np.zeros((len(targets), NUM_DIRECTIONS), dtype=gram.dtype)
    residual = targets
    for index in range(NUM_DIRECTIONS):
        alpha = residual.copy()
        score = gram @ alpha
        for other, known in enumerate(found):
            part = float(known @ score) / len(targets)
            score, alpha = score - part * known, alpha - part * coefficients[:, other]
        size = float(np.sqrt((score**2).mean()))
        if size < 1e-4:
            break
        coefficients[:, index] = alpha / size
        found.append(score / size)
        residual = residual - found[-1] * float(found[-1] @ residual) / len(targets)
    return coefficients


def _places(
    x: Float[Array, "rows features"],
    kernel: Float[Array, "rows context"],
    eigenmap: Float[Array, "context components"],
    directions: Float[Array, "context directions"],
    best: tuple[Int[Array, " best"], Float[Array, " best"]],
) -> Float[Array, "rows places"]:
    features = np.zeros((len(x), NUM_FEATURES), dtype=x.dtype)
    features[:, : len(best[0])] = x[:, best[0]] * best[1]
    result: Array = np.clip(
        np.concatenate([kernel @ eigenmap, kernel @ directions, features], axis=1), -CLIP, CLIP
    )
    return result


def _facts(
    table: Table,
    targets: Float[Array, " context"],
    gaussian: Sequence[Smoother],
    said: Sequence[tuple[Array, Array]],
) -> Float[Array, " facts"]:
    """What holds for the whole table: sizes, spectrum, shape of the targets, evidence and error of each smoother."""
    num_rows, values = len(targets), np.maximum(table.linear[0], 0.0)
    total = float(values.sum())
    effective = total**2 / max(float((values**2).sum()), 1e-9)
    evidence = np.array([each.log_evidence for each in gaussian])
    weight = np.exp(evidence - evidence.max())
    moments = (targets**3).mean(), (targets**4).mean() - 3.0
    errors = [float(((targets - mean) ** 2).mean()) for mean, _ in said]
    spread = [float(std.mean()) for _, std in said]
    facts = np.array(
        [
            np.log(num_rows) / 3.0 - 1.3,
            np.log(table.features.shape[1]) / 3.0 - 1.3,
            np.log(max(effective, 1.0)) / 2.0 - 1.0,
            float(values.max()) / max(total, 1e-9),
            np.clip(moments[0], -3, 3) / 2.0,
            np.clip(moments[1], -3, 6) / 3.0,
            *(weight / weight.sum()),
            *(np.sqrt(np.clip(errors, 0.0, 4.0)) - 0.7),
            *(np.array(spread) - 0.7),
        ]
    )
    return facts.astype(targets.dtype)


def _join(
    places: Float[Array, "rows places"],
    said: Sequence[tuple[Array, Array]],
    facts: Float[Array, " facts"],
) -> Float[Array, "rows columns"]:
    mean = np.clip(np.stack([mean for mean, _ in said], axis=1), -CLIP, CLIP)
    std = np.clip(np.stack([std for _, std in said], axis=1), LEAST_STD, CLIP)
    shared = np.broadcast_to(facts, (len(places), len(facts)))
    result: Array = np.concatenate([places, mean, std, shared], axis=1)
    return result
