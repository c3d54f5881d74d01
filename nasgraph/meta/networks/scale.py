# ruff: noqa: N815  shape letters after tensor names, in fields too
"""A metanetwork's states and rounds that respect the rescaling of hidden units, beside their order.

After Kalogeropoulos, Bouritsas and Panagakis, "Scale Equivariant Graph Metanetworks", 2024. A unit i may be multiplied by a
factor q_i (positive after ReLU; a sign after tanh) if what follows is divided by it: its bias turns into q_i b_i and the weight
from j to i into q_i/q_j w_ij. States turn likewise. Linear maps without bias keep that, and so do products with what does not
change at all, which are functions of canonical forms (a vector over its length; its magnitude).

Where it departs from the paper: messages against the direction of the network need no reciprocal weights, which are unbounded near
zero. Every unit has a second state `y` that turns with 1/q_i; `w_ij y_i` turns with 1/q_j, as a gradient does. `x * y` does not
change, and `x_i * y_j` changes as the weight between them. Units without such freedom (inputs, outputs, GELU) have q = 1, and ordinary
maps may add to their states.

Shape letters: N = nodes, E = edges, G = networks, D = size of what does not change, C = size of what does, H = of a network's state.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.meta.graph import NODE_COLUMNS, NUM_PARAMETER_EDGE_KINDS, NUM_SLOTS, SCALINGS, ParameterGraph
from nasgraph.meta.networks.config import MetanetworkConfig
from nasgraph.meta.networks.encoding import EdgeEncoder, NodeEncoder
from nasgraph.meta.networks.message_passing import FIRST_STEP, compressed, pooled_nodes, zeroed
from nasgraph.meta.networks.routes import Routes, routes
from nasgraph.meta.networks.segments import Segments

SCALED_COLUMNS = tuple(column for column, name in enumerate(NODE_COLUMNS) if not name.startswith("running_"))
"""Numbers of a unit that are multiplied with it. Running statistics are not: what a norm divides out."""


@dataclass(frozen=True, slots=True, eq=False)
class ScaleStates:
    """The states of a batch between two rounds.

    Attributes:
        node_ND: Of units: what does not change.
        x_NC: Of units: changes with the factor of the unit.
        y_NC: Of units: changes with one over it.
        edge_EC: Of weights: changes as the weight does.
        network_GH: Of networks: does not change.
    """

    node_ND: Float[Tensor, "N D"]
    x_NC: Float[Tensor, "N C"]
    y_NC: Float[Tensor, "N C"]
    edge_EC: Float[Tensor, "E C"]
    network_GH: Float[Tensor, "G H"]


@dataclass(frozen=True, slots=True, eq=False)
class Freedom:
    """Which units may be rescaled.

    Attributes:
        fixed_N1: One for units with no factor.
        positive_N1: One for units with positive factors.
        edge_E1: One for edges along which rescaled states may pass: they carry a parameter, or both ends have one factor.
    """

    fixed_N1: Tensor
    positive_N1: Tensor
    edge_E1: Tensor


def freedom(pg: ParameterGraph, like: Tensor) -> Freedom:
    """Read it off a parameter graph. `like`: a tensor of the wanted type."""
    scaling_N = pg.node_scaling
    return Freedom(
        (scaling_N == SCALINGS.index("none")).unsqueeze(1).to(like),
        (scaling_N == SCALINGS.index("positive")).unsqueeze(1).to(like),
        ((pg.edge_kind < NUM_PARAMETER_EDGE_KINDS) | pg.edge_alike).unsqueeze(1).to(like),
    )


def canonical(x_NC: Tensor, free: Freedom) -> Tensor:
    """A form that no allowed factor changes: over its length, its magnitude, or itself (with its logarithm's growth)."""
    square_N1 = x_NC.square().sum(1, keepdim=True)
    # Zero stays zero, and has a gradient.
    direction_NC = x_NC / torch.where(square_N1 > 0, square_N1, torch.ones_like(square_N1)).sqrt()
    itself_NC = compressed(x_NC)
    signed_NC = free.fixed_N1 * itself_NC + (1 - free.fixed_N1) * itself_NC.abs()
    return torch.where(free.positive_N1 > 0, direction_NC, signed_NC)


class ScaleEncoder(nn.Module):
    """The first states. Numbers of units and weights that may be rescaled enter through linear maps only."""

    def __init__(self, config: MetanetworkConfig) -> None:
        super().__init__()
        dim, thin = config.node_dim, config.edge_dim
        self.nodes = NodeEncoder(frequencies=config.frequencies, positions=config.max_positions, dim=dim)
        self.edges = EdgeEncoder(frequencies=config.frequencies, dim=thin)
        self.bias = nn.Linear(len(NODE_COLUMNS), thin, bias=False)
        self.weight = nn.Linear(NUM_SLOTS, thin, bias=False)
        self.x_place = nn.Linear(dim, thin)
        self.y_place = nn.Linear(dim, thin)
        self.network = nn.Parameter(torch.randn(config.graph_dim) * 0.1)
        columns = torch.zeros(len(NODE_COLUMNS))
        columns[list(SCALED_COLUMNS)] = 1
        self.register_buffer("scaled_V", columns, persistent=False)
        self.scaled_V: Tensor

    def forward(self, pg: ParameterGraph, routes: Routes, free: Freedom, values_EK: Tensor) -> ScaleStates:
        """Encode. `values_EK`: weights, scaled for the fan-in."""
        own_NV = pg.node_values.to(values_EK) * pg.node_mask
        invariant_NV = own_NV * (1 - self.scaled_V * (1 - free.fixed_N1))
        node_ND = self.nodes(pg, routes, invariant_NV)
        x_NC = self.bias(own_NV * self.scaled_V) + free.fixed_N1 * self.x_place(node_ND)
        y_NC = free.fixed_N1 * self.y_place(node_ND)
        both_E1 = routes.source.copy(free.fixed_N1) * routes.target.copy(free.fixed_N1)
        edge_EC = self.weight(values_EK * pg.edge_mask) + both_E1 * self.edges(pg, routes, values_EK)
        constant_E1 = (pg.edge_kind >= NUM_PARAMETER_EDGE_KINDS).unsqueeze(1).to(values_EK)
        edge_EC = edge_EC + constant_E1 * free.edge_E1 * self.edges.kind.weight.index_select(0, pg.edge_kind)
        return ScaleStates(node_ND, x_NC, y_NC, edge_EC, self.network.expand(pg.num_graphs, -1))


class ScaleRound(nn.Module):
    """One round. The states that heads read stay as they are at first; what flows along the weights flows from the start."""

    def __init__(self, config: MetanetworkConfig) -> None:
        super().__init__()
        dim, thin = config.node_dim, config.edge_dim
        self.norm = nn.LayerNorm(dim)
        self.forwards = Direction(dim, thin)
        self.backwards = Direction(dim, thin)
        self.first = nn.Linear(9 * thin + dim, 2 * dim)
        self.from_network = nn.Linear(config.graph_dim, 2 * dim, bias=False)
        self.last = zeroed(nn.Linear(2 * dim, dim))
        self.edge_source = zeroed(nn.Linear(dim, thin))
        self.edge_target = zeroed(nn.Linear(dim, thin))
        self.edge_mix = nn.Linear(thin, thin, bias=False)
        self.x_outer = nn.Linear(thin, thin, bias=False)
        self.y_outer = nn.Linear(thin, thin, bias=False)
        nn.init.zeros_(self.y_outer.weight)
        self.network = nn.Linear(4 * dim + config.graph_dim, 2 * config.graph_dim)
        self.network_last = zeroed(nn.Linear(2 * config.graph_dim, config.graph_dim))

    def forward(self, states: ScaleStates, routes: Routes, free: Freedom) -> ScaleStates:
        """New states of everything."""
        z_ND = self.norm(states.node_ND)
        edge_EC = states.edge_EC * free.edge_E1
        x_NC, in_N = self.forwards(states.x_NC, z_ND, edge_EC, routes.source, routes.target, free)
        y_NC, out_N = self.backwards(states.y_NC, z_ND, edge_EC, routes.target, routes.source, free)
        product_NC = compressed(x_NC * y_NC)
        read_N = torch.cat([z_ND, in_N, out_N, product_NC], dim=1)
        hidden_N = self.first(read_N) + routes.network.copy(self.from_network(states.network_GH))
        node_ND = states.node_ND + self.last(F.gelu(hidden_N))
        new = ScaleStates(node_ND, x_NC, y_NC, states.edge_EC, states.network_GH)
        new = replace(new, edge_EC=states.edge_EC + self._edge(new, edge_EC, routes) * free.edge_E1)
        read_G = torch.cat([pooled_nodes(node_ND, routes), states.network_GH], dim=1)
        change_GH = self.network_last(F.gelu(self.network(read_G)))
        return replace(new, network_GH=states.network_GH + change_GH)

    def _edge(self, new: ScaleStates, edge_EC: Tensor, routes: Routes) -> Tensor:
        """Changes as the weight does: it, times what does not change; and the product of both ends' states."""
        factor_EC = routes.source.copy(self.edge_source(new.node_ND))
        factor_EC = (factor_EC + routes.target.copy(self.edge_target(new.node_ND))).tanh()
        outer_EC = routes.target.copy(self.x_outer(new.x_NC)) * routes.source.copy(self.y_outer(new.y_NC))
        mixed_EC: Tensor = self.edge_mix(edge_EC)
        return mixed_EC * factor_EC + outer_EC


class Direction(nn.Module):
    """Messages along the weights, or against them, of states that turn with the factors."""

    def __init__(self, dim: int, thin: int) -> None:
        super().__init__()
        self.say = nn.Linear(thin, thin, bias=False)
        self.say_gate = nn.Linear(dim, thin)
        self.hear = nn.Linear(thin, thin, bias=False)
        self.hear_gate = nn.Linear(dim, thin)
        self.keep_gate = nn.Linear(dim, thin)
        self.add = nn.Linear(dim + thin, thin)

    def forward(
        self, x_NC: Tensor, z_ND: Tensor, edge_EC: Tensor, here: Segments, there: Segments, free: Freedom
    ) -> tuple[Tensor, Tensor]:
        """New states at the other ends, and canonical forms of them and of what was heard.

        Args:
            x_NC: States that turn with the factor of the unit (or with one over it).
            z_ND: Normalised states that do not change.
            edge_EC: States of edges.
            here: Edges by the unit that says something.
            there: Edges by the unit that hears it.
            free: Which units may be rescaled.
        """
        message_EC = here.copy(self.say(x_NC) * torch.tanh(self.say_gate(z_ND))) * edge_EC
        count_N1 = there.count.to(x_NC)
        heard_NC = there.sum(message_EC) / count_N1.sqrt()
        # The root mean square turns with the magnitude of the factor: only its canonical form is used.
        spread_NC = (
            (there.sum(message_EC * message_EC) / count_N1).clamp(min=torch.finfo(x_NC.dtype).tiny).sqrt()
        )
        new_NC = x_NC * torch.sigmoid(self.keep_gate(z_ND)) + self.hear(heard_NC) * torch.tanh(
            self.hear_gate(z_ND)
        )
        own_NC = self.add(torch.cat([z_ND, compressed(new_NC)], dim=1)).tanh()
        new_NC = new_NC + free.fixed_N1 * own_NC
        # One length for all three, so that how they compare is kept.
        together_N = torch.cat([new_NC, heard_NC, spread_NC, x_NC], dim=1)
        return new_NC, canonical(together_N, free)


class ScaleBody(nn.Module):
    """Encoder, rounds and the head that edits, for kind "scale".

    Args:
        config: The shape.
    """

    def __init__(self, config: MetanetworkConfig) -> None:
        super().__init__()
        self.encoder = ScaleEncoder(config)
        self.rounds = nn.ModuleList(ScaleRound(config) for _ in range(config.layers))
        self.editor = ScaleEditHead(config)
        self.read_dim = 4 * config.node_dim + config.graph_dim

    def encode(self, pg: ParameterGraph, weights_EK: Tensor) -> tuple[ScaleStates, Routes, Freedom]:
        """The states after the last round. `weights_EK`: scaled for the fan-in."""
        ways, free = routes(pg), freedom(pg, weights_EK)
        states = self.encoder(pg, ways, free, weights_EK)
        for each in self.rounds:
            states = each(states, ways, free)
        return states, ways, free

    def read(self, pg: ParameterGraph, weights_EK: Tensor) -> Float[Tensor, "G read"]:
        """What the heads for whole networks read."""
        states, ways, _ = self.encode(pg, weights_EK)
        return torch.cat([pooled_nodes(states.node_ND, ways), states.network_GH], dim=1)

    def changes(self, pg: ParameterGraph, weights_EK: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the numbers of nodes, and to scaled weights."""
        states, _, free = self.encode(pg, weights_EK)
        changed: tuple[Tensor, Tensor] = self.editor(states, free, self.encoder.scaled_V)
        return changed


class ScaleEditHead(nn.Module):
    """Changes that turn as the numbers they are added to do: linear maps without bias, zero at first."""

    def __init__(self, config: MetanetworkConfig) -> None:
        super().__init__()
        dim, thin = config.node_dim, config.edge_dim
        self.step = nn.Parameter(torch.tensor(FIRST_STEP))
        self.gate = nn.Linear(dim, thin)
        self.node = nn.Linear(thin, len(NODE_COLUMNS), bias=False)
        self.edge = nn.Linear(thin, NUM_SLOTS, bias=False)
        nn.init.zeros_(self.node.weight)
        nn.init.zeros_(self.edge.weight)

    def forward(self, states: ScaleStates, free: Freedom, scaled_V: Tensor) -> tuple[Tensor, Tensor]:
        """The changes of nodes and edges."""
        change_NV = self.step * self.node(states.x_NC * self.gate(states.node_ND))
        change_NV = change_NV * (scaled_V + free.fixed_N1 * (1 - scaled_V))
        return change_NV, self.step * self.edge(states.edge_EC) * free.edge_E1
