# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Element by element: sums, products, comparisons, activations and other functions of one number."""

from collections.abc import Mapping, Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import (
    AXIS,
    DTYPE,
    MANY,
    Attr,
    Attrs,
    Dtype,
    DtypeRule,
    Op,
    Shape,
    ShapeRule,
    axis_exists,
    broadcast,
    gives_attr,
    gives_float,
    gives_int,
    gives_same,
    real,
    same_shape,
)


def _joining(summary: str, most: int = 2, *, commutative: bool = False, gives: DtypeRule = gives_same) -> Op:
    return Op(summary, (2, most), broadcast, commutative=commutative, reads=("any",), gives=gives)


def _clamp(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if float(str(attrs["low"])) > float(str(attrs["high"])):
        raise InvalidGraphError(f"expected 'low' up to 'high' (got {attrs['low']} and {attrs['high']})")
    return inputs[0]


def _prelu(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    data, slope = inputs
    if slope not in ((1,), data[:1]):
        raise InvalidGraphError(f"expected slopes of shape (1,) or {data[:1]} (got {slope})")
    return data


def _where(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return broadcast(attrs, inputs)


def _gives_branches(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
    return gives_same(attrs, inputs[1:])


def _gives_whole_numbers(names: Sequence[str]) -> DtypeRule:
    """Integers if the input consists of integers and the named attributes are whole."""

    def gives(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
        return inputs[0] if all(float(str(attrs[name])).is_integer() for name in names) else "float"

    return gives


_KINDS = Attr("str", options=("eq", "ne", "lt", "le", "gt", "ge"))

JOINING: Mapping[str, Op] = {
    "add": _joining("sum; axes of size one are repeated", MANY, commutative=True),
    "mul": _joining("product; axes of size one are repeated", commutative=True),
    "sub": _joining("first minus second; axes of size one are repeated"),
    "div": _joining("first divided by second; axes of size one are repeated", gives=gives_float),
    "maximum": _joining("the larger of two; axes of size one are repeated", commutative=True),
    "minimum": _joining("the smaller of two; axes of size one are repeated", commutative=True),
    "power": _joining("first to the power of second; axes of size one are repeated"),
    "where": Op(
        "the second where the first is true, the third elsewhere; axes of size one are repeated",
        (3, 3),
        _where,
        reads=("int", "any", "any"),
        gives=_gives_branches,
    ),
    "compare": Op(
        "1 where the comparison holds, 0 elsewhere; axes of size one are repeated",
        (2, 2),
        broadcast,
        {"kind": _KINDS},
        reads=("any",),
        gives=gives_int,
    ),
    "prelu": Op("x for positive x, slope x otherwise; the second input is the slope", (2, 2), _prelu),
}


def _function(
    summary: str,
    attrs: Mapping[str, Attr] | None = None,
    *,
    shape: ShapeRule = same_shape,
    integers: DtypeRule | None = None,
) -> Op:
    """A function of one input. `integers`: what it gives if it reads integers too."""
    if integers is None:
        return Op(summary, (1, 1), shape, attrs or {})
    return Op(summary, (1, 1), shape, attrs or {}, reads=("any",), gives=integers)


ACTIVATIONS: Mapping[str, Op] = {
    "relu": _function("max(x, 0)"),
    "relu6": _function("min(max(x, 0), 6)"),
    "leaky_relu": _function("x for positive x, slope x otherwise", {"slope": real(0.01)}),
    "elu": _function("x for positive x, alpha (exp(x) - 1) otherwise", {"alpha": real(1.0)}),
    "celu": _function(
        "x for positive x, alpha (exp(x / alpha) - 1) otherwise", {"alpha": real(1.0, low=1e-30)}
    ),
    "selu": _function("elu with the constants of self-normalising networks"),
    "gelu": _function(
        "x times the normal distribution function of x",
        {"approximate": Attr("str", "none", options=("none", "tanh"))},
    ),
    "silu": _function("x sigmoid(x)"),
    "mish": _function("x tanh(softplus(x))"),
    "hardswish": _function("x hardsigmoid(x)"),
    "hardsigmoid": _function("relu6(x + 3) / 6"),
    "sigmoid": _function("1 / (1 + exp(-x))"),
    "log_sigmoid": _function("logarithm of sigmoid(x)"),
    "tanh": _function("hyperbolic tangent"),
    "softsign": _function("x / (1 + |x|)"),
    "softplus": _function(
        "log(1 + exp(beta x)) / beta, x where beta x is above the threshold",
        {"beta": real(1.0, low=1e-30), "threshold": real(20.0)},
    ),
    "softmax": _function("softmax along one axis", {"axis": AXIS}, shape=axis_exists),
    "log_softmax": _function("logarithm of the softmax along one axis", {"axis": AXIS}, shape=axis_exists),
}

FUNCTIONS: Mapping[str, Op] = {
    "exp": _function("e to the power of x"),
    "expm1": _function("exp(x) - 1"),
    "log": _function("natural logarithm"),
    "log1p": _function("log(1 + x)"),
    "sqrt": _function("square root"),
    "rsqrt": _function("1 / sqrt(x)"),
    "square": _function("x x", integers=gives_same),
    "abs": _function("absolute value", integers=gives_same),
    "neg": _function("-x", integers=gives_same),
    "sign": _function("-1, 0 or 1", integers=gives_same),
    "reciprocal": _function("1 / x"),
    "floor": _function("largest whole number up to x", integers=gives_same),
    "round": _function("nearest whole number, halves to even", integers=gives_same),
    "sin": _function("sine"),
    "cos": _function("cosine"),
    "tan": _function("tangent"),
    "atan": _function("inverse tangent"),
    "erf": _function("error function"),
    "affine": _function(
        "scale x + shift; integers stay integers if both settings are whole",
        {"scale": real(1.0), "shift": real(0.0)},
        integers=_gives_whole_numbers(("scale", "shift")),
    ),
    "power_scalar": _function("x to the power of the exponent", {"exponent": real()}),
    "clamp": _function(
        "x, but not below 'low' and not above 'high'; integers stay integers if both settings are whole",
        {"low": real(-3.5e38), "high": real(3.5e38)},
        shape=_clamp,
        integers=_gives_whole_numbers(("low", "high")),
    ),
    "compare_scalar": _function(
        "1 where the comparison with 'value' holds, 0 elsewhere",
        {"kind": _KINDS, "value": real()},
        integers=gives_int,
    ),
    "cast": _function(
        "as real numbers or as integers, rounded towards zero", {"dtype": DTYPE}, integers=gives_attr
    ),
    "dropout": _function("random zeros while training", {"p": Attr("float", 0.1, high=1.0)}),
    "drop_path": _function(
        "all zeros for random examples while training; scheduled: with a chance that grows from 0 to 'p'",
        {"p": Attr("float", 0.1, high=1.0), "scheduled": Attr("bool", False)},
    ),
    "identity": _function("the input", integers=gives_same),
    "zero": _function("zeros like the input", integers=gives_same),
}
