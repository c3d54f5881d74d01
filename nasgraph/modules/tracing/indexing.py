"""Rules for reading and writing parts of tensors by an index."""

from collections.abc import Mapping
from math import prod

import torch

from nasgraph.modules.tracing.elementwise import value_at
from nasgraph.modules.tracing.lowering import Batch, Dims, Lowering, Rule, UntranslatableError
from nasgraph.modules.tracing.recording import Call, Value
from nasgraph.modules.tracing.structure import cut, pick


def getitem(lower: Lowering, call: Call) -> None:
    """`x[...]` with numbers, slices, None, Ellipsis, and at most one constant vector of positions."""
    x, index, out = value_at(call, 0), call.args[1], call.outputs[0]
    items = list(index) if isinstance(index, list | tuple) else [index]
    if any(isinstance(item, bool) for item in items):
        raise UntranslatableError("picks by truth values")
    used = sum(item is not None and item is not Ellipsis for item in items)
    tensors = [item for item in items if isinstance(item, Value) and item.shape != ()]
    if tensors and (len(tensors) > 1 or tensors[0].tensor is None):
        _pick_by_tensors(lower, x, items, out)
        return
    gap = [slice(None)] * (len(x.shape) - used)
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    items = [*items[:at], *gap, *items[at + 1 :]]
    current, axis, new_axes = x, 0, []
    kept = 0
    for item in items:
        if item is None:
            new_axes.append(kept)
            kept += 1
            continue
        current, dropped = _index_axis(lower, current, axis, item)
        axis += not dropped
        kept += not dropped
    batch = lower.layout(current)
    if batch is not None:
        place = batch.axis
        for new in new_axes:
            place += new <= place
        batch = Batch(place, batch.outer, batch.inner)
    lower.set(out, lower.fit(lower.node(current), lower.strip(out.shape, batch)), batch)


def _pick_by_tensors(lower: Lowering, x: Value, items: list[object], out: Value) -> None:
    """`x[arange(batch), positions]`: in each example, the rows at these positions."""
    batch = lower.layout(x)
    if batch is None or batch.axis != 0 or batch.rest != 1 or len(items) != 2:
        raise UntranslatableError("picks by tensors")
    numbers, positions = items
    if not isinstance(numbers, Value) or not isinstance(positions, Value) or numbers.tensor is None:
        raise UntranslatableError("picks by tensors")
    counted = torch.arange(lower.batch_size, device=numbers.tensor.device)
    if numbers.tensor.numel() != lower.batch_size or not torch.equal(numbers.tensor.flatten(), counted):
        raise UntranslatableError("picks examples")
    node = lower.node(x)
    rows, *rest = lower.g.shape(node)
    target = Batch(next(axis for axis, size in enumerate(out.shape) if size == lower.batch_size))
    dims = lower.strip(out.shape, target)
    if positions.tensor is not None and lower.layout(positions) is None:
        indices = lower.constant(positions.tensor.long().flatten() % rows, "int")
        node = lower.emit("take", node, indices, axis=0)
    else:
        if lower.layout(positions) is None or positions.dtype != "int":
            raise UntranslatableError("picks by truth values")
        chosen = lower.fit(lower.node(positions), (prod(lower.dims(positions)), *(1,) * len(rest)))
        if rest:
            chosen = lower.emit("expand", chosen, shape=(lower.g.shape(chosen)[0], *rest))
        node = lower.emit("gather", node, chosen, axis=0)
    lower.set(out, lower.fit(node, dims), target)


def _index_axis(lower: Lowering, x: Value, axis: int, item: object) -> tuple[Value, bool]:
    """One axis of an index: the value after it, and whether the axis is gone."""
    size = x.shape[axis]
    number = (
        lower.scalar(item)
        if isinstance(item, int) or (isinstance(item, Value) and item.shape == ())
        else None
    )
    if number is not None and not isinstance(item, bool):
        out = Value((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)
        pick(lower, x, axis, int(number), out)
        return out, True
    if isinstance(item, slice):
        bounds = [
            None if part is None else (part if isinstance(part, int) else lower.scalar(part))
            for part in (item.start, item.stop, item.step)
        ]
        start, stop, step = slice(*(None if b is None else int(b) for b in bounds)).indices(size)
        if step < 1:
            raise UntranslatableError("runs backwards")
        count = len(range(start, stop, step))
        if count == size:
            return x, False
        if count == 0:
            raise UntranslatableError("is empty")
        out = Value((*x.shape[:axis], count, *x.shape[axis + 1 :]), x.dtype)
        cut(lower, x, axis, start, stop, out, step=step)
        return out, False
    if isinstance(item, Value) and item.tensor is not None and len(item.shape) == 1 and item.dtype == "int":
        out = Value((*x.shape[:axis], item.shape[0], *x.shape[axis + 1 :]), x.dtype)
        take(lower, x, axis, item, out)
        return out, False
    raise UntranslatableError("picks by a tensor")


def take(lower: Lowering, x: Value, axis: int, positions: Value, out: Value) -> None:
    """Write the given (constant) positions of a full axis as `out`."""
    assert positions.tensor is not None
    size = x.shape[axis]
    indices = lower.constant(positions.tensor.long().flatten() % size, "int")
    lower.set(out, lower.emit("take", lower.node(x), indices, axis=lower.axis(x, axis)), lower.layout(x))


def index_select(lower: Lowering, call: Call) -> None:
    """`index_select` with constant positions."""
    x, axis, positions = value_at(call, 0), call.argument(1, "dim"), value_at(call, 2, "index")
    if positions.tensor is None or not isinstance(axis, int):
        raise UntranslatableError("picks by a computed tensor")
    take(lower, x, axis % len(x.shape), positions, call.outputs[0])


def gather(lower: Lowering, call: Call) -> None:
    """`gather` along one axis."""
    x, axis, positions = value_at(call, 0), call.argument(1, "dim"), value_at(call, 2, "index")
    assert isinstance(axis, int)
    place = lower.axis(x, axis)
    node = lower.emit(
        "gather", lower.node(x), lower.operand(positions, len(x.shape), lower.layout(x)), axis=place
    )
    lower.set(call.outputs[0], node, lower.layout(x))


def unfold(lower: Lowering, call: Call) -> None:
    """`Tensor.unfold(axis, size, step)`: windows along an axis, their content on a new last axis."""
    x, axis, size, step = (
        value_at(call, 0),
        call.argument(1, "dimension"),
        call.argument(2, "size"),
        call.argument(3, "step"),
    )
    if not (isinstance(axis, int) and isinstance(size, int) and isinstance(step, int)):
        raise UntranslatableError("unfolds pictures")
    axis %= len(x.shape)
    windows = (x.shape[axis] - size) // step + 1
    place = lower.axis(x, axis)
    positions = (torch.arange(windows)[:, None] * step + torch.arange(size)).flatten()
    node = lower.emit("take", lower.node(x), lower.constant(positions, "int"), axis=place)
    shape = lower.g.shape(node)
    node = lower.fit(node, (*shape[:place], windows, size, *shape[place + 1 :]))
    order = [i for i in range(len(shape) + 1) if i != place + 1] + [place + 1]
    if order != sorted(order):
        node = lower.emit("permute", node, order=tuple(order))
    lower.set(call.outputs[0], node, lower.layout(x))


def copy(lower: Lowering, call: Call) -> None:
    """`x.copy_(y)`: y, in the shape of x."""
    source, out = value_at(call, 1, "src"), call.outputs[0]
    batch = lower.layout(source)
    if batch is not None:
        batch = Batch(batch.axis + len(out.shape) - len(source.shape), batch.outer, batch.inner)
    node = lower.operand(source, len(out.shape), batch)
    dims = lower.strip(out.shape, batch) or (1,)
    lower.set(out, node if lower.g.shape(node) == dims else lower.emit("expand", node, shape=dims), batch)


def setitem(lower: Lowering, call: Call) -> None:
    """`x[...] = y` where one axis is cut: what comes before, y, and what comes after, side by side."""
    x, index, source, out = value_at(call, 0), call.args[1], call.args[2], call.outputs[0]
    items = list(index) if isinstance(index, list | tuple) else [index]
    if Ellipsis in [item for item in items if not isinstance(item, Value)]:
        at = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(x.shape) - len(items) + 1)
    cuts = [(axis, *_bounds(lower, item, x.shape[axis])) for axis, item in enumerate(items)]
    partial = [cut for cut in cuts if cut[1:3] != (0, x.shape[cut[0]])]
    if len(partial) > 1:
        raise UntranslatableError("writes a corner")
    axis, start, stop, gone = partial[0] if partial else (0, 0, x.shape[0], False)
    batch = (
        lower.layout(x)
        if lower.layout(x) is not None
        else lower.layout(source)
        if isinstance(source, Value)
        else None
    )
    if lower.layout(x) is None and batch is not None:
        batch = next((Batch(a) for a, n in enumerate(x.shape) if n == lower.batch_size), None)
    region = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    node = lower.fit(lower.node(x), lower.strip(x.shape, batch))
    place = axis if batch is None or batch.rest > 1 or axis < batch.axis else axis - 1
    if batch is not None and axis == batch.axis:
        if partial:
            raise UntranslatableError("writes some examples")
        place = -1
    middle = _region(lower, source, region, axis if gone else None, batch, float_out=out.dtype == "float")
    if place < 0 or not partial:
        lower.set(out, middle, batch)
        return
    size = lower.g.shape(node)[place]
    parts = [middle]
    if start > 0:
        parts.insert(0, lower.emit("slice", node, axis=place, start=0, stop=start, step=1))
    if stop < size:
        parts.append(lower.emit("slice", node, axis=place, start=stop, stop=size, step=1))
    lower.set(out, lower.emit("concat", *parts, axis=place), batch)


def _bounds(lower: Lowering, item: object, size: int) -> tuple[int, int, bool]:
    """Start and stop of one axis of an index, and whether it is one position."""
    number = (
        lower.scalar(item)
        if isinstance(item, int) or (isinstance(item, Value) and item.shape == ())
        else None
    )
    if number is not None and not isinstance(item, bool):
        return int(number) % size, int(number) % size + 1, True
    if isinstance(item, slice):
        bounds = (item.start, item.stop, item.step)
        if all(bound is None or isinstance(bound, int) for bound in bounds):
            start, stop, step = item.indices(size)
            if step == 1 and stop > start:
                return start, stop, False
    raise UntranslatableError("writes by a tensor")


def _region(
    lower: Lowering, source: object, region: Dims, gone: int | None, batch: Batch | None, *, float_out: bool
) -> int:
    """What is written, in the full shape of the region that it fills."""
    dims = lower.strip(region, batch) or (1,)
    number = lower.scalar(source)
    if number is not None:
        return lower.constant(torch.full(dims, number), "float" if float_out else "int")
    if not isinstance(source, Value):
        raise UntranslatableError("writes no tensor")
    shape = source.shape
    rank = len(region) - (gone is not None)
    shape = (1,) * (rank - len(shape)) + shape
    if gone is not None:
        shape = (*shape[:gone], 1, *shape[gone:])
    own = lower.layout(source)
    if own is not None and (batch is None or shape[batch.axis] != batch.rest * lower.batch_size):
        raise UntranslatableError("writes examples elsewhere")
    if batch is not None and own is None and shape[batch.axis] != 1:
        raise UntranslatableError("writes fixed content to single examples")
    wanted = lower.strip(shape, batch if batch is None or batch.rest == 1 or own is not None else None) or (
        1,
    )
    node = lower.fit(lower.node(source), wanted)
    return node if wanted == dims else lower.emit("expand", node, shape=dims)


RULES: Mapping[str, Rule] = {
    "getitem": getitem,
    "index_select": index_select,
    "gather": gather,
    "unfold": unfold,
    "copy": copy,
    "setitem": setitem,
}
