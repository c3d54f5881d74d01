# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Convolutions and transposed convolutions over one to three axes of space, with weights of their own or as inputs."""

from collections.abc import Mapping, Sequence
from math import prod

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import (
    SIZE,
    Attr,
    Attrs,
    CostRule,
    Kind,
    Op,
    ParameterSpec,
    Shape,
    ShapeRule,
    whole,
    wholes,
)
from nasgraph.ir.operators.windows import expect_space, window_counts

_KINDS: Mapping[int, Kind] = {1: "single", 2: "pair", 3: "triple"}


def window_attrs(dims: int) -> dict[str, Attr]:
    """Kernel size, stride and padding over `dims` axes of space."""
    return {"kernel_size": Attr(_KINDS[dims], low=1, high=1024), **step_attrs(dims)}


def step_attrs(dims: int) -> dict[str, Attr]:
    """Stride and padding over `dims` axes of space."""
    return {
        "stride": Attr(_KINDS[dims], (1,) * dims, low=1, high=1024),
        "padding": Attr(_KINDS[dims], (0,) * dims, high=1024),
    }


def _shared_attrs(dims: int, *, transposed: bool) -> dict[str, Attr]:
    attrs = {
        "dilation": Attr(_KINDS[dims], (1,) * dims, low=1, high=1024),
        "groups": Attr("int", 1, low=1),
    }
    return {**attrs, "output_padding": Attr(_KINDS[dims], (0,) * dims, high=1024)} if transposed else attrs


def _check_groups(groups: int, channels: int, out_channels: int) -> None:
    for what, number in (("input", channels), ("output", out_channels)):
        if number % groups:
            raise InvalidGraphError(
                f"expected 'groups' to divide the {what} channels (got {groups} and {number})"
            )


def _convolved(attrs: Attrs, shape: Shape, out_channels: int, kernel: Sequence[int]) -> Shape:
    _check_groups(whole(attrs, "groups"), shape[0], out_channels)
    return (out_channels, *window_counts(attrs, shape, kernel))


def _transposed(attrs: Attrs, shape: Shape, out_channels: int, kernel: Sequence[int]) -> Shape:
    _check_groups(whole(attrs, "groups"), shape[0], out_channels)
    stride, padding, dilation, more = (
        wholes(attrs, name) for name in ("stride", "padding", "dilation", "output_padding")
    )
    sizes = []
    for i, size in enumerate(shape[1:]):
        if more[i] >= max(stride[i], dilation[i]):
            raise InvalidGraphError(
                f"expected an output padding below stride or dilation (got {more[i]}, {stride[i]}, {dilation[i]})"
            )
        result = (size - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + more[i] + 1
        if result < 1:
            raise InvalidGraphError(f"nothing remains of {size} with padding {padding[i]}")
        sizes.append(result)
    return (out_channels, *sizes)


def _own_shape(dims: int, *, transposed: bool) -> ShapeRule:
    rule = _transposed if transposed else _convolved

    def shape(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
        expect_space(inputs[0], dims)
        return rule(attrs, inputs[0], whole(attrs, "out_channels"), wholes(attrs, "kernel_size"))

    return shape


def _given_shape(dims: int, *, transposed: bool) -> ShapeRule:
    """Rule for a weight that is an input: (out, in / groups, *kernel), transposed (in, out / groups, *kernel)."""
    rule = _transposed if transposed else _convolved

    def shape(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
        data, weight = inputs[:2]
        expect_space(data, dims)
        groups = whole(attrs, "groups")
        if len(weight) != dims + 2 or data[0] != weight[0 if transposed else 1] * (
            1 if transposed else groups
        ):
            raise InvalidGraphError(
                f"expected a weight for {data[0]} channels in {groups} groups (got shape {weight})"
            )
        out_channels = weight[1] * groups if transposed else weight[0]
        if inputs[2:] and inputs[2] != (out_channels,):
            raise InvalidGraphError(f"expected a bias of shape {(out_channels,)} (got {inputs[2]})")
        return rule(attrs, data, out_channels, weight[2:])

    return shape


def _parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    in_channels = inputs[0][0] // whole(attrs, "groups")
    out_channels, kernel = whole(attrs, "out_channels"), wholes(attrs, "kernel_size")
    parameters = {"weight": ParameterSpec((out_channels, in_channels, *kernel), "weight")}
    if attrs["bias"]:
        parameters["bias"] = ParameterSpec((out_channels,), "bias")
    return parameters


def _transposed_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    channels, groups = inputs[0][0], whole(attrs, "groups")
    out_channels, kernel = whole(attrs, "out_channels"), wholes(attrs, "kernel_size")
    shape = (channels, out_channels // groups, *kernel)
    parameters = {"weight": ParameterSpec(shape, "weight", channels // groups * prod(kernel))}
    if attrs["bias"]:
        parameters["bias"] = ParameterSpec((out_channels,), "bias")
    return parameters


def _multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(output) * (inputs[0][0] // whole(attrs, "groups")) * prod(wholes(attrs, "kernel_size"))


def _transposed_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(inputs[0]) * (output[0] // whole(attrs, "groups")) * prod(wholes(attrs, "kernel_size"))


def _given_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(output) * prod(inputs[1][1:])


def _given_transposed_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(inputs[0]) * prod(inputs[1][1:])


def _convolution(dims: int, *, transposed: bool = False) -> Op:
    return Op(
        f"{dims}d {'transposed ' if transposed else ''}convolution",
        (1, 1),
        _own_shape(dims, transposed=transposed),
        attrs={
            "out_channels": SIZE,
            **window_attrs(dims),
            **_shared_attrs(dims, transposed=transposed),
            "bias": Attr("bool", False),
        },
        parameters=_transposed_parameters if transposed else _parameters,
        multiply_adds=_transposed_multiply_adds if transposed else _multiply_adds,
    )


def _given(dims: int, *, transposed: bool = False) -> Op:
    cost: CostRule = _given_transposed_multiply_adds if transposed else _given_multiply_adds
    return Op(
        f"{dims}d {'transposed ' if transposed else ''}convolution of the first input with the second, maybe a bias",
        (2, 3),
        _given_shape(dims, transposed=transposed),
        attrs={**step_attrs(dims), **_shared_attrs(dims, transposed=transposed)},
        multiply_adds=cost,
    )


CONVOLUTIONS: Mapping[str, Op] = {
    "conv2d": _convolution(2),
    "conv1d": _convolution(1),
    "conv3d": _convolution(3),
    **{f"conv_transpose{dims}d": _convolution(dims, transposed=True) for dims in (1, 2, 3)},
    **{f"apply_conv{dims}d": _given(dims) for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _given(dims, transposed=True) for dims in (1, 2, 3)},
}
