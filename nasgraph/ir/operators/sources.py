# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Where data enters: inputs, free parameters, constants, and what is not part of the language."""

from collections.abc import Mapping, Sequence
from typing import cast

from nasgraph.ir.op import (
    DTYPE,
    MANY,
    MAX_LENGTH,
    SHAPE,
    Attr,
    Attrs,
    Op,
    ParameterSpec,
    Role,
    Shape,
    gives_attr,
    shape_attr,
    whole,
    wholes,
)


def _free_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    role = cast(Role, attrs["role"])
    return {"weight": ParameterSpec(wholes(attrs, "shape"), role, whole(attrs, "fan_in"))}


SOURCES: Mapping[str, Op] = {
    "input": Op(
        "one example of the data",
        (0, 0),
        shape_attr,
        attrs={"shape": SHAPE, "dtype": DTYPE},
        gives=gives_attr,
    ),
    "parameter": Op(
        "a free parameter, the same for every example: positions, class tokens, layer scales, shared weights",
        (0, 0),
        shape_attr,
        attrs={
            "shape": SHAPE,
            "role": Attr(
                "str", "position", options=("position", "weight", "bias", "scale", "shift", "embedding")
            ),
            "fan_in": Attr("int", 0, high=MAX_LENGTH),
        },
        parameters=_free_parameters,
    ),
    "constant": Op(
        "a fixed tensor, the same for every example, given when the module is built",
        (0, 0),
        shape_attr,
        attrs={"shape": SHAPE, "dtype": DTYPE},
        gives=gives_attr,
    ),
}

OPAQUE: Mapping[str, Op] = {
    "opaque": Op(
        "something without parameters that a traced model does and this language cannot say; it cannot be run",
        (0, MANY),
        shape_attr,
        attrs={"name": Attr("name"), "shape": SHAPE, "dtype": DTYPE},
        reads=("any",),
        gives=gives_attr,
    )
}
