"""States of networks of one architecture: checked, averaged, run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nasgraph.data import Split
from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import (
    Program,
    RunContext,
    State,
    StateError,
    buffers_by_node,
    check_state,
    is_averaged,
)


class MergeError(NasGraphError, ValueError):
    """Networks that cannot be merged, or not sensibly. The message says which, and the numbers."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """What has to agree before networks are merged.

    Attributes:
        name: What messages call it.
        fingerprint: Fingerprint of its graph.
        data: What it was trained on: any text, such as the hash of the content and how it was prepared.
        class_names: One name per class, in the order of the logits.
    """

    name: str
    fingerprint: str
    data: str = ""
    class_names: tuple[str, ...] = ()


def check_ingredients(ingredients: Sequence[Ingredient]) -> None:
    """Check that networks are of one architecture, answer with the same classes in one order, and saw the same data.

    Raises:
        MergeError: If there are fewer than two, two have one name, or something differs. The message names both.
    """
    if len(ingredients) < 2:
        raise MergeError(f"Expected two models or more to merge (got {len(ingredients)})")
    names = [ingredient.name for ingredient in ingredients]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MergeError(f"Expected different models to merge (got '{twice}' twice)")
    first = ingredients[0]
    for other in ingredients[1:]:
        pair = f"'{first.name}' and '{other.name}'"
        if other.fingerprint != first.fingerprint:
            raise MergeError(
                f"{pair} are of different architectures ({first.fingerprint} and {other.fingerprint}): weights can be "
                "averaged within one architecture only"
            )
        if other.class_names != first.class_names:
            kind = (
                "order of the classes"
                if sorted(other.class_names) == sorted(first.class_names)
                else "classes"
            )
            raise MergeError(
                f"{pair} differ in the {kind}: {', '.join(first.class_names)!r:.120} and "
                f"{', '.join(other.class_names)!r:.120}"
            )
        if other.data != first.data:
            raise MergeError(
                f"{pair} were trained on different data: {first.data!r:.120} and {other.data!r:.120}"
            )


def check_states(graph: ComputationalGraph, states: Mapping[str, State]) -> None:
    """Check that states fit a graph and each other: names, shapes, numbers that are finite.

    Raises:
        MergeError: For the first thing wrong. The message names the state and the tensor.
    """
    constants = [f"n{i}.value" for i, node in enumerate(graph.nodes) if node.op == "constant"]
    first = next(iter(states.values()), {})
    for owner, state in states.items():
        try:
            check_state(graph, state, owner=owner)
        except StateError as error:
            raise MergeError(str(error)) from error
        for name in constants:
            if not torch.equal(state[name], first[name]):
                raise MergeError(f"The constant '{name}' of '{owner}' differs from that of the others")


def weighted_sum(states: Sequence[State], weights: Sequence[float] | Tensor) -> dict[str, Tensor]:
    """Sum of states with weights, in double precision. What is not averaged is taken from the first.

    Gradients flow to `weights` if they are a tensor.
    """
    scale = torch.as_tensor(weights, dtype=torch.float64) if not isinstance(weights, Tensor) else weights
    result: dict[str, Tensor] = {}
    for name, tensor in states[0].items():
        if not is_averaged(name, tensor):
            result[name] = tensor
            continue
        stacked = torch.stack([state[name].detach() for state in states])
        result[name] = torch.tensordot(scale.to(stacked.device), stacked.to(scale.dtype), dims=1).to(
            tensor.dtype
        )
    return result


def has_batch_norm(graph: ComputationalGraph) -> bool:
    """Whether the network keeps running statistics."""
    return any(node.op == "batch_norm" for node in graph.nodes)


def activations(
    graph: ComputationalGraph,
    state: State,
    split: Split,
    nodes: Sequence[int],
    *,
    batch_size: int,
    use_batch: bool = False,
) -> Iterator[tuple[Tensor, ...]]:
    """Values of some nodes, batch by batch, in inference mode. Node data comes in one pass.

    Args:
        graph: The network.
        state: Its parameters and running statistics.
        split: Examples; targets are not read.
        nodes: Indices of nodes.
        batch_size: Examples per pass. A last batch of one joins the one before.
        use_batch: Whether batch norms use the statistics of the batch in place of the running ones.
    """
    program = Program(ComputationalGraph(graph.nodes, tuple(nodes)))
    buffers = {} if use_batch else buffers_by_node({n: t for n, t in state.items() if "running_" in n})
    constants = {int(n[1:].split(".")[0]): t for n, t in state.items() if n.endswith(".value")}
    with torch.inference_mode():
        if split.nodes is not None:
            data = split.nodes.graph
            context = RunContext(
                batch_size=len(data.features), buffers=buffers, constants=constants, edges=data.edges
            )
            yield program(state, [data.features], context)
            return
        for start in range(0, max(1, len(split) - 1), batch_size):
            stop = len(split) if start + batch_size >= len(split) - 1 else start + batch_size
            inputs = split.inputs[start:stop]
            context = RunContext(batch_size=len(inputs), buffers=buffers, constants=constants)
            yield program(state, [inputs], context)
