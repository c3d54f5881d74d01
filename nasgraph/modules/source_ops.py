# ruff: noqa: ARG001  all writers of one table have one signature, and some need only a part of it
"""Every operator as a line of torch: an expression over variables that carry the batch axis in front."""

from collections.abc import Callable, Mapping, Sequence
from string import ascii_letters

from nasgraph.ir import Dtype, Scalar
from nasgraph.ir.op import MAX_REAL
from nasgraph.modules.source_format import Call, Expression, Quoted, Sum, call
from nasgraph.modules.source_layers import LAYERS, numbers, one_or_all, steps, whole
from nasgraph.modules.source_use import Use

Writer = Callable[[Use], Expression]


def _function(name: str, *settings: str) -> Writer:
    """`name(x, settings)`."""
    return lambda use: call(name, use.value(), *(repr(use.attrs[setting]) for setting in settings))


def _method(name: str) -> Writer:
    """`x.name()`."""
    return lambda use: f"{use.value()}.{name}()"


def _along_axis(name: str) -> Writer:
    return lambda use: f"{use.value()}.{name}({use.axis()})"


# ---- layers


def _layer(use: Use) -> Expression:
    return call(f"self.{use.layer}", use.value())


def _layer_of_all(use: Use) -> Expression:
    return call(f"self.{use.layer}", *use.together())


def _batch_norm(use: Use) -> Expression:
    """A value that is the same for each example counts once for each."""
    return call(f"self.{use.layer}", use.repeated())


def _recurrent(use: Use) -> Expression:
    data, *states = use.together()
    given = [f"{state}.unsqueeze(0).contiguous()" for state in states]
    reverse = use.attrs["reverse"]
    data, tail = (f"{data}.flip(1)", ")[0].flip(1)") if reverse else (data, ")[0]")
    if "proj_size" in use.attrs and given:
        if len(given) == 1:
            given.append(f"{states[0]}.new_zeros(1, {states[0]}.shape[0], {use.attrs['hidden_size']})")
        return Call(f"self.{use.layer}(", (data, Call("(", tuple(given))), tail)
    return Call(f"self.{use.layer}(", (data, *given), tail)


# ---- weights that are inputs


def _applied(name: str, *, settings: Callable[[Use], Mapping[str, object]]) -> Writer:
    """`name(data, weight[, bias])`, for each example by itself where weight or bias differ among examples."""

    def write(use: Use) -> Expression:
        named = settings(use)
        if not any(operand.is_batched for operand in use.operands[1:]):
            fixed = [use.fixed(place) for place in range(1, len(use.operands))]
            return call(name, use.value(), *fixed, **named)
        use.needs.add("per_example")
        return call("per_example", name, *use.together(), **named)

    return write


def _steps(use: Use) -> Mapping[str, object]:
    return steps(use.attrs)


def _nothing(use: Use) -> Mapping[str, object]:
    return {}


def _given_layer_norm(use: Use) -> Expression:
    data, size = use.operands[0], use.operands[1].shape
    eps = repr(use.attrs["eps"])
    given = range(1, len(use.operands))
    shape = repr(size)
    if not any(use.operands[place].is_batched for place in given):
        fixed = [use.fixed(place) for place in given]
        bias = fixed[1] if fixed[1:] else None
        return call("F.layer_norm", use.value(), shape, fixed[0], bias, eps)
    between = (-1, *(1,) * (len(data.shape) - len(size)), *size)
    weight, *bias_ = (f"{use.value(place)}.reshape{between!r}" for place in given)
    result = f"F.layer_norm({use.value()}, {shape}, eps={eps}) * {weight}"
    return f"{result} + {bias_[0]}" if bias_ else result


def _prelu(use: Use) -> Expression:
    if not use.operands[1].is_batched:
        return call("F.prelu", use.value(), use.fixed(1))
    x, slope = use.value(0), use.value(1)
    ones = len(use.operands[0].shape) - 1
    slope = f"{slope}.unflatten(1, {(-1, *(1,) * ones)!r})" if ones else slope
    return f"torch.where({x} > 0, {x}, {slope} * {x})"


# ---- products


def _einsum(use: Use) -> Expression:
    equation = str(use.attrs["equation"]).replace(" ", "")
    batch = next(letter for letter in ascii_letters if letter not in equation)
    left, right = equation.split("->")
    terms, operands = [], []
    for place, term in enumerate(left.split(",")):
        has_batch = use.operands[place].is_batched or not use.is_batched
        terms.append(batch + term if has_batch else term)
        operands.append(use.value(place) if has_batch else use.fixed(place))
    return call("torch.einsum", f'"{",".join(terms)}->{batch}{right}"', *operands)


def _attention(use: Use) -> Expression:
    use.needs.add("attend")
    mask = [use.value(3)] if use.operands[3:] else []
    named: dict[str, object] = {"num_heads": use.attrs["num_heads"]}
    if use.attrs["causal"]:
        named["causal"] = True
    if use.attrs["scale"]:
        named["scale"] = use.attrs["scale"]
    return call("attend", *use.together(3), *mask, **named)


# ---- pooling


def _pool(name: str, *, dims: int) -> Writer:
    def write(use: Use) -> Expression:
        attrs = use.attrs
        kernel, stride, padding = (
            one_or_all(numbers(attrs[key])) for key in ("kernel_size", "stride", "padding")
        )
        named: dict[str, object] = {"stride": stride}
        if padding != 0:
            named["padding"] = padding
        if "dilation" in attrs and one_or_all(numbers(attrs["dilation"])) != 1:
            named["dilation"] = one_or_all(numbers(attrs["dilation"]))
        if attrs.get("ceil_mode"):
            named["ceil_mode"] = True
        if name == "avg" and not attrs.get("count_include_pad", False):
            named["count_include_pad"] = False
        return call(f"F.{name}_pool{dims}d", use.value(), kernel, **named)

    return write


def _adaptive(name: str) -> Writer:
    return lambda use: call(name, use.value(), one_or_all(numbers(use.attrs["size"])))


def _upsample(use: Use) -> Expression:
    mode = str(use.attrs["mode"])
    corners = {"align_corners": use.attrs["align_corners"]} if mode.endswith(("linear", "cubic")) else {}
    named = {"size": use.attrs["size"], "mode": Quoted(mode), **corners}
    return call("F.interpolate", use.value(), **named)


# ---- reductions


def _reduction(name: str) -> Writer:
    def write(use: Use) -> Expression:
        axes = (
            (use.axis(),) if "axis" in use.attrs else tuple(axis + 1 for axis in numbers(use.attrs["axes"]))
        )
        named: dict[str, object] = {}
        if "correction" in use.attrs:
            named["correction"] = use.attrs["correction"]
        if use.attrs["keepdims"]:
            named["keepdim"] = True
        return call(f"{use.value()}.{name}", axes[0] if len(axes) == 1 else axes, **named)

    return write


# ---- element by element

_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _add(use: Use) -> Expression:
    return Sum(tuple(use.joined()))


def _sign(sign: str) -> Writer:
    def write(use: Use) -> Expression:
        first, second = use.joined()
        return f"{first} {sign} {second}"

    return write


def _power(use: Use) -> Expression:
    return call("torch.pow", *use.joined())


def _of_both(name: str) -> Writer:
    return lambda use: call(name, *use.joined())


def _div(use: Use) -> Expression:
    first, second = use.joined()
    if use.operands[0].dtype == "int":
        use.needs.add("real")
        first = f"{first}.to(real)"
    return f"{first} / {second}"


def _where(use: Use) -> Expression:
    condition, first, second = use.joined()
    return call("torch.where", f"{condition} != 0", first, second)


def _compare(use: Use) -> Expression:
    first, second = use.joined()
    return f"({first} {_SIGNS[str(use.attrs['kind'])]} {second}).long()"


def _compare_scalar(use: Use) -> Expression:
    return f"({use.value()} {_SIGNS[str(use.attrs['kind'])]} {use.attrs['value']!r}).long()"


def _affine(use: Use) -> Expression:
    scale, shift = _number(use, "scale"), _number(use, "shift")
    is_whole = use.operands[0].dtype == "int" and scale.is_integer() and shift.is_integer()
    x = use.value() if is_whole else use.real()
    write = (lambda value: repr(int(value))) if is_whole else repr
    product = x if scale == 1 else f"{x} * {write(scale)}"
    if shift == 0:
        return product
    return f"{product} {'-' if shift < 0 else '+'} {write(abs(shift))}"


def _number(use: Use, name: str) -> float:
    value = use.attrs[name]
    assert isinstance(value, float)
    return value


def _power_scalar(use: Use) -> Expression:
    return f"{use.value()}.pow({use.attrs['exponent']!r})"


def _clamp(use: Use) -> Expression:
    low, high = _number(use, "low"), _number(use, "high")
    is_whole = use.operands[0].dtype == "int" and low.is_integer() and high.is_integer()
    named: dict[str, object] = {}
    if low != -MAX_REAL:
        named["min"] = int(low) if is_whole else low
    if high != MAX_REAL:
        named["max"] = int(high) if is_whole else high
    return call(f"{use.value() if is_whole else use.real()}.clamp", **named)


def _cast(use: Use) -> Expression:
    return use.real() if use.attrs["dtype"] == "float" else f"{use.value()}.long()"


def _softplus(use: Use) -> Expression:
    settings = [] if (use.attrs["beta"], use.attrs["threshold"]) == (1.0, 20.0) else ["beta", "threshold"]
    return call("F.softplus", use.value(), *(repr(use.attrs[name]) for name in settings))


def _drop_path(use: Use) -> Expression:
    """A written module knows no schedule: it drops with the full chance."""
    use.needs.add("drop_path")
    return call("drop_path", use.value(), use.attrs["p"], "self.training")


def _gelu(use: Use) -> Expression:
    approximate = use.attrs["approximate"]
    return call(
        "F.gelu", use.value(), **({} if approximate == "none" else {"approximate": Quoted(approximate)})
    )


# ---- rearranging


def _concat(use: Use) -> Expression:
    return call("torch.cat", Call("(", tuple(use.together())), use.axis())


def _reshape(use: Use) -> Expression:
    return call(f"{use.operands[0].text}.reshape", -1, *numbers(use.attrs["shape"]))


def _permute(use: Use) -> Expression:
    order = (0, *(axis + 1 for axis in numbers(use.attrs["order"])))
    moved = [axis for axis, place in enumerate(order) if axis != place]
    if len(moved) == 2:
        return call(f"{use.value()}.transpose", *moved)
    return call(f"{use.value()}.permute", *order)


def _slice(use: Use) -> Expression:
    start, stop, step = (whole(use.attrs[name]) for name in ("start", "stop", "step"))
    axis = use.axis()
    end = "" if stop == use.operands[0].shape[axis - 1] else str(stop)
    part = f"{start or ''}:{end}{f':{step}' if step > 1 else ''}"
    return f"{use.value()}[{':, ' * axis}{part}]"


def _expand(use: Use) -> Expression:
    return call(f"{use.value()}.expand", -1, *numbers(use.attrs["shape"]))


def _pad(use: Use) -> Expression:
    amounts, mode = numbers(use.attrs["amounts"]), str(use.attrs["mode"])
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if mode == "constant":
        while pairs and pairs[0] == (0, 0):
            pairs = pairs[1:]
        value = {"value": use.attrs["value"]} if use.attrs["value"] else {}
        backwards = tuple(amount for pair in reversed(pairs) for amount in pair)
        return call("F.pad", use.value(), backwards, **value) if pairs else use.value()
    if pairs[0] == (0, 0) and 2 <= len(pairs) <= 4 and use.operands[0].dtype == "float":
        backwards = tuple(amount for pair in reversed(pairs[1:]) for amount in pair)
        return call("F.pad", use.value(), backwards, mode=Quoted(mode))
    use.needs.add("pad_axes")
    return call("pad_axes", use.value(), tuple(pairs), mode=Quoted(mode))


def _roll(use: Use) -> Expression:
    return f"{use.value()}.roll({use.attrs['shift']}, {use.axis()})"


def _take(use: Use) -> Expression:
    if not use.operands[1].is_batched:
        return call(f"{use.value()}.index_select", use.axis(), use.fixed(1))
    use.needs.add("take")
    return call("take", *use.together(), use.axis())


def _gather(use: Use) -> Expression:
    data, indices = use.together()
    return call(f"{data}.gather", use.axis(), indices)


EXPRESSIONS: Mapping[str, Writer] = {
    **dict.fromkeys(LAYERS, _layer),
    "batch_norm": _batch_norm,
    "bilinear": _layer_of_all,
    **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
    **{f"apply_{op}{d}d": _applied(f"F.{op}{d}d", settings=_steps) for op in ("conv", "conv_transpose") for d in (1, 2, 3)},
    "apply_linear": _applied("F.linear", settings=_nothing),
    "apply_embedding": _applied("F.embedding", settings=_nothing),
    "apply_layer_norm": _given_layer_norm,
    "matmul": _sign("@"),
    "einsum": _einsum,
    "attention": _attention,
    **{f"{name}_pool{d}d": _pool(name, dims=d) for name in ("max", "avg") for d in (2, 3)},
    "global_avg_pool2d": lambda use: f"{use.value()}.mean((2, 3))",
    "adaptive_avg_pool2d": _adaptive("F.adaptive_avg_pool2d"),
    "adaptive_max_pool2d": _adaptive("F.adaptive_max_pool2d"),
    "upsample": _upsample,
    "pixel_shuffle": _function("F.pixel_shuffle", "factor"),
    "mean": _reduction("mean"),
    "reduce_sum": _reduction("sum"),
    "reduce_mean": _reduction("mean"),
    "reduce_max": _reduction("amax"),
    "reduce_min": _reduction("amin"),
    "reduce_var": _reduction("var"),
    "cumsum": _along_axis("cumsum"),
    "add": _add,
    "mul": _sign("*"),
    "sub": _sign("-"),
    "div": _div,
    "maximum": _of_both("torch.maximum"),
    "minimum": _of_both("torch.minimum"),
    "power": _power,
    "where": _where,
    "compare": _compare,
    "prelu": _prelu,
    "concat": _concat,
    "reshape": _reshape,
    "flatten": lambda use: f"{use.value()}.flatten(1)",
    "permute": _permute,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "roll": _roll,
    "flip": _along_axis("flip"),
    "take": _take,
    "gather": _gather,
    **{op: _function(f"F.{op}") for op in ("relu", "relu6", "selu", "silu", "mish", "hardswish", "hardsigmoid", "softsign")},
    "leaky_relu": _function("F.leaky_relu", "slope"),
    "elu": _function("F.elu", "alpha"),
    "celu": _function("F.celu", "alpha"),
    "log_sigmoid": _function("F.logsigmoid"),
    "gelu": _gelu,
    "softplus": _softplus,
    "softmax": _along_axis("softmax"),
    "log_softmax": _along_axis("log_softmax"),
    **{
        op: _method(op)
        for op in (
            *("sigmoid", "tanh", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "neg", "sign"),
            *("reciprocal", "floor", "round", "sin", "cos", "tan", "atan", "erf"),
        )
    },
    "affine": _affine,
    "power_scalar": _power_scalar,
    "clamp": _clamp,
    "compare_scalar": _compare_scalar,
    "cast": _cast,
    "drop_path": _drop_path,
    "zero": _function("torch.zeros_like"),
}  # fmt: skip
"""How each operator is written, but for sources and `identity`."""


def gives_its_input(op: str, attrs: Mapping[str, Scalar], reads: Sequence[Dtype], dtype: Dtype) -> bool:
    """Whether a node's value is that of its input, so that it needs no line."""
    match op:
        case "identity":
            return True
        case "affine":
            return attrs["scale"] == 1.0 and attrs["shift"] == 0.0 and reads[0] == dtype
        case "clamp":
            return attrs["low"] == -MAX_REAL and attrs["high"] == MAX_REAL
        case "cast":
            return reads[0] == dtype
        case "pad":
            return attrs["mode"] == "constant" and not any(numbers(attrs["amounts"]))
    return False
