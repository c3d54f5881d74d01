# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Recurrent layers: one layer in one direction over (steps, features). Gates stand in torch's order."""

from collections.abc import Mapping, Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import (
    SIZE,
    Attr,
    Attrs,
    CostRule,
    Op,
    ParameterRule,
    ParameterSpec,
    Shape,
    expect_rank,
    whole,
)


def _sizes(attrs: Attrs) -> tuple[int, int]:
    """Width of the cell and of what it gives."""
    hidden = whole(attrs, "hidden_size")
    return hidden, (whole(attrs, "proj_size") if "proj_size" in attrs else 0) or hidden


def _recurrent(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    expect_rank(inputs[0], 2, "(steps, features)")
    hidden, width = _sizes(attrs)
    if "proj_size" in attrs and whole(attrs, "proj_size") >= hidden:
        raise InvalidGraphError(f"expected 'proj_size' below 'hidden_size' (got {width} and {hidden})")
    for state, size in zip(inputs[1:], (width, hidden), strict=False):
        if state != (size,):
            raise InvalidGraphError(f"expected a state of shape {(size,)} (got {state})")
    return (inputs[0][0], width)


def _parameters(gates: int) -> ParameterRule:
    def parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
        hidden, width = _sizes(attrs)
        found = {
            "weight_ih": ParameterSpec((gates * hidden, inputs[0][1]), "weight"),
            "weight_hh": ParameterSpec((gates * hidden, width), "weight"),
        }
        if attrs["bias"]:
            found["bias_ih"] = ParameterSpec((gates * hidden,), "bias")
            found["bias_hh"] = ParameterSpec((gates * hidden,), "bias")
        if width != hidden:
            found["weight_hr"] = ParameterSpec((width, hidden), "weight")
        return found

    return parameters


def _multiply_adds(gates: int) -> CostRule:
    def multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
        (steps, features), (hidden, width) = inputs[0], _sizes(attrs)
        projection = hidden * width if width != hidden else 0
        return steps * (gates * hidden * (features + width) + projection)

    return multiply_adds


def _op(summary: str, gates: int, *, states: int = 1, attrs: Mapping[str, Attr] | None = None) -> Op:
    return Op(
        f"{summary}; first states are further inputs, or zero",
        (1, 1 + states),
        _recurrent,
        attrs={
            "hidden_size": SIZE,
            "bias": Attr("bool", True),
            "reverse": Attr("bool", False),
            **(attrs or {}),
        },
        parameters=_parameters(gates),
        multiply_adds=_multiply_adds(gates),
    )


RECURRENT: Mapping[str, Op] = {
    "lstm": _op("long short-term memory over steps", 4, states=2, attrs={"proj_size": Attr("int", 0)}),
    "gru": _op("gated recurrent unit over steps", 3),
    "rnn": _op(
        "Elman's recurrent layer over steps",
        1,
        attrs={"nonlinearity": Attr("str", "tanh", options=("tanh", "relu"))},
    ),
}
