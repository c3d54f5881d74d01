"""Many networks of one architecture as one stack: every tensor has a leading axis, one place per network.

A *stack* is a mapping from the names of a state to tensors `[networks, *shape]`. What follows runs all of them at once.

Shape letters: B = networks, P = values of one tensor.
"""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.modules import State, StateError, check_state, run_network
from nasgraph.modules.kernels.attention import ATTENTION

MAX_VALUES = 2**25
"""Values of all nodes that one pass over a part of a stack may hold: 128 MiB in float32."""


def stack_states(states: Sequence[State]) -> dict[str, Tensor]:
    """One stack of the states of several networks of one architecture.

    Args:
        states: At least one, all with the same names and shapes.

    Raises:
        StateError: If there is none, or one has other names or shapes than the first.
    """
    if not states:
        raise StateError("Expected at least one network to stack (got 0)")
    first = states[0]
    for place, state in enumerate(states[1:], start=1):
        odd = sorted(set(first) ^ set(state))
        if odd:
            raise StateError(
                f"Networks 0 and {place} are of two architectures: only one has '{odd[0]}'. Stack each architecture by itself"
            )
        for name, tensor in state.items():
            if tensor.shape != first[name].shape:
                shapes = f"{tuple(first[name].shape)} and {tuple(tensor.shape)}"
                raise StateError(
                    f"Networks 0 and {place} are of two architectures: '{name}' has the shapes {shapes}"
                )
    return {name: torch.stack([state[name] for state in states]) for name in first}


def unstack_states(stacked: State) -> list[dict[str, Tensor]]:
    """The states of a stack, one per network. They share the stack's memory."""
    sizes = {len(tensor) for tensor in stacked.values()}
    if len(sizes) != 1:
        raise StateError(f"Expected tensors with one leading size in a stack (got {sorted(sizes)})")
    return [{name: tensor[place] for name, tensor in stacked.items()} for place in range(sizes.pop())]


def check_stack(graph: ComputationalGraph, stacked: State, *, owner: str = "the stack") -> int:
    """Check that a stack fits a graph, and that it has parameters at all.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        owner: What messages call the stack.

    Returns:
        The number of networks.

    Raises:
        StateError: For the first thing wrong; the message names the tensor, and the network where a number is not finite.
    """
    if not graph.parameters:
        raise StateError(f"The architecture of '{owner}' has no parameters: there is nothing to read")
    for name, tensor in stacked.items():
        if tensor.dim() == 0:
            raise StateError(f"'{name}' of '{owner}' has no leading axis: build stacks with 'stack_states'")
    sizes = sorted({len(tensor) for tensor in stacked.values()})
    if len(sizes) != 1 or sizes[0] == 0:
        raise StateError(
            f"Expected the tensors of '{owner}' to have one leading size of 1 or more (got {sizes})"
        )
    for name, tensor in stacked.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
            raise StateError(f"'{name}' of network {bad} of '{owner}' has numbers that are not finite")
    check_state(graph, {name: tensor[0] for name, tensor in stacked.items()}, owner=owner)
    return sizes[0]


def run_stack(
    graph: ComputationalGraph,
    stacked: State,
    inputs: Sequence[Tensor],
    *,
    edges: Tensor | None = None,
    use_batch: bool = False,
    max_values: int = MAX_VALUES,
) -> tuple[Tensor, ...]:
    """Run every network of a stack on the same inputs. Differentiable in the stack and in the inputs.

    Networks are run together (`torch.vmap`), as many at once as `max_values` allows. Where an input is sparse or the network
    attends, for which torch has no rule of batching, they are run one by one.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        inputs: One tensor per input node, `[batch, *shape]`.
        edges: Edges between examples for graphs that pass messages, `[2, edges]`.
        use_batch: Whether batch norms use the statistics of the batch in place of the running ones.
        max_values: Limit on the values that nodes of the networks run together may have.

    Returns:
        One tensor per output, `[networks, batch, *shape]`.
    """

    def one(state: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return run_network(graph, state, inputs, use_batch=use_batch, edges=edges)

    attends = any(node.op in ATTENTION for node in graph.nodes)
    if attends or any(tensor.layout != torch.strided for tensor in inputs):
        results = [one(state) for state in unstack_states(stacked)]
        return tuple(torch.stack(outputs) for outputs in zip(*results, strict=True))
    values = len(inputs[0]) * sum(prod(shape) for shape in graph.shapes)
    at_once = max(1, max_values // max(1, values))
    result: tuple[Tensor, ...] = torch.vmap(one, chunk_size=at_once)(dict(stacked))
    return result
