"""Columns of `GraphFeatures`: one pass over the nodes of a graph per group of columns.

Numbers of paths are kept as logarithms, since deep networks have more than 1e308.

Shape letters: N = nodes, K = kinds of landmarks, Q = K and the input, S = sets of kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, log1p, prod, sqrt

import numpy as np

from nasgraph.ir import OPS, ComputationalGraph

Array = np.ndarray
NONE = -1.0
"""Length of a path that does not exist."""

GLOBAL_COLUMNS = (
    "nodes", "edges", "landmarks", "longest path", "landmarks on the longest path", "log paths", "landmarks on a mean path",
    "spread of landmarks between paths", "merges", "values merged", "most inputs", "most readers", "readers of the input",
    "log parameters", "log multiply-adds", "log activations", "mean log width", "least log width", "largest log width",
    "other kinds",
)  # fmt: skip


def set_columns(graph: ComputationalGraph, landmark_N: Array, sets_SK: Array) -> Array:
    """For each set: fewest, most and mean members on a path from input to output, and log(1 + paths without any).

    The mean is that over outputs of the mean over the paths to one, 0 where no path leads.
    """
    N, S = len(graph), len(sets_SK)
    member_KS, add_KS = sets_SK.T.copy(), sets_SK.T.astype(np.float64)
    least, most, mean = np.full((N, S), np.inf), np.full((N, S), -np.inf), np.zeros((N, S))
    paths, without = np.full(N, -np.inf), np.full((N, S), -np.inf)
    steps, ends = _steps(graph, landmark_N)
    for index, sources in steps:
        if sources is None:
            least[index] = most[index] = paths[index] = without[index] = 0
        elif len(sources) == 1:
            for states in (least, most, mean, paths, without):
                states[index] = states[sources[0]]
        elif sources:
            least[index], most[index] = least[sources].min(axis=0), most[sources].max(axis=0)
            paths[index] = np.logaddexp.reduce(paths[sources])
            if paths[index] > -np.inf:
                mean[index] = np.exp(paths[sources] - paths[index]) @ mean[sources]
            without[index] = np.logaddexp.reduce(without[sources])
        kind = landmark_N[index]
        if kind >= 0 and paths[index] > -np.inf:
            for states in (least, most, mean):
                states[index] += add_KS[kind]
            without[index, member_KS[kind]] = -np.inf
    low, high = least[ends].min(axis=0), most[ends].max(axis=0)
    return np.concatenate(
        [
            np.where(np.isfinite(low), low, NONE),
            np.where(np.isfinite(high), high, NONE),
            mean[ends].mean(axis=0),
            np.logaddexp(0, np.logaddexp.reduce(without[ends])),
        ]
    )


def pair_columns(graph: ComputationalGraph, landmark_N: Array, K: int) -> Array:
    """From each kind (or input) to each kind (or output): pairs without a landmark between them, paths, their lengths.

    Paths and pairs as log(1 + number). Lengths in landmarks, the last one counted.
    """
    N, Q = len(graph), K + 1
    leaves, arrived = _Ways.none((N, Q)), _Ways.none((Q, Q))  # by where they came from
    steps, ends = _steps(graph, landmark_N)
    for index, sources in steps:
        if sources is None:
            leaves.begin(index, 0)
        else:
            leaves.join(index, leaves, sources)
        kind = int(landmark_N[index])
        if kind >= 0:
            arrived.add(kind, leaves, index)
            leaves.short[index] += 1
            leaves.far[index] += 1
            leaves.direct[index] = -np.inf
            leaves.begin(index, kind + 1)
    for end in ends:
        arrived.add(K, leaves, end)
    return np.concatenate(
        [
            np.logaddexp(0, arrived.direct.T).ravel(),
            np.logaddexp(0, arrived.paths.T).ravel(),
            np.where(np.isfinite(arrived.short), arrived.short, NONE).T.ravel(),
            np.where(np.isfinite(arrived.far), arrived.far, NONE).T.ravel(),
        ]
    )


@dataclass(frozen=True, slots=True)
class _Ways:
    """What is known of the ways that end at each row, by where they began; changed in place.

    Attributes:
        direct: Logarithm of how many have no landmark between.
        paths: Logarithm of how many there are.
        short: Landmarks on the shortest.
        far: Landmarks on the longest.
    """

    direct: Array
    paths: Array
    short: Array
    far: Array

    @staticmethod
    def none(shape: tuple[int, int]) -> "_Ways":
        return _Ways(*(np.full(shape, fill) for fill in (-np.inf, -np.inf, np.inf, -np.inf)))

    def begin(self, row: int, column: int) -> None:
        """One more way begins here, with no landmark on it."""
        self.direct[row, column] = self.short[row, column] = 0
        self.paths[row, column] = np.logaddexp(self.paths[row, column], 0)
        self.far[row, column] = max(self.far[row, column], 0)

    def join(self, row: int, other: "_Ways", sources: Sequence[int]) -> None:
        """What comes from some rows goes on together."""
        if len(sources) == 1:
            self.direct[row], self.paths[row] = other.direct[sources[0]], other.paths[sources[0]]
            self.short[row], self.far[row] = other.short[sources[0]], other.far[sources[0]]
        elif sources:
            self.direct[row] = np.logaddexp.reduce(other.direct[sources])
            self.paths[row] = np.logaddexp.reduce(other.paths[sources])
            self.short[row], self.far[row] = other.short[sources].min(axis=0), other.far[sources].max(axis=0)

    def add(self, row: int, other: "_Ways", source: int) -> None:
        """What comes from one more row ends here too, at one more landmark."""
        self.direct[row] = np.logaddexp(self.direct[row], other.direct[source])
        self.paths[row] = np.logaddexp(self.paths[row], other.paths[source])
        self.short[row] = np.minimum(self.short[row], other.short[source] + 1)
        self.far[row] = np.maximum(self.far[row], other.far[source] + 1)


def position_columns(graph: ComputationalGraph, landmark_N: Array, K: int) -> Array:
    """Flow, cost and place of each kind.

    Flow is what arrives if the input sends 1 and every node divides what it has evenly among its readers (once per use);
    reverse flow is what arrives at it from the output, divided among arguments. Depth counts landmarks on the longest
    path down to a node, height those on the longest path from it to the output.
    """
    N = len(graph)
    weight = [float(kind >= 0) for kind in landmark_N.tolist()]
    uses = _uses(graph)
    flow, back, depth, height = ([0.0] * N for _ in range(4))
    for index, node in enumerate(graph.nodes):
        flow[index] = (
            sum(flow[s] / uses[s] for s in node.inputs) if node.inputs else float(node.op == "input")
        )
        depth[index] = weight[index] + max((depth[s] for s in node.inputs), default=0.0)
    for end in dict.fromkeys(graph.outputs):
        back[end] = 1 / len(graph.outputs)
    for index in range(N - 1, -1, -1):
        for source in graph.nodes[index].inputs:
            back[source] += back[index] / len(graph.nodes[index].inputs)
            height[source] = max(height[source], height[index] + weight[index])
    multiply_adds, parameters = _costs(graph)
    sums, places = np.zeros((4, K)), np.full((6, K), NONE)
    members: list[list[int]] = [[] for _ in range(K)]
    for index in np.flatnonzero(landmark_N >= 0).tolist():
        members[landmark_N[index]].append(index)
    for k, own in enumerate(members):
        if own:
            totals = [sum(values[i] for i in own) for values in (flow, back, multiply_adds, parameters)]
            sums[:, k] = [*totals[:2], *map(log1p, totals[2:])]
            places[:, k] = [f([x[i] for i in own]) for x in (depth, height) for f in (_mean, min, max)]
    return np.concatenate([sums.ravel(), places.ravel()])


def global_columns(graph: ComputationalGraph, landmark_N: Array) -> Array:
    """What `GLOBAL_COLUMNS` names, but for the last."""
    fan_in = [len(node.inputs) for node in graph.nodes]
    uses = _uses(graph)
    is_landmark = (landmark_N >= 0).tolist()
    level, deep = [1] * len(graph), [0] * len(graph)
    for index, node in enumerate(graph.nodes):
        level[index] = 1 + max((level[s] for s in node.inputs), default=0)
        deep[index] = is_landmark[index] + max((deep[s] for s in node.inputs), default=0)
    merges = [n for n in fan_in if n > 1]
    sizes = [prod(shape) for shape in graph.shapes]
    widths = [log1p(size) for size, counts in zip(sizes, is_landmark, strict=True) if counts] or [0.0]
    multiply_adds, parameters = _costs(graph)
    log_paths, mean, spread = _path_moments(graph, landmark_N)
    return np.array(
        [
            len(graph), sum(fan_in), sum(is_landmark), max(level), max(deep[i] for i in graph.outputs),
            log_paths if log_paths > -inf else NONE, mean, spread, len(merges), sum(merges),
            max(fan_in), max(uses), max((uses[i] for i in graph.inputs), default=0),
            log1p(sum(parameters)), log1p(sum(multiply_adds)), log1p(sum(sizes)),
            _mean(widths), min(widths), max(widths),
        ],
        dtype=np.float64,
    )  # fmt: skip


def _path_moments(graph: ComputationalGraph, landmark_N: Array) -> tuple[float, float, float]:
    """Logarithm of the number of paths; mean and standard deviation of the landmarks on one, in the mean over outputs.

    The law of total variance rather than the mean square, whose rounding would make a spread out of nothing.
    """
    N = len(graph)
    paths, mean, variance = [-inf] * N, [0.0] * N, [0.0] * N
    steps, ends = _steps(graph, landmark_N)
    for index, sources in steps:
        if sources is None:
            paths[index] = 0.0
        else:
            paths[index] = _log_sum([paths[s] for s in sources])
            shares = [(s, exp(paths[s] - paths[index])) for s in sources if paths[s] > -inf]
            mean[index] = sum((share * mean[s] for s, share in shares), 0.0)
            variance[index] = sum(
                (share * (variance[s] + (mean[s] - mean[index]) ** 2) for s, share in shares), 0.0
            )
        if landmark_N[index] >= 0 and paths[index] > -inf:
            mean[index] += 1
    return (
        _log_sum([paths[end] for end in ends]),
        _mean([mean[end] for end in ends]),
        _mean([sqrt(variance[end]) for end in ends]),
    )


def _log_sum(logs: Sequence[float]) -> float:
    """Logarithm of the sum of what the logarithms stand for."""
    top = max(logs, default=-inf)
    return top if top == -inf or len(logs) == 1 else top + log(sum(exp(value - top) for value in logs))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _uses(graph: ComputationalGraph) -> list[int]:
    """How often each node is read."""
    uses = [0] * len(graph)
    for node in graph.nodes:
        for source in node.inputs:
            uses[source] += 1
    return uses


def _steps(
    graph: ComputationalGraph, landmark_N: Array
) -> tuple[list[tuple[int, list[int] | None]], list[int]]:
    """The nodes where something happens to paths, with those that they come from; and those that the outputs stand for.

    Inputs, with None, where paths begin; landmarks; and nodes that join or end paths. A node of another kind that reads one
    value passes on what it gets and is skipped.
    """
    stands_for = list(range(len(graph)))
    steps: list[tuple[int, list[int] | None]] = []
    for index, (node, kind) in enumerate(zip(graph.nodes, landmark_N.tolist(), strict=True)):
        if len(node.inputs) == 1 and kind < 0:
            stands_for[index] = stands_for[node.inputs[0]]
        else:
            steps.append((index, None if node.op == "input" else [stands_for[s] for s in node.inputs]))
    return steps, [stands_for[index] for index in graph.outputs]


def _costs(graph: ComputationalGraph) -> tuple[list[float], list[float]]:
    """Multiply-adds and parameters of every node."""
    multiply_adds = [
        float(OPS[node.op].multiply_adds(dict(node.attrs), graph.input_shapes(index), graph.shapes[index]))
        for index, node in enumerate(graph.nodes)
    ]
    parameters = [0.0] * len(graph)
    for name, spec in graph.parameters.items():
        parameters[int(name[1:].split(".", 1)[0])] += prod(spec.shape)
    return multiply_adds, parameters
