"""Weights of a trained network for another architecture that is much like it, such as the child of a mutation."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nasgraph.edits.edited import EditError
from nasgraph.edits.importance import importance
from nasgraph.edits.inherit_match import match_nodes
from nasgraph.edits.places import NEW, Along, Ids
from nasgraph.edits.surgery import Resizing, shares
from nasgraph.edits.wider import SPREAD, copies
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import initial_buffers, initial_parameters
from nasgraph.modules.state import State, check_state
from nasgraph.seeding import derive_seed
from nasgraph.symmetry import UnitGroup, symmetry_table

_READS = {
    **dict.fromkeys(("linear", "gcn_conv", "gin_conv", "sage_conv", "graph_conv", "gat_conv", "bilinear"), 1),
    **{f"conv{dims}d": 1 for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": 0 for dims in (1, 2, 3)},
    **dict.fromkeys(("lstm", "gru", "rnn"), 1),
}
"""Which axis of an operator's weights reads units."""


@dataclass(frozen=True, eq=False)
class Inherited:
    """What a network inherits from another.

    Attributes:
        state: Parameters, running statistics and constants of the child.
        nodes: For each node of the child the node of the parent that it corresponds to, or -1.
        share: Share of the child's parameters that come from the parent, in [0, 1]. Copies of a unit count.
        fresh: Parameters of the child of which nothing comes from the parent.
    """

    state: dict[str, Tensor]
    nodes: tuple[int, ...]
    share: float
    fresh: tuple[str, ...]


def inherit(
    parent_graph: ComputationalGraph, parent_state: State, child_graph: ComputationalGraph, *, seed: int
) -> Inherited:
    """Start a network from the weights of another that is much like it.

    Nodes are matched by structure (`match_nodes`). Matched parameters are copied. Where a group of units is larger in the child it
    gets copies of the parent's units, and what reads them shares out its weights (as `widen`, so that a child that differs in
    widths alone, without norms over units, computes what the parent does); where it is smaller the units of the largest weights stay.
    Kernels of other sizes are laid centre on centre, with zeros around. Where a unit of the child has no counterpart, the
    weights that make it are those of a fresh network, and the weights by which matched units read it are zero.
    Everything else starts fresh.

    Args:
        parent_graph: The architecture that was trained.
        parent_state: Its state; not changed.
        child_graph: The other architecture.
        seed: Decides fresh weights, which units are copied and how weights are shared out.

    Raises:
        EditError: If the child has a constant that the parent lacks.
        StateError: If `parent_state` does not belong to `parent_graph`.
    """
    check_state(parent_graph, parent_state, owner="the parent")
    pairs = match_nodes(child_graph, parent_graph)
    heir = _Heir(parent_graph, parent_state, child_graph, pairs, seed)
    dtype = next((tensor.dtype for tensor in parent_state.values() if tensor.is_floating_point()), None)
    fresh = {
        **initial_parameters(child_graph, seed=derive_seed(seed, "fresh")),
        **initial_buffers(child_graph),
    }
    state: dict[str, Tensor] = {}
    untouched: list[str] = []
    num_inherited = 0
    for name, tensor in fresh.items():
        state[name], count = heir.tensor(name, tensor if dtype is None else tensor.to(dtype))
        if name in child_graph.parameters:
            num_inherited += count
            if not count:
                untouched.append(name)
    state |= _constants(child_graph, parent_state, pairs)
    total = sum(fresh[name].numel() for name in child_graph.parameters)
    nodes = tuple(pairs.get(index, NEW) for index in range(len(child_graph)))
    return Inherited(state, nodes, num_inherited / total if total else 0.0, tuple(untouched))


def _constants(child: ComputationalGraph, state: State, pairs: Mapping[int, int]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index, node in enumerate(child.nodes):
        if node.op == "constant":
            tensor = state.get(f"n{pairs.get(index, NEW)}.value")
            if tensor is None or tuple(tensor.shape) != child.shapes[index]:
                raise EditError(
                    f"Node {index} (constant) of the child has no counterpart of its shape in the parent, so that its "
                    "value is not known"
                )
            found[f"n{index}.value"] = tensor
    return found


@dataclass(eq=False)
class _Heir:
    """Finds, for every place on every axis of a child's tensors, the parent's place that it comes from."""

    parent: ComputationalGraph
    state: State
    child: ComputationalGraph
    pairs: Mapping[int, int]
    seed: int
    own: dict[str, list[UnitGroup]] = field(default_factory=dict)
    theirs: dict[str, list[UnitGroup]] = field(default_factory=dict)
    partner: dict[str, UnitGroup] = field(default_factory=dict)
    picks: dict[str, Ids] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tables = symmetry_table(self.child), symmetry_table(self.parent)
        for known, table in zip((self.own, self.theirs), tables, strict=True):
            for group in table.groups:
                for axis in {f"{member.parameter}/{member.axis}" for member in group.members}:
                    known.setdefault(axis, []).append(group)
        for group in tables[0].groups:
            partner = self._partner(group)
            if partner is not None:
                self.partner[group.name] = partner
        smaller = any(
            group.name in self.partner and self.partner[group.name].size > group.size
            for group in tables[0].groups
        )
        scores = importance(self.parent, self.state) if smaller else {}
        for group in tables[0].groups:
            if group.name in self.partner:
                self.picks[group.name] = self._pick(group, self.partner[group.name], scores)

    def _partner(self, group: UnitGroup) -> UnitGroup | None:
        """The parent's group that stands where most of the members of a child's group correspond to."""
        votes: Counter[str] = Counter()
        found: dict[str, UnitGroup] = {}
        for member in group.members:
            name = self._counterpart(member.parameter)
            mine = self.own[f"{member.parameter}/{member.axis}"]
            others = self.theirs.get(f"{name}/{member.axis}", [])
            level = [each for each in mine if bool(each.parent) == bool(group.parent)]
            level_there = [each for each in others if bool(each.parent) == bool(group.parent)]
            place = level.index(group)
            if place < len(level_there):
                found[level_there[place].name] = level_there[place]
                votes[level_there[place].name] += 1
        return found[min(votes, key=lambda name: (-votes[name], name))] if votes else None

    def _counterpart(self, name: str) -> str:
        owner, short = name[1:].split(".", 1)
        return f"n{self.pairs.get(int(owner), NEW)}.{short}"

    def _pick(self, group: UnitGroup, partner: UnitGroup, scores: Mapping[str, Tensor]) -> Ids:
        """The parent's unit for each unit of the child."""
        if group.size > partner.size:
            return copies(partner.size, group.size, seed=derive_seed(self.seed, "copies", group.size))
        if group.size == partner.size:
            return np.arange(group.size)
        score = scores[partner.name]
        kept: Ids = np.sort(score.argsort(descending=True, stable=True)[: group.size].cpu().numpy())
        return kept

    # ---- tensors

    def tensor(self, name: str, fresh: Tensor) -> tuple[Tensor, int]:
        """A tensor of the child, and how many of its numbers come from the parent."""
        source = self.state.get(self._counterpart(name))
        if source is None or source.dim() != fresh.dim():
            return fresh, 0
        node = self.child.nodes[int(name[1:].split(".")[0])]
        reads = _READS.get(node.op) if not name.endswith(("bias", "running_mean", "running_var")) else None
        axes = [self._places(name, axis, source.shape[axis], size) for axis, size in enumerate(fresh.shape)]
        if not fresh.dim() or any(not (places >= 0).any() for places in axes):
            return fresh, 0
        copied = source.detach().to(fresh)
        for axis, places in enumerate(axes):
            copied = copied.index_select(axis, torch.from_numpy(np.maximum(places, 0)))
            if axis == reads:
                along = Along(axis, places, "read")
                how = Resizing(exact=True, spread=SPREAD, seed=self.seed)
                copied = copied * shares(copied, along, source.shape[axis], name=name, how=how)
        return _filled(copied, fresh, axes, reads, is_kernel=node.op.startswith("conv"))

    def _places(self, name: str, axis: int, before: int, after: int) -> Ids:
        """The parent's place for each place on an axis of the child; -1 where there is none."""
        rows = self._corresponding(name, axis)
        is_alike = all(group.size == len(there) for group, _, there in rows if not group.parent)
        if before == after and is_alike:
            return np.arange(after)
        places = np.full(after, NEW)
        own = self.own.get(f"{name}/{axis}", [])
        if not own:
            return _centred(before, after) if self._is_kernel(name, axis) else places
        for group, mine, there in rows:
            places[mine] = np.where(places[mine] == NEW, there[self.picks[group.name]], places[mine])
        if before == after:
            is_free = np.ones(after, dtype=np.bool_)
            for group in own:
                is_free[_rows(group, name, axis)] = False
            places = np.where(is_free, np.arange(after), places)
        return places

    def _corresponding(self, name: str, axis: int) -> list[tuple[UnitGroup, Ids, Ids]]:
        """Groups on an axis with their places and those of the parent's group, where a unit has equally many of them."""
        found = []
        for group in self.own.get(f"{name}/{axis}", []):
            partner = self.partner.get(group.name)
            if partner is not None:
                mine, there = _rows(group, name, axis), _rows(partner, self._counterpart(name), axis)
                if mine.shape[1] == there.shape[1]:
                    found.append((group, mine, there))
        return found

    def _is_kernel(self, name: str, axis: int) -> bool:
        node = self.child.nodes[int(name[1:].split(".")[0])]
        return node.op.startswith("conv") and axis >= 2


def _rows(group: UnitGroup, parameter: str, axis: int) -> Ids:
    """Places of each unit on one axis, one row per unit."""
    found = [
        member.places().numpy()
        for member in group.members
        if member.parameter == parameter and member.axis == axis
    ]
    return np.concatenate(found, axis=1) if found else np.zeros((group.size, 0), dtype=np.int64)


def _centred(before: int, after: int) -> Ids:
    """Places of a kernel of another size, centre on centre."""
    moved: Ids = np.arange(after) - (after - before) // 2
    return np.where((moved >= 0) & (moved < before), moved, NEW)


def _filled(
    copied: Tensor, fresh: Tensor, axes: list[Ids], reads: int | None, *, is_kernel: bool
) -> tuple[Tensor, int]:
    """Put in what the parent does not have: zeros where matched units read, fresh weights elsewhere."""
    result, inherited = copied, 1
    for places in axes:
        inherited *= int((places >= 0).sum())
    if inherited == fresh.numel():
        return result, inherited
    order = sorted(range(len(axes)), key=lambda axis: axis != reads and not (is_kernel and axis >= 2))
    for axis in order:
        new = torch.from_numpy(np.flatnonzero(axes[axis] == NEW))
        filling = fresh.index_select(axis, new)
        is_zero = axis == reads or (is_kernel and axis >= 2)
        result = result.index_copy(axis, new, torch.zeros_like(filling) if is_zero else filling)
    return result, inherited
