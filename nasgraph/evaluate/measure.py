"""Running a network with given parameters over a split of data."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.modules import Program, RunContext, buffers_by_node, constants_by_node


def measure(
    program: Program, state: Mapping[str, Tensor], split: Split, *, batch_size: int
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of a network on a split, in inference mode.

    Batch norms use the running statistics in `state`; where it has none, those of each batch, so that the result
    then depends on `batch_size`. Same arguments, same result, bit by bit, on one machine.

    Args:
        program: The network.
        state: Parameters by name, and running statistics and constants where there are any.
        split: Examples, on the device of `state`. Nodes of a data graph see the whole graph, in one pass.
        batch_size: Examples per forward pass, if they stand alone. The last pass may have fewer, but not a single one, of which
            norms have no statistics: it joins the pass before.

    Returns:
        Loss, and accuracy in [0, 1].
    """
    if split.nodes is not None:
        return _measure_nodes(program, state, split)
    buffers = buffers_by_node({name: tensor for name, tensor in state.items() if "running_" in name})
    constants = constants_by_node(state)
    loss, correct = 0.0, 0
    with torch.inference_mode():
        for start in range(0, max(1, len(split) - 1), batch_size):
            stop = len(split) if start + batch_size >= len(split) - 1 else start + batch_size
            images, targets = split.inputs[start:stop], split.targets[start:stop]
            (logits,) = program(
                state, [images], RunContext(batch_size=len(images), buffers=buffers, constants=constants)
            )
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(1) == targets).sum())
    return loss / len(split), correct / len(split)


def _measure_nodes(program: Program, state: Mapping[str, Tensor], split: Split) -> tuple[float, float]:
    assert split.nodes is not None
    graph, index = split.nodes.graph, split.nodes.index
    buffers = buffers_by_node({name: tensor for name, tensor in state.items() if "running_" in name})
    constants = constants_by_node(state)
    context = RunContext(
        batch_size=len(graph.features), buffers=buffers, constants=constants, edges=graph.edges
    )
    with torch.inference_mode():
        (logits,) = program(state, [graph.features], context)
        loss = float(F.cross_entropy(logits[index], split.targets))
        correct = int((logits[index].argmax(1) == split.targets).sum())
    return loss, correct / len(split)
