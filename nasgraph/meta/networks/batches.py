"""Networks to train on: stacks by architecture, and batches of their parameter graphs."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import (
    ParameterGraph,
    ParameterGraphError,
    collate,
    graph_layout,
    stack_parameter_graphs,
)
from nasgraph.modules import State

Group = tuple[ComputationalGraph, State]
"""Networks of one architecture: the graph and the stack of their states, with a first axis of networks."""
Rows = tuple[int, Tensor]
"""Some networks of a group: its number and their places."""


def group_size(group: Group) -> int:
    """How many networks a group has.

    Raises:
        ParameterGraphError: If it has none, or the tensors disagree.
    """
    sizes = {len(tensor) for name, tensor in group[1].items() if not name.endswith(".value")}
    if len(sizes) != 1 or 0 in sizes:
        raise ParameterGraphError(
            f"Expected a stack of one or more networks (got leading sizes {sorted(sizes)})"
        )
    return sizes.pop()


def grouped(networks: Sequence[tuple[ComputationalGraph, State]]) -> tuple[list[Group], list[Tensor]]:
    """Stack single networks by architecture.

    Args:
        networks: Pairs of an architecture and a state.

    Returns:
        The groups, and for each the places of its networks among `networks`.
    """
    places: dict[ComputationalGraph, list[int]] = {}
    for place, (graph, _) in enumerate(networks):
        places.setdefault(graph, []).append(place)
    groups: list[Group] = []
    for graph, own in places.items():
        states = [networks[place][1] for place in own]
        # Constants belong to the architecture: they have no axis of networks.
        groups.append(
            (
                graph,
                {
                    name: tensor
                    if name.endswith(".value")
                    else torch.stack([state[name] for state in states])
                    for name, tensor in states[0].items()
                },
            )
        )
    return groups, [torch.tensor(own) for own in places.values()]


def batch_graph(groups: Sequence[Group], batch: Sequence[Rows]) -> ParameterGraph:
    """The parameter graph of some networks of several groups."""
    parts = []
    for number, rows in batch:
        graph, stacked = groups[number]
        part = {
            name: tensor if name.endswith(".value") else tensor.index_select(0, rows)
            for name, tensor in stacked.items()
        }
        parts.append(stack_parameter_graphs(graph, part))
    return parts[0] if len(parts) == 1 else collate(parts)


def batches(
    groups: Sequence[Group], *, size: int, max_edges: int, rng: torch.Generator | None = None
) -> Iterator[list[Rows]]:
    """Every network once, in batches of at most `size` networks and, where there is more than one, `max_edges` edges.

    Args:
        groups: The networks.
        size: Networks of a batch.
        max_edges: What bounds memory.
        rng: Decides the order; without one, the order of the groups.
    """
    number = torch.cat([torch.full((group_size(group),), i) for i, group in enumerate(groups)])
    row = torch.cat([torch.arange(group_size(group)) for group in groups])
    edges = torch.tensor([graph_layout(group[0]).num_edges for group in groups])
    order = torch.arange(len(number)) if rng is None else torch.randperm(len(number), generator=rng)
    first, total = 0, 0
    for place, count in enumerate(edges[number[order]].tolist()):
        if place > first and (place - first == size or total + count > max_edges):
            yield _rows(number, row, order[first:place])
            first, total = place, 0
        total += count
    yield _rows(number, row, order[first:])


def _rows(number: Tensor, row: Tensor, chosen: Tensor) -> list[Rows]:
    own = number[chosen]
    return [(group, row[chosen[own == group]]) for group in sorted(set(own.tolist()))]


def take(targets: Sequence[Tensor], batch: Sequence[Rows]) -> Tensor:
    """The targets of a batch, in the order of its networks."""
    return torch.cat([targets[number][rows] for number, rows in batch])
