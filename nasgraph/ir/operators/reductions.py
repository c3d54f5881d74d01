"""Reductions along axes."""

from collections.abc import Mapping, Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import AXIS, Attr, Attrs, Op, Shape, axis_exists, axis_of, gives_same, wholes

_KEEPDIMS = Attr("bool", False)


def _mean(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return _reduced(inputs[0], (axis_of(attrs, inputs[0]),), keep=attrs["keepdims"] is True)


def _reduce(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    axes = wholes(attrs, "axes")
    if axes[-1] >= len(inputs[0]):
        raise InvalidGraphError(f"expected axes below {len(inputs[0])} for shape {inputs[0]} (got {axes})")
    return _reduced(inputs[0], axes, keep=attrs["keepdims"] is True)


def _reduced(shape: Shape, axes: tuple[int, ...], *, keep: bool) -> Shape:
    if keep:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    if len(axes) == len(shape):
        raise InvalidGraphError(f"expected more axes, since one must remain (got shape {shape})")
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


_REDUCE = {"axes": Attr("axes", high=7), "keepdims": _KEEPDIMS}

REDUCTIONS: Mapping[str, Op] = {
    "mean": Op("mean over one axis", (1, 1), _mean, {"axis": AXIS, "keepdims": _KEEPDIMS}),
    "reduce_sum": Op("sum over axes", (1, 1), _reduce, _REDUCE, reads=("any",), gives=gives_same),
    "reduce_mean": Op("mean over axes", (1, 1), _reduce, _REDUCE),
    "reduce_max": Op("maximum over axes", (1, 1), _reduce, _REDUCE, reads=("any",), gives=gives_same),
    "reduce_min": Op("minimum over axes", (1, 1), _reduce, _REDUCE, reads=("any",), gives=gives_same),
    "reduce_var": Op(
        "variance over axes; 'correction' is subtracted from the number of elements",
        (1, 1),
        _reduce,
        {**_REDUCE, "correction": Attr("int", 1, high=1)},
    ),
    "cumsum": Op(
        "running sum along one axis", (1, 1), axis_exists, {"axis": AXIS}, reads=("any",), gives=gives_same
    ),
}
