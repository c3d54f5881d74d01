"""Randomised regression trees, grown all at once with array operations.

The trees of Geurts et al. 2006 (extremely randomised trees: random thresholds, the best of a few), each on a random part
of the rows, so that every labelled row is predicted by the trees that have not seen it. The trees of a forest grow level by
level together; there is no loop over trees or nodes.

Shape letters: C = labelled rows, Q = rows to predict, F = features, T = trees, K = candidate splits of a node.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray
NUM_CANDIDATES = 8
SHARE_SEEN = 0.75
SCREENED = 0.6
"""Share of the candidate features that are drawn by how well they go with the targets."""
SHRINKAGE = 0.5
"""Rows of the parent's value that a node's value is worth: keeps the leaves of single rows moderate."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees as heaps: the children of node i are 2i + 1 and 2i + 2.

    Attributes:
        feature: Feature that each inner node looks at.
        threshold: Rows above it go right.
        value: What each node says.
        own_mean: For each labelled row, the mean over the trees that have not seen it.
        own_std: The spread between those trees.
    """

    feature: Int[Array, "trees inner"]
    threshold: Float[Array, "trees inner"]
    value: Float[Array, "trees nodes"]
    own_mean: Float[Array, " context"]
    own_std: Float[Array, " context"]

    def predict(
        self, x_QF: Float[Array, "queries features"]
    ) -> tuple[Float[Array, " queries"], Float[Array, " queries"]]:
        """The mean over the trees, and the spread between them."""
        num_trees, num_inner = self.feature.shape
        tree_T, row_Q = np.arange(num_trees)[:, None], np.arange(len(x_QF))
        node_TQ = np.zeros((num_trees, len(x_QF)), dtype=np.int64)
        for _ in range((num_inner + 1).bit_length() - 1):
            above = x_QF[row_Q, self.feature[tree_T, node_TQ]] > self.threshold[tree_T, node_TQ]
            node_TQ = 2 * node_TQ + 1 + above
        said_TQ = self.value[tree_T, node_TQ]
        return said_TQ.mean(axis=0), said_TQ.std(axis=0)


def grow(
    x_CF: Float[Array, "context features"],
    targets: Float[Array, " context"],
    *,
    num_trees: int,
    rng: np.random.Generator,
) -> Forest:
    """Grow a forest until its nodes hold about one row, at most nine levels."""
    num_rows, depth = len(targets), int(np.clip(np.ceil(np.log2(len(targets))), 1, 9))
    num_inner, tree_T = 2**depth - 1, np.arange(num_trees)[:, None]
    seen_TC = rng.random((num_trees, num_rows)) < SHARE_SEEN
    feature = np.zeros((num_trees, num_inner), dtype=np.int64)
    threshold = np.zeros((num_trees, num_inner), dtype=x_CF.dtype)
    value = np.zeros((num_trees, 2 * num_inner + 1), dtype=x_CF.dtype)
    node_TC = np.zeros((num_trees, num_rows), dtype=np.int64)
    odds = _odds(x_CF, targets)
    _set_values(value, node_TC, seen_TC, targets, level=0)
    for level in range(depth):
        first, size = 2**level - 1, 2**level
        chosen, cut = _best_splits(x_CF, targets, node_TC - first, seen_TC, size, odds, rng)
        feature[:, first : first + size], threshold[:, first : first + size] = chosen, cut
        above = x_CF[np.arange(num_rows), feature[tree_T, node_TC]] > threshold[tree_T, node_TC]
        node_TC = 2 * node_TC + 1 + above
        _set_values(value, node_TC, seen_TC, targets, level=level + 1)
    said_TC, unseen_TC = value[tree_T, node_TC], ~seen_TC
    use_TC = unseen_TC | seen_TC.all(axis=0)  # a row that every tree has seen is very rare: all speak
    count = use_TC.sum(axis=0)
    mean = (said_TC * use_TC).sum(axis=0) / count
    spread = np.sqrt((((said_TC - mean) ** 2) * use_TC).sum(axis=0) / count)
    return Forest(feature, threshold, value, mean, spread)


def _set_values(
    value: Float[Array, "trees nodes"],
    node_TC: Int[Array, "trees context"],
    seen_TC: Bool[Array, "trees context"],
    targets: Float[Array, " context"],
    *,
    level: int,
) -> None:
    """Fill in what the nodes of one level say: the mean of their rows, drawn a little to the parent's."""
    num_trees, first, size = len(value), 2**level - 1, 2**level
    key = (node_TC - first + size * np.arange(num_trees)[:, None]).ravel()
    count = np.bincount(key, weights=seen_TC.ravel(), minlength=num_trees * size).reshape(num_trees, size)
    total = np.bincount(key, weights=(seen_TC * targets).ravel(), minlength=count.size)
    nodes = np.arange(first, first + size)
    parent = value[:, (nodes - 1) // 2] if level else np.zeros((num_trees, 1), dtype=value.dtype)
    value[:, nodes] = (total.reshape(count.shape) + SHRINKAGE * parent) / (count + SHRINKAGE)


def _best_splits(
    x_CF: Float[Array, "context features"],
    targets: Float[Array, " context"],
    place_TC: Int[Array, "trees context"],
    seen_TC: Bool[Array, "trees context"],
    size: int,
    odds: Float[Array, " bounds"],
    rng: np.random.Generator,
) -> tuple[Int[Array, "trees size"], Float[Array, "trees size"]]:
    """For each node of a level the best of some random splits, by the variance that it takes away.

    A threshold is a uniform point between two random rows of the node.
    """
    num_trees, num_rows = place_TC.shape
    shape = (num_trees, size, NUM_CANDIDATES)
    tree_T = np.arange(num_trees)[:, None]
    key = place_TC + size * tree_T
    feature = np.searchsorted(odds, rng.random(shape)).astype(np.int64)
    ends = x_CF[_random_rows(place_TC, key, shape, rng), feature]
    cut = ends[0] + (ends[1] - ends[0]) * rng.random(shape, dtype=np.float32).astype(x_CF.dtype)
    row_feature, row_cut = feature[tree_T, place_TC], cut[tree_T, place_TC]  # trees, context, candidates
    above = (x_CF[np.arange(num_rows)[:, None], row_feature] > row_cut) & seen_TC[..., None]
    cell = (key[..., None] * NUM_CANDIDATES + np.arange(NUM_CANDIDATES)).ravel()
    count_right = np.bincount(cell, weights=above.ravel(), minlength=feature.size).reshape(shape)
    total_right = np.bincount(cell, weights=(above * targets[:, None]).ravel(), minlength=feature.size)
    total_right = total_right.reshape(shape)
    count = np.bincount(key.ravel(), weights=seen_TC.ravel(), minlength=num_trees * size)
    total = np.bincount(key.ravel(), weights=(seen_TC * targets).ravel(), minlength=num_trees * size)
    count, total = (part.reshape(num_trees, size, 1) for part in (count, total))
    count_left, total_left = count - count_right, total - total_right
    gain = total_right**2 / np.maximum(count_right, 1) + total_left**2 / np.maximum(count_left, 1)
    gain = np.where((count_right > 0) & (count_left > 0), gain, -1.0)
    best = gain.round(9).argmax(axis=2)[..., None]  # rounding must not decide between equal splits
    return np.take_along_axis(feature, best, 2)[..., 0], np.take_along_axis(cut, best, 2)[..., 0]


def _random_rows(
    place_TC: Int[Array, "trees context"],
    key_TC: Int[Array, "trees context"],
    shape: tuple[int, int, int],
    rng: np.random.Generator,
) -> Int[Array, "two trees size candidates"]:
    """Two random rows of each node for each candidate; of empty nodes, any rows."""
    num_trees, size, _ = shape
    num_rows = place_TC.shape[1]
    order_TC = np.argsort(place_TC, axis=1, kind="stable")
    count = np.bincount(key_TC.ravel(), minlength=num_trees * size).reshape(num_trees, size)
    start = np.cumsum(count, axis=1) - count
    position = start[..., None] + (rng.random((2, *shape), dtype=np.float32) * count[..., None]).astype(
        np.int64
    )
    result: Array = order_TC[np.arange(num_trees)[:, None, None], np.minimum(position, num_rows - 1)]
    return result


def _odds(
    x_CF: Float[Array, "context features"], targets: Float[Array, " context"]
) -> Float[Array, " bounds"]:
    """Cumulative chance of each feature to be a candidate: half by squared correlation with the targets, half equal."""
    share = correlations(x_CF, targets) ** 2
    chance = SCREENED * share / max(float(share.sum()), 1e-9) + (1 - SCREENED) / x_CF.shape[1]
    return np.cumsum(chance[:-1])


def correlations(
    x_CF: Float[Array, "context features"], targets: Float[Array, " context"]
) -> Float[Array, " features"]:
    """Correlation of each feature with the targets; zero where either is constant."""
    x, y = x_CF - x_CF.mean(axis=0), targets - targets.mean()
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
    result: Array = (y @ x) / np.where(scale > 0, scale, np.inf)
    return result
