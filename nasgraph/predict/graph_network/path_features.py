"""Numbers of a graph that mean the same in every space: what lies on the paths from its inputs to its outputs.

Spaces differ in operators, widths and skeletons, but a path that crosses three spatial convolutions and a pooling means much
the same in all of them. Every column is free of the scale of the network's widths and of names, so that what is learnt in one
space can be applied in another (in the spirit of GRAF, Kadlecová et al. 2024, whose columns depend on the space).

Shape letters: G = graphs, N = nodes, K = kinds, R = ways to reduce, F = features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, prod

import numpy as np
from jaxtyping import Float

from nasgraph.ir import ComputationalGraph, cost_of

Array = np.ndarray

KINDS = ("weight", "spatial", "pool", "opaque")
"""What is counted: nodes with a weight; those among them whose kernel covers several places; poolings; operators outside the
graph language."""
REDUCTIONS = ("most", "fewest", "mean", "walk")
"""Over all paths: largest and smallest count, the mean, and the expectation of a walk that goes back from the output and chooses
each time among the inputs with equal chances."""
POOLS = frozenset({"avg_pool2d", "avg_pool3d", "max_pool2d", "max_pool3d"})


@dataclass(frozen=True)
class PathFeatures:
    """Describes graphs by counts on their paths. `nasgraph.predict.Features`: equal columns for all graphs, rows independent.

    All columns are log(1 + x) of: the number of paths from an input to an output; the area of all kernels together; multiply-adds
    and parameters in units of a dense pointwise map at the widest place; the nodes of each kind; and for each kind its
    `REDUCTIONS` over the paths. A path ends at `zero`. Without any path its columns are 0. Isomorphic graphs have equal rows up
    to rounding. Cost: a few microseconds per node.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        over_paths = [f"{reduction} {kind}" for reduction in REDUCTIONS for kind in KINDS]
        return ("paths", "kernel area", "multiply-adds", "parameters", *KINDS, *over_paths)

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs features"]:
        """One row per graph, one column per name; all are finite and not negative."""
        rows = [_row(graph) for graph in graphs]
        return np.array(rows, dtype=np.float64).reshape(len(graphs), len(self.names))


def _row(graph: ComputationalGraph) -> list[float]:
    kinds_NK, area = _kinds(graph)
    log_paths, reduced_RK = _over_paths(graph, kinds_NK)
    cost, (widest_map, widest_weight) = cost_of(graph), _widest(graph)
    counts = [
        area,
        cost.multiply_adds / widest_map,
        cost.num_parameters / widest_weight,
        *kinds_NK.sum(axis=0),
        *reduced_RK.ravel(),
    ]
    return [log_paths, *np.log1p(counts).tolist()]


def _kinds(graph: ComputationalGraph) -> tuple[Float[Array, "nodes kinds"], float]:
    """Which kinds each node is of, and the area of all kernels."""
    weighted = {
        int(name[1:].split(".")[0]) for name, spec in graph.parameters.items() if spec.role == "weight"
    }
    kinds_NK, total = np.zeros((len(graph), len(KINDS))), 0.0
    for index, node in enumerate(graph.nodes):
        if index in weighted:
            area = _kernel_area(dict(node.attrs).get("kernel_size", 1))
            total += area
            kinds_NK[index, :2] = 1, area > 1
        kinds_NK[index, 2:] = node.op in POOLS, node.op == "opaque"
    return kinds_NK, total


def _kernel_area(kernel: object) -> int:
    sizes = kernel if isinstance(kernel, tuple) else (kernel,)
    return prod(size for size in sizes if isinstance(size, int))


def _widest(graph: ComputationalGraph) -> tuple[float, float]:
    """Multiply-adds and parameters of a dense pointwise map, each at the place where it costs most."""
    most, widest = 1, 1
    for shape in graph.shapes:
        if not shape:
            continue
        width = shape[0] if len(shape) > 2 else shape[-1]  # images have their channels first, sequences last
        most, widest = max(most, prod(shape) * width), max(widest, width)
    return float(most), float(widest) ** 2


def _over_paths(
    graph: ComputationalGraph, kinds_NK: Float[Array, "nodes kinds"]
) -> tuple[float, Float[Array, "reductions kinds"]]:
    """log(1 + number of paths), and what the paths cross; both 0 if no path leads from an input to an output."""
    log_paths: list[float | None] = []  # logarithms, since numbers of paths grow exponentially with depth
    state_NRK = np.zeros((len(graph), len(REDUCTIONS), kinds_NK.shape[1]))
    for index, node in enumerate(graph.nodes):
        if node.op == "input" or node.op == "zero" or not node.inputs:
            log_paths.append(0.0 if node.op == "input" else None)
            continue
        count, joined_RK = _join(node.inputs, log_paths, state_NRK)
        log_paths.append(count)
        state_NRK[index] = joined_RK + kinds_NK[index]
    count, joined_RK = _join(graph.outputs, log_paths, state_NRK)
    return (0.0, joined_RK) if count is None else (float(np.logaddexp(0.0, count)), joined_RK)


def _join(
    sources: Sequence[int],
    log_paths: Sequence[float | None],
    state_NRK: Float[Array, "nodes reductions kinds"],
) -> tuple[float | None, Float[Array, "reductions kinds"]]:
    """What a node sees of the paths that end in what it reads."""
    reached = [(source, count) for source in sources if (count := log_paths[source]) is not None]
    if not reached:
        return None, np.zeros(state_NRK.shape[1:])
    if len(reached) == 1:
        return reached[0][1], state_NRK[reached[0][0]]
    highest = max(count for _, count in reached)
    weight = np.array([exp(count - highest) for _, count in reached])
    total = float(weight.sum())
    part_SRK = state_NRK[[source for source, _ in reached]]
    joined = [
        part_SRK[:, 0].max(axis=0),
        part_SRK[:, 1].min(axis=0),
        (weight / total) @ part_SRK[:, 2],
        part_SRK[:, 3].mean(axis=0),
    ]
    return highest + log(total), np.stack(joined)
