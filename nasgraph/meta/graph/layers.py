"""The layer-level form of a parameter graph: one node per operator, for networks of tens of millions of parameters.

Tensors are described by statistics that no permutation of units changes, so the form is invariant; it cannot be turned back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.meta.graph.layout import check_architecture
from nasgraph.modules import State, check_state, is_averaged

if TYPE_CHECKING:
    from torch_geometric.data import Data

TENSORS = (
    *("weight", "weight_hh", "weight_hr", "root", "source", "target"),
    *("bias", "bias_hh", "running_mean", "running_var"),
)
"""Tensors that a node may have. `weight` stands for `weight_ih` as well, and `bias` for `bias_ih`."""

STATISTICS = (
    *("log_size", "mean", "std", "mean_abs", "kurtosis"),
    *("min", "q05", "q25", "q50", "q75", "q95", "max"),
    *("row_norm", "row_norm_std", "column_norm", "column_norm_std", "spectral_norm", "stable_rank"),
)
"""What is known of each tensor. Rows are output units of a weight, columns all that one input weighs; norms are root mean squares,
the spectral norm is divided by the square root of the number of rows, the stable rank (squared Frobenius by squared spectral norm,
Rudelson and Vershynin 2007) by the smaller side."""

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_ITERATIONS = 12


@dataclass(frozen=True, slots=True, eq=False)
class LayerGraph:
    """A network as the graph of its operators with statistics of their tensors.

    Attributes:
        node_values: For each operator, tensor and statistic the value, or zero.
        node_mask: Which tensors an operator has.
        node_op: Which operator, as a place in the sorted names of `nasgraph.ir.OPS`.
        node_depth: Number of operators before it, on the longest way.
        edge_index: From the operator read to the operator that reads it.
        edge_argument: As which of its inputs, 0 where their order has no meaning.
    """

    node_values: Float[Tensor, "nodes tensors statistics"]
    node_mask: Bool[Tensor, "nodes tensors"]
    node_op: Int64[Tensor, " nodes"]
    node_depth: Int64[Tensor, " nodes"]
    edge_index: Int64[Tensor, "2 edges"]
    edge_argument: Int64[Tensor, " edges"]

    def to_data(self) -> "Data":
        """The graph for torch_geometric: `x` holds all statistics of an operator in a row."""
        from torch_geometric.data import Data

        return Data(
            x=self.node_values.flatten(1),
            edge_index=self.edge_index,
            edge_attr=self.edge_argument,
            node_mask=self.node_mask,
            node_op=self.node_op,
            node_depth=self.node_depth,
        )


def layer_graph(graph: ComputationalGraph, state: State) -> LayerGraph:
    """The layer-level form of a network. Pure; computed in double precision, given in single.

    Args:
        graph: The architecture.
        state: Its parameters, running statistics and constants.

    Raises:
        ParameterGraphError: If an operator is opaque, or nothing has parameters.
        StateError: If the state is that of another architecture, not finite, or quantised.
    """
    check_architecture(graph)
    check_state(graph, state)
    values = torch.zeros(len(graph), len(TENSORS), len(STATISTICS))
    mask = torch.zeros(len(graph), len(TENSORS), dtype=torch.bool)
    for name, tensor in state.items():
        if is_averaged(name, tensor):
            node, place = _place(name)
            values[node, place] = tensor_statistics(tensor)
            mask[node, place] = True
    sources = [(source, node) for node, each in enumerate(graph.nodes) for source in each.inputs]
    arguments = [
        0 if OPS[each.op].commutative else place
        for each in graph.nodes
        for place, _ in enumerate(each.inputs)
    ]
    return LayerGraph(
        node_values=values,
        node_mask=mask,
        node_op=torch.tensor([_OP_PLACES[node.op] for node in graph.nodes]),
        node_depth=torch.tensor(_depths(graph)),
        edge_index=torch.tensor(sources, dtype=torch.int64).reshape(-1, 2).T.contiguous(),
        edge_argument=torch.tensor(arguments, dtype=torch.int64),
    )


_OP_PLACES: Mapping[str, int] = {op: place for place, op in enumerate(sorted(OPS))}


def _place(name: str) -> tuple[int, int]:
    node, own = name[1:].split(".")
    return int(node), TENSORS.index(own.removesuffix("_ih"))


def _depths(graph: ComputationalGraph) -> list[int]:
    depths: list[int] = []
    for node in graph.nodes:
        depths.append(max((depths[source] + 1 for source in node.inputs), default=0))
    return depths


def tensor_statistics(tensor: Tensor) -> Float[Tensor, " statistics"]:
    """The `STATISTICS` of a tensor, the same for every order of its rows and columns up to rounding."""
    flat = tensor.detach().reshape(-1)
    matrix = tensor.detach().reshape(len(tensor) if tensor.dim() else 1, -1).double()
    columns = tensor.detach().double().transpose(0, 1).flatten(1) if tensor.dim() > 1 else matrix.T
    mean, mean_square = float(matrix.mean()), float(matrix.square().mean())
    std = sqrt(max(float((matrix - mean).square().mean()), 0.0))
    kurtosis = float((matrix - mean).pow(4).mean()) / std**4 if std > 0 else 0.0
    rows = matrix.square().mean(dim=1).sqrt()
    columns = columns.square().mean(dim=1).sqrt()
    spectral = _spectral_norm(matrix)
    frobenius = mean_square * matrix.numel()
    rank = frobenius / spectral**2 / min(matrix.shape) if spectral > 0 else 0.0
    spread = [float(each.std(correction=0)) for each in (rows, columns)]
    return torch.tensor(
        [
            *(log10(flat.numel()), mean, std, float(matrix.abs().mean()), kurtosis),
            *_quantiles(flat),
            *(float(rows.mean()), spread[0], float(columns.mean()), spread[1]),
            *(spectral / sqrt(len(matrix)), rank),
        ],
        dtype=torch.float32,
    )


def _quantiles(flat: Tensor) -> list[float]:
    """Elements at the ranks of the quantiles: selection, not sorting, so that millions take a fraction of a second."""
    values = flat.float().cpu().numpy() if flat.dtype != torch.float64 else flat.cpu().numpy()
    ranks = [round(q * (len(values) - 1)) for q in _QUANTILES]
    found = np.partition(values, sorted(set(ranks)))
    return [float(found[rank]) for rank in ranks]


def _spectral_norm(matrix: Tensor) -> float:
    """Largest singular value by power iteration, started from the norms of the columns: an equivariant start, so the result
    does not depend on the order of rows and columns."""
    vector = matrix.square().sum(dim=0).sqrt()
    for _ in range(_ITERATIONS):
        size = vector.norm()
        if not size > 0:
            return 0.0
        vector = matrix.T @ (matrix @ (vector / size))
    return float(vector.norm().sqrt())
