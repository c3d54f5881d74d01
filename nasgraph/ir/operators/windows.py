"""Sizes of what slides windows over space: convolutions and poolings."""

from collections.abc import Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import Attrs, Shape, expect_rank, wholes

SPACE = {1: "(channels, length)", 2: "(channels, height, width)", 3: "(channels, depth, height, width)"}
"""What a shape with one to three axes of space is called."""


def expect_space(shape: Shape, dims: int) -> None:
    """Refuse a shape that is not channels and `dims` axes of space."""
    expect_rank(shape, dims + 1, SPACE[dims])


def window_counts(attrs: Attrs, shape: Shape, kernel: Sequence[int]) -> Shape:
    """Number of windows along each axis of space; `shape` has channels first.

    With `ceil_mode` a window may start within the input or the padding before it and end beyond (torch's rule).
    """
    stride, padding = wholes(attrs, "stride"), wholes(attrs, "padding")
    dilation = wholes(attrs, "dilation") if "dilation" in attrs else (1,) * len(kernel)
    ceil = attrs.get("ceil_mode") is True
    counts = []
    for i, size in enumerate(shape[1:]):
        extent = dilation[i] * (kernel[i] - 1) + 1
        count = (size + 2 * padding[i] - extent + (stride[i] - 1 if ceil else 0)) // stride[i] + 1
        if ceil and (count - 1) * stride[i] >= size + padding[i]:
            count -= 1
        if count < 1:
            raise InvalidGraphError(
                f"a window of {extent} does not fit into {size} with padding {padding[i]}"
            )
        counts.append(count)
    return tuple(counts)
