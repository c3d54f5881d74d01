"""Rules for convolutions, pooling and resizing."""

from collections.abc import Mapping
from math import prod

from nasgraph.modules.tracing.arguments import example_first, optional, ownable, sizes
from nasgraph.modules.tracing.elementwise import reduce, value_at
from nasgraph.modules.tracing.lowering import Dims, Lowering, Rule, UntranslatableError
from nasgraph.modules.tracing.recording import Call, Value


def convolution(rank: int, *, transposed: bool = False) -> Rule:
    """A convolution over `rank` axes, or its transpose."""

    def rule(lower: Lowering, call: Call) -> None:
        x, weight, bias = value_at(call, 0), value_at(call, 1, "weight"), optional(call, 2, "bias")
        batch = example_first(lower, x, rank)
        stride = sizes(call.argument(3, "stride", 1), rank)
        padding = call.argument(4, "padding", 0)
        places = ((5, "output_padding"), (6, "groups"), (7, "dilation"))
        if not transposed:
            places = ((0, ""), (6, "groups"), (5, "dilation"))
        groups = call.argument(*places[1], 1)
        dilation = sizes(call.argument(*places[2], 1), rank)
        node = lower.node(x)
        kernel = weight.shape[2:]
        if isinstance(padding, str):
            node, padding = _padded(lower, node, padding, kernel, dilation)
        settings: dict[str, object] = {
            "stride": stride, "padding": sizes(padding, rank), "dilation": dilation, "groups": groups,
        }  # fmt: skip
        if transposed:
            settings["output_padding"] = sizes(call.argument(*places[0], 0), rank)
        op = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
        out_channels = weight.shape[1] * int(str(groups)) if transposed else weight.shape[0]
        if ownable(lower, weight, bias):
            node = lower.emit(
                op, node, out_channels=out_channels, kernel_size=kernel, bias=bias is not None, **settings
            )
            lower.own(node, "weight", weight)
            if bias is not None:
                lower.own(node, "bias", bias)
        else:
            extra = [] if bias is None else [lower.node(bias)]
            node = lower.emit(f"apply_{op}", node, lower.node(weight), *extra, **settings)
        lower.set(call.outputs[0], node, batch)

    return rule


def _padded(lower: Lowering, node: int, padding: str, kernel: Dims, dilation: Dims) -> tuple[int, int | Dims]:
    """Padding "valid" and "same" in numbers; where "same" is lopsided, a node of its own."""
    if padding == "valid":
        return node, 0
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if all(total % 2 == 0 for total in totals):
        return node, tuple(total // 2 for total in totals)
    amounts = (0, 0, *(n for total in totals for n in (total // 2, total - total // 2)))
    return lower.emit("pad", node, amounts=amounts, mode="constant", value=0.0), 0


def pool(op: str, rank: int) -> Rule:
    """Maximum or mean over windows. One axis is pooled as two, the first of size one."""

    def rule(lower: Lowering, call: Call) -> None:
        x = value_at(call, 0)
        batch = example_first(lower, x, rank)
        kernel = sizes(call.argument(1, "kernel_size"), rank)
        stride_given = call.argument(2, "stride")
        stride = kernel if stride_given in (None, [], ()) else sizes(stride_given, rank)
        padding = sizes(call.argument(3, "padding", 0), rank)
        attrs: dict[str, object] = {}
        if op == "max_pool":
            dilation = sizes(call.argument(4, "dilation", 1), rank)
            attrs = {"dilation": dilation, "ceil_mode": bool(call.argument(5, "ceil_mode", False))}
        else:
            if call.argument(6, "divisor_override") is not None:
                raise UntranslatableError("divides by another number")
            attrs = {
                "ceil_mode": bool(call.argument(4, "ceil_mode", False)),
                "count_include_pad": bool(call.argument(5, "count_include_pad", True)),
            }
        if op == "avg_pool" and not any(padding):
            attrs["count_include_pad"] = False  # one spelling of what is the same
        node = lower.node(x)
        if rank == 1:
            channels, length = lower.g.shape(node)
            node = lower.fit(node, (channels, 1, length))
            kernel, stride, padding = (1, *kernel), (1, *stride), (0, *padding)
            if "dilation" in attrs:
                attrs["dilation"] = (1, *dilation)
        elif rank == 3:
            if any(
                attrs.values() if op == "avg_pool" else (attrs["ceil_mode"], attrs["dilation"] != (1, 1, 1))
            ):
                raise UntranslatableError("pools volumes in an unusual way")
            attrs = {}
        name = f"{op}{max(2, rank)}d"
        node = lower.emit(name, node, kernel_size=kernel, stride=stride, padding=padding, **attrs)
        lower.set(call.outputs[0], lower.fit(node, lower.strip(call.outputs[0].shape, batch)), batch)

    return rule


def adaptive_pool(op: str, rank: int) -> Rule:
    """Pooling to a given size; to one position by the mean it is `global_avg_pool2d`."""

    def rule(lower: Lowering, call: Call) -> None:
        x, out = value_at(call, 0), call.outputs[0]
        if rank == 3 or (lower.layout(x) is not None and len(x.shape) != rank + 2):
            _adaptive_mean(lower, op, x, out, rank)
            return
        batch = example_first(lower, x, rank)
        node = lower.node(x)
        shape = lower.g.shape(node)
        size = out.shape[2:]
        if op == "avg" and prod(size) == 1 and rank == 2:
            node = lower.emit("global_avg_pool2d", node)
        elif size != shape[1:]:
            node = lower.fit(node, (shape[0], *(1,) * (2 - rank), *shape[1:]))
            node = lower.emit(f"adaptive_{op}_pool2d", node, size=(*(1,) * (2 - rank), *size))
        lower.set(out, lower.fit(node, lower.strip(out.shape, batch)), batch)

    return rule


def _adaptive_mean(lower: Lowering, op: str, x: Value, out: Value, rank: int) -> None:
    if op != "avg" or any(size != 1 for size in out.shape[-rank:]):
        raise UntranslatableError("pools to several positions")
    reduce(lower, "reduce_mean", x, tuple(range(len(x.shape) - rank, len(x.shape))), True, out)


def interpolate(lower: Lowering, call: Call) -> None:
    """`interpolate`, `upsample`: the result's shape tells the size."""
    x, out = value_at(call, 0), call.outputs[0]
    mode = call.argument(3, "mode", "nearest")
    rank = len(x.shape) - 2
    if call.argument(6, "antialias", False) or (
        call.argument(2, "scale_factor") is not None and _uneven(x, out)
    ):
        raise UntranslatableError("scales by a fraction")
    align = bool(call.argument(4, "align_corners", False))
    if lower.layout(x) is None and x.shape[0] == 1:  # a table of positions
        node = lower.fit(lower.node(x), x.shape[1:])
        node = lower.emit("upsample", node, size=out.shape[2:], mode=mode, align_corners=align)
        lower.set(out, lower.fit(node, out.shape), None)
        return
    batch = example_first(lower, x, rank)
    node = lower.emit("upsample", lower.node(x), size=out.shape[2:], mode=mode, align_corners=align)
    lower.set(out, node, batch)


def _uneven(x: Value, out: Value) -> bool:
    return any(
        after % before and before % after for before, after in zip(x.shape[2:], out.shape[2:], strict=True)
    )


RULES: Mapping[str, Rule] = {
    **{f"conv{rank}d": convolution(rank) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": convolution(rank, transposed=True) for rank in (1, 2, 3)},
    **{f"max_pool{rank}d": pool("max_pool", rank) for rank in (1, 2, 3)},
    **{f"max_pool{rank}d_with_indices": pool("max_pool", rank) for rank in (1, 2, 3)},
    **{f"avg_pool{rank}d": pool("avg_pool", rank) for rank in (1, 2, 3)},
    **{f"adaptive_avg_pool{rank}d": adaptive_pool("avg", rank) for rank in (1, 2, 3)},
    **{f"adaptive_max_pool{rank}d": adaptive_pool("max", rank) for rank in (1, 2)},
    **{f"adaptive_max_pool{rank}d_with_indices": adaptive_pool("max", rank) for rank in (1, 2)},
    "interpolate": interpolate,
    "upsample": interpolate,
}
