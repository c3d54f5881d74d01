"""Networks that people designed, for small images: what a hypernetwork that was trained on a space is tested on.

Each keeps the structure of its paper; widths and depths are those for images of 32x32 pixels, or less.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Chooser, SearchSpace

SMALLEST, LARGEST = 8, 64


class Handmade(SearchSpace):
    """Twenty-three networks designed by hand, from LeNet to ConvNeXt, ViT and MLP-Mixer, for small images.

    One choice: the name of the network. From 48 pixels on, the stem of the residual and mobile ones halves the image.

    Args:
        input_shape: `(channels, height, width)` with sides of 8 to 64.
        num_classes: Length of the output.

    Raises:
        NasGraphError: If the input is no image of that size.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        sides = self.input_shape[1:]
        if len(self.input_shape) != 3 or not all(SMALLEST <= side <= LARGEST for side in sides):
            raise NasGraphError(
                f"The space 'handmade' expects images (channels, height, width) with sides of {SMALLEST} to {LARGEST} "
                f"(got shape {self.input_shape})"
            )
        if num_classes < 1:
            raise NasGraphError(f"Expected 'num_classes' to be at least 1 (got {num_classes})")

    @property
    def name(self) -> str:
        return "handmade"

    def build(self, choose: Chooser) -> ComputationalGraph:
        pen = _Pen(GraphBuilder(), 2 if min(self.input_shape[1:]) >= 48 else 1)
        features = NETWORKS[choose.categorical("network", tuple(NETWORKS))](
            pen, pen.graph("input", shape=self.input_shape)
        )
        return pen.graph.finish(pen.graph("linear", features, out_features=self.num_classes))


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes what the networks have in common."""

    graph: GraphBuilder
    stem_stride: int

    def width(self, x: int) -> int:
        return self.graph.shape(x)[0]

    def conv(
        self, x: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> int:
        return self.graph(
            "conv2d",
            x,
            out_channels=width,
            kernel_size=kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=bias,
        )

    def unit(
        self, x: int, width: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, act: str = "relu"
    ) -> int:
        """Convolution, batch norm and activation ("" for none)."""
        x = self.graph("batch_norm", self.conv(x, width, kernel, stride=stride, groups=groups))
        return self.graph(act, x) if act else x

    def plain(self, x: int, width: int, kernel: int = 3) -> int:
        """Convolution with bias, and ReLU."""
        return self.graph("relu", self.conv(x, width, kernel, bias=True))

    def pool(self, x: int, kind: str = "max") -> int:
        return self.graph(f"{kind}_pool2d", x, kernel_size=2, stride=2)

    def mean(self, x: int) -> int:
        return self.graph("global_avg_pool2d", x)

    def shortcut(self, x: int, width: int, stride: int) -> int:
        """`x`, or where the shape changes a projection of it (He et al. 2016, option B)."""
        if width == self.width(x) and stride == 1:
            return x
        return self.unit(x, width, 1, stride=stride, act="")

    def excite(self, x: int, *, squeeze: int = 4, act: str = "relu") -> int:
        """Squeeze-and-excitation (Hu et al. 2018)."""
        width = self.width(x)
        y = self.graph(act, self.graph("linear", self.mean(x), out_features=max(4, width // squeeze)))
        gate = self.graph("sigmoid", self.graph("linear", y, out_features=width))
        return self.graph("mul", x, self.graph("reshape", gate, shape=(width, 1, 1)))


Block = Callable[[_Pen, int, int, int], int]
"""Pen, input, width, stride to output."""


def _stages(pen: _Pen, x: int, block: Block, widths: tuple[int, ...], depth: int) -> int:
    """Stages of blocks; the first block of every stage but the first halves the image."""
    for stage, width in enumerate(widths):
        for place in range(depth):
            x = block(pen, x, width, 2 if stage and not place else 1)
    return x


# ---- plain networks


def _lenet(pen: _Pen, x: int) -> int:
    """LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998."""
    for width in (6, 16):
        x = pen.pool(pen.graph("tanh", pen.conv(x, width, 5, bias=True)), "avg")
    x = pen.graph("flatten", x)
    for size in (120, 84):
        x = pen.graph("tanh", pen.graph("linear", x, out_features=size))
    return x


def _vgg(pen: _Pen, x: int, *, norm: bool) -> int:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015."""
    for width, depth in ((32, 2), (64, 2), (128, 3)):
        for _ in range(depth):
            x = pen.unit(x, width) if norm else pen.plain(x, width)
        x = pen.pool(x)
    return pen.graph("relu", pen.graph("linear", pen.graph("flatten", x), out_features=128))


def _network_in_network(pen: _Pen, x: int) -> int:
    """Lin, Chen and Yan, "Network In Network", 2014."""
    for width, kernel in ((48, 5), (64, 5), (64, 3)):
        x = pen.plain(pen.plain(pen.plain(x, width, kernel), width, 1), width, 1)
        x = pen.pool(x)
    return pen.mean(x)


def _all_conv(pen: _Pen, x: int) -> int:
    """Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2015."""
    for width in (48, 96):
        x = pen.plain(pen.plain(x, width), width)
        x = pen.graph("relu", pen.conv(x, width, 3, stride=2, bias=True))
    return pen.mean(pen.plain(pen.plain(x, 96), 96, 1))


def _squeezenet(pen: _Pen, x: int) -> int:
    """Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016."""
    x = pen.plain(x, 32)
    for squeeze, expand in ((8, 32), (8, 32), (16, 64), (16, 64)):
        if expand > pen.width(x) // 2 and pen.width(x) > 32:
            x = pen.pool(x)
        y = pen.plain(x, squeeze, 1)
        x = pen.graph("concat", pen.plain(y, expand, 1), pen.plain(y, expand, 3))
    return pen.mean(x)


# ---- residual networks


def _basic(pen: _Pen, x: int, width: int, stride: int, *, excite: bool = False) -> int:
    y = pen.unit(pen.unit(x, width, stride=stride), width, act="")
    y = pen.excite(y) if excite else y
    return pen.graph("relu", pen.graph("add", y, pen.shortcut(x, width, stride)))


def _pre_activation(pen: _Pen, x: int, width: int, stride: int) -> int:
    y = pen.graph("relu", pen.graph("batch_norm", x))
    same = width == pen.width(x) and stride == 1
    shortcut = x if same else pen.conv(y, width, 1, stride=stride)
    y = pen.graph("relu", pen.graph("batch_norm", pen.conv(y, width, 3, stride=stride)))
    return pen.graph("add", pen.conv(y, width, 3), shortcut)


def _bottleneck(pen: _Pen, x: int, width: int, stride: int, *, groups: int = 1) -> int:
    middle = width // 2 if groups > 1 else width // 4
    y = pen.unit(pen.unit(x, middle, 1), middle, stride=stride, groups=groups)
    y = pen.unit(y, width, 1, act="")
    return pen.graph("relu", pen.graph("add", y, pen.shortcut(x, width, stride)))


def _residual(
    block: Block, widths: tuple[int, ...], depth: int, *, last_norm: bool = False
) -> "Callable[[_Pen, int], int]":
    """Stem, stages, mean. `last_norm`: for blocks that end without norm and activation."""

    def network(pen: _Pen, x: int) -> int:
        stem = min(widths[0], 16)
        if last_norm:
            x = pen.conv(x, stem, 3, stride=pen.stem_stride)
        else:
            x = pen.unit(x, stem, stride=pen.stem_stride)
        x = _stages(pen, x, block, widths, depth)
        return pen.mean(pen.graph("relu", pen.graph("batch_norm", x)) if last_norm else x)

    return network


# ---- networks that join by concatenation


def _densenet(pen: _Pen, x: int) -> int:
    """Huang et al., "Densely Connected Convolutional Networks", 2017 (DenseNet-BC, growth 12)."""
    x = pen.conv(x, 24, 3, stride=pen.stem_stride)
    for stage in range(3):
        if stage:
            y = pen.graph("relu", pen.graph("batch_norm", x))
            x = pen.pool(pen.conv(y, pen.width(x) // 2, 1), "avg")
        for _ in range(5):
            y = pen.conv(pen.graph("relu", pen.graph("batch_norm", x)), 48, 1)
            y = pen.conv(pen.graph("relu", pen.graph("batch_norm", y)), 12, 3)
            x = pen.graph("concat", x, y)
    return pen.mean(pen.graph("relu", pen.graph("batch_norm", x)))


def _inception(pen: _Pen, x: int) -> int:
    """Szegedy et al., "Going Deeper with Convolutions", 2015, with batch norms."""
    x = pen.unit(x, 32, stride=pen.stem_stride)
    for width in (16, 24, 32):
        for _ in range(2):
            pooled = pen.graph("max_pool2d", x, kernel_size=3, stride=1, padding=1)
            branches = (
                pen.unit(x, width, 1),
                pen.unit(pen.unit(x, width, 1), width, 3),
                pen.unit(pen.unit(x, width // 2, 1), width // 2, 5),
                pen.unit(pooled, width // 2, 1),
            )
            x = pen.graph("concat", *branches)
        x = pen.pool(x) if width < 32 else x
    return pen.mean(x)


# ---- mobile networks


def _mobilenet(pen: _Pen, x: int) -> int:
    """Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017."""

    def separable(pen: _Pen, x: int, width: int, stride: int) -> int:
        return pen.unit(pen.unit(x, pen.width(x), stride=stride, groups=pen.width(x)), width, 1)

    return pen.mean(_stages(pen, pen.unit(x, 24, stride=pen.stem_stride), separable, (32, 64, 128), 2))


def _inverted(
    pen: _Pen, x: int, width: int, stride: int, *, act: str, kernel: int = 3, excite: bool = False
) -> int:
    wide = 4 * pen.width(x)
    y = pen.unit(pen.unit(x, wide, 1, act=act), wide, kernel, stride=stride, groups=wide, act=act)
    y = pen.excite(y, squeeze=16, act=act) if excite else y
    y = pen.unit(y, width, 1, act="")
    return pen.graph("add", x, y) if width == pen.width(x) and stride == 1 else y


def _mobilenet_v2(pen: _Pen, x: int) -> int:
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018."""
    x = pen.unit(x, 16, stride=pen.stem_stride, act="relu6")
    x = _stages(pen, x, lambda *a: _inverted(*a, act="relu6"), (16, 24, 40), 2)
    return pen.mean(pen.unit(x, 128, 1, act="relu6"))


def _efficientnet(pen: _Pen, x: int) -> int:
    """Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019."""
    x = pen.unit(x, 16, stride=pen.stem_stride, act="silu")
    x = _stages(pen, x, lambda *a: _inverted(*a, act="silu", excite=True), (16, 24), 2)
    x = _stages(
        pen, pen.pool(x, "avg"), lambda *a: _inverted(*a, act="silu", kernel=5, excite=True), (40,), 2
    )
    return pen.mean(pen.unit(x, 128, 1, act="silu"))


def _shufflenet(pen: _Pen, x: int) -> int:
    """Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", 2018."""

    def block(pen: _Pen, x: int, width: int, stride: int) -> int:
        new = width if stride == 1 else width - pen.width(x)
        y = pen.unit(x, width // 4, 1, groups=4)
        channels, *sides = pen.graph.shape(y)
        y = pen.graph("reshape", y, shape=(4, channels // 4, *sides))
        y = pen.graph("reshape", pen.graph("permute", y, order=(1, 0, 2, 3)), shape=(channels, *sides))
        y = pen.unit(pen.unit(y, channels, stride=stride, groups=channels, act=""), new, 1, groups=4, act="")
        if stride == 1:
            return pen.graph("relu", pen.graph("add", x, y))
        pooled = pen.graph("avg_pool2d", x, kernel_size=3, stride=2, padding=1)
        return pen.graph("relu", pen.graph("concat", pooled, y))

    return pen.mean(_stages(pen, pen.unit(x, 32, stride=pen.stem_stride), block, (32, 64, 128), 3))


# ---- after transformers


def _patches(pen: _Pen, x: int, dim: int) -> int:
    """At most 8 x 8 patches, `(dim, rows, columns)`."""
    size = -(-max(pen.graph.shape(x)[1:]) // 8)
    return pen.graph("conv2d", x, out_channels=dim, kernel_size=size, stride=size, bias=True)


def _tokens(pen: _Pen, x: int) -> int:
    dim, rows, columns = pen.graph.shape(x)
    return pen.graph("permute", pen.graph("reshape", x, shape=(dim, rows * columns)), order=(1, 0))


def _perceptron(pen: _Pen, x: int, hidden: int) -> int:
    width = pen.graph.shape(x)[-1]
    y = pen.graph("gelu", pen.graph("linear", x, out_features=hidden))
    return pen.graph("linear", y, out_features=width)


def _vit(pen: _Pen, x: int) -> int:
    """Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, with the mean in place of the class token."""
    x = _tokens(pen, _patches(pen, x, 64))
    x = pen.graph("add", x, pen.graph("parameter", shape=pen.graph.shape(x)))
    for _ in range(6):
        y = pen.graph("layer_norm", x)
        q, k, v = (pen.graph("linear", y, out_features=64) for _ in range(3))
        y = pen.graph("linear", pen.graph("attention", q, k, v, num_heads=4), out_features=64)
        x = pen.graph("add", x, y)
        x = pen.graph("add", x, _perceptron(pen, pen.graph("layer_norm", x), 256))
    return pen.graph("mean", pen.graph("layer_norm", x), axis=0)


def _mixer(pen: _Pen, x: int) -> int:
    """Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", 2021."""
    x = _tokens(pen, _patches(pen, x, 64))
    for _ in range(4):
        y = pen.graph("permute", pen.graph("layer_norm", x), order=(1, 0))
        x = pen.graph("add", x, pen.graph("permute", _perceptron(pen, y, 64), order=(1, 0)))
        x = pen.graph("add", x, _perceptron(pen, pen.graph("layer_norm", x), 128))
    return pen.graph("mean", pen.graph("layer_norm", x), axis=0)


def _convmixer(pen: _Pen, x: int) -> int:
    """Trockman and Kolter, "Patches Are All You Need?", 2022."""
    x = pen.graph("batch_norm", pen.graph("gelu", _patches(pen, x, 64)))
    for _ in range(4):
        y = pen.graph("gelu", pen.conv(x, 64, 5, groups=64, bias=True))
        x = pen.graph("add", x, pen.graph("batch_norm", y))
        x = pen.graph("batch_norm", pen.graph("gelu", pen.conv(x, 64, 1, bias=True)))
    return pen.mean(x)


def _convnext(pen: _Pen, x: int) -> int:
    """Liu et al., "A ConvNet for the 2020s", 2022; the norm over channels and positions (a group norm of one group)."""
    x = pen.graph("group_norm", pen.conv(x, 32, 3, stride=pen.stem_stride, bias=True), groups=1)
    for stage, width in enumerate((32, 64, 128)):
        if stage:
            x = pen.graph("group_norm", x, groups=1)
            x = pen.graph("conv2d", x, out_channels=width, kernel_size=2, stride=2, bias=True)
        for _ in range(2):
            y = pen.graph("group_norm", pen.conv(x, width, 7, groups=width, bias=True), groups=1)
            y = pen.conv(pen.graph("gelu", pen.conv(y, 4 * width, 1, bias=True)), width, 1, bias=True)
            scale = pen.graph("parameter", shape=(width, 1, 1))
            x = pen.graph("add", x, pen.graph("mul", y, scale))
    return pen.graph("layer_norm", pen.mean(x))


NETWORKS: Mapping[str, Callable[[_Pen, int], int]] = {
    "lenet": _lenet,
    "vgg": lambda pen, x: _vgg(pen, x, norm=False),
    "vgg_norm": lambda pen, x: _vgg(pen, x, norm=True),
    "network_in_network": _network_in_network,
    "all_conv": _all_conv,
    "squeezenet": _squeezenet,
    # He et al., "Deep Residual Learning for Image Recognition", 2016, and "Identity Mappings in Deep Residual Networks", 2016
    "resnet20": _residual(_basic, (16, 32, 64), 3),
    "resnet56": _residual(_basic, (16, 32, 64), 9),
    "resnet_bottleneck": _residual(_bottleneck, (32, 64, 128), 3),
    "resnet_preact": _residual(_pre_activation, (16, 32, 64), 3, last_norm=True),
    # Zagoruyko and Komodakis 2016; Xie et al. 2017; Hu et al. 2018
    "wide_resnet": _residual(_pre_activation, (64, 128, 256), 1, last_norm=True),
    "resnext": _residual(lambda *a: _bottleneck(*a, groups=8), (32, 64, 128), 3),
    "se_resnet": _residual(lambda *a: _basic(*a, excite=True), (16, 32, 64), 2),
    "densenet": _densenet,
    "inception": _inception,
    "mobilenet": _mobilenet,
    "mobilenet_v2": _mobilenet_v2,
    "efficientnet": _efficientnet,
    "shufflenet": _shufflenet,
    "vit": _vit,
    "mlp_mixer": _mixer,
    "convmixer": _convmixer,
    "convnext": _convnext,
}
"""Every network by name."""
