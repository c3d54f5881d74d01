"""What a network asks of a device: its operators by kind, with how often they run, how much they compute and move."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Float

from nasgraph.ir import OPS, ComputationalGraph, Scalar, Shape, cost_of

Array = np.ndarray

logger = logging.getLogger(__name__)

FREE = frozenset(
    {"input", "parameter", "constant", "identity", "dropout", "drop_path", "reshape", "flatten", "expand"}
)
"""Operators that compute nothing in inference mode."""
TOTALS = ("nodes", "multiply_adds", "parameters", "activations", "depth")


def operator_costs(graph: ComputationalGraph) -> dict[str, tuple[int, int, int]]:
    """What each kind of operator in a graph adds up to, for one example.

    Operators are of one kind if they have the same name and, where they slide a window, the same kernel and grouping (plain,
    grouped, or depthwise): these run at speeds of their own. Operators that compute nothing are left out.

    Returns:
        By kind: how often it occurs, its multiply-adds, and its traffic, the elements that it reads (parameters
        included) and writes.
    """
    found: dict[str, tuple[int, int, int]] = {}
    own: dict[int, int] = {}
    for name, spec in graph.parameters.items():
        index = int(name[1:].split(".")[0])
        own[index] = own.get(index, 0) + prod(spec.shape)
    for index, node in enumerate(graph.nodes):
        if node.op in FREE:
            continue
        inputs, output = graph.input_shapes(index), graph.shapes[index]
        attrs = dict(node.attrs)
        kind = _kind(node.op, attrs, inputs)
        count, multiply_adds, traffic = found.get(kind, (0, 0, 0))
        found[kind] = (
            count + 1,
            multiply_adds + OPS[node.op].multiply_adds(attrs, inputs, output),
            traffic + sum(prod(shape) for shape in inputs) + prod(output) + own.get(index, 0),
        )
    return found


def _kind(op: str, attrs: Mapping[str, Scalar], inputs: Sequence[Shape]) -> str:
    kernel = attrs.get("kernel_size")
    if kernel is None:
        return op
    sides = kernel if isinstance(kernel, tuple) else (kernel,)
    kind = f"{op} {'x'.join(map(str, sides))}"
    groups = attrs.get("groups", 1)
    if groups == 1:
        return kind
    return f"{kind} {'depthwise' if groups == inputs[0][0] else 'grouped'}"


@dataclass(frozen=True)
class CostColumns:
    """Operator costs of graphs as columns, the same for every graph. `nasgraph.predict.Features`.

    Attributes:
        kinds: Kinds of operators that have columns of their own. Others count in the totals only.
    """

    kinds: tuple[str, ...]

    @staticmethod
    def of(graphs: Sequence[ComputationalGraph]) -> "CostColumns":
        """Columns for every kind of operator in these graphs."""
        return CostColumns(tuple(sorted({kind for graph in graphs for kind in operator_costs(graph)})))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        own = [f"{kind}: {cost}" for kind in self.kinds for cost in ("count", "multiply-adds", "traffic")]
        return (*own, *TOTALS)

    def __call__(self, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs columns"]:
        """One row per graph, all at least zero."""
        rows, unknown = [], set()
        for graph in graphs:
            found, total = operator_costs(graph), cost_of(graph)
            unknown |= set(found) - set(self.kinds)
            count = sum(number for number, _, _ in found.values())
            totals = (
                count,
                total.multiply_adds,
                total.num_parameters,
                total.activation_bytes // 4,
                total.depth,
            )
            rows.append([value for kind in self.kinds for value in found.get(kind, (0, 0, 0))] + [*totals])
        if unknown:
            logger.warning(
                "No measured network has these operators, so their costs are guesses: %s",
                ", ".join(sorted(unknown)),
            )
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.names))
