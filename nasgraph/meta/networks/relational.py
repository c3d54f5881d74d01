"""A round of the relational transformer along the edges of a network: attention both ways, with the weights in keys and values.

After Diao and Loynd, "Relational Attention", 2023, as Kofinas et al. 2024 use it on networks: queries, keys and values of nodes get
additive projections of the edge; the states of edges are updated from both ends. Attention runs over existing edges only. One
state per edge serves both directions, each with its own projections, so an edge and its reverse are updated together.

Shape letters: N = nodes, E = edges, G = networks, D = size of a node's state, C = of an edge's, H = heads.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.meta.networks.message_passing import EdgeUpdate, NetworkUpdate, NodeUpdate, States
from nasgraph.meta.networks.routes import Routes
from nasgraph.meta.networks.segments import Segments


class Attention(nn.Module):
    """Attention of nodes to their neighbours in one direction.

    Args:
        node_dim, edge_dim: Sizes of the states.
        heads: Must divide `node_dim`.
    """

    def __init__(self, *, node_dim: int, edge_dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.node_dim = heads, node_dim
        self.query = nn.Linear(node_dim, node_dim)
        self.key = nn.Linear(node_dim, node_dim)
        self.value = nn.Linear(node_dim, node_dim)
        self.edge_key = nn.Linear(edge_dim, node_dim, bias=False)
        self.edge_value = nn.Linear(edge_dim, node_dim, bias=False)
        self.factor = nn.Linear(edge_dim, node_dim, bias=False)

    def forward(self, x_ND: Tensor, e_EC: Tensor, here: Segments, there: Segments) -> Float[Tensor, "N 2D"]:
        """What nodes hear: the mean by attention, and the sum by the weights themselves over the root of the number.

        Args:
            x_ND: Normalised states of nodes.
            e_EC: States of edges.
            here: Edges by the node that asks.
            there: Edges by the node that answers.
        """
        query_ED = here.copy(self.query(x_ND))
        key_ED = there.copy(self.key(x_ND)) + self.edge_key(e_EC)
        logit_EH = (query_ED * key_ED).unflatten(1, (self.heads, -1)).sum(-1)
        share_EH = here.softmax(logit_EH * (self.node_dim // self.heads) ** -0.5)
        product_ED = there.copy(self.value(x_ND)) * self.factor(e_EC)
        heard_ED = (product_ED + self.edge_value(e_EC)).unflatten(1, (self.heads, -1)) * share_EH.unsqueeze(
            -1
        )
        summed_ND = here.sum(product_ED) / here.count.to(product_ED).sqrt()
        return torch.cat([here.sum(heard_ED.flatten(1)), summed_ND], dim=1)


class Relational(nn.Module):
    """One round. The identity at first: the last maps are zero.

    Args:
        node_dim, edge_dim, graph_dim: Sizes of the states.
        heads: Must divide `node_dim`.
    """

    def __init__(self, *, node_dim: int, edge_dim: int, graph_dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(node_dim)
        self.forwards = Attention(node_dim=node_dim, edge_dim=edge_dim, heads=heads)
        self.backwards = Attention(node_dim=node_dim, edge_dim=edge_dim, heads=heads)
        self.node = NodeUpdate(node_dim, 4 * node_dim, graph_dim)
        self.from_source = nn.Linear(node_dim, edge_dim)
        self.from_target = nn.Linear(node_dim, edge_dim)
        self.edge = EdgeUpdate(edge_dim)
        self.network = NetworkUpdate(node_dim, graph_dim)

    def forward(self, states: States, routes: Routes) -> States:
        """New states of everything."""
        x_ND, e_EC = self.norm(states.node_ND), states.edge_EC
        heard_N = [
            self.forwards(x_ND, e_EC, routes.target, routes.source),
            self.backwards(x_ND, e_EC, routes.source, routes.target),
        ]
        change_ND = self.node(x_ND, torch.cat(heard_N, dim=1), states.network_GH, routes)
        said_EC = routes.source.copy(self.from_source(x_ND)) + routes.target.copy(self.from_target(x_ND))
        node_ND, network_GH = states.node_ND + change_ND, states.network_GH
        network_GH = network_GH + self.network(node_ND, network_GH, routes)
        return States(node_ND, e_EC + self.edge(e_EC, said_EC), network_GH)
