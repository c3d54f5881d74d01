"""Networks over images."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Tensor, ...]]


def _image(channels: int = 3, size: int = 8, *, batch_size: int = 2) -> tuple[Tensor, ...]:
    return (torch.randn(batch_size, channels, size, size),)


def _conv(before: int, after: int, size: int = 3, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(after)]


def _head(width: int, classes: int = 5) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


class Residual(nn.Module):
    """The sum of a branch and of the input, or of what a shortcut makes of it; maybe an activation."""

    # mypy: disable-error-code="no-any-return"

    def __init__(
        self, branch: nn.Module, *, shortcut: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.branch(x) + self.shortcut(x))


def _basic(before: int, after: int, *, stride: int = 1) -> Residual:
    branch = nn.Sequential(*_conv(before, after, stride=stride), nn.ReLU(), *_conv(after, after))
    other = stride > 1 or before != after
    shortcut = nn.Sequential(*_conv(before, after, 1, stride=stride)) if other else None
    return Residual(branch, shortcut=shortcut, after=nn.ReLU())


def _bottleneck(before: int, width: int, after: int, *, groups: int = 1) -> Residual:
    branch = nn.Sequential(
        *(*_conv(before, width, 1), nn.ReLU()),
        *(*_conv(width, width, groups=groups), nn.ReLU()),
        *_conv(width, after, 1),
    )
    shortcut = nn.Sequential(*_conv(before, after, 1)) if before != after else None
    return Residual(branch, shortcut=shortcut, after=nn.ReLU())


def resnet(widths: Sequence[int], blocks: int, *, classes: int = 5, large: bool = False) -> nn.Sequential:
    """A residual network (He et al. 2016). `large`: with the stem for large images; widths (64, 128, 256, 512) and two
    blocks then make ResNet-18."""
    stem = [nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    layers = [*stem, nn.MaxPool2d(3, 2, 1)] if large else [*_conv(3, widths[0]), nn.ReLU()]
    before = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(_basic(before, width, stride=2 if stage and not block else 1))
            before = width
    return nn.Sequential(*layers, *_head(before, classes))


def _vgg() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 12)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5))


class _Squeeze(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


def _inverted(before: int, after: int, *, ratio: int = 2, squeeze: bool = False) -> nn.Module:
    width = before * ratio
    branch = nn.Sequential(
        *(*_conv(before, width, 1), nn.ReLU6()),
        *(*_conv(width, width, groups=width), nn.Hardswish() if squeeze else nn.ReLU6()),
        *([_Squeeze(width, width // 4)] if squeeze else []),
        *_conv(width, after, 1),
    )
    return Residual(branch) if before == after else branch


class _Dense(nn.Module):
    """A block in which every layer reads all before it (Huang et al. 2017)."""

    def __init__(self, before: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(before + i * growth),
                nn.ReLU(),
                nn.Conv2d(before + i * growth, growth, 3, padding=1),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class _Inception(nn.Module):
    """Branches side by side (Szegedy et al. 2015)."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(before, 4, 1), nn.ReLU())
        self.three = nn.Sequential(
            nn.Conv2d(before, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()
        )
        self.five = nn.Sequential(
            nn.Conv2d(before, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 5, padding=2), nn.ReLU()
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(before, 4, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class _Fire(nn.Module):
    """Squeeze and expand (Iandola et al. 2016, SqueezeNet)."""

    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], dim=1)


class _UNet(nn.Module):
    """Down, up again, and across (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*_conv(3, 8), nn.ReLU())
        self.second = nn.Sequential(nn.MaxPool2d(2), *_conv(8, 12), nn.ReLU())
        self.third = nn.Sequential(nn.MaxPool2d(2), *_conv(12, 16), nn.ReLU())
        self.up2, self.up1 = nn.ConvTranspose2d(16, 12, 2, stride=2), nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.join2 = nn.Sequential(*_conv(24, 12), nn.ReLU())
        self.join1 = nn.Sequential(*_conv(16, 8), nn.ReLU())
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        x = self.join2(torch.cat([self.up2(self.third(second)), second], dim=1))
        return self.last(self.join1(torch.cat([self.up1(x), first], dim=1)))


class _ConvNextBlock(nn.Module):
    """Liu et al. 2022, "A ConvNet for the 2020s", with its layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(nn.functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def _autoencoder() -> nn.Sequential:
    encode = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.InstanceNorm2d(8, affine=True), nn.LeakyReLU(0.2)]
    middle = [nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.GroupNorm(4, 12), nn.LeakyReLU(0.2)]
    decode = [nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*encode, *middle, *decode, nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1))


def _super_resolution() -> nn.Sequential:
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*body, nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))


def _volume() -> nn.Sequential:
    body = [nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, 1)]
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3))


def _plain(*body: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(*body, *_head(width))


IMAGES: Mapping[str, Callable[[], Made]] = {
    "convnet-vgg": lambda: (_vgg(), _image()),
    "convnet-batch-norm": lambda: (
        _plain(*_conv(3, 8), nn.ReLU(), *_conv(8, 12), nn.ReLU(), width=12),
        _image(),
    ),
    "convnet-mean": lambda: (_plain(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.AvgPool2d(2), width=8), _image()),
    "resnet": lambda: (resnet((8, 12), 1), _image()),
    "resnet-18": lambda: (
        resnet((64, 128, 256, 512), 2, classes=1000, large=True),
        _image(3, 64, batch_size=1),
    ),
    "resnet-bottleneck": lambda: (
        _plain(*_conv(3, 16), nn.ReLU(), _bottleneck(16, 6, 16), _bottleneck(16, 6, 16), width=16),
        _image(),
    ),
    "resnext": lambda: (
        _plain(*_conv(3, 16), nn.ReLU(), _bottleneck(16, 12, 16, groups=4), width=16),
        _image(),
    ),
    "mobilenet": lambda: (
        _plain(*_conv(3, 8), nn.ReLU6(), _inverted(8, 12), _inverted(12, 12), width=12),
        _image(),
    ),
    "mobilenet-squeeze": lambda: (
        _plain(*_conv(3, 8), nn.Hardswish(), _inverted(8, 8, squeeze=True), _inverted(8, 12), width=12),
        _image(),
    ),
    "densenet": lambda: (
        _plain(nn.Conv2d(3, 8, 3, padding=1), _Dense(8, 4, 3), nn.Conv2d(20, 10, 1), nn.ReLU(), width=10),
        _image(),
    ),
    "inception": lambda: (
        _plain(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), _Inception(8), _Inception(18), width=18),
        _image(),
    ),
    "squeezenet": lambda: (
        _plain(nn.Conv2d(3, 8, 3), nn.ReLU(), _Fire(8, 4, 6), _Fire(12, 4, 8), width=16),
        _image(),
    ),
    "unet": lambda: (_UNet(), _image()),
    "convnext": lambda: (
        _plain(nn.Conv2d(3, 12, 2, stride=2), _ConvNextBlock(12), _ConvNextBlock(12), width=12),
        _image(),
    ),
    "squeeze-excitation": lambda: (
        _plain(*_conv(3, 12), nn.ReLU(), _Squeeze(12, 4), *_conv(12, 8), nn.ReLU(), width=8),
        _image(),
    ),
    "convolutional-autoencoder": lambda: (_autoencoder(), _image()),
    "super-resolution": lambda: (_super_resolution(), _image(size=6)),
    "volume": lambda: (_volume(), (torch.randn(2, 1, 4, 6, 6),)),
}
