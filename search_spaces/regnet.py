"""AnyNet and RegNet (Radosavovic et al., "Designing Network Design Spaces", 2020).

A stem, stages of residual bottleneck blocks with grouped convolutions, the mean, a linear map. AnyNet leaves depth, width,
bottleneck and group width of every stage free; in RegNet the widths of all blocks follow from three numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace
from nasgraph.spaces.scaling import Scale, scaled_depth

STEM_WIDTH = 32
SMALLEST, LARGEST, LARGE = 8, 1024, 96
FEWEST_POSITIONS = 4
MAX_WIDTH = 8192
BLOCKS = ("x", "y")
"""Bottleneck without and with squeeze-and-excitation."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width.

    Attributes:
        depth: How many.
        width: Channels that they give.
        middle: Channels between their two convolutions 1x1.
        group_width: Channels per group of the convolution in the middle; divides `middle`.
    """

    depth: int
    width: int
    middle: int
    group_width: int


def quantised_widths(
    depth: int, *, initial_width: float, slope: float, multiplier: float, divisor: int = 8
) -> list[int]:
    """Width of each block by the quantised-linear rule (Radosavovic et al. 2020, eqs. 2 to 4).

    `u_j = w_0 + w_a j` is taken to the nearest `w_0 w_m^s` with whole `s`, and that to a multiple of `divisor`.

    Args:
        depth: Number of blocks.
        initial_width: `w_0`, above 0.
        slope: `w_a`, at least 0.
        multiplier: `w_m`, above 1.
        divisor: What divides every width.
    """
    widths = []
    for block in range(depth):
        linear = initial_width + slope * block  # eq. 2
        exponent = round(log(linear / initial_width) / log(multiplier))  # eq. 3
        quantised = initial_width * multiplier**exponent  # eq. 4
        widths.append(max(divisor, round(quantised / divisor) * divisor))
    return widths


def compatible_stage(depth: int, *, width: int, bottleneck: int, group_width: int) -> Stage:
    """A stage whose middle is a whole number of groups: the nearest to the width asked for (ibid., appendix)."""
    wanted = max(1, width // bottleneck)
    group = min(group_width, wanted)
    middle = max(group, round(wanted / group) * group)
    return Stage(depth, middle * bottleneck, middle, group)


def scaled_stage(stage: Stage, scale: Scale) -> Stage:
    """A stage of more blocks and of more channels. Groups widen with it, or else its convolutions would not grow with the
    square of the width (Dollar et al., "Fast and Accurate Model Scaling", 2021, appendix)."""
    if scale == Scale():
        return stage
    return compatible_stage(
        scaled_depth(stage.depth, scale.depth),
        width=8 * max(1, round(stage.width * scale.width / 8)),
        bottleneck=stage.width // stage.middle,
        group_width=max(1, round(stage.group_width * scale.width)),
    )


@dataclass(frozen=True, slots=True)
class _Options:
    depths: tuple[int, ...]
    initial_widths: tuple[int, ...]
    slopes: tuple[float, ...]
    group_widths: tuple[int, ...]


_SMALL_IMAGES = _Options(tuple(range(3, 13)), (8, 16, 24, 32), (2.0, 4.0, 8.0, 16.0), (4, 8, 16))
_LARGE_IMAGES = _Options(
    tuple(range(12, 29)), (24, 32, 48, 64, 80, 96), (8.0, 16.0, 24.0, 32.0, 40.0, 56.0), (8, 16, 24, 32, 40)
)


class RegNet(SearchSpace):
    """RegNets: depth and widths by the quantised-linear rule, one bottleneck ratio and group width for all stages.

    Every stage halves the image as long as four positions are left in the shorter axis; below 96 pixels the stem does
    not halve it. The options depend on the image size if they are not given: up to 12 blocks for small images, those
    of the paper otherwise. Published networks are in the space with their numbers as options.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 1,024.
        num_classes: Length of the output.
        depths: Numbers of blocks.
        initial_widths: `w_0`, multiples of eight.
        slopes: `w_a`.
        multipliers: `w_m`.
        group_widths: Channels per group.
        bottlenecks: Ratios from the width of a block to its middle.
        blocks: "x", or "y" with squeeze-and-excitation.
        depth, width: Multiples of all depths and of all widths and group widths: see `nasgraph.spaces.scaling`.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        depths: tuple[int, ...] | None = None,
        initial_widths: tuple[int, ...] | None = None,
        slopes: tuple[float, ...] | None = None,
        multipliers: tuple[float, ...] = (1.5, 2.0, 2.5, 3.0),
        group_widths: tuple[int, ...] | None = None,
        bottlenecks: tuple[int, ...] = (1,),
        blocks: tuple[str, ...] = BLOCKS,
        depth: float = 1.0,
        width: float = 1.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        _check_image("regnet", self)
        usual = _LARGE_IMAGES if min(self.input_shape[1:]) >= LARGE else _SMALL_IMAGES
        self._depths = usual.depths if depths is None else depths
        self._initial_widths = usual.initial_widths if initial_widths is None else initial_widths
        self._slopes = usual.slopes if slopes is None else slopes
        self._multipliers = multipliers
        self._group_widths = usual.group_widths if group_widths is None else group_widths
        self._bottlenecks, self._blocks = bottlenecks, blocks
        _check_numbers("depths", self._depths, 1, 200)
        _check_numbers("initial_widths", self._initial_widths, 8, 1024)
        _check_numbers("slopes", self._slopes, 0, 1024)
        _check_numbers("multipliers", self._multipliers, 1.1, 8)
        _check_numbers("group_widths", self._group_widths, 1, 1024)
        _check_numbers("bottlenecks", self._bottlenecks, 1, 8)
        _check_blocks(self._blocks)
        self._scale = Scale(depth, width)
        most = width * (max(self._initial_widths) + max(self._slopes) * max(self._depths))
        if most > MAX_WIDTH:
            raise NasGraphError(f"Expected widths up to {MAX_WIDTH:,} (the options reach {most:,.0f})")

    @property
    def name(self) -> str:
        return "regnet"

    def build(self, choose: Chooser) -> ComputationalGraph:
        widths = quantised_widths(
            choose.categorical("depth", self._depths),
            initial_width=choose.categorical("initial_width", self._initial_widths),
            slope=choose.categorical("slope", self._slopes),
            multiplier=choose.categorical("multiplier", self._multipliers),
        )
        group_width = choose.categorical("group_width", self._group_widths)
        bottleneck = choose.categorical("bottleneck", self._bottlenecks)
        excite = choose.categorical("block", self._blocks) == "y"
        stages = [
            compatible_stage(len(list(alike)), width=width, bottleneck=bottleneck, group_width=group_width)
            for width, alike in groupby(widths)
        ]
        return _network(self, [scaled_stage(stage, self._scale) for stage in stages], excite=excite)


class AnyNet(SearchSpace):
    """AnyNets: depth, width, bottleneck and group width of each of four stages, all free.

    The design space from which RegNet was narrowed down. Widths are taken to the nearest that the groups divide. Stages
    halve the image as in `RegNet`.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 1,024.
        num_classes: Length of the output.
        max_depth: Most blocks per stage; 16 from sides of 96 on and 4 otherwise, if not given.
        widths: Channels of a stage; if not given 16 multiples of 64 from sides of 96 on, and of 8 otherwise.
        bottlenecks: Ratios from the width of a block to its middle.
        group_widths: Channels per group.
        num_stages: Stages, four in the paper; two if not given for images of less than 16 pixels.
        blocks: "x", or "y" with squeeze-and-excitation.
        depth, width: Multiples of all depths and of all widths and group widths: see `nasgraph.spaces.scaling`.

    Raises:
        NasGraphError: If the input is no such image, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        max_depth: int | None = None,
        widths: tuple[int, ...] | None = None,
        bottlenecks: tuple[int, ...] = (1, 2, 4),
        group_widths: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
        num_stages: int | None = None,
        blocks: tuple[str, ...] = BLOCKS,
        depth: float = 1.0,
        width: float = 1.0,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        _check_image("anynet", self)
        side = min(self.input_shape[1:])
        self._max_depth = (16 if side >= LARGE else 4) if max_depth is None else max_depth
        usual = tuple((64 if side >= LARGE else 8) * step for step in range(1, 17))
        self._widths = usual if widths is None else widths
        self._bottlenecks, self._group_widths, self._blocks = bottlenecks, group_widths, blocks
        self._num_stages = (4 if side >= 16 else 2) if num_stages is None else num_stages
        _check_numbers("max_depth", (self._max_depth,), 1, 64)
        _check_numbers("widths", self._widths, 4, MAX_WIDTH)
        _check_numbers("bottlenecks", self._bottlenecks, 1, 8)
        _check_numbers("group_widths", self._group_widths, 1, 1024)
        _check_numbers("num_stages", (self._num_stages,), 1, 8)
        _check_blocks(self._blocks)
        self._scale = Scale(depth, width)

    @property
    def name(self) -> str:
        return "anynet"

    def build(self, choose: Chooser) -> ComputationalGraph:
        stages = [
            compatible_stage(
                choose.integer(f"stage{stage}_depth", 1, self._max_depth),
                width=choose.categorical(f"stage{stage}_width", self._widths),
                bottleneck=choose.categorical(f"stage{stage}_bottleneck", self._bottlenecks),
                group_width=choose.categorical(f"stage{stage}_group_width", self._group_widths),
            )
            for stage in range(self._num_stages)
        ]
        excite = choose.categorical("block", self._blocks) == "y"
        return _network(self, [scaled_stage(stage, self._scale) for stage in stages], excite=excite)


def _check_image(name: str, space: SearchSpace) -> None:
    shape = space.input_shape
    if len(shape) != 3 or shape[0] < 1 or not all(SMALLEST <= side <= LARGEST for side in shape[1:]):
        raise NasGraphError(
            f"The space '{name}' expects images (channels, height, width) with sides of {SMALLEST} to {LARGEST:,} "
            f"(got shape {shape})"
        )
    if space.num_classes < 1:
        raise NasGraphError(f"Expected 'num_classes' to be at least 1 (got {space.num_classes})")


def _check_numbers(name: str, options: Sequence[float], low: float, high: float) -> None:
    if not options or len(set(options)) != len(options) or not all(low <= each <= high for each in options):
        raise NasGraphError(f"Expected '{name}' of {low:g} to {high:g} without repeats (got {options})")


def _check_blocks(blocks: Sequence[str]) -> None:
    if not blocks or len(set(blocks)) != len(blocks) or not set(blocks) <= set(BLOCKS):
        raise NasGraphError(f"Expected 'blocks' to be 'x', 'y' or both (got {blocks})")


# ---- the network


def _network(space: SearchSpace, stages: Sequence[Stage], *, excite: bool) -> ComputationalGraph:
    pen = _Pen(GraphBuilder(), excite)
    x = pen.graph("input", shape=space.input_shape)
    x = pen.conv(x, STEM_WIDTH, 3, stride=2 if min(space.input_shape[1:]) >= LARGE else 1, relu=True)
    for stage in stages:
        stride = 2 if min(pen.graph.shape(x)[1:]) >= 2 * FEWEST_POSITIONS - 1 else 1
        for block in range(stage.depth):
            x = pen.block(x, stage, stride if block == 0 else 1)
    features = pen.graph("global_avg_pool2d", x)
    return pen.graph.finish(pen.graph("linear", features, out_features=space.num_classes))


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes convolutions with batch norms, and blocks."""

    graph: GraphBuilder
    excite: bool

    def conv(
        self, x: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = False
    ) -> int:
        x = self.graph(
            "conv2d",
            x,
            out_channels=width,
            kernel_size=kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        x = self.graph("batch_norm", x)
        return self.graph("relu", x) if relu else x

    def block(self, x: int, stage: Stage, stride: int) -> int:
        """A residual bottleneck (ibid., figure 4); "y" has squeeze-and-excitation to a quarter of the channels that come in."""
        channels = self.graph.shape(x)[0]
        y = self.conv(x, stage.middle, 1, relu=True)
        groups = stage.middle // stage.group_width
        y = self.conv(y, stage.middle, 3, stride=stride, groups=groups, relu=True)
        if self.excite:
            y = self._squeeze_excite(y, max(1, round(channels / 4)))
        y = self.conv(y, stage.width, 1)
        if stride == 1 and channels == stage.width:
            return self.graph("relu", self.graph("add", x, y))
        return self.graph("relu", self.graph("add", self.conv(x, stage.width, 1, stride=stride), y))

    def _squeeze_excite(self, x: int, squeezed: int) -> int:
        width = self.graph.shape(x)[0]
        y = self.graph("linear", self.graph("global_avg_pool2d", x), out_features=squeezed)
        gate = self.graph("sigmoid", self.graph("linear", self.graph("relu", y), out_features=width))
        return self.graph("mul", x, self.graph("reshape", gate, shape=(width, 1, 1)))
