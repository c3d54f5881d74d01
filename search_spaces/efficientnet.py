"""EfficientNet and the space around it: stages of MBConv blocks with squeeze-and-excitation.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019. The choices are those of the
factorised hierarchical space in which its base was found (Tan et al., "MnasNet: Platform-Aware Neural Architecture
Search for Mobile", 2019, section 4.1): kernel, expansion, excitation, width and depth of each stage.
"""

from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Architecture, Choice, Chooser, SearchSpace
from nasgraph.spaces.scaling import divisible, scaled_depth
from search_spaces.inverted_residuals import conv_norm, fitted_strides, usual_width

KERNELS = (3, 5)
EXPANSIONS = (3, 6)
WIDTH_RATIOS = (0.75, 1.0, 1.25)
DEPTH_CHANGES = (-1, 0, 1)
WIDTHS = (16, 24, 40, 80, 112, 192, 320)
"""Channels of the seven stages of B0."""
DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of the stages of B0."""
B0_KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
STEM, HEAD = 32, 1280
SMALLEST, LARGEST = 8, 1024


class EfficientNet(SearchSpace):
    """Networks of seven stages of MBConv blocks around EfficientNet-B0, of any scale.

    The resolution is that of `input_shape`: images below 128 pixels keep their size where the original halves it (the
    stem first, then the early stages), so that at least 4 x 4 positions are left where the image has them. Blocks of
    a stage are alike; the first stage has no expansion.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 1,024.
        num_classes: Length of the output.
        depth: Multiple of the blocks of every stage, as of compound scaling: see `nasgraph.spaces.scaling`.
        width: Multiple of all channels of B0. If not given 1.0 from sides of 96 on, 0.5 from 32 on, and 0.25 below.
        drop_path: Chance with which the value of the last block is dropped (Huang et al. 2016); it grows linearly from 0
            over the blocks. 0.2 in the paper; at 0 no such nodes are written.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        depth: float = 1.0,
        width: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        sides = self.input_shape[1:]
        if len(self.input_shape) != 3 or not all(SMALLEST <= side <= LARGEST for side in sides):
            raise NasGraphError(
                f"The space 'efficientnet' expects images (channels, height, width) with sides of {SMALLEST} to "
                f"{LARGEST:,} (got shape {self.input_shape})"
            )
        if num_classes < 1:
            raise NasGraphError(f"Expected 'num_classes' to be at least 1 (got {num_classes})")
        width = usual_width(min(sides)) if width is None else width
        if not 0.1 <= depth <= 16 or not 0.1 <= width <= 16:
            raise NasGraphError(f"Expected 'depth' and 'width' of 0.1 to 16 (got {depth} and {width})")
        if not 0 <= drop_path < 1:
            raise NasGraphError(f"Expected 'drop_path' in [0, 1) (got {drop_path})")
        self._depth, self._width, self._drop_path = depth, width, drop_path
        self._stem_stride, self._strides = fitted_strides(min(sides), STRIDES)

    @property
    def name(self) -> str:
        return "efficientnet"

    def build(self, choose: Chooser) -> ComputationalGraph:
        stages = [self._ask(choose, place) for place in range(len(WIDTHS))]
        pen = _Pen(GraphBuilder())
        x = pen.graph("input", shape=self.input_shape)
        x = pen.conv(x, divisible(STEM * self._width), 3, stride=self._stem_stride, act=True)
        done, blocks = 0, sum(stage.depth for stage in stages)
        for stage in stages:
            for place in range(stage.depth):
                drop_path = self._drop_path * done / blocks
                x = stage.block(pen, x, stage.stride if place == 0 else 1, drop_path)
                done += 1
        x = pen.conv(x, divisible(HEAD * self._width), 1, act=True)
        features = pen.graph("global_avg_pool2d", x)
        return pen.graph.finish(pen.graph("linear", features, out_features=self.num_classes))

    def _ask(self, choose: Chooser, place: int) -> "_Stage":
        at = f"stage{place}"
        kernel = choose.categorical(f"{at}_kernel", KERNELS)
        expansion = choose.categorical(f"{at}_expansion", EXPANSIONS) if place > 0 else 1
        ratio = choose.categorical(f"{at}_width", WIDTH_RATIOS)
        changes = [change for change in DEPTH_CHANGES if DEPTHS[place] + change > 0]
        depth = DEPTHS[place] + choose.categorical(f"{at}_depth", changes)
        return _Stage(
            kernel=kernel,
            expansion=expansion,
            excite=choose.categorical(f"{at}_excite", (True, False)),
            width=divisible(WIDTHS[place] * ratio * self._width),
            depth=scaled_depth(depth, self._depth),
            stride=self._strides[place],
        )


def efficientnet_b0() -> Architecture:
    """The choices of EfficientNet-B0 (Tan and Le 2019, table 1), for the space at any scale."""
    choices: list[tuple[str, Choice]] = []
    for place, kernel in enumerate(B0_KERNELS):
        at = f"stage{place}"
        choices.append((f"{at}_kernel", kernel))
        if place > 0:
            choices.append((f"{at}_expansion", 6))
        choices += [(f"{at}_width", 1.0), (f"{at}_depth", 0), (f"{at}_excite", True)]
    return Architecture("efficientnet", tuple(choices))


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes convolutions with batch norms."""

    graph: GraphBuilder

    def width(self, x: int) -> int:
        return self.graph.shape(x)[0]

    def conv(
        self, x: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = False
    ) -> int:
        return conv_norm(
            self.graph, x, width, kernel, stride=stride, groups=groups, act="silu" if act else ""
        )

    def excite(self, x: int, squeezed: int) -> int:
        """Squeeze-and-excitation (Hu et al. 2018)."""
        width = self.width(x)
        y = self.graph("linear", self.graph("global_avg_pool2d", x), out_features=squeezed)
        gate = self.graph("sigmoid", self.graph("linear", self.graph("silu", y), out_features=width))
        return self.graph("mul", x, self.graph("reshape", gate, shape=(width, 1, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Blocks of one form."""

    kernel: int
    expansion: int
    excite: bool
    width: int
    depth: int
    stride: int

    def block(self, pen: _Pen, x: int, stride: int, drop_path: float) -> int:
        """MBConv (Sandler et al. 2018), with squeeze-and-excitation to a quarter of the channels that come in."""
        channels = pen.width(x)
        middle = channels * self.expansion
        y = x if self.expansion == 1 else pen.conv(x, middle, 1, act=True)
        y = pen.conv(y, middle, self.kernel, stride=stride, groups=middle, act=True)
        if self.excite:
            y = pen.excite(y, max(1, channels // 4))
        y = pen.conv(y, self.width, 1)
        if pen.graph.shape(x) != pen.graph.shape(y):
            return y
        if drop_path > 0:
            y = pen.graph("drop_path", y, p=drop_path)
        return pen.graph("add", x, y)
