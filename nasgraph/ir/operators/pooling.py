# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Pooling over windows and over all of space, and its opposites."""

from collections.abc import Mapping, Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import MAX_LENGTH, Attr, Attrs, Op, Shape, ShapeRule, whole, wholes
from nasgraph.ir.operators.convolution import window_attrs
from nasgraph.ir.operators.windows import expect_space, window_counts


def _pool(dims: int) -> ShapeRule:
    def shape(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
        expect_space(inputs[0], dims)
        kernel, padding = wholes(attrs, "kernel_size"), wholes(attrs, "padding")
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise InvalidGraphError(
                f"expected a padding of at most half the kernel (got {padding} and {kernel})"
            )
        return (inputs[0][0], *window_counts(attrs, inputs[0], kernel))

    return shape


def _global(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    expect_space(inputs[0], 2)
    return inputs[0][:1]


def _adaptive(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    expect_space(inputs[0], 2)
    return (inputs[0][0], *wholes(attrs, "size"))


_MODES = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}


def _upsample(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    size, mode = wholes(attrs, "size"), str(attrs["mode"])
    if len(size) > 3 or len(inputs[0]) != len(size) + 1:
        raise InvalidGraphError(f"expected channels and {len(size)} axes of space (got shape {inputs[0]})")
    if _MODES.get(mode, len(size)) != len(size):
        raise InvalidGraphError(f"mode '{mode}' is for {_MODES[mode]} axes of space (got size {size})")
    if attrs["align_corners"] and mode not in _MODES:
        raise InvalidGraphError(f"mode '{mode}' cannot align corners")
    return (inputs[0][0], *size)


def _pixel_shuffle(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    expect_space(inputs[0], 2)
    (channels, height, width), factor = inputs[0], whole(attrs, "factor")
    if channels % factor**2:
        raise InvalidGraphError(f"expected channels that {factor}^2 divides (got {channels})")
    return (channels // factor**2, height * factor, width * factor)


_CEIL = {"ceil_mode": Attr("bool", False)}

POOLING: Mapping[str, Op] = {
    "max_pool2d": Op(
        "maximum over windows",
        (1, 1),
        _pool(2),
        {**window_attrs(2), "dilation": Attr("pair", (1, 1), low=1, high=1024), **_CEIL},
    ),
    "avg_pool2d": Op(
        "mean over windows; padding is counted where 'count_include_pad' says so",
        (1, 1),
        _pool(2),
        {**window_attrs(2), **_CEIL, "count_include_pad": Attr("bool", False)},
    ),
    "max_pool3d": Op("maximum over windows of space and time", (1, 1), _pool(3), window_attrs(3)),
    "avg_pool3d": Op(
        "mean over windows of space and time; padding is not counted", (1, 1), _pool(3), window_attrs(3)
    ),
    "global_avg_pool2d": Op("mean over height and width", (1, 1), _global),
    "adaptive_avg_pool2d": Op(
        "mean over as many windows as 'size' says", (1, 1), _adaptive, {"size": Attr("pair", low=1)}
    ),
    "adaptive_max_pool2d": Op(
        "maximum over as many windows as 'size' says", (1, 1), _adaptive, {"size": Attr("pair", low=1)}
    ),
    "upsample": Op(
        "interpolation to another size",
        (1, 1),
        _upsample,
        {
            "size": Attr("shape", low=1, high=MAX_LENGTH),
            "mode": Attr("str", "nearest", options=("nearest", "nearest-exact", "area", *_MODES)),
            "align_corners": Attr("bool", False),
        },
    ),
    "pixel_shuffle": Op(
        "channels rearranged into finer space",
        (1, 1),
        _pixel_shuffle,
        {"factor": Attr("int", low=1, high=1024)},
    ),
}
