"""Reordering the units of one network so that its weights look like those of another.

Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin: merging models modulo permutation symmetries", section 3.2 (weight
matching). Two trainings from different random starts find their channels in different orders; averaging them is senseless
before the orders agree, and sometimes sensible afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.merge.states import check_states
from nasgraph.modules import State, is_parameter
from nasgraph.seeding import generator
from nasgraph.symmetry import SymmetryTable, UnitGroup, permute_units, symmetry_table

MAX_SWEEPS = 100
_TOLERANCE = 1e-9  # of the similarity: a smaller gain is rounding


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """A network with its units reordered.

    Attributes:
        state: Parameters and running statistics: the same function as before, up to rounding.
        similarity_before: Cosine of the angle between all parameters and those of the reference, before.
        similarity_after: The same, afterwards; never less.
        sweeps: Passes over all groups, the last of which found nothing to gain.
        moved: Groups whose units were reordered.
    """

    state: dict[str, Tensor]
    similarity_before: float
    similarity_after: float
    sweeps: int
    moved: tuple[str, ...]


def align(graph: ComputationalGraph, state: State, *, to: State, seed: int = 0) -> dict[str, Tensor]:
    """The state with its units reordered to resemble `to`. See `match_weights` for what is guaranteed and raised."""
    return match_weights(graph, state, to=to, seed=seed).state


def match_weights(graph: ComputationalGraph, state: State, *, to: State, seed: int = 0) -> Alignment:
    """Reorder the units of a network so that the inner product of its parameters with those of another is large.

    Coordinate ascent: one group of the symmetry table after the other is assigned optimally while the others stand still, until
    no group gains. The result is a local optimum: the problem is NP-hard. Heads and other blocks are assigned together
    with the units within them. The function stays the same up to rounding. Same arguments, same result.

    Args:
        graph: The architecture of both.
        state: What is reordered. Not changed.
        to: What it shall resemble.
        seed: Decides the order of the groups from the second sweep on.

    Raises:
        MergeError: If a state does not fit the graph, or has numbers that are not finite.
    """
    check_states(graph, {"the model to align": state, "the reference": to})
    table = symmetry_table(graph)
    matcher = _Matcher(table, state, to)
    before = matcher.cosine()
    rng = generator(seed, "match_weights")
    order = list(range(len(table.groups)))
    moved: dict[str, None] = {}
    gained, sweeps = True, 0
    while gained and sweeps < MAX_SWEEPS:
        gained = False
        sweeps += 1
        for place in order:
            if matcher.improve(table.groups[place]):
                gained = True
                moved[table.groups[place].name] = None
        order = rng.permutation(len(order)).tolist()
    return Alignment(matcher.finished(state), before, matcher.cosine(), sweeps, tuple(moved))


class _Matcher:
    """The state while it is reordered, in double precision on the CPU."""

    def __init__(self, table: SymmetryTable, state: State, to: State) -> None:
        names = [name for name, tensor in state.items() if is_parameter(name, tensor)]
        self.table = table
        self.state = {name: state[name].detach().cpu().double() for name in names}
        self.to = {name: to[name].detach().cpu().double() for name in names}
        self._places = {  # which place each place of the result comes from: no rounding enters
            name: torch.arange(tensor.numel()).reshape(tensor.shape)
            for name, tensor in state.items()
            if any(member.parameter == name for group in table.groups for member in group.members)
        }
        self._children: dict[str, list[UnitGroup]] = {}
        for group in table.groups:
            if group.parent:
                self._children.setdefault(group.parent, []).append(group)
        self._scale = sum(float(t.square().sum()) for t in self.to.values()) ** 0.5
        self._scale *= sum(float(t.square().sum()) for t in self.state.values()) ** 0.5

    def _product(self, names: Sequence[str]) -> float:
        return sum(float((self.state[name] * self.to[name]).sum()) for name in names)

    def cosine(self) -> float:
        """Cosine of the angle between both."""
        return self._product(list(self.state)) / self._scale if self._scale else 0.0

    def finished(self, state: State) -> dict[str, Tensor]:
        """The original tensors, reordered."""
        return {
            name: tensor.flatten()[self._places[name].to(tensor.device)] if name in self._places else tensor
            for name, tensor in state.items()
        }

    def improve(self, group: UnitGroup) -> bool:
        """Assign the units of one group anew. Returns whether that gained anything; if not, nothing is changed."""
        orders = self._assigned(group)
        names = {member.parameter for member in group.members} & set(self.state)
        for child in self._children.get(group.name, []):
            names |= {member.parameter for member in child.members} & set(self.state)
        listed = sorted(names)
        before = self._product(listed)
        own = {name: self.state[name] for name in listed}
        changed = {**own, **self._reorder(own, orders)}
        gain = sum(float((changed[name] * self.to[name]).sum()) for name in listed) - before
        if gain <= _TOLERANCE * max(self._scale, 1e-300):
            return False
        self.state.update(changed)
        touched = {m.parameter for name in orders for m in self.table.group(name).members}
        places = {name: self._places[name] for name in touched}
        self._places.update(self._reorder(places, orders))
        return True

    def _reorder(self, tensors: State, orders: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reorder whichever of the tensors the groups move."""
        result: dict[str, Tensor] = dict(tensors)
        present = set(tensors)
        groups = []
        for name in orders:
            group = self.table.group(name)
            members = tuple(member for member in group.members if member.parameter in present)
            groups.append(UnitGroup(group.name, group.size, members, group.parent))
        return permute_units(SymmetryTable(tuple(groups), ()), result, orders)

    def _assigned(self, group: UnitGroup) -> dict[str, Tensor]:
        """The best orders of a group, and of the groups within its blocks, while all others stand still."""
        families = self._families(group)
        score = self._similarity(group, without=families)
        inner: list[tuple[list[UnitGroup], NDArray[np.int64]]] = []
        for family in families:
            gains, orders = self._within(family)
            score += gains
            inner.append((family, orders))
        _, columns = linear_sum_assignment(score, maximize=True)
        found = {group.name: torch.from_numpy(columns)}
        for family, orders in inner:  # the units are reordered before the blocks move
            for place, block in enumerate(columns.tolist()):
                found[family[block].name] = torch.from_numpy(orders[place, block])
        return found

    def _similarity(
        self, group: UnitGroup, *, without: Sequence[Sequence[UnitGroup]] = ()
    ) -> NDArray[np.float64]:
        """Inner product of unit i of the reference with unit j of the state, over all places of the group."""
        covered = {(m.parameter, m.axis) for family in without for child in family for m in child.members}
        total = torch.zeros(group.size, group.size, dtype=torch.float64)
        for member in group.members:
            if member.parameter in self.state and (member.parameter, member.axis) not in covered:
                places = member.places().flatten()
                rows = [
                    tensors[member.parameter]
                    .index_select(member.axis, places)
                    .movedim(member.axis, 0)
                    .reshape(group.size, -1)
                    for tensors in (self.to, self.state)
                ]
                total += rows[0] @ rows[1].T
        found: NDArray[np.float64] = total.numpy()
        return found

    def _families(self, group: UnitGroup) -> list[list[UnitGroup]]:
        """Groups within the blocks of `group`, sorted into families with one group per block, in the order of the blocks."""
        families: dict[tuple[tuple[str, int, int], ...], dict[int, UnitGroup]] = {}
        for child in self._children.get(group.name, []):
            block = self._block_of(group, child)
            key = tuple((m.parameter, m.axis, m.block) for m in child.members)
            families.setdefault(key, {})[block] = child
        return [
            [family[block] for block in range(group.size)]
            for family in families.values()
            if set(family) == set(range(group.size))
        ]

    @staticmethod
    def _block_of(group: UnitGroup, child: UnitGroup) -> int:
        first = child.members[0]
        for member in group.members:
            if (member.parameter, member.axis) == (first.parameter, first.axis):
                for block, start in enumerate(member.starts):
                    if start <= first.starts[0] < start + member.block:
                        return block
        raise AssertionError(f"'{child.name}' does not lie in '{group.name}'")

    def _within(self, family: Sequence[UnitGroup]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """For each pair of blocks: what the best order of the units within gains, and that order."""
        number, size = len(family), family[0].size
        total = torch.zeros(number * size, number * size, dtype=torch.float64)
        for index, member in enumerate(family[0].members):
            if member.parameter not in self.state:
                continue
            places = torch.cat([child.members[index].places().flatten() for child in family])
            rows = [
                tensors[member.parameter]
                .index_select(member.axis, places)
                .movedim(member.axis, 0)
                .reshape(number * size, -1)
                for tensors in (self.to, self.state)
            ]
            total += rows[0] @ rows[1].T
        blocks = total.reshape(number, size, number, size).permute(0, 2, 1, 3).numpy()
        gains = np.zeros((number, number))
        orders = np.zeros((number, number, size), dtype=np.int64)
        for i in range(number):
            for j in range(number):
                rows_of, columns = linear_sum_assignment(blocks[i, j], maximize=True)
                gains[i, j] = blocks[i, j][rows_of, columns].sum()
                orders[i, j] = columns
        return gains, orders
