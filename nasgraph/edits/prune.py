"""Pruning of whole units: the network without them, smaller in every layer that they pass through."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.removal import resized, sliced
from nasgraph.edits.targets import choose_units
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import State, check_state
from nasgraph.symmetry import SymmetryTable, symmetry_table


def prune_units(graph: ComputationalGraph, state: State, keep: Mapping[str, Tensor]) -> Edited:
    """Remove units from groups: from all layers that make, carry, normalise or read them (Fang et al. 2023, "DepGraph").

    A removed unit counts as zero for all that reads it through a weight: the network computes what it would compute if the
    weights behind the unit were zero. A norm or a mean *over* the units of a group is then taken over those that are left. Attention keeps the
    scale of its scores. Nodes and names of parameters stay as they are.

    Args:
        graph: A checked graph.
        state: Its parameters, running statistics and constants. Not changed.
        keep: For groups that become smaller, by their name in the symmetry table: the units that stay, at least one.
            Their order has no meaning. Groups in one layer (channels in heads, heads) may be pruned together.

    Raises:
        StateError: If `state` does not belong to `graph`, or has numbers that are not finite.
        EditError: If there is no such group, a unit is out of range or named twice, none would be left, or a node cannot be
            written with what is left; the message names the group or the node with its operator.
    """
    check_state(graph, state)
    removed = removed_units(symmetry_table(graph), keep)
    new, kept = resized(graph, removed)
    count = sum(len(units) for units in removed.values())
    note = f"prune {count} units of {len(removed)} groups"
    if len(removed) == 1:
        ((name, units),) = removed.items()
        size = symmetry_table(graph).group(name).size
        note = f"prune {name} from {size} to {size - len(units)}"
    return Edited(
        graph=new,
        state=sliced(state, kept),
        note=note,
        preserves_function=not removed,
        nodes=tuple(range(len(graph))),
    )


def removed_units(table: SymmetryTable, keep: Mapping[str, Tensor]) -> dict[str, NDArray[np.int64]]:
    """The units that `keep` leaves out, for each group that loses some.

    Raises:
        EditError: As `prune_units`.
    """
    sizes = {group.name: group.size for group in table.groups}
    if keep and not sizes:
        raise EditError("The network has no units that could be removed: its symmetry table is empty")
    removed = {}
    for name, units in keep.items():
        if name not in sizes:
            known = ", ".join(list(sizes)[:8])
            raise EditError(f"No group named '{name}'. There are: {known}{', ...' if len(sizes) > 8 else ''}")
        chosen = torch.as_tensor(units)
        if chosen.dtype in (torch.bool, torch.uint8) or chosen.is_floating_point() or chosen.ndim != 1:
            raise EditError(
                f"Expected the numbers of the units of '{name}' that stay, as one row of integers (got {str(chosen.dtype)[6:]}, "
                f"shape {tuple(chosen.shape)})"
            )
        if not len(chosen):
            raise EditError(f"Expected at least one unit of '{name}' to stay (got none)")
        wrong = chosen[(chosen < 0) | (chosen >= sizes[name])]
        if len(wrong):
            raise EditError(f"'{name}' has units 0 to {sizes[name] - 1} (got {int(wrong[0])})")
        if len(set(chosen.tolist())) < len(chosen):
            raise EditError(f"Expected each unit of '{name}' once (got {chosen.tolist()!r:.80})")
        gone = np.setdiff1d(np.arange(sizes[name]), chosen.cpu().numpy())
        if len(gone):
            removed[name] = gone
    return removed


def prune_to(
    graph: ComputationalGraph,
    state: State,
    *,
    speed_up: float,
    scores: Mapping[str, Tensor],
    min_units: int = 1,
    min_share: float = 0.0,
    round_to: int = 1,
    uniform: bool = False,
) -> Edited:
    """Remove the weakest units until the network has at most 1 / `speed_up` of its multiply-adds.

    The arguments are those of `choose_units`, which picks the units, and of `prune_units`, which removes them.

    Raises:
        StateError: If `state` does not belong to `graph`, or has numbers that are not finite.
        EditError: If the target is out of reach, or a setting or a score is wrong.
    """
    keep = choose_units(
        graph,
        scores,
        speed_up=speed_up,
        min_units=min_units,
        min_share=min_share,
        round_to=round_to,
        uniform=uniform,
    )
    edited = prune_units(graph, state, keep)
    before, after = cost_of(graph).multiply_adds, cost_of(edited.graph).multiply_adds
    return replace(edited, note=f"{edited.note}: {before:,} to {after:,} multiply-adds")
