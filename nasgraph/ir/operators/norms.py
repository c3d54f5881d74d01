# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Norms."""

from collections.abc import Mapping, Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import EPS, SIZE, Attr, Attrs, Op, ParameterSpec, Shape, whole

_AFFINE = Attr("bool", True)
_AXES = Attr("int", 1, low=1, high=8)


def _batch_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if len(inputs[0]) > 4:
        raise InvalidGraphError(f"expected channels and at most three axes of space (got shape {inputs[0]})")
    return inputs[0]


def _group_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if inputs[0][0] % whole(attrs, "groups"):
        raise InvalidGraphError(
            f"expected 'groups' to divide the channels (got {attrs['groups']} and {inputs[0][0]})"
        )
    return inputs[0]


def _channel_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    if not attrs["affine"]:
        return {}
    size = inputs[0][:1]
    return {"weight": ParameterSpec(size, "scale", 1), "bias": ParameterSpec(size, "shift", 1)}


def _trailing(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if whole(attrs, "axes") > len(inputs[0]):
        raise InvalidGraphError(f"expected at least {attrs['axes']} axes (got shape {inputs[0]})")
    return inputs[0]


def _layer_norm_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    if not attrs["affine"]:
        return {}
    size = inputs[0][-whole(attrs, "axes") :]
    parameters = {"weight": ParameterSpec(size, "scale", 1)}
    if attrs["bias"]:
        parameters["bias"] = ParameterSpec(size, "shift", 1)
    return parameters


def _rms_norm_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    if not attrs["affine"]:
        return {}
    return {"weight": ParameterSpec(inputs[0][-whole(attrs, "axes") :], "scale", 1)}


def _given_layer_norm(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    size = inputs[1]
    if inputs[0][-len(size) :] != size or any(shape != size for shape in inputs[2:]):
        raise InvalidGraphError(
            f"expected scale and shift of the last axes of {inputs[0]} (got {', '.join(map(str, inputs[1:]))})"
        )
    return inputs[0]


NORMS: Mapping[str, Op] = {
    "batch_norm": Op(
        "batch normalisation of the first axis",
        (1, 1),
        _batch_norm,
        {"eps": EPS, "affine": _AFFINE},
        _channel_parameters,
    ),
    "group_norm": Op(
        "group normalisation of the first axis",
        (1, 1),
        _group_norm,
        {"groups": SIZE, "eps": EPS, "affine": _AFFINE},
        _channel_parameters,
    ),
    "layer_norm": Op(
        "layer normalisation of the last axes",
        (1, 1),
        _trailing,
        {"eps": EPS, "axes": _AXES, "affine": _AFFINE, "bias": Attr("bool", True)},
        _layer_norm_parameters,
    ),
    "rms_norm": Op(
        "the last axes divided by their root mean square",
        (1, 1),
        _trailing,
        {"eps": EPS, "axes": _AXES, "affine": _AFFINE},
        _rms_norm_parameters,
    ),
    "apply_layer_norm": Op(
        "layer normalisation of the last axes with the second input as scale, maybe a third as shift",
        (2, 3),
        _given_layer_norm,
        {"eps": EPS},
    ),
}
