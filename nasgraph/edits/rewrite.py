"""Writing a network down anew with nodes put in or replaced: the graph, its tensors, and where each node comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nasgraph.edits.edited import Edited, EditError
from nasgraph.errors import InvalidGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import initial_buffers, initial_parameters
from nasgraph.modules.state import State
from nasgraph.seeding import derive_seed

NEW_NODE = -1


@dataclass(eq=False)
class Writer:
    """Writes the nodes of an edited network.

    Attributes:
        graph: What is written so far.
        state: Tensors of what is written so far.
        dtype: Of new tensors.
        seed: Decides new weights.
        sources: For each node the old one that it comes from, or -1.
    """

    dtype: torch.dtype
    seed: int
    graph: GraphBuilder = field(default_factory=GraphBuilder)
    state: dict[str, Tensor] = field(default_factory=dict)
    sources: list[int] = field(default_factory=list)
    _fresh: dict[int, str] = field(default_factory=dict)

    def __call__(
        self,
        op: str,
        /,
        *inputs: int,
        tensors: Mapping[str, Tensor] | None = None,
        source: int = NEW_NODE,
        **attrs: object,
    ) -> int:
        """Add a node.

        Args:
            op: Operator.
            inputs: What it reads.
            tensors: Its parameters and running statistics by their short names; None: those of a fresh network.
            source: The old node that it comes from.
            attrs: Its attributes.
        """
        try:
            index = self.graph(op, *inputs, **attrs)
        except InvalidGraphError as error:
            raise EditError(f"The edited network would be invalid: {error}") from error
        self.sources.append(source)
        if tensors is None:
            tensors = self._initial(op, inputs, attrs, index)
        for name, tensor in tensors.items():
            self.state[f"n{index}.{name}"] = tensor
        return index

    def _initial(
        self, op: str, inputs: tuple[int, ...], attrs: Mapping[str, object], index: int
    ) -> dict[str, Tensor]:
        """Tensors of a node by itself, as a fresh network would have them."""
        alone = GraphBuilder()
        read = [
            alone("input", shape=self.graph.shape(source), dtype=self.graph.dtype(source))
            for source in inputs
        ]
        if not read:
            alone("input", shape=(1,))
        graph = alone.finish(alone(op, *read, **attrs))
        drawn = initial_parameters(graph, seed=derive_seed(self.seed, "node", index))
        return {
            name.split(".")[1]: tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in {**drawn, **initial_buffers(graph)}.items()
        }

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a node's value."""
        return self.graph.shape(index)


Insert = Callable[[Writer, int], int]
"""Writes nodes that follow a given one; returns the one that takes its place for all that read it."""
Replace = Callable[[Writer, tuple[int, ...], Mapping[str, Tensor]], int]
"""Writes nodes in place of one, given what it reads and its tensors; returns the one that takes its place."""


def insert_after(
    graph: ComputationalGraph, state: State, node: int, write: Insert, *, note: str, seed: int
) -> Edited:
    """The network with nodes put in behind a node: all that read it, read what was put in."""
    return _rewritten(graph, state, node, write, None, note=note, seed=seed)


def replace_node(
    graph: ComputationalGraph, state: State, node: int, write: Replace, *, note: str, seed: int
) -> Edited:
    """The network with other nodes in place of one."""
    return _rewritten(graph, state, node, None, write, note=note, seed=seed)


def _rewritten(
    graph: ComputationalGraph,
    state: State,
    node: int,
    insert: Insert | None,
    replace: Replace | None,
    *,
    note: str,
    seed: int,
) -> Edited:
    check_node(graph, node)
    reals = [tensor.dtype for tensor in state.values() if tensor.is_floating_point()]
    writer = Writer(reals[0] if reals else torch.get_default_dtype(), seed)
    own = tensors_by_node(state)
    place: dict[int, int] = {}
    for index, old in enumerate(graph.nodes):
        inputs = tuple(place[source] for source in old.inputs)
        if index == node and replace is not None:
            place[index] = replace(writer, inputs, own.get(index, {}))
            continue
        place[index] = writer(old.op, *inputs, tensors=own.get(index, {}), source=index, **dict(old.attrs))
        if index == node and insert is not None:
            place[index] = insert(writer, place[index])
    try:
        edited = writer.graph.finish(*(place[output] for output in graph.outputs))
    except InvalidGraphError as error:
        raise EditError(f"The edited network would be invalid: {error}") from error
    assert len(edited) == len(writer.sources), "an edit leaves no node without use"
    return Edited(edited, writer.state, note, True, tuple(writer.sources))


def tensors_by_node(state: State) -> dict[int, dict[str, Tensor]]:
    """Tensors of each node by their short names."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        owner, short = name[1:].split(".", 1)
        found.setdefault(int(owner), {})[short] = tensor
    return found


def check_node(graph: ComputationalGraph, node: int) -> None:
    """Raise `EditError` if there is no such node."""
    if not 0 <= node < len(graph):
        raise EditError(f"Expected a node from 0 to {len(graph) - 1} (got {node})")


def reads_data(graph: ComputationalGraph) -> list[bool]:
    """For each node, whether its value depends on an input."""
    found: list[bool] = []
    for node in graph.nodes:
        found.append(node.op == "input" or any(found[source] for source in node.inputs))
    return found
