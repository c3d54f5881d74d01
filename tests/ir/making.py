"""Random and regular graphs for tests of the graph language."""

from collections.abc import Sequence

import networkx
import numpy as np
from networkx.algorithms.isomorphism import MultiDiGraphMatcher

from nasgraph.ir import ComputationalGraph, GraphBuilder, Node, make_node, without_dead_nodes

SHAPE = (3, 4)
"""All nodes of a random graph have this shape, so that any node may read any other."""


def random_node(rng: np.random.Generator, num_nodes: int) -> Node:
    """A node that may stand after `num_nodes` others. Few operators, so that symmetries are frequent."""
    op = str(rng.choice(["relu", "linear", "add", "mul", "attention"], p=[0.3, 0.25, 0.25, 0.1, 0.1]))
    number = {"relu": 1, "linear": 1, "add": int(rng.integers(2, 4)), "mul": 2, "attention": 3}[op]
    sources = [int(source) for source in rng.integers(max(0, num_nodes - 5), num_nodes, number)]
    attrs: dict[str, object] = {}
    if op == "linear":
        attrs = {"out_features": SHAPE[1], "bias": bool(rng.integers(2))}
    elif op == "attention":
        attrs = {"num_heads": int(rng.integers(1, 3))}
    return make_node(op, sources, **attrs)


def random_graph(rng: np.random.Generator, *, fewest: int = 2, most: int = 11) -> ComputationalGraph:
    """A valid graph of `fewest` to `most` nodes besides the input, with one or two outputs."""
    nodes = [make_node("input", shape=SHAPE)]
    for _ in range(int(rng.integers(fewest, most + 1))):
        nodes.append(random_node(rng, len(nodes)))
    used = {source for node in nodes for source in node.inputs}
    loose = [index for index in range(1, len(nodes)) if index not in used]
    outputs = loose[-2:] if rng.random() < 0.3 else loose[-1:]
    return without_dead_nodes(ComputationalGraph(tuple(nodes), tuple(outputs)))


def changed(graph: ComputationalGraph, rng: np.random.Generator) -> ComputationalGraph:
    """A near miss: one attribute, one argument, one operator, the order of arguments, or two equal nodes made one.

    Now and then the result is isomorphic to the graph after all.
    """
    nodes = list(graph.nodes)
    index = int(rng.integers(1, len(nodes)))
    node = nodes[index]
    kind = rng.integers(5)
    if kind == 0:
        nodes[index] = Node(node.op, node.inputs[::-1], node.attrs)
    elif kind == 1:
        inputs = list(node.inputs)
        inputs[int(rng.integers(len(inputs)))] = int(rng.integers(index))
        nodes[index] = Node(node.op, tuple(inputs), node.attrs)
    elif kind == 2 and node.op == "linear":
        nodes[index] = make_node("linear", node.inputs, out_features=SHAPE[1], bias=not node.attr("bias"))
    elif kind == 3 and len(node.inputs) == 1:
        nodes[index] = make_node("tanh" if node.op == "relu" else "relu", node.inputs)
    else:
        twin = next((j for j in range(1, index) if nodes[j] == node), index)
        nodes = [Node(n.op, tuple(twin if s == index else s for s in n.inputs), n.attrs) for n in nodes]
    return without_dead_nodes(ComputationalGraph(tuple(nodes), graph.outputs))


def isomorphic(one: ComputationalGraph, other: ComputationalGraph) -> bool:
    """What networkx says: same labels, and between each two nodes the same arguments."""
    first, second = one.to_networkx(), other.to_networkx()

    def same_edges(left: dict[int, dict[str, int]], right: dict[int, dict[str, int]]) -> bool:
        return sorted(e["position"] for e in left.values()) == sorted(e["position"] for e in right.values())

    matcher = MultiDiGraphMatcher(first, second, lambda a, b: a["label"] == b["label"], same_edges)
    return bool(matcher.is_isomorphic())


def cycles(lengths: Sequence[int]) -> ComputationalGraph:
    """Rings of linear nodes whose neighbours are added pairwise. Colour refinement cannot tell one ring of eight
    from two of four: every linear node has two users, every sum two linear nodes."""
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    sums: list[int] = []
    for length in lengths:
        ring = [graph("linear", x, out_features=4) for _ in range(length)]
        sums += [graph("add", ring[i], ring[(i + 1) % length]) for i in range(length)]
    return graph.finish(graph("add", *sums))


def regular(wiring: networkx.Graph) -> ComputationalGraph:
    """A linear node per vertex and a sum per edge of an undirected graph, all summed up in the end."""
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    place = {vertex: graph("linear", x, out_features=4) for vertex in wiring}
    sums = [graph("add", place[a], place[b]) for a, b in wiring.edges]
    return graph.finish(graph("add", *sums))


def branches(number: int, *, length: int) -> ComputationalGraph:
    """Equal chains of linear nodes side by side, summed up in the end."""
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    ends = []
    for _ in range(number):
        end = x
        for _ in range(length):
            end = graph("linear", end, out_features=4)
        ends.append(end)
    return graph.finish(graph("add", *ends))


def chain(length: int) -> ComputationalGraph:
    """One relu after the other."""
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    for _ in range(length):
        x = graph("relu", x)
    return graph.finish(x)
