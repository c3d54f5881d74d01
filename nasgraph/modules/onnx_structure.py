"""ONNX operators that move, cut, join or make tensors, as torch functions."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.onnx_file import OnnxNode
from nasgraph.modules.onnx_step import Result, Rule, Step, integers_like, refuse_large

TYPES: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
"""Types by their number in ONNX."""


# ---- shapes


def flexible(step: Step, sizes: Sequence[int]) -> list[int]:
    """A literal shape with this batch in place of the file's, where the examples of the operand are known to lie."""
    fixed, x, wanted = step.fixed_batch, step.tensor(), list(sizes)
    if not fixed or fixed == step.batch_size or step.layout is None or not all(step.literal[1:]):
        return wanted
    elements, known = x.numel() // step.batch_size * fixed, prod(size for size in wanted if size != -1)
    if wanted.count(-1) > 1 or known < 1 or elements % known:
        return wanted
    wanted = [elements // known if size == -1 else size for size in wanted]
    axis, outer = step.layout
    place = _place_of_examples(wanted, prod(x.shape[:axis]) * outer, fixed)
    if place is None or prod(wanted) != elements:
        return wanted
    return [*wanted[:place], wanted[place] // fixed * step.batch_size, *wanted[place + 1 :]]


def _place_of_examples(shape: Sequence[int], before: int, fixed: int) -> int | None:
    """The axis of a shape that has the examples; `before` elements of other axes stand before them.

    In a file for one example several axes may be meant. Then an axis for the examples alone is preferred, after it one that
    begins with them and is not the last (examples and heads), after it one that ends with them (steps and examples).
    """
    found: list[tuple[int, int]] = []
    for place, size in enumerate(shape):
        left = prod(shape[:place])
        if before % left == 0 and size % (before // left * fixed) == 0:
            begins = left == before
            rank = (
                0
                if begins and size == fixed
                else 1
                if begins and place < len(shape) - 1
                else 2
                if not begins
                else 3
            )
            found.append((rank, place))
    return min(found)[1] if found else None


def _reshape(step: Step) -> Result:
    x, wanted = step.tensor(), list(step.integers(1, "shape") or ())
    if step.node.whole("allowzero", 0) or 0 not in wanted:
        return x.reshape(flexible(step, wanted))
    own = list(x.shape)
    if step.layout is not None and step.fixed_batch:
        own[step.layout[0]] = own[step.layout[0]] // step.batch_size * step.fixed_batch
        copied = [own[axis] if size == 0 else size for axis, size in enumerate(wanted)]
        changed = flexible(step, copied)
        if changed != copied:
            return x.reshape(changed)
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)])


def _flatten(step: Step) -> Result:
    x, axis = step.tensor(), step.node.whole("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x.reshape(-1, 1)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def _transpose(step: Step) -> Result:
    x = step.tensor()
    return x.permute(step.node.wholes("perm") or tuple(reversed(range(x.dim()))))


def _squeeze(step: Step) -> Result:
    x, axes = step.tensor(), step.integers(1, "axes")
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    gone = {axis % x.dim() for axis in axes}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


def _unsqueeze(step: Step) -> Result:
    x, axes = step.tensor(), step.integers(1, "axes") or ()
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(step: Step) -> Result:
    x, wanted = step.tensor(), step.integers(1, "shape") or ()
    refuse_large(step, wanted)
    is_stored = all(step.literal) and (x.dim() < len(wanted) or x.shape[:1] == (1,))
    if is_stored and wanted and wanted[0] == step.fixed_batch != step.batch_size:
        wanted = (1, *wanted[1:])  # one row for all examples, whatever their number
    return x.expand(torch.broadcast_shapes(x.shape, wanted))  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _tile(step: Step) -> Result:
    times = step.integers(1, "repeats") or ()
    refuse_large(step, [size * count for size, count in zip(step.tensor().shape, times, strict=True)])
    return step.tensor().repeat(times)


def _shape(step: Step) -> Result:
    x = step.tensor()
    sizes = list(x.shape)[step.node.whole("start", 0) : step.node.whole("end", x.dim())]
    return integers_like(sizes, x)


# ---- joining and cutting


def _concat(step: Step) -> Result:
    tensors, axis = step.tensors(), step.node.whole("axis", 0)
    axis %= tensors[0].dim()
    if axis and step.fixed_batch not in (None, step.batch_size) and any(step.follows):
        tensors = [
            tensor.expand(step.batch_size, *tensor.shape[1:])
            if not follows and tensor.shape[0] == 1
            else tensor
            for tensor, follows in zip(tensors, step.follows, strict=True)
        ]
    return torch.cat(tensors, axis)


def _split(step: Step) -> Result:
    x, axis = step.tensor(), step.node.whole("axis", 0)
    sizes = step.integers(1, "split")
    if sizes is None:
        parts = step.node.whole("num_outputs", len(step.node.outputs))
        size = -(-x.shape[axis] // parts)
        sizes = tuple(min(size, x.shape[axis] - size * part) for part in range(parts))
    return tuple(torch.split(x, list(sizes), axis))


def _slice(step: Step) -> Result:
    x = step.tensor()
    starts, ends = step.integers(1, "starts") or (), step.integers(2, "ends") or ()
    axes = step.integers(3, "axes") or tuple(range(len(starts)))
    strides = step.integers(4, "steps") or (1,) * len(starts)
    index = [slice(None)] * x.dim()
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        axis %= x.dim()
        size = x.shape[axis]
        if stride > 0:
            index[axis] = slice(*slice(start, end, stride).indices(size))
            continue
        first, last, _ = slice(start, end, stride).indices(size)
        x = x.flip(axis)
        index[axis] = slice(size - 1 - first, size - 1 - last, -stride)
    return x[tuple(index)]


def _gather(step: Step) -> Result:
    x, places = step.tensor(0), step.tensor(1)
    axis = step.node.whole("axis", 0) % x.dim()
    if not step.follows[1]:
        places = torch.where(places < 0, places + x.shape[axis], places)
        if places.dim() == 0:
            return x.select(axis, int(places.item()))
        if places.dim() == 1:
            return x.index_select(axis, places.long())
    if axis == 0 and x.dim() == 2 and x.is_floating_point():
        return F.embedding(places.long(), x)
    picked = x.index_select(axis, places.flatten().long())
    return picked.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _gather_elements(step: Step) -> Result:
    x, places = step.tensor(0), step.tensor(1).long()
    axis = step.node.whole("axis", 0) % x.dim()
    return x.gather(axis, torch.where(places < 0, places + x.shape[axis], places))


def _trilu(step: Step) -> Result:
    given = step.optional(1)
    diagonal = 0 if given is None else int(given.item())
    function = torch.triu if step.node.whole("upper", 1) else torch.tril
    return function(step.tensor(), diagonal)


# ---- padding


def _pad(step: Step) -> Result:
    x, mode = step.tensor(), step.node.text("mode", "constant")
    amounts, given = step.integers(1, "pads") or (), step.optional(2)
    value = step.node.number("value", 0.0) if given is None or not given.numel() else given.item()
    axes = step.integers(3, "axes") or tuple(range(x.dim()))
    pairs = [(0, 0)] * x.dim()
    for number, axis in enumerate(axes):
        pairs[axis % x.dim()] = (amounts[number], amounts[number + len(axes)])
    if mode == "constant":
        return pad_constant(x, pairs, value)
    if mode not in ("reflect", "edge", "wrap"):
        raise step.refuse(f"it pads by '{mode}'")
    if 3 <= x.dim() <= 5 and not any(pairs[0] + pairs[1]) and min(min(pair) for pair in pairs) >= 0:
        flat = [amount for pair in reversed(pairs[2:]) for amount in pair]
        return F.pad(x, flat, {"edge": "replicate", "wrap": "circular"}.get(mode, mode))
    for axis, (before, after) in enumerate(pairs):
        size = x.shape[axis]
        if before or after:
            place = torch.arange(-before, size + after, device=x.device)
            if mode == "reflect":
                place = size - 1 - (size - 1 - place.abs()).abs()
            x = x.index_select(axis, place.clamp(0, size - 1) if mode == "edge" else place % size)
    return x


def pad_constant(x: Tensor, pairs: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Pad by one number; `pairs` has the amounts before and after each axis."""
    pairs = list(pairs)
    while pairs and pairs[0] == (0, 0):
        pairs = pairs[1:]
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return F.pad(x, flat, value=value) if flat else x


# ---- making tensors


def constant(node: OnnxNode) -> Tensor | None:
    """The content of a `Constant` node; None if it holds no numbers."""
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        value = node.attrs.get(name)
        if isinstance(value, Tensor):
            return value
        if value is not None:
            return torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)
    return None


def _constant_of_shape(step: Step) -> Result:
    sizes, value = step.integers(0, ""), step.node.attrs.get("value")
    refuse_large(step, sizes or ())
    device = step.tensor().device
    if not isinstance(value, Tensor):
        return torch.zeros(sizes or (), device=device)
    return torch.full(sizes or (), value.item(), dtype=value.dtype, device=device)


def _range(step: Step) -> Result:
    start, limit, delta = (step.tensor(place).item() for place in range(3))
    refuse_large(step, [int((limit - start) / delta) + 1] if delta else [0])
    return torch.arange(start, limit, delta, dtype=step.tensor().dtype, device=step.tensor().device)


def _cast(step: Step) -> Result:
    number = step.node.whole("to", 0)
    if number not in TYPES:
        raise step.refuse(f"it casts to the type number {number}")
    return step.tensor().to(TYPES[number])


def _one_hot(step: Step) -> Result:
    places, depth, values = step.tensor(0).long(), int(step.tensor(1).item()), step.tensor(2)
    axis = step.node.whole("axis", -1) % (places.dim() + 1)
    places = torch.where(places < 0, places + depth, places).unsqueeze(axis)
    counted = torch.arange(depth, device=places.device).reshape(depth, *(1,) * (places.dim() - 1 - axis))
    return torch.where(places == counted, values[1], values[0])


# ---- space and channels


def _depth_to_space(step: Step) -> Result:
    x, block = step.tensor(), step.node.whole("blocksize", 1)
    if step.node.text("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    size, channels, height, width = x.shape
    x = x.reshape(size, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(size, channels // block**2, height * block, width * block)


def _space_to_depth(step: Step) -> Result:
    x, block = step.tensor(), step.node.whole("blocksize", 1)
    size, channels, height, width = x.shape
    x = x.reshape(size, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(size, channels * block**2, height // block, width // block)


def _same(function: Callable[[Tensor], Tensor]) -> Rule:
    return lambda step: function(step.tensor())


STRUCTURE: Mapping[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Shape": _shape,
    "Size": lambda step: integers_like(step.tensor().numel(), step.tensor()),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Trilu": _trilu,
    "Pad": _pad,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Cast": _cast,
    "CastLike": lambda step: step.tensor(0).to(step.tensor(1).dtype),
    "OneHot": _one_hot,
    "Identity": _same(lambda x: x),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
