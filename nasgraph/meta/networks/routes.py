# ruff: noqa: N815  shape letters after tensor names, in fields too
"""Where messages go in a batch of parameter graphs: computed once for a batch and kept as long as its edges are."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from nasgraph.meta.graph import ParameterGraph
from nasgraph.meta.networks.segments import Segments, segments


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """Edges by their source and by their target, nodes by their network.

    Attributes:
        source: Edges by the node that they leave.
        target: Edges by the node that they enter.
        network: Nodes by their network.
        end: Nodes that are outputs of their network, by their network; `end_nodes` are these nodes.
        end_nodes: Their places among all nodes.
        edges_G1: Number of edges of each network, at least one.
        node_columns, edge_columns: Columns of numbers that some node, or edge, of the batch has.
    """

    source: Segments
    target: Segments
    network: Segments
    end: Segments
    end_nodes: Tensor
    edges_G1: Tensor
    node_columns: Tensor
    edge_columns: Tensor


_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()


def routes(pg: ParameterGraph) -> Routes:
    """The routes of a batch. Kept while the tensor of its edges lives, which is never changed."""
    found: Routes | None = _KNOWN.get(pg.edge_index)  # type: ignore[no-untyped-call]  # torch's
    if found is None or len(found.network.index) != len(pg.node_graph):
        found = _KNOWN[pg.edge_index] = _routes(pg)
    return found


def is_output(pg: ParameterGraph) -> Tensor:
    """Which nodes are outputs of their network: they have a position, and no edge leaves them."""
    leaves = torch.zeros(len(pg.node_graph), dtype=torch.bool, device=pg.edge_index.device)
    leaves[pg.edge_index[0]] = True
    return (pg.node_position >= 0) & ~leaves


def _routes(pg: ParameterGraph) -> Routes:
    number = len(pg.node_graph)
    end_nodes = is_output(pg).nonzero().squeeze(1)
    edges_G = torch.bincount(pg.node_graph[pg.edge_index[1]], minlength=pg.num_graphs)
    return Routes(
        source=segments(pg.edge_index[0], number),
        target=segments(pg.edge_index[1], number),
        network=segments(pg.node_graph, pg.num_graphs),
        end=segments(pg.node_graph[end_nodes], pg.num_graphs),
        end_nodes=end_nodes,
        edges_G1=edges_G.clamp(min=1).unsqueeze(1).to(torch.get_default_dtype()),
        node_columns=pg.node_mask.any(0).nonzero().squeeze(1),
        edge_columns=pg.edge_mask.any(0).nonzero().squeeze(1),
    )
