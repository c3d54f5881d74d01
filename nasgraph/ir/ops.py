"""The operators: one table with arity, attributes, shape rule, parameters and multiply-adds.

Shapes are *per example*: an image is `(channels, height, width)`, a token sequence `(tokens, dim)`, a
vector `(features,)`. The batch axis never appears. `nasgraph.modules.functional` holds the torch twin of
each operator, and a test holds the two tables against each other.

Multiply-adds count the multiply-accumulate operations of convolutions, linear maps and attention products,
the convention of `torch.utils.flop_counter` divided by two. Norms, activations, pooling and additions count
zero.
"""
# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeGuard

from nasgraph.errors import InvalidGraphError

Scalar = bool | int | float | str | tuple[int, ...]
Shape = tuple[int, ...]
Attrs = Mapping[str, Scalar]

Role = Literal["weight", "bias", "scale", "shift", "embedding", "position"]
"""What a parameter does: `weight` multiplies inputs, `bias` follows a weight, `scale` and `shift` belong to a
norm, `embedding` is a look-up table, `position` is a free parameter such as a positional encoding."""

MAX_SIZE = 2**20
"""Largest value of a width, length or kernel size."""
MAX_ELEMENTS = 2**33
"""Largest number of elements of one activation or one parameter."""


@dataclass(frozen=True, slots=True)
class Attr:
    """One setting of an operator: its kind, its default and its bounds (both included).

    `pair` is two integers for height and width; one integer stands for both. `default=None`: required. Defaults
    are in normal form.
    """

    kind: Literal["bool", "int", "float", "str", "pair", "shape", "order"]
    default: Scalar | None = None
    low: int | float = 0
    high: int | float = MAX_SIZE
    options: tuple[str, ...] = ()

    def normalise(self, value: object) -> Scalar:
        """Return `value` in the one form that graphs store.

        Raises:
            InvalidGraphError: If it is of another kind or out of bounds. The text has no subject; the
                caller knows the operator and the attribute.
        """
        if self.kind == "bool" and isinstance(value, bool):
            return value
        if self.kind == "str" and isinstance(value, str) and value in self.options:
            return value
        if self.kind == "float" and isinstance(value, float | int) and not isinstance(value, bool):
            if self.low <= value <= self.high:
                return float(value) + 0.0  # turns -0.0 into 0.0: equal values give equal text
        elif self.kind == "int" and _is_int(value):
            if self.low <= value <= self.high:
                return value
        elif self.kind == "pair" and _is_int(value):
            return self.normalise((value, value))
        elif self.kind in ("pair", "shape", "order") and isinstance(value, tuple | list):
            right_length = len(value) == 2 if self.kind == "pair" else 1 <= len(value) <= 8
            numbers = tuple(number for number in value if _is_int(number) and self.low <= number <= self.high)
            if right_length and len(numbers) == len(value):
                return numbers
        raise InvalidGraphError(f"expected {self.describe()} (got {_short(value)})")

    def describe(self) -> str:
        """What a legal value is, in words."""
        if self.kind == "bool":
            return "true or false"
        if self.kind == "str":
            return f"one of {', '.join(self.options)}"
        bounds = f"between {self.low:,} and {self.high:,}"
        noun = {
            "int": "an integer",
            "float": "a number",
            "pair": "an integer or two integers",
            "shape": "1 to 8 integers",
            "order": "1 to 8 integers",
        }[self.kind]
        return f"{noun} {bounds}"


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """Shape and role of one parameter tensor of a node."""

    shape: Shape
    role: Role

    @property
    def fan_in(self) -> int:
        """Number of inputs that one output sums over: product of all axes but the first."""
        return prod(self.shape[1:])


def _no_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return {}


def _no_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of the graph language.

    Attributes:
        summary: One line for people.
        num_inputs: Fewest and most inputs.
        shape: Output shape from attributes and input shapes. Raises `InvalidGraphError` where it cannot run.
        attrs: Settings by name.
        parameters: Parameter tensors by name, from attributes and input shapes.
        multiply_adds: Multiply-accumulate operations for one example.
        commutative: Whether the order of the inputs is without meaning.
    """

    summary: str
    num_inputs: tuple[int, int]
    shape: Callable[[Attrs, Sequence[Shape]], Shape]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    parameters: Callable[[Attrs, Sequence[Shape]], dict[str, ParameterSpec]] = _no_parameters
    multiply_adds: Callable[[Attrs, Sequence[Shape], Shape], int] = _no_multiply_adds
    commutative: bool = False


MANY = 2**16


# ---- reading attributes whose kind the table guarantees


def _int(attrs: Attrs, name: str) -> int:
    value = attrs[name]
    assert isinstance(value, int)
    return value


def _ints(attrs: Attrs, name: str) -> tuple[int, ...]:
    value = attrs[name]
    assert isinstance(value, tuple)
    return value


# ---- shape rules


def _expect_rank(shape: Shape, rank: int, what: str) -> None:
    if len(shape) != rank:
        raise InvalidGraphError(f"expected {what} (got shape {shape})")


def _same(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


def _from_attr(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return _ints(attrs, "shape")


def _window(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    extent = dilation * (kernel - 1) + 1
    if size + 2 * padding < extent:
        raise InvalidGraphError(f"a window of {extent} does not fit into {size} with padding {padding}")
    return (size + 2 * padding - extent) // stride + 1


def _windows(attrs: Attrs, shape: Shape) -> tuple[int, int]:
    kernel, stride, padding = (_ints(attrs, name) for name in ("kernel_size", "stride", "padding"))
    dilation = _ints(attrs, "dilation") if "dilation" in attrs else (1, 1)
    height, width = (
        _window(size, kernel=kernel[i], stride=stride[i], padding=padding[i], dilation=dilation[i])
        for i, size in enumerate(shape[1:])
    )
    return height, width


def _conv2d(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    _expect_rank(inputs[0], 3, "(channels, height, width)")
    groups, channels, out_channels = _int(attrs, "groups"), inputs[0][0], _int(attrs, "out_channels")
    for what, number in (("input", channels), ("output", out_channels)):
        if number % groups:
            raise InvalidGraphError(
                f"expected 'groups' to divide the {what} channels (got {groups} and {number})"
            )
    return (out_channels, *_windows(attrs, inputs[0]))


def _pool2d(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    _expect_rank(inputs[0], 3, "(channels, height, width)")
    kernel, padding = _ints(attrs, "kernel_size"), _ints(attrs, "padding")
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise InvalidGraphError(f"expected a padding of at most half the kernel (got {padding} and {kernel})")
    return (inputs[0][0], *_windows(attrs, inputs[0]))


def _linear(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0][:-1], _int(attrs, "out_features"))


def _group_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if inputs[0][0] % _int(attrs, "groups"):
        raise InvalidGraphError(
            f"expected 'groups' to divide the channels (got {attrs['groups']} and {inputs[0][0]})"
        )
    return inputs[0]


def _batch_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if len(inputs[0]) not in (1, 3):
        raise InvalidGraphError(f"expected (channels, height, width) or (features,) (got shape {inputs[0]})")
    return inputs[0]


def _global_avg_pool2d(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    _expect_rank(inputs[0], 3, "(channels, height, width)")
    return inputs[0][:1]


def _axis(attrs: Attrs, shape: Shape) -> int:
    axis = _int(attrs, "axis")
    if axis >= len(shape):
        raise InvalidGraphError(f"expected an axis below {len(shape)} for shape {shape} (got {axis})")
    return axis


def _mean(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    axis = _axis(attrs, inputs[0])
    if len(inputs[0]) == 1:
        raise InvalidGraphError(f"expected at least two axes, since one must remain (got shape {inputs[0]})")
    return (*inputs[0][:axis], *inputs[0][axis + 1 :])


def _softmax(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    _axis(attrs, inputs[0])
    return inputs[0]


def _add(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if len(set(inputs)) > 1:
        raise InvalidGraphError(f"expected equal shapes (got {', '.join(map(str, inputs))})")
    return inputs[0]


def _mul(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    first, second = inputs
    fits = len(first) == len(second) and all(
        a == b or 1 in (a, b) for a, b in zip(first, second, strict=True)
    )
    if not fits:
        raise InvalidGraphError(f"expected shapes that broadcast axis by axis (got {first} and {second})")
    return tuple(max(a, b) for a, b in zip(first, second, strict=True))


def _concat(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    axis = _axis(attrs, inputs[0])
    rest = {(len(shape), *shape[:axis], *shape[axis + 1 :]) for shape in inputs}
    if len(rest) > 1:
        raise InvalidGraphError(
            f"expected shapes that differ on axis {axis} only (got {', '.join(map(str, inputs))})"
        )
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _reshape(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    shape = _ints(attrs, "shape")
    if prod(shape) != prod(inputs[0]):
        raise InvalidGraphError(f"expected as many elements as in {inputs[0]} (got shape {shape})")
    return shape


def _flatten(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return (prod(inputs[0]),)


def _permute(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    order = _ints(attrs, "order")
    if sorted(order) != list(range(len(inputs[0]))):
        raise InvalidGraphError(f"expected an order of the axes of {inputs[0]} (got {order})")
    return tuple(inputs[0][axis] for axis in order)


def _embedding(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0], _int(attrs, "dim"))


def _attention(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    query, key, value = inputs
    _expect_rank(query, 2, "(tokens, dim)")
    if key != value or len(key) != 2 or key[1] != query[1]:
        raise InvalidGraphError(
            f"expected query, key and value of one width, key like value (got {query}, {key}, {value})"
        )
    if query[1] % _int(attrs, "num_heads"):
        raise InvalidGraphError(
            f"expected 'num_heads' to divide the width (got {attrs['num_heads']} and {query[1]})"
        )
    return query


# ---- parameters


def _weight_and_bias(attrs: Attrs, shape: Shape) -> dict[str, ParameterSpec]:
    parameters = {"weight": ParameterSpec(shape, "weight")}
    if attrs["bias"]:
        parameters["bias"] = ParameterSpec(shape[:1], "bias")
    return parameters


def _conv2d_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    in_channels = inputs[0][0] // _int(attrs, "groups")
    return _weight_and_bias(attrs, (_int(attrs, "out_channels"), in_channels, *_ints(attrs, "kernel_size")))


def _linear_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return _weight_and_bias(attrs, (_int(attrs, "out_features"), inputs[0][-1]))


def _channel_norm_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    size = inputs[0][:1]
    return {"weight": ParameterSpec(size, "scale"), "bias": ParameterSpec(size, "shift")}


def _layer_norm_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    size = inputs[0][-1:]
    return {"weight": ParameterSpec(size, "scale"), "bias": ParameterSpec(size, "shift")}


def _embedding_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return {"weight": ParameterSpec((_int(attrs, "num_embeddings"), _int(attrs, "dim")), "embedding")}


def _free_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return {"weight": ParameterSpec(_ints(attrs, "shape"), "position")}


# ---- multiply-adds


def _conv2d_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(output) * (inputs[0][0] // _int(attrs, "groups")) * prod(_ints(attrs, "kernel_size"))


def _linear_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(output) * inputs[0][-1]


def _attention_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    (queries, width), (keys, _) = inputs[0], inputs[1]
    return 2 * queries * keys * width  # query @ key and weights @ value


_SIZE = Attr("int", low=1)
_WINDOW_ATTRS = {
    "kernel_size": Attr("pair", low=1, high=1024),
    "stride": Attr("pair", (1, 1), low=1, high=1024),
    "padding": Attr("pair", (0, 0), high=1024),
}
_EPS = Attr("float", 1e-5, low=1e-12, high=1.0)


def _activation(summary: str) -> Op:
    return Op(summary, (1, 1), _same)


OPS: Mapping[str, Op] = {
    # where data enters
    "input": Op(
        "one example of the data",
        (0, 0),
        _from_attr,
        attrs={"shape": Attr("shape", low=1), "dtype": Attr("str", "float", options=("float", "int"))},
    ),
    "parameter": Op(
        "a free parameter, the same for every example: positions, class tokens, layer scales",
        (0, 0),
        _from_attr,
        attrs={"shape": Attr("shape", low=1)},
        parameters=_free_parameters,
    ),
    # linear maps
    "conv2d": Op(
        "2d convolution",
        (1, 1),
        _conv2d,
        attrs={
            "out_channels": _SIZE,
            **_WINDOW_ATTRS,
            "dilation": Attr("pair", (1, 1), low=1, high=1024),
            "groups": Attr("int", 1, low=1),
            "bias": Attr("bool", False),
        },
        parameters=_conv2d_parameters,
        multiply_adds=_conv2d_multiply_adds,
    ),
    "linear": Op(
        "linear map of the last axis",
        (1, 1),
        _linear,
        attrs={"out_features": _SIZE, "bias": Attr("bool", True)},
        parameters=_linear_parameters,
        multiply_adds=_linear_multiply_adds,
    ),
    "embedding": Op(
        "one vector per integer",
        (1, 1),
        _embedding,
        attrs={"num_embeddings": _SIZE, "dim": _SIZE},
        parameters=_embedding_parameters,
    ),
    "attention": Op(
        "scaled dot-product attention of query, key and value, with heads side by side on the last axis",
        (3, 3),
        _attention,
        attrs={"num_heads": _SIZE, "causal": Attr("bool", False)},
        multiply_adds=_attention_multiply_adds,
    ),
    # norms
    "batch_norm": Op(
        "batch normalisation of the first axis", (1, 1), _batch_norm, {"eps": _EPS}, _channel_norm_parameters
    ),
    "group_norm": Op(
        "group normalisation of the first axis",
        (1, 1),
        _group_norm,
        {"groups": _SIZE, "eps": _EPS},
        _channel_norm_parameters,
    ),
    "layer_norm": Op(
        "layer normalisation of the last axis", (1, 1), _same, {"eps": _EPS}, _layer_norm_parameters
    ),
    # pooling
    "max_pool2d": Op("maximum over windows", (1, 1), _pool2d, _WINDOW_ATTRS),
    "avg_pool2d": Op("mean over windows; padding is not counted", (1, 1), _pool2d, _WINDOW_ATTRS),
    "global_avg_pool2d": Op("mean over height and width", (1, 1), _global_avg_pool2d),
    "mean": Op("mean over one axis", (1, 1), _mean, {"axis": Attr("int", high=7)}),
    # joining
    "add": Op("sum", (2, MANY), _add, commutative=True),
    "mul": Op("product; axes of size one are repeated", (2, 2), _mul, commutative=True),
    "concat": Op("concatenation along one axis", (2, MANY), _concat, {"axis": Attr("int", 0, high=7)}),
    # rearranging
    "reshape": Op("another shape, elements in order", (1, 1), _reshape, {"shape": Attr("shape", low=1)}),
    "flatten": Op("all axes in one", (1, 1), _flatten),
    "permute": Op("axes in another order", (1, 1), _permute, {"order": Attr("order", high=7)}),
    # element by element
    "relu": _activation("max(x, 0)"),
    "leaky_relu": _activation("x for positive x, 0.01 x otherwise"),
    "elu": _activation("x for positive x, exp(x) - 1 otherwise"),
    "gelu": _activation("x times the normal distribution function of x"),
    "silu": _activation("x sigmoid(x)"),
    "hardswish": _activation("x hardsigmoid(x)"),
    "hardsigmoid": _activation("relu6(x + 3) / 6"),
    "sigmoid": _activation("1 / (1 + exp(-x))"),
    "tanh": _activation("hyperbolic tangent"),
    "softmax": Op("softmax along one axis", (1, 1), _softmax, {"axis": Attr("int", high=7)}),
    "dropout": Op("random zeros while training", (1, 1), _same, {"p": Attr("float", 0.1, high=0.99)}),
    "identity": Op("the input", (1, 1), _same),
    "zero": Op("zeros like the input", (1, 1), _same),
}
