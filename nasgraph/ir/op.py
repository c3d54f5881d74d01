# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""What an operator is: its attributes, its rules for shapes, types, parameters and multiply-adds."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeGuard

from nasgraph.errors import InvalidGraphError

Scalar = bool | int | float | str | tuple[int, ...]
Shape = tuple[int, ...]
Attrs = Mapping[str, Scalar]

Dtype = Literal["float", "int"]
"""What a value consists of: real numbers, or integers. Truth values are the integers 0 and 1."""

Role = Literal["weight", "bias", "scale", "shift", "embedding", "position"]
"""What a parameter does: `weight` multiplies inputs, `bias` follows a weight, `scale` and `shift` belong to a
norm, `embedding` is a look-up table, `position` is a free parameter such as a positional encoding."""

MAX_SIZE = 2**20
"""Largest value of a width or kernel size."""
MAX_LENGTH = 2**30
"""Largest length of an axis."""
MAX_ELEMENTS = 2**33
"""Largest number of elements of one activation or one parameter."""
MAX_REAL = 3.5e38
"""Largest absolute value of a number: a little more than single precision holds."""
MANY = 2**16
"""The number of inputs of an operator that takes any number."""

Kind = Literal[
    "bool", "int", "float", "str", "name", "single", "pair", "triple", "shape", "order", "axes", "ints"
]
_LENGTHS = {
    **{"single": (1, 1), "pair": (2, 2), "triple": (3, 3)},
    **{"shape": (1, 8), "order": (1, 8), "axes": (1, 8), "ints": (2, 16)},
}
_NOUNS = {
    **{"int": "an integer", "float": "a number"},
    **{
        "single": "an integer",
        "pair": "an integer or two integers",
        "triple": "an integer or three integers",
    },
    **{"shape": "1 to 8 integers", "order": "1 to 8 integers", "axes": "1 to 8 different integers"},
    **{"ints": "2 to 16 integers"},
}
_NAME = re.compile(r"[A-Za-z0-9_.:,>+\-\[\] ]{1,120}")


@dataclass(frozen=True, slots=True)
class Attr:
    """One setting of an operator: its kind, its default and its bounds (both included).

    `single`, `pair` and `triple` are one integer per axis of space; one integer stands for all. `axes` are stored in
    ascending order. `name` is free text without quotes. `default=None`: required. Defaults are in normal form.
    """

    kind: Kind
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
        if self.kind == "name" and isinstance(value, str) and _NAME.fullmatch(value):
            return value
        if self.kind == "float" and isinstance(value, float | int) and not isinstance(value, bool):
            if self.low <= value <= self.high:
                return float(value) + 0.0  # turns -0.0 into 0.0: equal values give equal text
        elif self.kind == "int" and _is_int(value):
            if self.low <= value <= self.high:
                return value
        elif self.kind in ("single", "pair", "triple") and _is_int(value):
            return self.normalise((value,) * _LENGTHS[self.kind][0])
        elif self.kind in _LENGTHS and isinstance(value, tuple | list):
            numbers = self._numbers(value)
            if numbers is not None:
                return numbers
        raise InvalidGraphError(f"expected {self.describe()} (got {_short(value)})")

    def _numbers(self, value: Sequence[object]) -> tuple[int, ...] | None:
        fewest, most = _LENGTHS[self.kind]
        numbers = tuple(number for number in value if _is_int(number) and self.low <= number <= self.high)
        if len(numbers) != len(value) or not fewest <= len(numbers) <= most:
            return None
        if self.kind != "axes":
            return numbers
        return tuple(sorted(numbers)) if len(set(numbers)) == len(numbers) else None

    def describe(self) -> str:
        """What a legal value is, in words."""
        if self.kind == "bool":
            return "true or false"
        if self.kind == "str":
            return f"one of {', '.join(self.options)}"
        if self.kind == "name":
            return "1 to 120 letters, digits, spaces or any of _.:,>+-[]"
        return f"{_NOUNS[self.kind]} between {self.low:,} and {self.high:,}"


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """Shape and role of one parameter tensor of a node.

    Attributes:
        shape: Its shape.
        role: What it does.
        fan_in: Number of inputs that one output sums over. Left at 0 it becomes the product of all axes but the first.
    """

    shape: Shape
    role: Role
    fan_in: int = 0

    def __post_init__(self) -> None:
        if self.fan_in == 0:
            object.__setattr__(self, "fan_in", prod(self.shape[1:]))


ShapeRule = Callable[[Attrs, Sequence[Shape]], Shape]
ParameterRule = Callable[[Attrs, Sequence[Shape]], dict[str, ParameterSpec]]
CostRule = Callable[[Attrs, Sequence[Shape], Shape], int]
DtypeRule = Callable[[Attrs, Sequence[Dtype]], Dtype]


def no_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    """The parameters of an operator without any."""
    return {}


def no_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    """The multiply-adds of an operator that counts for none."""
    return 0


def gives_float(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
    """Real numbers, whatever comes in."""
    return "float"


def gives_int(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
    """Integers, whatever comes in."""
    return "int"


def gives_same(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
    """Integers if all inputs are."""
    return "float" if "float" in inputs else "int"


def gives_first(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
    """What the first input is."""
    return inputs[0]


def gives_attr(attrs: Attrs, inputs: Sequence[Dtype]) -> Dtype:
    """What the attribute `dtype` says."""
    return "int" if attrs["dtype"] == "int" else "float"


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
        reads: What each input has to be; the last entry holds for all further inputs.
        gives: What comes out, from attributes and the types of the inputs.
        reads_edges: Whether it passes messages along the edges of a data graph whose nodes are the examples.
    """

    summary: str
    num_inputs: tuple[int, int]
    shape: ShapeRule
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    parameters: ParameterRule = no_parameters
    multiply_adds: CostRule = no_multiply_adds
    commutative: bool = False
    reads: tuple[Literal["float", "int", "any"], ...] = ("float",)
    gives: DtypeRule = gives_float
    reads_edges: bool = False


# ---- reading attributes whose kind the table guarantees


def whole(attrs: Attrs, name: str) -> int:
    """An attribute of kind `int`."""
    value = attrs[name]
    assert isinstance(value, int)
    return value


def wholes(attrs: Attrs, name: str) -> tuple[int, ...]:
    """An attribute that is a tuple of integers."""
    value = attrs[name]
    assert isinstance(value, tuple)
    return value


# ---- attributes and rules that several families share

SIZE = Attr("int", low=1)
AXIS = Attr("int", high=7)
SHAPE = Attr("shape", low=1, high=MAX_LENGTH)
DTYPE = Attr("str", "float", options=("float", "int"))
EPS = Attr("float", 1e-5, low=1e-12, high=1.0)


def real(default: float | None = None, *, low: float = -MAX_REAL, high: float = MAX_REAL) -> Attr:
    """A number, which may be negative."""
    return Attr("float", default, low=low, high=high)


def same_shape(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    """The shape of the first input."""
    return inputs[0]


def shape_attr(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    """The attribute `shape`."""
    return wholes(attrs, "shape")


def expect_rank(shape: Shape, rank: int, what: str) -> None:
    """Refuse a shape that does not have `rank` axes."""
    if len(shape) != rank:
        raise InvalidGraphError(f"expected {what} (got shape {shape})")


def axis_of(attrs: Attrs, shape: Shape) -> int:
    """The attribute `axis`, which has to be an axis of `shape`."""
    axis = whole(attrs, "axis")
    if axis >= len(shape):
        raise InvalidGraphError(f"expected an axis below {len(shape)} for shape {shape} (got {axis})")
    return axis


def axis_exists(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    """The shape of the input, which has to have the attribute `axis`."""
    axis_of(attrs, inputs[0])
    return inputs[0]


def broadcast(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    """Common shape of inputs of one rank, in which axes of size one are repeated."""
    first = inputs[0]
    if all(shape == first for shape in inputs):
        return first
    result = first
    for shape in inputs[1:]:
        if len(shape) != len(first) or any(
            a != b and a != 1 and b != 1 for a, b in zip(result, shape, strict=True)
        ):
            listed = ", ".join(map(str, inputs[:8]))
            raise InvalidGraphError(f"expected shapes that broadcast axis by axis (got {listed})")
        result = tuple(max(a, b) for a, b in zip(result, shape, strict=True))
    return result
