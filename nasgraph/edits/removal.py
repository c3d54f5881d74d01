"""Removing units from a network: which attribute of which operator follows which axis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.edits.edited import EditError
from nasgraph.errors import InvalidGraphError
from nasgraph.ir import ComputationalGraph, Node, Scalar, Shape, make_node
from nasgraph.ir.graph import check_graph
from nasgraph.ir.op import whole, wholes
from nasgraph.symmetry import KeptPlaces, kept_places
from nasgraph.symmetry.kept import Mask

Removed = Mapping[str, NDArray[np.int64]]
"""The units that are taken from each group, by the group's name."""


@dataclass(frozen=True, slots=True)
class _Resize:
    """One node that is to be written anew: what it was, and what stays of what it reads and gives."""

    index: int
    op: str
    attrs: Mapping[str, Scalar]
    before: tuple[Shape, ...]
    masks: tuple[tuple[Mask, ...], ...]
    old: Shape
    new: Shape
    own: tuple[Mask, ...]
    parameters: Mapping[tuple[str, int], NDArray[np.bool_]]

    def refuse(self, why: str) -> EditError:
        return EditError(f"Node {self.index} ({self.op}) cannot be made smaller like this: {why}")

    def rows(self, source: int, axis: int, count: int, *, own: bool = False) -> NDArray[np.int64]:
        """How many places stay in each of `count` equal parts of an axis that it reads, or of its own."""
        axis = axis % len(self.own if own else self.masks[source])
        mask = self.own[axis] if own else self.masks[source][axis]
        size = self.old[axis] if own else self.before[source][axis]
        kept = np.ones(size, dtype=np.bool_) if mask is None else mask
        found: NDArray[np.int64] = kept.reshape(count, -1).sum(axis=1)
        return found


_Attrs = dict[str, object]


def resized(graph: ComputationalGraph, removed: Removed) -> tuple[ComputationalGraph, KeptPlaces]:
    """The graph without some units, checked, and which places of its values and parameters stay.

    Raises:
        EditError: If a node cannot be written with what is left. The message names it.
    """
    kept = kept_places(graph, removed)
    shapes = [
        tuple(size if mask is None else int(mask.sum()) for size, mask in zip(shape, masks, strict=True))
        for shape, masks in zip(graph.shapes, kept.values, strict=True)
    ]
    touched = {int(name[1:].split(".")[0]) for name, _ in kept.parameters}
    nodes = []
    for index, node in enumerate(graph.nodes):
        sources = (index, *node.inputs)
        if index in touched or any(shapes[i] != graph.shapes[i] for i in sources):
            node = _rewritten(graph, index, kept, shapes[index])
        nodes.append(node)
    result = ComputationalGraph(tuple(nodes), graph.outputs)
    _check(graph, result, shapes, kept)
    return result, kept


def _rewritten(graph: ComputationalGraph, index: int, kept: KeptPlaces, new: Shape) -> Node:
    node = graph.nodes[index]
    rule = _RULES.get(node.op)
    if rule is None:
        return node
    step = _Resize(
        index=index,
        op=node.op,
        attrs=dict(node.attrs),
        before=graph.input_shapes(index),
        masks=tuple(kept.values[source] for source in node.inputs),
        old=graph.shapes[index],
        new=new,
        own=kept.values[index],
        parameters=kept.parameters,
    )
    try:
        return make_node(node.op, node.inputs, **{**step.attrs, **rule(step)})
    except InvalidGraphError as error:
        raise step.refuse(str(error)) from error


def _check(
    graph: ComputationalGraph, result: ComputationalGraph, shapes: Sequence[Shape], kept: KeptPlaces
) -> None:
    """Hold the shapes that the operators give against those that the removal asks for."""
    try:
        check_graph(result)
    except InvalidGraphError as error:
        raise EditError(f"Without these units there is no network: {error}") from error
    for index, (found, wanted) in enumerate(zip(result.shapes, shapes, strict=True)):
        if found != wanted:
            raise EditError(
                f"Node {index} ({result.nodes[index].op}) cannot be made smaller like this: it would give shape {found} where {wanted} "
                "is left"
            )
    for name, spec in graph.parameters.items():
        wanted = tuple(
            size if (mask := kept.parameters.get((name, axis))) is None else int(mask.sum())
            for axis, size in enumerate(spec.shape)
        )
        found = result.parameters[name].shape
        if found != wanted:
            index = int(name[1:].split(".")[0])
            raise EditError(
                f"Node {index} ({result.nodes[index].op}) cannot be made smaller like this: its parameter '{name}' would have shape "
                f"{found} where {wanted} is left"
            )


def sliced(state: Mapping[str, Tensor], kept: KeptPlaces) -> dict[str, Tensor]:
    """What stays of a state. Tensors that lose nothing are shared."""
    result = dict(state)
    for (name, axis), mask in kept.parameters.items():
        if name in result:
            places = torch.from_numpy(np.flatnonzero(mask)).to(result[name].device)
            result[name] = result[name].index_select(axis, places)
    return result


# ---- what follows which axis


def _alive(step: _Resize, rows: Sequence[NDArray[np.int64]], what: str) -> int:
    """How many of the blocks stay, if they stay whole or lose alike."""
    alive = rows[0] > 0
    for each in rows:
        left = each[alive]
        if not np.array_equal(each > 0, alive) or (left != left[:1]).any():
            counts = ", ".join(map(str, each.tolist()[:16]))
            raise step.refuse(f"its {what} would keep {counts} places; keep as many in each")
    return int(alive.sum())


def _convolution(step: _Resize) -> _Attrs:
    found: _Attrs = {"out_channels": step.new[0]} if "out_channels" in step.attrs else {}
    groups = whole(step.attrs, "groups")
    if groups > 1:
        rows = [step.rows(0, 0, groups), step.rows(0, 0, groups, own=True)]
        found["groups"] = _alive(step, rows, "groups of channels")
    return found


def _attention(step: _Resize) -> _Attrs:
    heads = whole(step.attrs, "num_heads")
    rows = [step.rows(source, -1, heads) for source in (0, 1)]
    values = step.rows(2, -1, heads)
    num_heads = _alive(step, rows, "heads")
    _alive(step, [values], "heads")
    if not np.array_equal(rows[0] > 0, values > 0):
        raise step.refuse("heads of queries and of values would not be the same")
    found: _Attrs = {"num_heads": num_heads}
    width = step.before[0][-1] // heads
    if step.attrs["scale"] == 0.0 and int(rows[0].max()) != width:  # the scores keep their size
        found["scale"] = 1 / sqrt(width)
    return found


def _group_norm(step: _Resize) -> _Attrs:
    groups = whole(step.attrs, "groups")
    return {"groups": _alive(step, [step.rows(0, 0, groups)], "groups of channels")}


def _recurrent(step: _Resize) -> _Attrs:
    size = whole(step.attrs, "hidden_size")
    mask = step.parameters.get((f"n{step.index}.weight_ih", 0))
    hidden = size if mask is None else int(mask.sum()) * size // len(mask)
    projected = "proj_size" in step.attrs and whole(step.attrs, "proj_size") > 0
    if projected and step.new[-1] >= hidden:
        raise step.refuse(
            f"its projection of {step.new[-1]} has to be smaller than its {hidden} hidden units"
        )
    return {"hidden_size": hidden, **({"proj_size": step.new[-1]} if projected else {})}


def _gat(step: _Resize) -> _Attrs:
    heads = whole(step.attrs, "num_heads")
    rows = step.rows(0, 0, heads, own=True)
    return {"out_features": step.new[0], "num_heads": _alive(step, [rows], "heads")}


def _slice(step: _Resize) -> _Attrs:
    axis = whole(step.attrs, "axis")
    mask = step.masks[0][axis]
    if mask is None:
        return {}
    places = np.arange(*(whole(step.attrs, name) for name in ("start", "stop", "step")))
    left = (np.cumsum(mask) - 1)[places[mask[places]]]
    if not len(left):
        raise step.refuse("nothing of what it takes is left")
    by = int(left[1] - left[0]) if len(left) > 1 else 1
    if (np.diff(left) != by).any():
        raise step.refuse("what it takes would no longer stand at equal distances")
    return {"start": int(left[0]), "stop": int(left[-1]) + 1, "step": by}


def _pad(step: _Resize) -> _Attrs:
    amounts = list(wholes(step.attrs, "amounts"))
    for axis, mask in enumerate(step.own):
        if mask is not None:
            before, after = amounts[2 * axis : 2 * axis + 2]
            amounts[2 * axis] = int(mask[:before].sum())
            amounts[2 * axis + 1] = int(mask[len(mask) - after :].sum()) if after else 0
    return {"amounts": tuple(amounts)}


def _out_features(step: _Resize) -> _Attrs:
    return {"out_features": step.new[-1]}


def _shape(step: _Resize) -> _Attrs:
    return {"shape": step.new}


_DIMS = (1, 2, 3)
_RULES: Mapping[str, Callable[[_Resize], _Attrs]] = {
    **{f"{kind}{dims}d": _convolution for kind in ("conv", "conv_transpose") for dims in _DIMS},
    **{f"apply_{kind}{dims}d": _convolution for kind in ("conv", "conv_transpose") for dims in _DIMS},
    **dict.fromkeys(("linear", "bilinear"), _out_features),
    **dict.fromkeys(("gcn_conv", "gin_conv", "sage_conv", "graph_conv"), _out_features),
    **dict.fromkeys(("cheb_conv", "arma_conv"), _out_features),
    "gat_conv": _gat,
    "embedding": lambda step: {"dim": step.new[-1]},
    "attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    "group_norm": _group_norm,
    **dict.fromkeys(("reshape", "expand", "parameter"), _shape),
    "slice": _slice,
    "pad": _pad,
}
"""Operators some of whose attributes are sizes. All others follow what they read; where one does not, `_check` says so."""
