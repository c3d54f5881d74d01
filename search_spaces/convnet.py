"""A diverse space of small convolutional networks, in the spirit of DeepNets-1M (Knyazev et al., "Parameter
Prediction for Unseen Deep Architectures", 2021).

A network is a stem, one to four stages of blocks with a down-sampling between stages, and a head. One norm and one
activation serve the whole network; each block has a kind, a kernel and perhaps squeeze-and-excitation of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log2, prod

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

NORMS = ("batch", "group", "layer", "none")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "tanh")
KINDS = ("conv", "separable", "dilated", "bottleneck", "inverted", "residual", "dense", "cell")
BRANCHES = ("conv1", "conv3", "conv5", "sep3", "dil3", "max3", "avg3", "skip")
SMALLEST, LARGEST = 8, 64
FLATTEN_UP_TO = 36
"""Most positions that may be left where the head is allowed to flatten instead of taking the mean."""


class ConvNet(SearchSpace):
    """Convolutional networks for images of any size from 8x8 to 64x64.

    Settled by the input shape: sides below 12 give two stages, below 23 three, from 23 on four; from 48 on the stem
    halves the image too. Everything else is a choice: kernel of the stem, first width, blocks per stage,
    widening and kind of each down-sampling, norm, activation, head, and for every block its kind with kernel
    size, branches, squeeze-and-excitation. Convolutions have a bias exactly where the network has no norm.

    Args:
        input_shape: `(channels, height, width)`.
        num_classes: Length of the output.
        widths: Channels that the first stage may have, multiples of four.
        max_width: Channels are never widened beyond this multiple of four.
        max_blocks: Most blocks per stage; at most three for up to two stages and two for more if not given.

    Raises:
        NasGraphError: If the input is no image of that size, or a setting is out of bounds.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        widths: tuple[int, ...] = (8, 12, 16, 24, 32),
        max_width: int = 64,
        max_blocks: int | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if len(self.input_shape) != 3 or not all(
            SMALLEST <= side <= LARGEST for side in self.input_shape[1:]
        ):
            raise NasGraphError(
                f"The space 'convnet' expects images (channels, height, width) with sides of {SMALLEST} to {LARGEST} "
                f"(got shape {self.input_shape})"
            )
        if num_classes < 1:
            raise NasGraphError(f"Expected 'num_classes' to be at least 1 (got {num_classes})")
        if (
            not widths
            or any(width < 4 or width % 4 for width in (*widths, max_width))
            or max(widths) > max_width
        ):
            raise NasGraphError(
                "Expected 'widths' and 'max_width' to be multiples of four, and no width above the largest "
                f"(got {widths} and {max_width})"
            )
        side = min(self.input_shape[1:])
        self._stem_stride = 2 if side >= 48 else 1
        self._num_stages = 1 + max(1, round(log2(side / self._stem_stride / 4)))
        self._widths = widths
        self._max_width = max_width
        self._max_blocks = (3 if self._num_stages <= 2 else 2) if max_blocks is None else max_blocks
        if not 1 <= self._max_blocks <= 8:
            raise NasGraphError(f"Expected 'max_blocks' to be 1 to 8 (got {max_blocks})")

    @property
    def name(self) -> str:
        return "convnet"

    def build(self, choose: Chooser) -> ComputationalGraph:
        pen = _Pen(
            GraphBuilder(), choose.categorical("norm", NORMS), choose.categorical("activation", ACTIVATIONS)
        )
        excite = choose.categorical("squeeze_excite", ("none", "some")) == "some"
        x = pen.graph("input", shape=self.input_shape)
        width = choose.categorical("width", self._widths)
        x = pen.conv(x, width, choose.categorical("stem_kernel", (1, 3, 5)), stride=self._stem_stride)
        for stage in range(self._num_stages):
            if stage > 0:
                x = self._transition(pen, choose, x, f"stage{stage}")
            # The first stage may be empty, since the stem stands before it.
            for block in range(choose.integer(f"stage{stage}_blocks", int(stage > 0), self._max_blocks)):
                x = _block(pen, choose, x, f"stage{stage}_block{block}", excite)
        return pen.graph.finish(self._head(pen, choose, x))

    def _transition(self, pen: "_Pen", choose: Chooser, x: int, at: str) -> int:
        """Halve the image and perhaps widen it."""
        widen = choose.categorical(f"{at}_widen", (1.0, 1.5, 2.0))
        width = min(_multiple_of_four(pen.width(x) * widen), self._max_width)
        down = choose.categorical(f"{at}_down", ("max", "avg", "conv"))
        if down == "conv":
            return pen.conv(x, width, 3, stride=2)
        x = pen.graph(f"{down}_pool2d", x, kernel_size=2, stride=2)
        return x if width == pen.width(x) else pen.conv(x, width, 1)

    def _head(self, pen: "_Pen", choose: Chooser, x: int) -> int:
        small = prod(pen.graph.shape(x)[1:]) <= FLATTEN_UP_TO
        flatten = small and choose.categorical("head", ("mean", "flatten")) == "flatten"
        features = pen.graph("flatten" if flatten else "global_avg_pool2d", x)
        return pen.graph("linear", features, out_features=self.num_classes)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes convolutions with the norm and the activation of the network."""

    graph: GraphBuilder
    norm: str
    activation: str

    def width(self, x: int) -> int:
        return self.graph.shape(x)[0]

    def conv(
        self,
        x: int,
        width: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> int:
        x = self.graph(
            "conv2d",
            x,
            out_channels=width,
            kernel_size=kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=self.norm == "none",
        )
        if self.norm == "batch":
            x = self.graph("batch_norm", x)
        elif self.norm != "none":
            x = self.graph("group_norm", x, groups=4 if self.norm == "group" else 1)
        return self.act(x) if act else x

    def act(self, x: int) -> int:
        return self.graph(self.activation, x)


def _multiple_of_four(width: float) -> int:
    return 4 * ceil(width / 4)


# ---- blocks: all keep the shape


def _block(pen: _Pen, choose: Chooser, x: int, at: str, excite: bool) -> int:
    kind = choose.categorical(f"{at}_kind", KINDS)
    if kind == "cell":
        x = _cell(pen, choose, x, at)
    elif kind in _SMALL_KERNELS:
        x = _SMALL_KERNELS[kind](pen, x, choose.categorical(f"{at}_kernel", (1, 3, 5)))
    else:
        x = _LARGE_KERNELS[kind](pen, x, choose.categorical(f"{at}_window", (3, 5)))
    return _squeeze_excite(pen, x) if excite and choose.categorical(f"{at}_excite", (False, True)) else x


def _conv(pen: _Pen, x: int, kernel: int) -> int:
    return pen.conv(x, pen.width(x), kernel)


def _residual(pen: _Pen, x: int, kernel: int) -> int:
    y = pen.conv(pen.conv(x, pen.width(x), kernel), pen.width(x), kernel, act=False)
    return pen.act(pen.graph("add", x, y))


def _dense(pen: _Pen, x: int, kernel: int) -> int:
    grown = pen.conv(x, _multiple_of_four(pen.width(x) / 2), kernel)
    return pen.conv(pen.graph("concat", x, grown), pen.width(x), 1)


def _separable(pen: _Pen, x: int, kernel: int) -> int:
    width = pen.width(x)
    return pen.conv(pen.conv(x, width, kernel, groups=width), width, 1)


def _dilated(pen: _Pen, x: int, kernel: int) -> int:
    return pen.conv(x, pen.width(x), kernel, dilation=2)


def _bottleneck(pen: _Pen, x: int, kernel: int) -> int:
    middle = _multiple_of_four(pen.width(x) / 2)
    y = pen.conv(pen.conv(x, middle, 1), middle, kernel, groups=4)
    return pen.act(pen.graph("add", x, pen.conv(y, pen.width(x), 1, act=False)))


def _inverted(pen: _Pen, x: int, kernel: int) -> int:
    wide = 2 * pen.width(x)
    y = pen.conv(pen.conv(x, wide, 1), wide, kernel, groups=wide)
    return pen.graph("add", x, pen.conv(y, pen.width(x), 1, act=False))


_SMALL_KERNELS: Mapping[str, Callable[[_Pen, int, int], int]] = {
    "conv": _conv,
    "residual": _residual,
    "dense": _dense,
}
_LARGE_KERNELS: Mapping[str, Callable[[_Pen, int, int], int]] = {
    "separable": _separable,
    "dilated": _dilated,
    "bottleneck": _bottleneck,
    "inverted": _inverted,
}


def _cell(pen: _Pen, choose: Chooser, x: int, at: str) -> int:
    """Two branches, joined by sum or concatenation, with or without the input added at the end."""
    left = _branch(pen, x, choose.categorical(f"{at}_left", BRANCHES))
    right = _branch(pen, x, choose.categorical(f"{at}_right", BRANCHES))
    if choose.categorical(f"{at}_join", ("sum", "concat")) == "sum":
        joined = pen.graph("add", left, right)
    else:
        joined = pen.conv(pen.graph("concat", left, right), pen.width(x), 1)
    return pen.graph("add", joined, x) if choose.categorical(f"{at}_skip", (False, True)) else joined


def _branch(pen: _Pen, x: int, branch: str) -> int:
    if branch == "skip":
        return x
    if branch in ("max3", "avg3"):
        return pen.graph(f"{branch[:3]}_pool2d", x, kernel_size=3, stride=1, padding=1)
    kernel = int(branch[-1])
    if branch == "sep3":
        return _separable(pen, x, kernel)
    return _dilated(pen, x, kernel) if branch == "dil3" else _conv(pen, x, kernel)


def _squeeze_excite(pen: _Pen, x: int) -> int:
    """Scale each channel by a gate that sees the means of all channels (Hu et al. 2018)."""
    width = pen.width(x)
    squeezed = pen.graph(
        "linear", pen.graph("global_avg_pool2d", x), out_features=_multiple_of_four(width / 4)
    )
    gate = pen.graph("hardsigmoid", pen.graph("linear", pen.graph("relu", squeezed), out_features=width))
    return pen.graph("mul", x, pen.graph("reshape", gate, shape=(width, 1, 1)))
