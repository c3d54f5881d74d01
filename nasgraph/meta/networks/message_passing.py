# ruff: noqa: N815  shape letters after tensor names, in fields too
"""A round of message passing: products along edges, gathered at both ends; then new states of nodes, edges and network.

A message is the product of what a unit says and the state of the edge, `a(x_u) * e_uv`, and its sum meets what the other unit
says (`x_v * sum_u a(x_u) * e_uv`, the product of three of Kofinas et al., "Graph Neural Networks for Learning Equivariant
Representations of Neural Networks", 2024, and of Liu et al. 2025). So a round can do what a layer of the network does. Sums are
divided by the number of edges and by its root; the spread is the standard deviation of the messages (PNA, Corso et al. 2020).
Everything wide is computed at the nodes and copied to the edges; no concatenation of the size of the edges is made.

Shape letters: N = nodes, E = edges, G = networks, D = size of a node's state, C = of an edge's, H = of a network's.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.meta.networks.routes import Routes
from nasgraph.meta.networks.segments import Segments

FIRST_STEP = 0.01
"""How far an edit goes at first, relative to what the head says."""


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """The states of a batch between two rounds.

    Attributes:
        node_ND: Of units.
        edge_EC: Of weights.
        network_GH: Of whole networks.
    """

    node_ND: Float[Tensor, "N D"]
    edge_EC: Float[Tensor, "E C"]
    network_GH: Float[Tensor, "G H"]


class MessagePassing(nn.Module):
    """One round. The identity at first: the last maps are zero.

    Args:
        node_dim, edge_dim, graph_dim: Sizes of the states.
        use_max: Whether the largest message is passed too.
    """

    def __init__(self, *, node_dim: int, edge_dim: int, graph_dim: int, use_max: bool = False) -> None:
        super().__init__()
        self.use_max = use_max
        self.norm = nn.LayerNorm(node_dim)
        self.from_source = nn.Linear(node_dim, edge_dim)
        self.from_target = nn.Linear(node_dim, edge_dim)
        gathered = 2 * (5 if use_max else 4) * edge_dim
        self.node = NodeUpdate(node_dim, gathered, graph_dim)
        self.network = NetworkUpdate(node_dim, graph_dim)
        self.edge = EdgeUpdate(edge_dim)

    def forward(self, states: States, routes: Routes) -> States:
        """New states of everything."""
        x_ND, e_EC = self.norm(states.node_ND), states.edge_EC
        said_EC = routes.source.copy(self.from_source(x_ND))
        heard_EC = routes.target.copy(self.from_target(x_ND))
        gathered = self._gather(said_EC * e_EC, routes.target) + self._gather(heard_EC * e_EC, routes.source)
        gathered += [routes.target.mean(e_EC), routes.source.mean(e_EC)]
        change_ND = self.node(x_ND, torch.cat(gathered, dim=1), states.network_GH, routes)
        node_ND, network_GH = states.node_ND + change_ND, states.network_GH
        network_GH = network_GH + self.network(node_ND, network_GH, routes)
        return States(node_ND, e_EC + self.edge(e_EC, said_EC + heard_EC), network_GH)

    def _gather(self, message_EC: Tensor, there: Segments) -> list[Tensor]:
        summed_NC = there.sum(message_EC)
        count_N1 = there.count.to(summed_NC)
        mean_NC = summed_NC / count_N1
        variance_NC = there.mean(message_EC * message_EC) - mean_NC * mean_NC
        gathered = [summed_NC / count_N1.sqrt(), mean_NC, (variance_NC.clamp(min=0) + 1e-6).sqrt()]
        return [*gathered, there.max(message_EC)] if self.use_max else gathered


class NodeUpdate(nn.Module):
    """What is added to the state of a node, from its state, what was gathered there, and the state of its network."""

    def __init__(self, node_dim: int, gathered: int, graph_dim: int) -> None:
        super().__init__()
        self.from_self = nn.Linear(node_dim, 2 * node_dim)
        self.from_gathered = nn.Linear(gathered, 2 * node_dim, bias=False)
        self.gate = nn.Linear(node_dim, 2 * node_dim)
        self.from_network = nn.Linear(graph_dim, 2 * node_dim, bias=False)
        self.last = zeroed(nn.Linear(2 * node_dim, node_dim))

    def forward(self, x_ND: Tensor, gathered_NC: Tensor, network_GH: Tensor, routes: Routes) -> Tensor:
        """The change of the nodes' states."""
        # Compressed: messages of a diverged network are huge, and a norm would hide how large they are.
        gathered_N = self.from_gathered(compressed(gathered_NC))
        hidden_N = self.from_self(x_ND) + gathered_N * (1 + self.gate(x_ND))
        hidden_N = hidden_N + routes.network.copy(self.from_network(network_GH))
        changed: Tensor = self.last(F.gelu(hidden_N))
        return changed


class EdgeUpdate(nn.Module):
    """What is added to the state of an edge, from its state and what both ends say."""

    def __init__(self, edge_dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(edge_dim, edge_dim, bias=False)
        self.last = zeroed(nn.Linear(edge_dim, edge_dim))

    def forward(self, e_EC: Tensor, said_EC: Tensor) -> Tensor:
        """The change of the edges' states. `said_EC`: by both ends."""
        changed: Tensor = self.last(torch.addmm(said_EC, e_EC, self.mix.weight.T).relu())
        return changed


class NetworkUpdate(nn.Module):
    """What is added to the state of a whole network, from means and spreads over its nodes and its outputs."""

    def __init__(self, node_dim: int, graph_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(4 * node_dim + graph_dim, 2 * graph_dim)
        self.last = zeroed(nn.Linear(2 * graph_dim, graph_dim))

    def forward(self, node_ND: Tensor, network_GH: Tensor, routes: Routes) -> Tensor:
        """The change of the networks' states."""
        read_G = torch.cat([pooled_nodes(node_ND, routes), network_GH], dim=1)
        changed: Tensor = self.last(F.gelu(self.first(read_G)))
        return changed


def pooled_nodes(node_ND: Float[Tensor, "N D"], routes: Routes) -> Float[Tensor, "G 4D"]:
    """Mean and spread of the states of nodes, and of outputs, for each network.

    Large numbers are compressed, so that a diverged network does not drown the others.
    """
    end_D = node_ND.index_select(0, routes.end_nodes)
    return compressed(torch.cat([*moments(node_ND, routes.network), *moments(end_D, routes.end)], dim=1))


def pooled_edges(edge_EC: Float[Tensor, "E C"], routes: Routes) -> Float[Tensor, "G 2C"]:
    """Mean and root mean square of the states of edges, for each network."""
    sums = [routes.network.sum(routes.target.sum(power)) for power in (edge_EC, edge_EC * edge_EC)]
    mean_GC, square_GC = (each / routes.edges_G1.to(each) for each in sums)
    return compressed(torch.cat([mean_GC, (square_GC + 1e-6).sqrt()], dim=1))


def compressed(x: Tensor) -> Tensor:
    """Odd, of slope one at zero, and growing as a root: keeps the states of diverged networks within reach."""
    return x * (1 + x.abs()).rsqrt()


def moments(rows_RD: Tensor, there: Segments) -> list[Tensor]:
    """Mean and standard deviation of the rows of each segment."""
    mean_SD = there.mean(rows_RD)
    variance_SD = there.mean(rows_RD * rows_RD) - mean_SD * mean_SD
    return [mean_SD, (variance_SD.clamp(min=0) + 1e-6).sqrt()]


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with all weights zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
