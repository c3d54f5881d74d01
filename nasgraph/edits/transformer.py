"""Expansions of transformers that keep the function (Gesmundo and Maile, "Composable Function-preserving Expansions for
Transformer Architectures", 2023). There are six, and they can be composed in any order:

1. hidden units of a perceptron: `add_units` on their group (section 3.1);
2. heads: `expand_heads` (section 3.2);
3. channels that a head gives: `expand_values` (section 3.3);
4. channels by which queries and keys are compared: `expand_keys` (section 3.4);
5. the width of the model: `add_zero_units` on the group of the residual stream (section 3.5);
6. layers: `expand_layers` (section 3.6).
"""

from collections import Counter
from math import sqrt

from torch import Tensor

from nasgraph.edits.deeper import common_activation, zero_map
from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.rewrite import Writer, check_node, insert_after, reads_data
from nasgraph.edits.surgery import Resizing, made_axes, resize
from nasgraph.edits.wider import add_units, new_units
from nasgraph.ir import ComputationalGraph, Node, make_node
from nasgraph.ir.op import whole
from nasgraph.modules.state import State, check_state
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import SymmetryTable, UnitGroup, symmetry_table

NORMS = ("rms_norm", "layer_norm")


def expand_heads(graph: ComputationalGraph, state: State, node: int, count: int, *, seed: int = 0) -> Edited:
    """Give attention more heads. New ones start at random, and the map that reads heads is zero for them.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: An `attention` node with at least two heads.
        count: Heads that it shall have.
        seed: Decides the new weights.

    Raises:
        EditError: If the node is no attention, or its heads do not move as units.
        StateError: If the state does not belong to the graph.
    """
    table, heads = symmetry_table(graph), _heads(graph, node)
    for group in table.groups:
        if group.size == heads and not group.parent and _makes(group, _producers(graph, node, 0)):
            return add_units(graph, state, group.name, count, seed=seed)
    raise EditError(
        f"Node {node} (attention) has {heads} heads that do not move as units: with one head there is no group of heads to "
        "extend"
    )


def expand_values(graph: ComputationalGraph, state: State, node: int, size: int, *, seed: int = 0) -> Edited:
    """Let every head of attention give more channels. The map that reads them is zero for new ones.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: An `attention` node.
        size: Channels that each head shall give.
        seed: Decides the new weights.

    Raises:
        EditError: If the node is no attention, or the channels do not move as units.
        StateError: If the state does not belong to the graph.
    """
    groups = _within_heads(graph, node, symmetry_table(graph), keys=False)
    return add_units(graph, state, groups[0].name, size, seed=seed)


def expand_keys(graph: ComputationalGraph, state: State, node: int, size: int, *, seed: int = 0) -> Edited:
    """Let every head of attention compare queries and keys by more channels. In new ones keys are zero.

    Where the attention divides by the root of the number of channels, the keys grow by what that number would make smaller.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: An `attention` node whose queries and keys come from two maps.
        size: Channels of a query that each head shall have.
        seed: Decides the new weights of the queries.

    Raises:
        EditError: If the node is no attention, or one map makes queries and keys.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    table = symmetry_table(graph)
    groups = _within_heads(graph, node, table, keys=True)
    if size <= groups[0].size:
        raise EditError(f"Expected more than the {groups[0].size} channels of a head (got {size})")
    queries, keys = _producers(graph, node, 0), _producers(graph, node, 1)
    if queries & keys:
        raise EditError(
            f"Node {node} (attention): one map makes queries and keys, so that new ones cannot be zero in keys only"
        )
    picks = {group.name: new_units(group.size, size) for group in groups}
    how = Resizing(exact=True, zero_nodes=keys, seed=derive_seed(seed, "keys"))
    wider, tensors = resize(graph, state, made_axes(graph, table, picks), how)
    wider, tensors = _with_usual_scale(graph, wider, tensors, node, keys, sqrt(size / groups[0].size))
    note = f"expand keys of n{node} (attention) from {groups[0].size} to {size} channels per head"
    return Edited(wider, tensors, note, True, tuple(range(len(graph))))


def _with_usual_scale(
    before: ComputationalGraph,
    graph: ComputationalGraph,
    state: dict[str, Tensor],
    node: int,
    keys: set[int],
    factor: float,
) -> tuple[ComputationalGraph, dict[str, Tensor]]:
    """Put the change of scale into the keys, if attention had the usual scale and alone reads them."""
    read_by = Counter(source for each in graph.nodes for source in each.inputs)
    is_simple = len(keys) == 1 and all(
        read_by[source] == 1
        for key in keys
        for source in range(key, node)
        if _leads(graph, key, source, node)
    )
    key = next(iter(keys))
    if dict(before.nodes[node].attrs)["scale"] or not is_simple or graph.nodes[key].op != "linear":
        return graph, state
    old = graph.nodes[node]
    nodes = list(graph.nodes)
    nodes[node] = make_node(old.op, old.inputs, **{**dict(old.attrs), "scale": 0.0})
    scaled = {name: state[name] * factor for name in (f"n{key}.weight", f"n{key}.bias") if name in state}
    return ComputationalGraph(tuple(nodes), graph.outputs), {**state, **scaled}


def _leads(graph: ComputationalGraph, key: int, source: int, node: int) -> bool:
    """Whether `source` lies on the way back from the keys of attention `node` to the map `key`."""
    here = graph.nodes[node].inputs[1]
    while here >= key:
        if here == source:
            return True
        if here == key or not graph.nodes[here].inputs:
            return False
        here = graph.nodes[here].inputs[0]
    return False


def expand_layers(
    graph: ComputationalGraph, state: State, node: int | None = None, *, seed: int = 0
) -> Edited:
    """Put a transformer layer behind a node: attention and a perceptron, both with norms before them and zero last maps.

    Heads, widths, norm, activation and mask are those of the network's first attention and of its perceptrons.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: Behind which node, whose value is tokens; None: behind the last sum before the end that gives tokens.
        seed: Decides the new weights.

    Raises:
        EditError: If the network has no attention, or the node does not give tokens.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    attentions = [i for i, each in enumerate(graph.nodes) if each.op == "attention"]
    if not attentions:
        raise EditError("The network has no attention: put in layers with 'deepen'")
    place = _last_stream(graph) if node is None else node
    check_node(graph, place)
    if len(graph.shapes[place]) != 2 or graph.dtypes[place] != "float" or not reads_data(graph)[place]:
        raise EditError(f"Node {place} ({graph.nodes[place].op}) does not give tokens (tokens, dim)")
    first = attentions[0]
    template = graph.nodes[first]
    width, value = (graph.input_shapes(first)[i][-1] for i in (0, 2))
    norm = next((each for each in graph.nodes if each.op in NORMS), None)
    hidden = _hidden(graph)

    def write(writer: Writer, x: int) -> int:
        y = _normed(writer, x, norm)
        query, key = (writer("linear", y, out_features=width) for _ in range(2))
        mixed = writer(
            "attention",
            query,
            key,
            writer("linear", y, out_features=value),
            num_heads=whole(dict(template.attrs), "num_heads"),
            causal=dict(template.attrs)["causal"],
        )
        x = writer("add", x, zero_map(writer, mixed, size=writer.shape(x)[-1]))
        y = writer("linear", _normed(writer, x, norm), out_features=hidden or 2 * writer.shape(x)[-1])
        return writer(
            "add", x, zero_map(writer, writer(common_activation(graph), y), size=writer.shape(x)[-1])
        )

    note = f"put a transformer layer behind n{place} ({graph.nodes[place].op})"
    return insert_after(graph, state, place, write, note=note, seed=seed)


def _normed(writer: Writer, x: int, norm: Node | None) -> int:
    if norm is None:
        return x
    return writer(norm.op, x, axes=1, eps=dict(norm.attrs)["eps"])


def _hidden(graph: ComputationalGraph) -> int:
    """Width of the first perceptron: a linear map that an activation reads; 0 if there is none."""
    for each in graph.nodes:
        if each.op in ("gelu", "relu", "silu") and graph.nodes[each.inputs[0]].op == "linear":
            return graph.shapes[each.inputs[0]][-1]
    return 0


def _last_stream(graph: ComputationalGraph) -> int:
    found = [
        i
        for i, each in enumerate(graph.nodes)
        if each.op == "add"
        and len(graph.shapes[i]) == 2
        and graph.dtypes[i] == "float"
        and reads_data(graph)[i]
    ]
    if not found:
        raise EditError("The network has no sum of tokens behind which a layer could stand: name a node")
    return found[-1]


# ---- who makes what attention reads


def _heads(graph: ComputationalGraph, node: int) -> int:
    check_node(graph, node)
    if graph.nodes[node].op != "attention":
        raise EditError(f"Node {node} ({graph.nodes[node].op}) is no attention")
    return whole(dict(graph.nodes[node].attrs), "num_heads")


def _producers(graph: ComputationalGraph, node: int, place: int) -> set[int]:
    """The linear maps from which an argument of attention comes, through what has no weights of its own."""
    found: set[int] = set()
    waiting = [graph.nodes[node].inputs[place]]
    while waiting:
        index = waiting.pop()
        if graph.nodes[index].op in ("linear", "conv1d", "conv2d", "parameter"):
            found.add(index)
        else:
            waiting.extend(graph.nodes[index].inputs)
    return found


def _makes(group: UnitGroup, nodes: set[int]) -> bool:
    """Whether one of the nodes makes units of the group."""
    return any(
        member.axis == 0 and member.parameter in {f"n{node}.weight" for node in nodes}
        for member in group.members
    )


def _within_heads(
    graph: ComputationalGraph, node: int, table: SymmetryTable, *, keys: bool
) -> list[UnitGroup]:
    """One group for each head: of channels that it compares, or of those that it gives."""
    heads = _heads(graph, node)
    queries, values = _producers(graph, node, 0), _producers(graph, node, 2)
    size = graph.input_shapes(node)[0 if keys else 2][-1] // heads
    found = [
        group
        for group in table.groups
        if group.size == size
        and (bool(group.parent) or heads == 1)
        and _makes(group, queries if keys else values)
        and (queries & values or _makes(group, queries) == keys)
    ]
    if not found:
        raise EditError(f"Node {node} (attention): the channels of its heads do not move as units")
    return found
