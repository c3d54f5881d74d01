"""Inverted residuals with squeeze-and-excitation: MobileNetV3 and the once-for-all space around it.

Howard et al., "Searching for MobileNetV3", 2019; Cai et al., "Once for All: Train One Network and Specialize it for
Efficient Deployment", 2020. Five stages of blocks; each block has a kernel and an expansion of its own.
"""

from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace
from nasgraph.spaces.scaling import divisible
from search_spaces.inverted_residuals import conv_norm, fitted_strides, usual_width

KERNELS = (3, 5, 7)
EXPANSIONS = (3.0, 4.0, 6.0)
DEPTHS = (2, 3, 4)
WIDTHS = (24, 40, 80, 112, 160)
"""Channels of the five stages at width one."""
STRIDES = (2, 2, 2, 1, 2)
EXCITED = (False, True, False, True, True)
"""Which stages have squeeze-and-excitation."""
HARD_SWISH_FROM = 2
"""First stage with hard swish in place of ReLU."""
FIRST, HIDDEN = 16, 1280
SMALLEST, LARGEST = 8, 1024


class MobileNetV3(SearchSpace):
    """The once-for-all space: kernel, expansion and depth of five stages of inverted residuals.

    A stem and one block without expansion come first, a convolution to six times the last width, the mean, and a hidden
    layer of 1,280 last. Without settings the 243 depths times kernels and expansions make about 10^19 networks.
    The resolution is that of `input_shape`: images below 128 pixels keep their size where the original halves it (the stem
    first, then the early stages), so that at least 4 x 4 positions are left where the image has them.
    MobileNetV3-Large itself is in the space with `expansions=(2.3, 2.5, 3, 4, 6)`.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 1,024.
        num_classes: Length of the output.
        width: Multiplier of all channels, 1.0 or 1.2 in the paper; channels are rounded to multiples of eight. If not
            given 1.0 from sides of 96 on, 0.5 from 32 on, and 0.25 below.
        kernels: Odd sides of the depthwise kernels.
        expansions: Factors from the channels of a block to those in its middle.
        depths: Blocks per stage.
        drop_path: Chance with which the value of the last block is dropped (Huang et al. 2016); it grows linearly from 0
            over the blocks. At 0 no such nodes are written.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        width: float | None = None,
        kernels: tuple[int, ...] = KERNELS,
        expansions: tuple[float, ...] = EXPANSIONS,
        depths: tuple[int, ...] = DEPTHS,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        sides = self.input_shape[1:]
        if len(self.input_shape) != 3 or not all(SMALLEST <= side <= LARGEST for side in sides):
            raise NasGraphError(
                f"The space 'mobilenetv3' expects images (channels, height, width) with sides of {SMALLEST} to "
                f"{LARGEST:,} (got shape {self.input_shape})"
            )
        width = usual_width(min(sides)) if width is None else width
        _check_settings(num_classes, width, kernels, expansions, depths, drop_path)
        self._width, self._kernels, self._depths = width, kernels, depths
        self._expansions = tuple(float(factor) for factor in expansions)
        self._drop_path = drop_path
        self._stem_stride, self._strides = fitted_strides(min(sides), STRIDES)

    @property
    def name(self) -> str:
        return "mobilenetv3"

    def build(self, choose: Chooser) -> ComputationalGraph:
        pen = _Pen(GraphBuilder())
        x = pen.graph("input", shape=self.input_shape)
        x = pen.conv(x, self._scaled(FIRST), 3, stride=self._stem_stride, act="hardswish")
        x = pen.residual(x, pen.conv(pen.depthwise(x, 3, 1, "relu"), self._scaled(FIRST), 1))
        depths = [choose.categorical(f"stage{stage}_depth", self._depths) for stage in range(len(WIDTHS))]
        place, most = 0, sum(depths)
        for stage, depth in enumerate(depths):
            for block in range(depth):
                place += 1
                inverted = _Block(
                    width=self._scaled(WIDTHS[stage]),
                    kernel=choose.categorical(f"stage{stage}_block{block}_kernel", self._kernels),
                    expansion=choose.categorical(f"stage{stage}_block{block}_expansion", self._expansions),
                    stride=self._strides[stage] if block == 0 else 1,
                    excite=EXCITED[stage],
                    act="hardswish" if stage >= HARD_SWISH_FROM else "relu",
                    drop_path=self._drop_path * place / most,
                )
                x = inverted.write(pen, x)
        x = pen.conv(x, divisible(6 * self._scaled(WIDTHS[-1])), 1, act="hardswish")
        hidden = divisible(HIDDEN * max(1.0, self._width))
        x = pen.graph("linear", pen.graph("global_avg_pool2d", x), out_features=hidden)
        return pen.graph.finish(pen.graph("linear", pen.graph("hardswish", x), out_features=self.num_classes))

    def _scaled(self, channels: int) -> int:
        return divisible(channels * self._width)


def _check_settings(
    num_classes: int,
    width: float,
    kernels: tuple[int, ...],
    expansions: tuple[float, ...],
    depths: tuple[int, ...],
    drop_path: float,
) -> None:
    if num_classes < 1 or not 0.1 <= width <= 16:
        raise NasGraphError(
            f"Expected 'num_classes' of at least 1 and 'width' of 0.1 to 16 (got {num_classes} and {width})"
        )
    if not kernels or any(kernel % 2 == 0 or not 1 <= kernel <= 15 for kernel in kernels):
        raise NasGraphError(f"Expected 'kernels' to be odd numbers up to 15 (got {kernels})")
    if not expansions or any(not 1 <= factor <= 16 for factor in expansions):
        raise NasGraphError(f"Expected 'expansions' of 1 to 16 (got {expansions})")
    if not depths or any(not 1 <= depth <= 16 for depth in depths):
        raise NasGraphError(f"Expected 'depths' of 1 to 16 (got {depths})")
    if any(len(set(options)) != len(options) for options in (kernels, expansions, depths)):
        raise NasGraphError("Expected 'kernels', 'expansions' and 'depths' without repeats")
    if not 0 <= drop_path < 1:
        raise NasGraphError(f"Expected 'drop_path' in [0, 1) (got {drop_path})")


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes convolutions with batch norms."""

    graph: GraphBuilder

    def width(self, x: int) -> int:
        return self.graph.shape(x)[0]

    def conv(
        self, x: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, act: str = ""
    ) -> int:
        return conv_norm(self.graph, x, width, kernel, stride=stride, groups=groups, act=act)

    def depthwise(self, x: int, kernel: int, stride: int, act: str) -> int:
        return self.conv(x, self.width(x), kernel, stride=stride, groups=self.width(x), act=act)

    def excite(self, x: int) -> int:
        """Squeeze-and-excitation (Hu et al. 2018) with a hard sigmoid, to a quarter of the channels."""
        width = self.width(x)
        squeezed = self.graph("linear", self.graph("global_avg_pool2d", x), out_features=divisible(width / 4))
        gate = self.graph("linear", self.graph("relu", squeezed), out_features=width)
        gate = self.graph("reshape", self.graph("hardsigmoid", gate), shape=(width, 1, 1))
        return self.graph("mul", x, gate)

    def residual(self, x: int, value: int, *, drop_path: float = 0.0) -> int:
        """`x + value` where the shapes are equal, otherwise `value`."""
        if self.graph.shape(x) != self.graph.shape(value):
            return value
        if drop_path > 0:
            value = self.graph("drop_path", value, p=drop_path)
        return self.graph("add", x, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """An inverted residual (Sandler et al. 2018): widen, depthwise convolution, excite, narrow."""

    width: int
    kernel: int
    expansion: float
    stride: int
    excite: bool
    act: str
    drop_path: float

    def write(self, pen: _Pen, x: int) -> int:
        y = pen.conv(x, divisible(pen.width(x) * self.expansion), 1, act=self.act)
        y = pen.depthwise(y, self.kernel, self.stride, self.act)
        if self.excite:
            y = pen.excite(y)
        y = pen.conv(y, self.width, 1)
        return pen.residual(x, y, drop_path=self.drop_path)
