# ruff: noqa: ARG001, SIM905  rules have one signature; lists of names read better as text
"""Rules for functions that move, cut or join tensors without computing."""

from collections.abc import Mapping, Sequence
from math import prod

import torch

from nasgraph.modules.tracing.elementwise import value_at
from nasgraph.modules.tracing.lowering import Batch, Dims, Lowering, Rule, UntranslatableError, integers
from nasgraph.modules.tracing.recording import Call, Value


def reshaped_layout(lower: Lowering, x: Value, shape: Dims) -> Batch | None:
    """Where the examples lie after a reshape, which keeps the order of the elements.

    The axis of the examples is one digit of an element's number; the digits before and after it multiply to the same
    numbers in both shapes.

    Raises:
        UntranslatableError: If elements of different examples mix.
    """
    batch = lower.layout(x)
    if batch is None:
        return None
    before = prod(x.shape[: batch.axis]) * batch.outer
    after = batch.inner * prod(x.shape[batch.axis + 1 :])
    for axis, size in enumerate(shape):
        if size % lower.batch_size:
            continue
        left, right = prod(shape[:axis]), prod(shape[axis + 1 :])
        if left and right and before % left == 0 and after % right == 0:
            outer, inner = before // left, after // right
            if outer * lower.batch_size * inner == size:
                return Batch(axis, outer, inner)
    raise UntranslatableError("mixes examples of a batch")


def reshape(lower: Lowering, call: Call) -> None:
    """`view`, `reshape`, `flatten`, `unflatten`, `squeeze`, `unsqueeze`: the result's shape tells all."""
    x, out = value_at(call, 0), call.outputs[0]
    if any(isinstance(argument, torch.dtype) for argument in (*call.args, *call.kwargs.values())):
        raise UntranslatableError("reads bits as another type")
    batch = reshaped_layout(lower, x, out.shape)
    dims = lower.strip(out.shape, batch) or (1,)
    node = lower.node(x)
    if lower.g.shape(node) != dims:
        flat = len(dims) == 1 and len(lower.g.shape(node)) > 1
        node = lower.emit("flatten", node) if flat else lower.emit("reshape", node, shape=dims)
    lower.set(out, node, batch)


def permute_to(lower: Lowering, x: Value, order: Sequence[int], out: Value) -> None:
    """Write the axes of `x` in another order as `out`."""
    batch = lower.layout(x)
    moved = None if batch is None else Batch(list(order).index(batch.axis), batch.outer, batch.inner)
    own = [axis for axis in order if batch is None or batch.rest > 1 or axis != batch.axis]
    places = tuple(lower.axis(x, axis) if batch is None or axis != batch.axis else axis for axis in own)
    node = lower.node(x)
    if places != tuple(range(len(places))):
        shape = lower.g.shape(node)
        if any(shape[axis] != 1 for axis in places) and sum(shape[a] != 1 for a in places) > 1:
            node = lower.emit("permute", node, order=places)
        else:
            node = lower.fit(node, tuple(shape[axis] for axis in places))
    lower.set(out, node, moved)


def permute(lower: Lowering, call: Call) -> None:
    """`permute`, `transpose`, `t`, `mT`, `movedim`."""
    x, rank = value_at(call, 0), len(value_at(call, 0).shape)
    axes = list(range(rank))
    match call.name.rstrip("_"):
        case "t" | "T":
            axes = axes[::-1]
        case "mT" | "adjoint":
            axes = [*axes[:-2], axes[-1], axes[-2]]
        case "transpose":
            first, second = integers((call.argument(1, "dim0"), call.argument(2, "dim1")))
            axes[first], axes[second] = axes[second], axes[first]
        case "movedim":
            sources = [axis % rank for axis in integers((call.argument(1, "source"),))]
            targets = [axis % rank for axis in integers((call.argument(2, "destination"),))]
            placed = dict(zip(targets, sources, strict=True))
            rest = iter([axis for axis in axes if axis not in sources])
            axes = [placed[place] if place in placed else next(rest) for place in axes]
        case _:
            axes = [axis % rank for axis in integers(call.args[1:] or (call.kwargs.get("dims"),))]
    permute_to(lower, x, axes, call.outputs[0])


def expand(lower: Lowering, call: Call) -> None:
    """`expand`, `expand_as`, `broadcast_to`."""
    x, out = value_at(call, 0), call.outputs[0]
    batch = lower.layout(x)
    extra = len(out.shape) - len(x.shape)
    if batch is None:
        grown = [
            axis
            for axis, size in enumerate(out.shape)
            if size == lower.batch_size and (axis < extra or x.shape[axis - extra] == 1)
        ]
        batch = Batch(grown[0]) if grown else None
        shape = (1,) * extra + x.shape
        own = lower.strip(shape, batch)
    else:
        batch = Batch(batch.axis + extra, batch.outer, batch.inner)
        own = lower.strip((1,) * extra + x.shape, batch)
    node = lower.fit(lower.node(x), own)
    dims = lower.strip(out.shape, batch) or (1,)
    if lower.g.shape(node) != dims:
        node = lower.emit("expand", node, shape=dims)
    lower.set(out, node, batch)


def repeat(lower: Lowering, call: Call) -> None:
    """`repeat` and `tile`: copies side by side, written as an expansion and a reshape."""
    x, out = value_at(call, 0), call.outputs[0]
    times = tuple(integers(call.args[1:] or (call.kwargs.get("repeats", call.kwargs.get("dims")),)))
    shape = (1,) * (len(out.shape) - len(x.shape)) + x.shape
    times = (1,) * (len(shape) - len(times)) + times
    batch = lower.layout(x)
    if batch is None:
        grown = [axis for axis, n in enumerate(times) if n == lower.batch_size and shape[axis] == 1]
        batch = Batch(grown[0]) if grown else None
        if batch is not None:
            times = tuple(1 if axis == batch.axis else n for axis, n in enumerate(times))
    else:
        batch = Batch(batch.axis + len(shape) - len(x.shape), batch.outer, batch.inner)
        if times[batch.axis] != 1:
            raise UntranslatableError("repeats the examples")
    sizes, counts = lower.strip(shape, batch), lower.strip(times, batch)
    if batch is not None and batch.rest > 1:
        counts = tuple(1 if a == batch.axis else n for a, n in enumerate(times))
    node = copies(lower, lower.node(x), sizes, counts)
    lower.set(out, lower.fit(node, lower.strip(out.shape, batch)), batch)


def copies(lower: Lowering, node: int, sizes: Dims, counts: Dims) -> int:
    """`counts[a]` copies of a node's value along each axis, one after the other."""
    node = lower.fit(node, sizes)
    if all(count == 1 for count in counts):
        return node
    split = tuple(n for size in sizes for n in (1, size))
    grown = tuple(n for size, count in zip(sizes, counts, strict=True) for n in (count, size))
    keep = [i for i in range(len(split)) if i % 2 or grown[i] > 1]
    node = lower.fit(node, tuple(split[i] for i in keep))
    node = lower.emit("expand", node, shape=tuple(grown[i] for i in keep))
    return lower.fit(node, tuple(size * count for size, count in zip(sizes, counts, strict=True)))


def repeat_interleave(lower: Lowering, call: Call) -> None:
    """`repeat_interleave` by one number along one axis."""
    x, out = value_at(call, 0), call.outputs[0]
    count, axis = lower.scalar(call.argument(1, "repeats")), call.argument(2, "dim")
    if count is None or not isinstance(axis, int):
        raise UntranslatableError("repeats by a tensor")
    place = lower.axis(x, axis)
    node = lower.node(x)
    shape = lower.g.shape(node)
    node = lower.fit(node, (*shape[: place + 1], 1, *shape[place + 1 :]))
    node = lower.emit("expand", node, shape=(*shape[: place + 1], int(count), *shape[place + 1 :]))
    lower.set(out, lower.fit(node, lower.dims(out)), lower.layout(x))


def cat(lower: Lowering, call: Call) -> None:
    """`cat`: tensors side by side."""
    tensors = call.argument(0, "tensors")
    axis = call.argument(1, "dim", call.kwargs.get("axis", 0))
    if not isinstance(tensors, list) or not isinstance(axis, int):
        raise UntranslatableError("joins no list")
    out = call.outputs[0]
    parts = [
        value
        for value in tensors
        if isinstance(value, Value) and value.shape != (0,) and 0 not in value.shape
    ]
    axis %= len(out.shape)
    batch = next((lower.layout(value) for value in parts if lower.layout(value) is not None), None)
    if batch is not None and axis == batch.axis:
        raise UntranslatableError("joins examples")
    nodes = [lower.operand(value, len(out.shape), batch) for value in parts]
    place = axis if batch is None or batch.rest > 1 or axis < batch.axis else axis - 1
    nodes = [_spread(lower, node, nodes, place) for node in nodes]
    lower.set(out, lower.emit("concat", *nodes, axis=place) if len(nodes) > 1 else nodes[0], batch)


def _spread(lower: Lowering, node: int, nodes: Sequence[int], axis: int) -> int:
    """A part whose other axes have the size of the largest part (a fixed token beside tokens of many examples)."""
    shapes = [lower.g.shape(other) for other in nodes]
    own = lower.g.shape(node)
    wanted = tuple(own[a] if a == axis else max(shape[a] for shape in shapes) for a in range(len(own)))
    return node if own == wanted else lower.emit("expand", node, shape=wanted)


def stack(lower: Lowering, call: Call) -> None:
    """`stack`: tensors along a new axis."""
    tensors, axis = call.argument(0, "tensors"), call.argument(1, "dim", 0)
    if not isinstance(tensors, list) or not isinstance(axis, int):
        raise UntranslatableError("joins no list")
    out = call.outputs[0]
    axis %= len(out.shape)
    parts = [value for value in tensors if isinstance(value, Value)]
    first = next((lower.layout(value) for value in parts if lower.layout(value) is not None), None)
    rank = len(out.shape) - 1
    nodes = [lower.operand(value, rank, first) for value in parts]
    batch = None if first is None else Batch(first.axis + (axis <= first.axis), first.outer, first.inner)
    place = axis if batch is None or batch.rest > 1 or axis < batch.axis else axis - 1
    dims = lower.strip(out.shape, batch)
    one = (*dims[:place], 1, *dims[place + 1 :])
    nodes = [lower.fit(node, one) for node in nodes]
    lower.set(out, lower.emit("concat", *nodes, axis=place) if len(nodes) > 1 else nodes[0], batch)


def split(lower: Lowering, call: Call) -> None:
    """`split` and `chunk`: the results' shapes tell where to cut."""
    x = value_at(call, 0, "tensor" if "tensor" in call.kwargs else "input")
    axis = call.argument(2, "dim", 0)
    if not isinstance(axis, int):
        raise UntranslatableError("cuts along no axis")
    axis %= len(x.shape)
    start = 0
    for out in call.outputs:
        cut(lower, x, axis, start, start + out.shape[axis], out)
        start += out.shape[axis]


def cut(lower: Lowering, x: Value, axis: int, start: int, stop: int, out: Value, *, step: int = 1) -> None:
    """Write positions `start` to `stop` of a full axis of `x` as `out`."""
    place = lower.axis(x, axis)
    node = lower.node(x)
    if (start, stop, step) != (0, lower.g.shape(node)[place], 1):
        node = lower.emit("slice", node, axis=place, start=start, stop=stop, step=step)
    lower.set(out, node, lower.layout(x))


def unbind(lower: Lowering, call: Call) -> None:
    """`unbind`: each position of an axis by itself."""
    x, axis = value_at(call, 0), call.argument(1, "dim", 0)
    assert isinstance(axis, int)
    for position, out in enumerate(call.outputs):
        pick(lower, x, axis % len(x.shape), position, out)


def pick(lower: Lowering, x: Value, axis: int, position: int, out: Value) -> None:
    """Write one position of a full axis of `x`, without that axis, as `out`."""
    place = lower.axis(x, axis)
    node = lower.node(x)
    position %= x.shape[axis]
    if lower.g.shape(node)[place] > 1:
        node = lower.emit("slice", node, axis=place, start=position, stop=position + 1, step=1)
    batch = lower.layout(x)
    if batch is not None and batch.axis > axis:
        batch = Batch(batch.axis - 1, batch.outer, batch.inner)
    lower.set(out, lower.fit(node, lower.strip(out.shape, batch)), batch)


def select(lower: Lowering, call: Call) -> None:
    """`select(axis, position)`."""
    axis, position = integers((call.argument(1, "dim"), call.argument(2, "index")))
    x = value_at(call, 0)
    pick(lower, x, axis % len(x.shape), position, call.outputs[0])


def narrow(lower: Lowering, call: Call) -> None:
    """`narrow(axis, start, length)`."""
    axis, start, length = integers(
        (call.argument(1, "dim"), call.argument(2, "start"), call.argument(3, "length"))
    )
    x = value_at(call, 0)
    cut(lower, x, axis % len(x.shape), start, start + length, call.outputs[0])


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


def roll(lower: Lowering, call: Call) -> None:
    """Cyclic shifts."""
    x = value_at(call, 0)
    shifts, axes = (list(integers((call.argument(i, n),))) for i, n in ((1, "shifts"), (2, "dims")))
    node = lower.node(x)
    for shift, axis in zip(shifts, axes, strict=True):
        place = lower.axis(x, axis)
        node = lower.emit("roll", node, axis=place, shift=shift % lower.g.shape(node)[place])
    lower.set(call.outputs[0], node, lower.layout(x))


def flip(lower: Lowering, call: Call) -> None:
    """Reversal of some axes."""
    x = value_at(call, 0)
    node = lower.node(x)
    for axis in integers(call.args[1:] or (call.kwargs.get("dims"),)):
        node = lower.emit("flip", node, axis=lower.axis(x, axis))
    lower.set(call.outputs[0], node, lower.layout(x))


def pad(lower: Lowering, call: Call) -> None:
    """`torch.nn.functional.pad`: amounts from the last axis backwards; negative amounts cut."""
    x, out = value_at(call, 0), call.outputs[0]
    amounts = list(integers((call.argument(1, "pad"),)))
    mode, value = call.argument(2, "mode", "constant"), call.argument(3, "value", 0.0)
    number = 0.0 if value is None else lower.scalar(value)
    if number is None or not isinstance(mode, str):
        raise UntranslatableError("pads with a tensor")
    node = lower.node(x)
    places = [[0, 0] for _ in lower.g.shape(node)]
    for i in range(len(amounts) // 2):
        before, after = amounts[2 * i : 2 * i + 2]
        if before == after == 0:
            continue
        place = lower.axis(x, len(x.shape) - 1 - i)
        size = lower.g.shape(node)[place]
        if min(before, after) < 0:
            start, stop = max(0, -before), size - max(0, -after)
            node = lower.emit("slice", node, axis=place, start=start, stop=stop, step=1)
        places[place] = [max(0, before), max(0, after)]
    flat = tuple(n for pair in places for n in pair)
    if any(flat):
        node = lower.emit("pad", node, amounts=flat, mode=mode, value=number)
    lower.set(out, node, lower.layout(x))


def tril(lower: Lowering, call: Call) -> None:
    """`tril` and `triu`, as a product with a constant mask."""
    x = value_at(call, 0)
    diagonal = int(call.argument(1, "diagonal", 0) or 0)  # type: ignore[call-overload]  # torch takes integers only
    triangle = getattr(torch, call.name.rstrip("_"))
    rows, columns = x.shape[-2:]
    lower.axis(x, -1), lower.axis(x, -2)
    node = lower.node(x)
    mask = triangle(torch.ones(rows, columns), diagonal).reshape(
        *(1,) * (len(lower.g.shape(node)) - 2), rows, columns
    )
    node = lower.emit("mul", node, lower.constant(mask, "float"))
    lower.set(call.outputs[0], node, lower.layout(x))


def pixel_shuffle(lower: Lowering, call: Call) -> None:
    """Channels to space."""
    x = value_at(call, 0)
    node = lower.emit("pixel_shuffle", lower.node(x), factor=call.argument(1, "upscale_factor"))
    lower.set(call.outputs[0], node, lower.layout(x))


def no_counterpart(lower: Lowering, call: Call) -> None:
    """A function that is known, and that the graph language has no word for."""
    raise UntranslatableError("has no counterpart in the graph language")


def changed_view(lower: Lowering, call: Call) -> None:
    """A view of memory that was written to after the view was taken."""
    raise UntranslatableError("a tensor was changed in place after a view of it was taken")


def beside(axis: int) -> Rule:
    """`hstack`, `vstack`: `cat` along a fixed axis."""

    def rule(lower: Lowering, call: Call) -> None:
        first = next(call.inputs())
        if len(first.shape) < 2:
            raise UntranslatableError("joins vectors")
        cat(lower, Call("cat", call.args, {"dim": axis}, call.outputs))

    return rule


def broadcast_tensors(lower: Lowering, call: Call) -> None:
    """`broadcast_tensors`: each expanded to the common shape."""
    for value, out in zip(call.inputs(), call.outputs, strict=True):  # fewer results: one needed no expansion
        expand(lower, Call("expand", (value,), {}, (out,)))


OPAQUE = (
    "vmap masked_scatter index_put index_add index_copy scatter scatter_add scatter_reduce write_view topk sort argsort argmax argmin "
    "nonzero unique one_hot bincount bucketize searchsorted multinomial cross_entropy mse_loss nll_loss binary_cross_entropy "
    "binary_cross_entropy_with_logits l1_loss smooth_l1_loss ctc_loss kl_div meshgrid cdist fold as_strided grid_sample "
    "affine_grid rfft irfft fft ifft fft2 ifft2 rfftn irfftn fftn fft_rfft fft_irfft fft_fft fft_fft2 fft_fftn stft istft "
    "view_as_complex view_as_real real imag cumprod prod any all "
    "xor bitwise_xor logical_xor remainder floor_divide outer cosine_similarity pairwise_distance local_response_norm "
    "selective_scan diff cummax cummin trapezoid complex polar angle linalg_inv svd eigh isnan isinf nan_to_num "
    "masked_select unfold_copy hsplit vsplit dsplit lu_solve histc atan2 kron repeat_kv diagonal diag diag_embed max_unpool2d "
    "rot90 bernoulli normal rand_like randn_like uniform exponential poisson fill zero count_nonzero isfinite "
    "median quantile erfinv trunc ceil fmod hypot asin acos sinh cosh asinh acosh atanh special_i0 logaddexp "
    "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine softshrink hardshrink tanhshrink triplet_margin_loss lgamma digamma xlogy heaviside addbmm baddbmm chain_matmul"
).split()
"""Functions that are known and have no counterpart in the language."""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(OPAQUE, no_counterpart),
    "changed_view": changed_view,
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel", "atleast_2d"), reshape),
    **dict.fromkeys(("permute", "transpose", "t", "T", "mT", "movedim", "adjoint"), permute),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    "cat": cat,
    **dict.fromkeys(("hstack", "column_stack"), beside(1)),
    **dict.fromkeys(("vstack", "row_stack"), beside(0)),
    "broadcast_tensors": broadcast_tensors,
    "stack": stack,
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "unsafe_split", "unsafe_chunk", "tensor_split"), split),
    "unbind": unbind,
    "select": select,
    "narrow": narrow,
    "getitem": getitem,
    "index_select": index_select,
    "gather": gather,
    "unfold": unfold,
    "copy": copy,
    "setitem": setitem,
    "roll": roll,
    "flip": flip,
    "pad": pad,
    "tril": tril,
    "triu": tril,
    "pixel_shuffle": pixel_shuffle,
}  # fmt: skip
