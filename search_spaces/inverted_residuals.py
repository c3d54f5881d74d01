"""What spaces of inverted residual blocks share: how they fit images of any size, and a convolution with its norm."""

from collections.abc import Sequence
from math import log2

from nasgraph.ir import GraphBuilder

MIDDLE, LARGE = 32, 96
"""Sides of images from which on networks have half and full width."""


def usual_width(side: int) -> float:
    """Small images need no networks of full width, whose first layers do not halve them here."""
    return 1.0 if side >= LARGE else 0.5 if side >= MIDDLE else 0.25


def fitted_strides(side: int, stages: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Stride of the stem and of the stages: the last halvings are kept, as many as leave four positions."""
    halvings = max(0, min(5, int(log2(side / 4))))
    strides = [2, *stages]
    spare = strides.count(2) - halvings
    for place, stride in enumerate(strides):
        if stride == 2 and spare > 0:
            strides[place], spare = 1, spare - 1
    return strides[0], tuple(strides[1:])


def conv_norm(
    graph: GraphBuilder, x: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, act: str = ""
) -> int:
    """A convolution that keeps the size but for its stride, a batch norm, and an activation if one is named."""
    x = graph(
        "conv2d",
        x,
        out_channels=width,
        kernel_size=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )
    x = graph("batch_norm", x)
    return graph(act, x) if act else x
