"""Where the examples lie in each tensor of a file that was written for one batch size.

The examples are one digit in the number of an element. `Layout` is the axis with that digit and how many steps of the axis's
own number stand before it, as after merging steps and examples into one axis.
"""

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor

from nasgraph.modules.onnx_step import Layout, Step

_SAME_ORDER = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))


def after_reshape(before: int, shape: Sequence[int], size: int) -> Layout | None:
    """Where the examples lie in `shape` if `before` elements of further axes stand before them."""
    for axis, length in enumerate(shape):
        left = prod(shape[:axis])
        if left and before % left == 0 and length and length % (before // left * size) == 0:
            return axis, before // left
    return None


def layouts_after(
    step: Step, layouts: Mapping[str, Layout], results: Sequence[Tensor]
) -> list[Layout | None]:
    """Where the examples lie in the results of a node; None where that is not known."""
    sources = [place for place, name in enumerate(step.node.inputs) if name in layouts]
    if not sources or step.node.op in ("Shape", "Size"):
        return [None] * len(results)
    place = sources[0]
    source, (axis, outer) = step.tensor(place), layouts[step.node.inputs[place]]
    found: list[Layout | None] = []
    for number, result in enumerate(results):
        if step.node.op in _SAME_ORDER:
            before = prod(source.shape[:axis]) * outer
            layout = after_reshape(before, result.shape, step.batch_size)
        else:
            layout = _axis_after(step, place, axis, source, number, result), outer
        fits = layout is not None and 0 <= layout[0] < result.dim()
        if not fits or result.shape[layout[0]] % (layout[1] * step.batch_size):  # type: ignore[index]  # it fits
            layout = None
        found.append(layout)
    return found


def _axis_after(step: Step, place: int, axis: int, source: Tensor, number: int, result: Tensor) -> int:
    node = step.node
    match node.op:
        case "Transpose":
            return list(node.wholes("perm") or reversed(range(source.dim()))).index(axis)
        case "LSTM" | "GRU" | "RNN":
            return 0 if node.whole("layout", 0) else 1 if number else 2
        case "Gather":
            along = node.whole("axis", 0) % step.tensor(0).dim()
            added = step.tensor(1).dim() - 1
            return axis + along if place == 1 else axis + (added if along < axis else 0)
        case "ArgMax" | "ArgMin" if not node.whole("keepdims", 1):
            return axis - (node.whole("axis", 0) % source.dim() < axis)
    if node.op.startswith("Reduce") and result.dim() < source.dim():
        axes = step.integers(1, "axes") or ()
        return axis - sum(other % source.dim() < axis for other in axes)
    return axis + result.dim() - source.dim()
