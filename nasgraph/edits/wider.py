"""More units per layer, with the function as it is."""

from math import ceil

import numpy as np

from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.places import NEW, Ids
from nasgraph.edits.surgery import Resizing, made_axes, resize
from nasgraph.ir import ComputationalGraph
from nasgraph.modules.state import State, check_state
from nasgraph.seeding import derive_seed, generator
from nasgraph.symmetry import SymmetryTable, UnitGroup, symmetry_table

SPREAD = 0.5
"""How unequally the copies of a unit share out what reads them; see `Resizing.spread`."""


def widen(
    graph: ComputationalGraph, state: State, group: str, size: int, *, seed: int = 0, noise: float = 0.0
) -> Edited:
    """Give a group more units: copies of those that it has (Net2WiderNet: Chen, Goodfellow and Shlens, "Net2Net", 2016, eqs. 3-5).

    Whatever reads copies of a unit through a weight shares the weight out among them. Chen et al. share it out equally and
    need noise, since equal copies would stay equal for ever; here each weight is shared out unequally, at random, which is
    exact and sets the copies apart by their gradients. Units are copied as evenly as may be. So a width that is a multiple of
    the old one is exact also where a norm takes means over the units.

    Depthwise convolutions follow their channels; grouped ones, and heads of attention, grow by whole groups (the group of groups)
    or within all groups alike. Where units lie within the unit of a parent group, those of its other units grow with them.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        group: Name of the group in `symmetry_table(graph)`.
        size: Units that it shall have, more than before.
        seed: Decides which units are copied, how weights are shared out, and the noise.
        noise: Standard deviation of what is added to the weights that make the copies, as a share of the tensor's own. Then the
            function is kept roughly only.

    Raises:
        EditError: If there is no such group, the size is no larger, or what reads the units could not be exact.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    table = symmetry_table(graph)
    chosen = group_of(table, group)
    pick = copies(chosen.size, _larger(chosen, size), seed=derive_seed(seed, "widen"))
    picks = {each.name: pick for each in siblings(table, chosen)}
    how = Resizing(exact=True, spread=SPREAD, noise=noise, seed=derive_seed(seed, "widen"))
    wider, tensors = resize(graph, state, made_axes(graph, table, picks), how)
    note = f"widen {group} from {chosen.size} to {size}"
    return Edited(wider, tensors, note, noise == 0.0, tuple(range(len(graph))))


def add_units(graph: ComputationalGraph, state: State, group: str, size: int, *, seed: int = 0) -> Edited:
    """Give a group new units that start at random and are not read yet: the weights that read them are zero.

    For groups of a perceptron's hidden units, of whole heads and of the channels that heads give these are the first three expansions
    of Gesmundo and Maile, "Composable Function-preserving Expansions for Transformer Architectures", 2023, sections 3.1-3.3.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        group: Name of the group in `symmetry_table(graph)`.
        size: Units that it shall have, more than before.
        seed: Decides the new weights.

    Raises:
        EditError: As `widen`; also if a norm takes means over the units.
        StateError: If the state does not belong to the graph.
    """
    return _with_new(graph, state, group, size, zero=False, seed=seed)


def add_zero_units(
    graph: ComputationalGraph, state: State, group: str, size: int, *, seed: int = 0
) -> Edited:
    """Give a group new units that are always zero, until training moves the weights that make them.

    For the group of a transformer's residual stream this is the expansion of the model's width (Gesmundo and Maile 2023, section
    3.5). It needs norms that divide by the root mean square, whose gain makes up for the zeros. A norm that subtracts the mean is
    refused; there `widen` to a multiple of the width is exact.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        group: Name of the group in `symmetry_table(graph)`.
        size: Units that it shall have, more than before.
        seed: Decides the new weights that read the units.

    Raises:
        EditError: As `widen`; also if a norm subtracts a mean over the units, or a function makes them differ from zero.
        StateError: If the state does not belong to the graph.
    """
    return _with_new(graph, state, group, size, zero=True, seed=seed)


def _with_new(
    graph: ComputationalGraph, state: State, group: str, size: int, *, zero: bool, seed: int
) -> Edited:
    check_state(graph, state)
    table = symmetry_table(graph)
    chosen = group_of(table, group)
    pick = new_units(chosen.size, _larger(chosen, size))
    picks = {each.name: pick for each in siblings(table, chosen)}
    nodes = range(len(graph)) if zero else ()
    how = Resizing(exact=True, zero_nodes=nodes, seed=derive_seed(seed, "add units"))
    wider, tensors = resize(graph, state, made_axes(graph, table, picks), how)
    note = f"add {'zero ' if zero else ''}units to {group}, {size} in place of {chosen.size}"
    return Edited(wider, tensors, note, True, tuple(range(len(graph))))


def widen_all(graph: ComputationalGraph, state: State, factor: float, *, seed: int = 0) -> Edited:
    """Widen every group that can be widened exactly by a factor above one, sizes rounded up.

    Groups that lie in a parent's unit (channels of a head, channels of a group) are left alone: the number of blocks grows.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        factor: At least 1.
        seed: As in `widen`.

    Raises:
        EditError: If the factor is not above one, or no group can be widened. The message says why the last could not.
        StateError: If the state does not belong to the graph.
    """
    if not factor > 1:
        raise EditError(f"Expected a factor above 1 (got {factor})")
    edited, done, reason = (
        Edited(graph, dict(state), "", True, tuple(range(len(graph)))),
        0,
        "it has no group",
    )
    for number, group in enumerate(symmetry_table(graph).groups):
        if group.parent:
            continue
        size = ceil(group.size * factor)
        try:
            edited = widen(
                edited.graph, edited.state, group.name, size, seed=derive_seed(seed, "all", number)
            )
            done += 1
        except EditError as error:
            reason = str(error)
    if not done:
        raise EditError(f"No group of the network can be widened by {factor:g}: {reason}")
    return Edited(
        edited.graph,
        edited.state,
        f"widen {done} groups by {factor:g}",
        True,
        tuple(range(len(graph))),
    )


# ---- picks


def group_of(table: SymmetryTable, name: str) -> UnitGroup:
    """The group of this name. Raises `EditError` if there is none."""
    try:
        return table.group(name)
    except KeyError as error:
        raise EditError(str(error.args[0])) from error


def siblings(table: SymmetryTable, group: UnitGroup) -> list[UnitGroup]:
    """The groups that change size together with this one: itself, and those in the other units of its parent."""
    if not group.parent:
        return [group]
    axes = {(member.parameter, member.axis) for member in group.members}
    return [
        each
        for each in table.groups
        if each.parent == group.parent
        and each.size == group.size
        and {(member.parameter, member.axis) for member in each.members} == axes
    ]


def new_units(before: int, size: int) -> Ids:
    """All units, and then new ones."""
    return np.concatenate([np.arange(before), np.full(size - before, NEW)])


def _larger(group: UnitGroup, size: int) -> int:
    if size <= group.size:
        raise EditError(f"Expected more than the {group.size} units of '{group.name}' (got {size})")
    return size


def copies(before: int, size: int, *, seed: int) -> Ids:
    """All units, and then copies of them, as evenly as may be."""
    rng = generator(seed, "copies")
    rounds = [rng.permutation(before) for _ in range(ceil(size / before) - 1)]
    return np.concatenate([np.arange(before), *rounds])[:size]
