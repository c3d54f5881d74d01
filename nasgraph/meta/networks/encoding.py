"""From the numbers and kinds of a parameter graph to the first states of its nodes and edges.

Hidden units get nothing that names them: what they are, how deep they lie, and their own numbers. Inputs and outputs have a
place. Whether a number is there is said by a mask, never by its value.

Shape letters: N = nodes, E = edges, V = columns of numbers, F = frequencies, D = size of a state.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nasgraph.meta.graph import (
    ACTIVATIONS,
    NODE_COLUMNS,
    NUM_EDGE_KINDS,
    NUM_SLOTS,
    SCALINGS,
    SITES,
    ParameterGraph,
)
from nasgraph.meta.networks.routes import Routes, is_output

_STEPS = 4
_LARGEST = 30.0
_PLACES = 64
"""Parts of a large kernel, or of a flattened block, that are told apart; those beyond are the last."""


class ValueEncoder(nn.Module):
    """A linear map of numbers, of their logarithms (of magnitude, with the sign), and of learnt sines of them.

    The linear part lets the first rounds of a metanetwork compute what the network that it reads computes; the sines
    (random Fourier features, Tancik et al. 2020, with learnt frequencies) tell small differences apart; the logarithm keeps
    a diverged network within reach.

    Args:
        columns: Numbers of a node or an edge, of which some may be missing.
        frequencies: Sines.
        dim: Size of the result.
    """

    def __init__(self, columns: int, *, frequencies: int, dim: int) -> None:
        super().__init__()
        self.frequency_VF = nn.Parameter(torch.randn(columns, frequencies) * 1.5)
        self.phase_F = nn.Parameter(torch.rand(frequencies) * 2 * math.pi)
        self.plain_VD = nn.Parameter(torch.randn(columns, dim) * 0.5)
        self.log_VD = nn.Parameter(torch.randn(columns, dim) * 0.5)
        self.present_VD = nn.Parameter(torch.randn(columns, dim) * 0.1)
        self.sines = nn.Linear(frequencies, dim)

    def forward(
        self, values_NV: Float[Tensor, "N V"], mask_NV: Bool[Tensor, "N V"], columns: Tensor
    ) -> Float[Tensor, "N D"]:
        """Encode. `columns`: those that any row has; the others are not looked at."""
        if len(columns) < values_NV.shape[1]:
            values_NV, mask_NV = values_NV[:, columns], mask_NV[:, columns]
        present_NV = mask_NV.to(values_NV)
        values_NV = (values_NV * present_NV).clamp(-_LARGEST, _LARGEST)
        sine_NF = torch.sin(torch.addmm(self.phase_F, values_NV, self.frequency_VF[columns]))
        encoded_ND: Tensor = self.sines(sine_NF) + values_NV @ self.plain_VD[columns]
        encoded_ND = encoded_ND + torch.asinh(values_NV) @ self.log_VD[columns]
        return encoded_ND + present_NV @ self.present_VD[columns]


class NodeEncoder(nn.Module):
    """The first state of a node: its numbers, its kind, how deep it lies, and its place if it is an input or an output."""

    def __init__(self, *, frequencies: int, positions: int, dim: int) -> None:
        super().__init__()
        self.positions = positions
        self.values = ValueEncoder(len(NODE_COLUMNS), frequencies=frequencies, dim=dim)
        self.site = nn.Embedding(len(SITES), dim)
        self.activation = nn.Embedding(len(ACTIVATIONS), dim)
        self.scaling = nn.Embedding(len(SCALINGS), dim)
        self.input_place = nn.Embedding(positions, dim)
        self.output_place = nn.Embedding(positions, dim)
        self.depth = nn.Linear(2 * _STEPS + 2, dim)

    def forward(
        self, pg: ParameterGraph, routes: Routes, values_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N D"]:
        """Encode all nodes."""
        x_ND: Tensor = self.values(values_NV, pg.node_mask, routes.node_columns)
        x_ND = x_ND + self.site(pg.node_kind // len(ACTIVATIONS)) + self.scaling(pg.node_scaling)
        x_ND = x_ND + self.activation(pg.node_kind % len(ACTIVATIONS))
        x_ND = x_ND + self.depth(depth_features(pg, routes).to(x_ND))
        return x_ND + self.place(pg, x_ND)

    def place(self, pg: ParameterGraph, like_ND: Tensor) -> Float[Tensor, "N D"]:
        """A vector for each input and each output by its place; zero for hidden units."""
        end_N = is_output(pg)
        index_N = pg.node_position.clamp(0, self.positions - 1)
        place_ND = torch.where(end_N[:, None], self.output_place(index_N), self.input_place(index_N))
        return place_ND * (pg.node_position >= 0)[:, None].to(like_ND)


class EdgeEncoder(nn.Module):
    """The first state of an edge: its numbers, scaled for the fan-in, its kind, and which part of a block it is."""

    def __init__(self, *, frequencies: int, dim: int) -> None:
        super().__init__()
        self.values = ValueEncoder(NUM_SLOTS, frequencies=frequencies, dim=dim)
        self.kind = nn.Embedding(NUM_EDGE_KINDS, dim)
        self.place = nn.Embedding(_PLACES, dim)

    def forward(
        self, pg: ParameterGraph, routes: Routes, values_EV: Float[Tensor, "E V"]
    ) -> Float[Tensor, "E D"]:
        """Encode all edges."""
        encoded_ED: Tensor = self.values(values_EV, pg.edge_mask, routes.edge_columns)
        named_ND = self.kind.weight.unsqueeze(1) + self.place.weight
        name_E = pg.edge_kind * _PLACES + pg.edge_place.clamp(max=_PLACES - 1)
        return encoded_ED + named_ND.flatten(0, 1).index_select(0, name_E)


def depth_features(pg: ParameterGraph, routes: Routes) -> Float[Tensor, "N steps"]:
    """How deep each node lies, relative to the depth of its network: waves of the share, and logarithms of both distances."""
    depth_N1 = pg.node_depth.to(torch.get_default_dtype()).unsqueeze(1)
    deepest_G1 = routes.network.max(depth_N1)
    deepest_N1 = deepest_G1.index_select(0, pg.node_graph)
    step = torch.arange(1, _STEPS + 1, device=depth_N1.device)
    angle_NS = depth_N1 / deepest_N1.clamp(min=1) * math.pi * step
    return torch.cat(
        [angle_NS.sin(), angle_NS.cos(), depth_N1.log1p(), (deepest_N1 - depth_N1).clamp(min=0).log1p()],
        dim=1,
    )


def edge_scale(pg: ParameterGraph) -> Float[Tensor, "E 1"]:
    """What weights are multiplied by, so that they are of order one whatever the width: the root of their fan-in."""
    return pg.edge_fan_in.to(torch.get_default_dtype()).clamp(min=1).sqrt().unsqueeze(1)
