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
    "roll": roll,
    "flip": flip,
    "pad": pad,
    "tril": tril,
    "triu": tril,
    "pixel_shuffle": pixel_shuffle,
}  # fmt: skip
