"""How much each unit of a group matters: the scores by which units are removed."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.edits.edited import EditError
from nasgraph.ir import ComputationalGraph, Role
from nasgraph.modules import State, check_state, is_parameter, run_network
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import UnitGroup, symmetry_table

Criterion = Literal["l2", "l1", "random", "bn_scale", "taylor"]
_COUNTED: frozenset[Role] = frozenset({"weight", "scale", "embedding", "position"})


def importance(
    graph: ComputationalGraph,
    state: State,
    criterion: Criterion = "l2",
    *,
    seed: int = 0,
    gradients: Mapping[str, Tensor] | None = None,
) -> dict[str, Float[Tensor, " units"]]:
    """A score for every unit of every group; in each group the largest is one, so that groups can be ranked together.

    - "l2": root of the sum of squares of all weights, norm scales, embeddings and positions of the unit, in all layers that make,
      normalise or read it (Fang et al. 2023, "DepGraph: towards any structural pruning", eq. 4). Biases do not count.
    - "l1": the sum of their sizes.
    - "random": uniform numbers. With equal seeds equal scores.
    - "bn_scale": the size of the norm's scale (Liu et al. 2017, "network slimming"). Groups without a norm are left out.
    - "taylor": the size of the loss's change to first order, |sum of weight times gradient| (Molchanov et al. 2019, eq. 8); biases
      and shifts count too.

    Args:
        graph: A checked graph.
        state: Its parameters, running statistics and constants.
        criterion: What counts.
        seed: For "random".
        gradients: For "taylor": of a loss, by name of the parameter, such as `loss_gradients` gives.

    Raises:
        StateError: If `state` does not belong to `graph`, or has numbers that are not finite.
        EditError: If the criterion is unknown, "taylor" comes without gradients, or no group has a norm for "bn_scale".
    """
    if criterion not in get_args(Criterion):
        raise EditError(f"No criterion named '{criterion}'. There are: {', '.join(get_args(Criterion))}")
    if criterion == "taylor" and gradients is None:
        raise EditError("'taylor' needs gradients of a loss on data: pass those of 'loss_gradients'")
    check_state(graph, state)
    groups = symmetry_table(graph).groups
    if criterion == "random":
        rng = torch.Generator().manual_seed(derive_seed(seed, "importance"))
        return {group.name: _relative(torch.rand(group.size, generator=rng)) for group in groups}
    if criterion == "taylor":
        assert gradients is not None
        own = [name for name, tensor in state.items() if is_parameter(name, tensor) and name in gradients]
        products = {name: state[name].detach() * gradients[name] for name in own}
        found = {group.name: _sum(group, products).abs() for group in groups}
    elif criterion == "bn_scale":
        scales = {name: state[name].detach().abs() for name in _with_role(graph, frozenset({"scale"}))}
        found = {g.name: _sum(g, scales) for g in groups if any(m.parameter in scales for m in g.members)}
        if groups and not found:
            raise EditError("'bn_scale' needs norms with a scale: no group of this network has one")
    else:
        power = 2 if criterion == "l2" else 1
        sizes = {name: state[name].detach().abs() ** power for name in _with_role(graph, _COUNTED)}
        found = {group.name: _sum(group, sizes) ** (1 / power) for group in groups}
    return {name: _relative(scores) for name, scores in found.items()}


def loss_gradients(
    graph: ComputationalGraph, state: State, inputs: Sequence[Tensor], targets: Tensor
) -> dict[str, Tensor]:
    """Gradients of the mean cross-entropy of the first output on some examples, in inference mode.

    Args:
        graph: A checked graph that classifies.
        state: Its parameters, running statistics and constants. Not changed.
        inputs: One tensor per input node, `[batch, *shape]`.
        targets: Class of each example, `[batch]`.
    """
    leaves = {
        name: tensor.detach().clone().requires_grad_() if is_parameter(name, tensor) else tensor
        for name, tensor in state.items()
    }
    names = [name for name, tensor in leaves.items() if tensor.requires_grad]
    loss = nn.functional.cross_entropy(run_network(graph, leaves, inputs)[0], targets)
    found = torch.autograd.grad(loss, [leaves[name] for name in names], materialize_grads=True)
    return dict(zip(names, found, strict=True))


def _with_role(graph: ComputationalGraph, roles: frozenset[Role]) -> list[str]:
    return [name for name, spec in graph.parameters.items() if spec.role in roles]


def _sum(group: UnitGroup, values: Mapping[str, Tensor]) -> Tensor:
    """The sum of all values that belong to each unit."""
    total = torch.zeros(group.size)
    for member in group.members:
        if member.parameter in values:
            rows = values[member.parameter].movedim(member.axis, 0)
            each = rows.flatten(1).sum(1) if rows.ndim > 1 else rows
            total = total.to(each) + each[member.places().to(each.device)].sum(1)
    return total


def _relative(scores: Tensor) -> Tensor:
    largest = scores.max()
    return scores / largest if largest > 0 else scores
