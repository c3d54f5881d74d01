"""From the nodes of a graph to the boxes of a picture: one box per chain of nodes that belong together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from nasgraph.draw.labels import ACTIVATIONS, NORMS, family_of, label_of, shape_text
from nasgraph.ir import OPS, ComputationalGraph

MAX_LINES = 5
_LIGHT = (NORMS | ACTIVATIONS | {"dropout", "drop_path"}) - {"softmax"}
_STAND_ALONE = frozenset(
    {"input", "parameter", "reshape", "flatten", "permute", "identity", "zero", "softmax"}
)
_LINEAR = frozenset({"conv2d", "linear"})


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a picture.

    Attributes:
        lines: What it says, each line with its colour family.
        family: Colour of the box.
        nodes: Nodes of the graph that it stands for. Those of its own chain come first, in order.
        inputs: Boxes that it reads, in argument order, all of smaller index.
        shape: Output shape in words.
        num_parameters: Elements of its parameters; one copy, where it stands for several.
        tooltip: Every detail, line by line.
    """

    lines: tuple[tuple[str, str], ...]
    family: str
    nodes: tuple[int, ...]
    inputs: tuple[int, ...]
    shape: str
    num_parameters: int
    tooltip: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """Boxes `first .. last`, drawn once for `times` equal blocks in a row."""

    first: int
    last: int
    times: int


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be drawn.

    Attributes:
        boxes: In topological order.
        outputs: Boxes whose values the graph returns, in order.
        repeats: Blocks drawn once for many.
        notes: What the picture leaves out, in words.
    """

    boxes: tuple[Box, ...]
    outputs: tuple[int, ...]
    repeats: tuple[Repeat, ...] = ()
    notes: tuple[str, ...] = ()


def fold_chains(graph: ComputationalGraph, *, fold: bool = True) -> Picture:
    """One box per chain of nodes; with `fold=False` one box per node.

    A norm, activation or dropout joins the box of what it reads when nothing else reads that. A convolution or
    linear map joins norms and activations in front of it (pre-activation) in the same way. Every node is in
    exactly one box. Boxes without inputs stand right before the first that reads them.
    """
    readers = Counter(source for node in graph.nodes for source in node.inputs)
    readers.update(graph.outputs)
    chains: list[list[int]] = []
    chain_of: list[int] = []
    for index, node in enumerate(graph.nodes):
        source = node.inputs[0] if len(node.inputs) == 1 else -1
        if fold and source >= 0 and readers[source] == 1 and _joins(graph, chains[chain_of[source]], node.op):
            chain_of.append(chain_of[source])
            chains[chain_of[source]].append(index)
        else:
            chain_of.append(len(chains))
            chains.append([index])
    boxes = [
        _box(graph, chain, [chain_of[source] for source in graph.nodes[chain[0]].inputs]) for chain in chains
    ]
    return _in_drawing_order(boxes, [chain_of[output] for output in graph.outputs])


def _joins(graph: ComputationalGraph, chain: Sequence[int], op: str) -> bool:
    ops = [graph.nodes[index].op for index in chain]
    if len(ops) >= MAX_LINES:
        return False
    if op in _LIGHT:
        starts_next_block = any(other in _LINEAR for other in ops) and family_of(op) == family_of(ops[0])
        starts_next_block |= op in NORMS and family_of(ops[0]) in ("join", "pool")
        return not (ops[0] in _STAND_ALONE or starts_next_block)
    return op in _LINEAR and all(other in _LIGHT for other in ops)


def _box(graph: ComputationalGraph, chain: Sequence[int], inputs: Sequence[int]) -> Box:
    ops = [graph.nodes[index].op for index in chain]
    lines, details, total = [], [], 0
    for index, op in zip(chain, ops, strict=True):
        node, input_shapes = graph.nodes[index], graph.input_shapes(index)
        specs = OPS[op].parameters(dict(node.attrs), input_shapes).values()
        num_parameters = sum(prod(spec.shape) for spec in specs)
        total += num_parameters
        attrs = ", ".join(f"{name}={value}" for name, value in node.attrs)
        lines.append((label_of(node, input_shapes), family_of(op)))
        details.append(
            f"{index}: {op}({attrs}) -> {shape_text(graph.shapes[index])}, {num_parameters:,} parameters"
        )
    return Box(
        lines=tuple(lines),
        family=family_of(next((op for op in ops if op not in _LIGHT), ops[0])),
        nodes=tuple(chain),
        inputs=tuple(inputs),
        shape=shape_text(graph.shapes[chain[-1]]),
        num_parameters=total,
        tooltip="\n".join(details),
    )


def _in_drawing_order(boxes: Sequence[Box], outputs: Sequence[int]) -> Picture:
    """Depth first from the outputs, deepest inputs first: what feeds a block late is listed late."""
    depth: dict[int, int] = {}
    for index in sorted(range(len(boxes)), key=lambda index: boxes[index].nodes[-1]):
        depth[index] = 1 + max((depth[source] for source in boxes[index].inputs), default=0)
    order: list[int] = []
    done: set[int] = set()
    waiting = [(index, False) for index in sorted(depth, key=lambda index: (depth[index], -index))]
    while waiting:
        index, ready = waiting.pop()
        if index in done:
            continue
        if ready:
            done.add(index)
            order.append(index)
            continue
        waiting.append((index, True))
        sources = sorted(set(boxes[index].inputs), key=lambda source: (depth[source], -source))
        waiting.extend((source, False) for source in sources if source not in done)
    place = {index: position for position, index in enumerate(order)}
    moved = tuple(replace(boxes[i], inputs=tuple(place[source] for source in boxes[i].inputs)) for i in order)
    return Picture(moved, tuple(place[output] for output in outputs))
