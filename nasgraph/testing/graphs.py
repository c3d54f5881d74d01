"""Changes of a graph that must not matter."""

import numpy as np

from nasgraph.ir import OPS, ComputationalGraph, Node


def reordered(graph: ComputationalGraph, rng: np.random.Generator) -> ComputationalGraph:
    """The same graph written down in another topological order, drawn at random.

    Arguments whose order has no meaning are shuffled too. Input nodes keep their order among themselves, since they
    are fed in that order. So every function of graphs that claims not to depend on the order of the
    nodes must give the same for `graph` and the result.
    """
    waiting = {index: len(set(node.inputs)) for index, node in enumerate(graph.nodes)}
    users: list[list[int]] = [[] for _ in graph.nodes]
    for index, node in enumerate(graph.nodes):
        for source in set(node.inputs):
            users[source].append(index)
    inputs = list(graph.inputs)
    ready = [index for index, count in waiting.items() if count == 0 and graph.nodes[index].op != "input"]
    place: dict[int, int] = {}
    while ready or inputs:
        # One step more than there are ready nodes: the next input node, as long as there is one.
        step = int(rng.integers(len(ready) + bool(inputs)))
        chosen = ready.pop(step) if step < len(ready) else inputs.pop(0)
        place[chosen] = len(place)
        for user in users[chosen]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    nodes = [_moved(graph.nodes[old], place, rng) for old in place]
    return ComputationalGraph(tuple(nodes), tuple(place[output] for output in graph.outputs))


def _moved(node: Node, place: dict[int, int], rng: np.random.Generator) -> Node:
    inputs = [place[source] for source in node.inputs]
    if OPS[node.op].commutative:
        rng.shuffle(inputs)
    return Node(node.op, tuple(inputs), node.attrs)
