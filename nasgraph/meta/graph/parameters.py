"""The parameter graph of networks: parameters to graph and back, bit by bit and differentiably.

Lim et al. 2023, "Graph metanetworks for processing diverse neural architectures", and Kofinas et al. 2024, "Graph neural networks
for learning equivariant representations of neural networks": units are nodes, weights are edges. As in the second, biases stand on
nodes and whole kernels on edges. Unlike in both, running statistics, free parameters, recurrent cells and heads are part of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph.kinds import ACTIVATIONS, NODE_COLUMNS, NUM_SLOTS
from nasgraph.meta.graph.layout import GraphLayout, ParameterGraphError, graph_layout
from nasgraph.modules import State, check_state

if TYPE_CHECKING:
    from torch_geometric.data import Data


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Networks of one architecture that stand one after the other in a parameter graph.

    Attributes:
        layout: Of the architecture.
        count: How many networks.
        dtypes: Type of each tensor placed, in the layout's order.
        constants: What the states hold beside parameters and statistics: constants of the architecture, the same for all.
    """

    layout: GraphLayout
    count: int
    dtypes: tuple[torch.dtype, ...]
    constants: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class ParameterGraph:
    """The parameters of one or more networks as one graph, a disjoint union.

    Permuting units of a network gives the same graph with nodes and edges in another order. Hidden units carry nothing that
    tells them apart but their values.

    Attributes:
        node_values: What stands on the nodes; `NODE_COLUMNS` names the columns. Zero where nothing stands.
        node_mask: Which of these are parameters or running statistics.
        node_kind: What a node is and which activation follows, below `NUM_NODE_KINDS`.
        node_depth: Number of layers before it.
        node_position: Place along an axis whose order has a meaning, such as inputs and outputs; -1 for hidden units.
        node_scaling: By which factors the unit may be rescaled: 0 none, 1 positive, 2 signs.
        node_graph: Which network a node belongs to.
        edge_index: Source and target of every edge, along the computation.
        edge_values: Kernels in `NUM_SLOTS` slots, centre-padded; a single weight stands in the middle. Edges without parameter
            have a 1 in the middle.
        edge_mask: Which of these are parameters.
        edge_kind: What an edge is, below `NUM_EDGE_KINDS`.
        edge_place: Which part of a large kernel, or of a flattened block, an edge carries.
        edge_fan_in: How many inputs the weight sums over; 1 where there is no parameter.
        edge_alike: Whether both ends are rescaled by one factor, or neither is: values of one end may then pass to the other.
        num_graphs: Number of networks.
        members: What is needed for the way back.
    """

    node_values: Float[Tensor, "nodes columns"]
    node_mask: Bool[Tensor, "nodes columns"]
    node_kind: Int64[Tensor, " nodes"]
    node_depth: Int64[Tensor, " nodes"]
    node_position: Int64[Tensor, " nodes"]
    node_scaling: Int64[Tensor, " nodes"]
    node_graph: Int64[Tensor, " nodes"]
    edge_index: Int64[Tensor, "2 edges"]
    edge_values: Float[Tensor, "edges slots"]
    edge_mask: Bool[Tensor, "edges slots"]
    edge_kind: Int64[Tensor, " edges"]
    edge_place: Int64[Tensor, " edges"]
    edge_fan_in: Int64[Tensor, " edges"]
    edge_alike: Bool[Tensor, " edges"]
    num_graphs: int
    members: tuple[Member, ...] = field(repr=False)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of all networks."""
        return len(self.node_kind)

    @property
    def num_edges(self) -> int:
        """Number of edges of all networks."""
        return len(self.edge_kind)

    @property
    def node_site(self) -> Int64[Tensor, " nodes"]:
        """What a node stands for, without its activation: an index in `SITES`."""
        return self.node_kind // len(ACTIVATIONS)

    @property
    def node_activation(self) -> Int64[Tensor, " nodes"]:
        """Which activation follows: an index in `ACTIVATIONS`."""
        return self.node_kind % len(ACTIVATIONS)

    def to_states(
        self,
        node_values: Float[Tensor, "nodes columns"] | None = None,
        edge_values: Float[Tensor, "edges slots"] | None = None,
    ) -> list[dict[str, Tensor]]:
        """The states of all networks, bit by bit what they were made of; differentiable.

        Args:
            node_values: Used in place of the graph's own, as an edit head gives them. What the mask leaves out is not read.
            edge_values: Likewise.
        """
        return [
            {name: tensor[index] for name, tensor in stacked.items()} | dict(member.constants)
            for member, stacked in zip(self.members, self.to_stacks(node_values, edge_values), strict=True)
            for index in range(member.count)
        ]

    def to_stacks(
        self,
        node_values: Float[Tensor, "nodes columns"] | None = None,
        edge_values: Float[Tensor, "edges slots"] | None = None,
    ) -> list[dict[str, Tensor]]:
        """As `to_states`, but for each member (networks of one architecture) one state with a first axis of networks, without
        constants."""
        nodes = self.node_values if node_values is None else node_values
        edges = self.edge_values if edge_values is None else edge_values
        for given, own in ((nodes, self.node_values), (edges, self.edge_values)):
            if given.shape != own.shape:
                raise ParameterGraphError(
                    f"Expected values of shape {tuple(own.shape)} (got {tuple(given.shape)})"
                )
        result = []
        first_node = first_edge = 0
        for member in self.members:
            last_node = first_node + member.count * member.layout.num_nodes
            last_edge = first_edge + member.count * member.layout.num_edges
            result.append(_stack_of(member, nodes[first_node:last_node], edges[first_edge:last_edge]))
            first_node, first_edge = last_node, last_edge
        return result

    def to_data(self) -> "Data":
        """The graph for torch_geometric: `x` are node values, `edge_attr` edge values, `batch` the networks."""
        from torch_geometric.data import Data

        return Data(
            x=self.node_values,
            edge_index=self.edge_index,
            edge_attr=self.edge_values,
            batch=self.node_graph,
            **{
                name: getattr(self, name)
                for name in (
                    *("node_mask", "node_kind", "node_depth", "node_position", "node_scaling"),
                    *("edge_mask", "edge_kind", "edge_place", "edge_fan_in", "edge_alike"),
                )
            },
        )

    def to(self, device: torch.device | str) -> "ParameterGraph":
        """The graph on another device."""
        tensors = {
            name: getattr(self, name).to(device)
            for name in self.__slots__
            if name not in ("num_graphs", "members")
        }
        return ParameterGraph(**tensors, num_graphs=self.num_graphs, members=self.members)


def parameter_graph(graph: ComputationalGraph, state: State) -> ParameterGraph:
    """The parameter graph of one network. Differentiable in the state.

    Args:
        graph: The architecture.
        state: Its parameters, running statistics and constants.

    Raises:
        ParameterGraphError: If an operator is opaque, or nothing has parameters.
        StateError: If the state is that of another architecture, not finite, or quantised.
    """
    graph_layout(graph)  # says first what is wrong with the architecture
    check_state(graph, state)
    constants = {name: tensor for name, tensor in state.items() if name.endswith(".value")}
    stacked = {name: tensor.unsqueeze(0) for name, tensor in state.items() if name not in constants}
    return _of_stack(graph, stacked, constants)


def stack_parameter_graphs(
    graph: ComputationalGraph, stacked: State, *, constants: State | None = None
) -> ParameterGraph:
    """The parameter graphs of many networks of one architecture: one gather. Differentiable in the states.

    Args:
        graph: The architecture.
        stacked: Parameters and running statistics, each with a first axis of networks.
        constants: Constants of the architecture, without that axis. They may also stand in `stacked`.

    Raises:
        ParameterGraphError: If an operator is opaque, nothing has parameters, or a tensor is missing, has another shape, is no
            floating-point number or is not finite.
    """
    layout = graph_layout(graph)
    own = {name: tensor for name, tensor in stacked.items() if name.endswith(".value")}
    given = {name: tensor for name, tensor in stacked.items() if name not in own}
    _check_stack(layout, given)
    return _of_stack(graph, given, dict(constants or {}) | own)


def _check_stack(layout: GraphLayout, stacked: State) -> None:
    wanted = {placed.name: placed.shape for placed in layout.placed}
    if missing := sorted(set(wanted) - set(stacked)):
        raise ParameterGraphError(f"The stack has no '{missing[0]}', which the architecture needs")
    if foreign := sorted(set(stacked) - set(wanted)):
        raise ParameterGraphError(f"The stack has '{foreign[0]}', which the architecture does not have")
    count = len(next(iter(stacked.values())))
    for name, shape in wanted.items():
        tensor = stacked[name]
        if tuple(tensor.shape) != (count, *shape):
            raise ParameterGraphError(
                f"Expected '{name}' to have shape {(count, *shape)} (got {tuple(tensor.shape)})"
            )
        if tensor.is_quantized or not tensor.is_floating_point():
            raise ParameterGraphError(
                f"'{name}' holds {str(tensor.dtype).removeprefix('torch.')} numbers: convert quantised weights first"
            )


def _of_stack(graph: ComputationalGraph, stacked: State, constants: State) -> ParameterGraph:
    layout = graph_layout(graph)
    tensors = [stacked[placed.name] for placed in layout.placed]
    count = len(tensors[0])
    real = tensors[0].dtype
    for tensor in tensors[1:]:
        real = torch.promote_types(real, tensor.dtype)
    flat = torch.cat(
        [*(t.reshape(count, -1).to(real) for t in tensors), _zero_and_one(tensors[0], real)], dim=1
    )
    if not torch.isfinite(flat).all():
        name = next(
            p.name for p, t in zip(layout.placed, tensors, strict=True) if not torch.isfinite(t).all()
        )
        raise ParameterGraphError(f"'{name}' has numbers that are not finite")
    static = _static(graph, count)
    return ParameterGraph(
        node_values=flat.index_select(1, layout.node_gather.ravel()).view(-1, len(NODE_COLUMNS)),
        edge_values=flat.index_select(1, layout.edge_gather.ravel()).view(-1, NUM_SLOTS),
        num_graphs=count,
        members=(Member(layout, count, tuple(tensor.dtype for tensor in tensors), dict(constants)),),
        **static,
    )


def _zero_and_one(like: Tensor, real: torch.dtype) -> Tensor:
    return torch.tensor([0.0, 1.0], dtype=real, device=like.device).expand(len(like), 2)


@lru_cache(maxsize=16)
def _static(graph: ComputationalGraph, count: int) -> dict[str, Tensor]:
    """What the networks of a stack have in common, repeated."""
    layout = graph_layout(graph)
    offsets = torch.arange(count) * layout.num_nodes
    index = layout.edge_index.unsqueeze(1) + offsets[None, :, None]
    repeated = {
        name: getattr(layout, name).repeat(count)
        for name in (
            *("node_kind", "node_depth", "node_position", "node_scaling"),
            *("edge_kind", "edge_place", "edge_fan_in", "edge_alike"),
        )
    }
    return {
        **repeated,
        "node_mask": layout.node_mask.repeat(count, 1),
        "edge_mask": layout.edge_mask.repeat(count, 1),
        "edge_index": index.reshape(2, -1),
        "node_graph": torch.arange(count).repeat_interleave(layout.num_nodes),
    }


def _stack_of(member: Member, nodes: Tensor, edges: Tensor) -> dict[str, Tensor]:
    layout = member.layout
    on_nodes = nodes.reshape(member.count, -1).index_select(1, layout.node_scatter)
    on_edges = edges.reshape(member.count, -1).index_select(1, layout.edge_scatter)
    result, first = {}, 0
    for placed, dtype in zip(layout.placed, member.dtypes, strict=True):
        source, start = (on_nodes, first) if placed.on_nodes else (on_edges, first - len(layout.node_scatter))
        part = source[:, start : start + placed.numel]
        result[placed.name] = part.reshape(member.count, *placed.shape).to(dtype)
        first += placed.numel
    return result


def collate(graphs: Sequence[ParameterGraph]) -> ParameterGraph:
    """The disjoint union of parameter graphs, in order.

    Raises:
        ParameterGraphError: If there is none.
    """
    if not graphs:
        raise ParameterGraphError("Expected at least one parameter graph")
    first_node = first_graph = 0
    indices, owners = [], []
    for each in graphs:
        indices.append(each.edge_index + first_node)
        owners.append(each.node_graph + first_graph)
        first_node += each.num_nodes
        first_graph += each.num_graphs
    simple = (
        *("node_values", "node_mask", "node_kind", "node_depth", "node_position", "node_scaling"),
        *("edge_values", "edge_mask", "edge_kind", "edge_place", "edge_fan_in", "edge_alike"),
    )
    return ParameterGraph(
        **{name: torch.cat([getattr(each, name) for each in graphs]) for name in simple},
        edge_index=torch.cat(indices, dim=1),
        node_graph=torch.cat(owners),
        num_graphs=first_graph,
        members=tuple(member for each in graphs for member in each.members),
    )
