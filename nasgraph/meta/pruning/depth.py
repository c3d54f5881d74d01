"""Residual stages of a graph, and the same network with fewer blocks in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nasgraph.edits import Edited, EditError
from nasgraph.ir import ComputationalGraph, Node, check_graph
from nasgraph.modules import State, check_state

_ACTIVATIONS = frozenset(
    {
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "tanh",
        "sigmoid",
    }
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Residual blocks in a row, each of which adds to what it reads, so that the stage also works with fewer of them.

    Attributes:
        ends: The value before the first block, and after each block: node numbers. All have one shape. With d blocks the
            value `ends[d]` stands in the place of the last one.
    """

    ends: tuple[int, ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """Candidate numbers of blocks: all, or thirds where there are many (Dong and Yang 2019, section 4.1)."""
        blocks = len(self.ends) - 1
        if blocks <= 4:
            return tuple(range(blocks + 1))
        return tuple(sorted({round(blocks / 3), round(2 * blocks / 3), blocks}))


def residual_stages(graph: ComputationalGraph) -> tuple[Stage, ...]:
    """The maximal rows of blocks `x + f(x)`, maybe with an activation behind, that can be left out.

    A block with a layer on its shortcut is none of them: without it shapes would not fit.
    """
    readers = _readers(graph)
    after: dict[int, int] = {}  # what a block reads -> where it ends
    for index, node in enumerate(graph.nodes):
        if node.op != "add" or len(node.inputs) != 2 or node.inputs[0] == node.inputs[1]:
            continue
        for source, branch in (node.inputs, node.inputs[::-1]):
            if graph.shapes[source] == graph.shapes[index] and _is_block(
                graph, readers, source, branch, index
            ):
                after[source] = _end(graph, readers, index)
                break
    starts = [source for source in after if source not in after.values()]
    stages = []
    for start in sorted(starts):
        ends = [start]
        while ends[-1] in after:
            ends.append(after[ends[-1]])
        stages.append(Stage(tuple(ends)))
    return tuple(stages)


def _readers(graph: ComputationalGraph) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for index, node in enumerate(graph.nodes):
        for source in node.inputs:
            readers[source].append(index)
    return readers


def _is_block(
    graph: ComputationalGraph, readers: Sequence[Sequence[int]], source: int, branch: int, end: int
) -> bool:
    """Whether `branch` follows from `source` alone, and nothing but `end` reads what lies between."""
    inner: set[int] = set()
    waiting = [branch]
    while waiting:
        index = waiting.pop()
        if index == source or index in inner:
            continue
        if index < source or graph.nodes[index].op == "input" or index in graph.outputs:
            return False
        inner.add(index)
        waiting.extend(graph.nodes[index].inputs)
    return bool(inner) and all(
        reader in inner or reader == end for index in inner for reader in readers[index]
    )


def _end(graph: ComputationalGraph, readers: Sequence[Sequence[int]], index: int) -> int:
    """The sum, or the activation that alone reads it."""
    after = readers[index]
    if len(after) == 1 and index not in graph.outputs and graph.nodes[after[0]].op in _ACTIVATIONS:
        return after[0]
    return index


def alive_nodes(graph: ComputationalGraph, depths: Mapping[Stage, int]) -> frozenset[int]:
    """The nodes that still reach an output if stages have only so many blocks. Inputs always stay."""
    moved = {stage.ends[-1]: stage.ends[depth] for stage, depth in depths.items()}
    reached: set[int] = set(graph.inputs)
    waiting = [moved.get(index, index) for index in graph.outputs]
    while waiting:
        index = waiting.pop()
        if index not in reached:
            reached.add(index)
            waiting.extend(moved.get(source, source) for source in graph.nodes[index].inputs)
    return frozenset(reached)


def shorten(graph: ComputationalGraph, state: State, depths: Mapping[Stage, int]) -> Edited:
    """Leave out the last blocks of residual stages.

    Args:
        graph: The network.
        state: Its state. What stays is shared.
        depths: Number of blocks that stay, for some of the stages of `residual_stages(graph)`.

    Raises:
        EditError: If a stage is none of this graph, or has fewer blocks.
        StateError: If the state is that of another graph.
    """
    check_state(graph, state)
    known = residual_stages(graph)
    for stage, depth in depths.items():
        if stage not in known:
            raise EditError(f"Expected a stage of 'residual_stages(graph)' (got {stage})")
        if not 0 <= depth < len(stage.ends):
            raise EditError(f"Expected from 0 to {len(stage.ends) - 1} blocks (got {depth})")
    moved = {stage.ends[-1]: stage.ends[depth] for stage, depth in depths.items()}
    kept = sorted(alive_nodes(graph, depths))
    place = {old: new for new, old in enumerate(kept)}
    nodes = []
    for old in kept:
        node = graph.nodes[old]
        nodes.append(
            Node(node.op, tuple(place[moved.get(source, source)] for source in node.inputs), node.attrs)
        )
    cut = ComputationalGraph(tuple(nodes), tuple(place[moved.get(index, index)] for index in graph.outputs))
    check_graph(cut)
    renamed = {}
    for name, tensor in state.items():
        node_name, short = name.split(".", 1)
        if int(node_name[1:]) in place:
            renamed[f"n{place[int(node_name[1:])]}.{short}"] = tensor
    blocks = sum(len(stage.ends) - 1 - depth for stage, depth in depths.items())
    return Edited(cut, renamed, f"leave out {blocks} residual blocks", blocks == 0, tuple(kept))
