# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Rearranging: other shapes, orders and parts of the same numbers."""

from collections.abc import Mapping, Sequence
from math import prod

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import (
    AXIS,
    MANY,
    MAX_LENGTH,
    SHAPE,
    Attr,
    Attrs,
    Op,
    Shape,
    ShapeRule,
    axis_exists,
    axis_of,
    gives_first,
    gives_same,
    real,
    whole,
    wholes,
)


def _concat(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    axis = axis_of(attrs, inputs[0])
    rest = {(len(shape), *shape[:axis], *shape[axis + 1 :]) for shape in inputs}
    if len(rest) > 1:
        raise InvalidGraphError(
            f"expected shapes that differ on axis {axis} only (got {', '.join(map(str, inputs[:8]))})"
        )
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _reshape(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    shape = wholes(attrs, "shape")
    if prod(shape) != prod(inputs[0]):
        raise InvalidGraphError(f"expected as many elements as in {inputs[0]} (got shape {shape})")
    return shape


def _flatten(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return (prod(inputs[0]),)


def _permute(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    order = wholes(attrs, "order")
    if sorted(order) != list(range(len(inputs[0]))):
        raise InvalidGraphError(f"expected an order of the axes of {inputs[0]} (got {order})")
    return tuple(inputs[0][axis] for axis in order)


def _slice(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    axis = axis_of(attrs, inputs[0])
    start, stop, step = (whole(attrs, name) for name in ("start", "stop", "step"))
    if not start < stop <= inputs[0][axis]:
        raise InvalidGraphError(
            f"expected 'start' below 'stop' up to {inputs[0][axis]} (got {start} and {stop})"
        )
    return (*inputs[0][:axis], -(-(stop - start) // step), *inputs[0][axis + 1 :])


def _expand(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    shape = wholes(attrs, "shape")
    if len(shape) != len(inputs[0]) or any(a not in (1, b) for a, b in zip(inputs[0], shape, strict=True)):
        raise InvalidGraphError(f"expected axes of size one where {shape} differs (got shape {inputs[0]})")
    return shape


def _pad(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    amounts, shape, mode = wholes(attrs, "amounts"), inputs[0], attrs["mode"]
    if len(amounts) != 2 * len(shape):
        raise InvalidGraphError(f"expected two amounts for each axis of {shape} (got {len(amounts)})")
    for size, *both in zip(shape, amounts[::2], amounts[1::2], strict=True):
        most = {"reflect": size - 1, "circular": size}.get(str(mode), max(both))
        if max(both) > most:
            raise InvalidGraphError(
                f"expected amounts up to {most} for {size} and mode '{mode}' (got {both})"
            )
    return tuple(
        before + size + after for size, before, after in zip(shape, amounts[::2], amounts[1::2], strict=True)
    )


def _take(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    axis = axis_of(attrs, inputs[0])
    if len(inputs[1]) != 1:
        raise InvalidGraphError(f"expected indices with one axis (got shape {inputs[1]})")
    return (*inputs[0][:axis], *inputs[1], *inputs[0][axis + 1 :])


def _gather(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    data, indices = inputs
    axis = axis_of(attrs, data)
    if len(data) != len(indices) or any(
        i > d for place, (d, i) in enumerate(zip(data, indices, strict=True)) if place != axis
    ):
        raise InvalidGraphError(
            f"expected indices that are not larger than {data} but on axis {axis} (got {indices})"
        )
    return indices


def _op(summary: str, shape: ShapeRule, attrs: Mapping[str, Attr] | None = None) -> Op:
    return Op(summary, (1, 1), shape, attrs or {}, reads=("any",), gives=gives_same)


STRUCTURE: Mapping[str, Op] = {
    "concat": Op(
        "concatenation along one axis",
        (2, MANY),
        _concat,
        {"axis": Attr("int", 0, high=7)},
        reads=("any",),
        gives=gives_same,
    ),
    "reshape": _op("another shape, elements in order", _reshape, {"shape": SHAPE}),
    "flatten": _op("all axes in one", _flatten),
    "permute": _op("axes in another order", _permute, {"order": Attr("order", high=7)}),
    "slice": _op(
        "every 'step'-th element from 'start' to before 'stop' along one axis",
        _slice,
        {
            "axis": AXIS,
            "start": Attr("int", high=MAX_LENGTH),
            "stop": Attr("int", high=MAX_LENGTH),
            "step": Attr("int", 1, low=1, high=MAX_LENGTH),
        },
    ),
    "expand": _op("axes of size one repeated", _expand, {"shape": SHAPE}),
    "pad": _op(
        "elements added before and after each axis; 'amounts' has two numbers per axis",
        _pad,
        {
            "amounts": Attr("ints"),
            "mode": Attr("str", "constant", options=("constant", "reflect", "replicate", "circular")),
            "value": real(0.0),
        },
    ),
    "roll": _op(
        "elements moved on along one axis, those beyond the end to the front",
        axis_exists,
        {"axis": AXIS, "shift": Attr("int", low=-MAX_LENGTH, high=MAX_LENGTH)},
    ),
    "flip": _op("elements along one axis in reverse order", axis_exists, {"axis": AXIS}),
    "take": Op(
        "the parts along one axis that the second input lists",
        (2, 2),
        _take,
        {"axis": AXIS},
        reads=("any", "int"),
        gives=gives_first,
    ),
    "gather": Op(
        "for every index of the second input the element there along one axis",
        (2, 2),
        _gather,
        {"axis": AXIS},
        reads=("any", "int"),
        gives=gives_first,
    ),
}
