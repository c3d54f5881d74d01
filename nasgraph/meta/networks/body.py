"""Encoders, rounds and the head that edits, for the kinds "message_passing" and "relational".

Shape letters: N = nodes, E = edges, G = networks, D = size of a node's state, V = columns of a node's numbers, K = numbers of an edge.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.meta.graph import NODE_COLUMNS, NUM_SLOTS, ParameterGraph
from nasgraph.meta.networks.config import MetanetworkConfig
from nasgraph.meta.networks.encoding import EdgeEncoder, NodeEncoder
from nasgraph.meta.networks.message_passing import (
    FIRST_STEP,
    MessagePassing,
    States,
    pooled_edges,
    pooled_nodes,
    zeroed,
)
from nasgraph.meta.networks.relational import Relational
from nasgraph.meta.networks.routes import Routes, routes


class Body(nn.Module):
    """What turns a parameter graph into states, for the heads.

    Args:
        config: The shape.
    """

    def __init__(self, config: MetanetworkConfig) -> None:
        super().__init__()
        self.nodes = NodeEncoder(
            frequencies=config.frequencies, positions=config.max_positions, dim=config.node_dim
        )
        self.edges = EdgeEncoder(frequencies=config.frequencies, dim=config.edge_dim)
        self.network = nn.Parameter(torch.randn(config.graph_dim) * 0.1)
        self.rounds = nn.ModuleList(_round(config) for _ in range(config.layers))
        self.edit_node = EditHead(config.node_dim, len(NODE_COLUMNS))
        self.edit_edge = EditHead(config.edge_dim, NUM_SLOTS)
        self.read_dim = 4 * config.node_dim + 2 * config.edge_dim + config.graph_dim

    def encode(self, pg: ParameterGraph, weights_EK: Float[Tensor, "E K"]) -> tuple[States, Routes]:
        """The states after the last round. `weights_EK`: scaled for the fan-in."""
        ways = routes(pg)
        states = States(
            self.nodes(pg, ways, pg.node_values.to(weights_EK)),
            self.edges(pg, ways, weights_EK),
            self.network.expand(pg.num_graphs, -1),
        )
        for each in self.rounds:
            states = each(states, ways)
        return states, ways

    def read(self, pg: ParameterGraph, weights_EK: Float[Tensor, "E K"]) -> Float[Tensor, "G read"]:
        """What the heads for whole networks read."""
        states, ways = self.encode(pg, weights_EK)
        parts = [pooled_nodes(states.node_ND, ways), pooled_edges(states.edge_EC, ways), states.network_GH]
        return torch.cat(parts, dim=1)

    def changes(self, pg: ParameterGraph, weights_EK: Float[Tensor, "E K"]) -> tuple[Tensor, Tensor]:
        """What to add to the numbers of nodes, and to scaled weights."""
        states, _ = self.encode(pg, weights_EK)
        return self.edit_node(states.node_ND), self.edit_edge(states.edge_EC)


class EditHead(nn.Module):
    """Changes of numbers: zero at first, and small for long.

    Args:
        dim: Size of a state.
        columns: Numbers of a node or an edge.
    """

    def __init__(self, dim: int, columns: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(FIRST_STEP))
        self.first = nn.Linear(dim, dim)
        self.last = zeroed(nn.Linear(dim, columns))

    def forward(self, states_ND: Tensor) -> Tensor:
        """The change of each number."""
        changed: Tensor = self.step * self.last(states_ND + F.silu(self.first(states_ND)))
        return changed


def _round(config: MetanetworkConfig) -> nn.Module:
    if config.kind == "relational":
        return Relational(
            node_dim=config.node_dim,
            edge_dim=config.edge_dim,
            graph_dim=config.graph_dim,
            heads=config.heads,
        )
    return MessagePassing(
        node_dim=config.node_dim,
        edge_dim=config.edge_dim,
        graph_dim=config.graph_dim,
        use_max=config.use_max,
    )
