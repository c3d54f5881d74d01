"""The state of a network: its parameters, running statistics and constants, by the names that its graph gives them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules.build import buffers_by_node, constants_by_node, initial_buffers
from nasgraph.modules.functional import Program, RunContext

State = Mapping[str, Tensor]
"""Tensors by name: `n<node>.<parameter>`, `n<node>.running_mean`, `n<node>.running_var`, and `n<node>.value` of constants."""


class StateError(NasGraphError, ValueError):
    """Tensors that are not the state of a graph. The message names whose they are and the tensor."""


def is_statistic(name: str) -> bool:
    """Whether the name is that of a running statistic: measured, not learnt."""
    return name.rsplit(".", 1)[-1].startswith("running_")


def is_averaged(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of a state is averaged: real numbers that are learnt or measured. Constants and integers are not."""
    return tensor.is_floating_point() and not name.endswith(".value")


def is_parameter(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of a state is a parameter: neither constant nor running statistic."""
    return is_averaged(name, tensor) and not is_statistic(name)


def check_state(graph: ComputationalGraph, state: State, *, owner: str = "the network") -> None:
    """Check that a state fits a graph: names, shapes, kinds of numbers, and that all are finite.

    Args:
        graph: The architecture.
        state: What should belong to it. Its constants are looked at by name only.
        owner: What messages call the network.

    Raises:
        StateError: For the first thing wrong. The message names the tensor.
    """
    wanted = {name: spec.shape for name, spec in graph.parameters.items()}
    wanted |= {name: tuple(tensor.shape) for name, tensor in initial_buffers(graph).items()}
    constants = {f"n{i}.value" for i, node in enumerate(graph.nodes) if node.op == "constant"}
    missing = sorted((set(wanted) | constants) - set(state))
    if missing:
        raise StateError(f"'{owner}' has no '{missing[0]}', which the architecture needs")
    foreign = sorted(set(state) - set(wanted) - constants)
    if foreign:
        raise StateError(f"'{owner}' has '{foreign[0]}', which the architecture does not have")
    for name, shape in wanted.items():
        tensor = state[name]
        if tuple(tensor.shape) != shape:
            raise StateError(
                f"Expected '{name}' of '{owner}' to have shape {shape} (got {tuple(tensor.shape)})"
            )
        if tensor.is_quantized or not tensor.is_floating_point():
            raise StateError(
                f"'{name}' of '{owner}' holds {str(tensor.dtype).removeprefix('torch.')} numbers: "
                "convert quantised weights to floating point first"
            )
        if not torch.isfinite(tensor).all():
            raise StateError(f"'{name}' of '{owner}' has numbers that are not finite")


def run_network(
    graph: ComputationalGraph,
    state: State,
    inputs: Sequence[Tensor],
    *,
    use_batch: bool = False,
    edges: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The outputs of a network with a given state. Differentiable in the state; nothing is changed.

    Args:
        graph: The architecture.
        state: Its state.
        inputs: One tensor per input node, `[batch, *shape]`.
        use_batch: Whether batch norms use the statistics of the batch in place of the running ones.
        edges: Edges between examples for graphs that pass messages, `[2, edges]`.

    Returns:
        One tensor per output, `[batch, *shape]`.
    """
    statistics = {} if use_batch else {name: tensor for name, tensor in state.items() if is_statistic(name)}
    context = RunContext(
        batch_size=len(inputs[0]),
        buffers=buffers_by_node(statistics),
        constants=constants_by_node(state),
        edges=edges,
    )
    return Program(graph)(state, inputs, context)
