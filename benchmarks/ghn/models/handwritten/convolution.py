"""Image classifiers: residual, dense, multi-branch and separable convolutions."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ghn.models import Model
from benchmarks.ghn.models.handwritten.entry import entry, image


class BasicBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class SequentialResNet(nn.Module):
    """A residual network of nn.Sequential stages; one in-place ReLU module is called twice in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(16, 16), BasicBlock(16, 16))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


class FunctionalResNet(nn.Module):
    """Activations, pooling and the zero-padded shortcut are functional; the shortcut pads channels with F.pad."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.convs = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, padding=1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(16)])
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(conv(x))
            if y.shape != x.shape:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
            x = F.relu(x + y)
        x = F.avg_pool2d(x, x.size(-1)).view(x.size(0), -1)
        return F.log_softmax(self.head(x), dim=1)


class DenseNet(nn.Module):
    """Every layer reads the concatenation of a growing Python list."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        widths = [16 + growth * index for index in range(4)]
        self.layers = nn.ModuleList([self._layer(width, growth) for width in widths])
        self.norm = nn.BatchNorm2d(16 + growth * 4)
        self.transition = nn.Conv2d(16 + growth * 4, 16, 1)
        self.classifier = nn.Linear(16, 10)

    @staticmethod
    def _layer(width: int, growth: int) -> nn.Sequential:
        bottleneck = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4 * growth, 1, bias=False)]
        conv = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        return nn.Sequential(*bottleneck, nn.BatchNorm2d(4 * growth), nn.ReLU(), conv)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = F.avg_pool2d(self.transition(F.relu(self.norm(torch.cat(features, 1)))), 2)
        return self.classifier(x.mean((2, 3)))


class Inception(nn.Module):
    """Four branches of different kernels, one of them a pooling, joined by channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.one = nn.Conv2d(16, 8, 1)
        self.three = nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, (1, 3), padding=(0, 1)))
        self.five = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 5, padding="same"))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(16, 4, 1))
        self.fc = nn.Conv2d(32, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([branch(x) for branch in (self.one, self.three, self.five, self.pool)], dim=1)
        return self.fc(F.adaptive_avg_pool2d(F.relu(x), 1)).squeeze(-1).squeeze(-1)


class SqueezeExcite(nn.Module):
    """Channel attention by two linear layers and a sigmoid gate."""

    def __init__(self, channels: int = 16, reduction: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        b, c, _, _ = x.size()
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=[2, 3]))))).view(b, c, 1, 1)
        return self.head((x * gate.expand_as(x)).amax((-1, -2)))


class InvertedResidual(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = channels_in * expand
        self.use_shortcut = stride == 1 and channels_in == channels
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_shortcut else self.conv(x)


class MobileNet(nn.Sequential):
    """Subclasses nn.Sequential and calls its forward by super(); depthwise convolutions, hard swish."""

    def __init__(self) -> None:
        blocks = [InvertedResidual(8, 8, 1, 2), InvertedResidual(8, 16, 2, 3), InvertedResidual(16, 16, 1, 3)]
        stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)  # type: ignore[no-untyped-call]  # torch's


class ShuffleNet(nn.Module):
    """Splits the channels by chunk, and shuffles them by view, transpose, view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        )
        self.fc = nn.Linear(16, 10)

    @staticmethod
    def shuffle(x: Tensor, groups: int) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2).contiguous()
        return x.view(batch, -1, height, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):  # the same branch twice
            left, right = x.chunk(2, dim=1)
            x = self.shuffle(torch.cat((left, self.branch(right)), dim=1), 2)
        return self.fc(x.mean([2, 3]))


class MBConv(nn.Module):
    def __init__(self, channels: int, survival: float) -> None:
        super().__init__()
        hidden, self.survival = channels * 4, survival
        self.expand = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.SiLU()
        )
        self.depthwise = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.norm = nn.BatchNorm2d(hidden, eps=1e-3)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 4, 1), nn.SiLU(), nn.Conv2d(4, hidden, 1), nn.Sigmoid()
        )
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.depthwise(self.expand(x))))
        y = self.project(y * self.squeeze(y))
        if self.training:
            keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < self.survival
            y = y * keep / self.survival
        return x + y


class EfficientNet(nn.Module):
    """Squeeze and excitation inside inverted bottlenecks, with stochastic depth (off in evaluation mode)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(*[MBConv(8, 1 - 0.1 * depth) for depth in range(3)])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class ConvNeXt(nn.Module):
    """Layer norm over the last axis between two permutations, and a layer scale as a vector parameter."""

    def __init__(self, dim: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patchify = nn.Conv2d(3, dim, 4, 4)
        self.depthwise = nn.ModuleList(nn.Conv2d(dim, dim, 7, padding=3, groups=dim) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(dim, 4 * dim) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(4 * dim, dim) for _ in range(depth))
        self.gamma = nn.ParameterList(nn.Parameter(1e-6 * torch.ones(dim)) for _ in range(depth))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patchify(x)
        for index in range(len(self.norms)):
            y = self.depthwise[index](x).permute(0, 2, 3, 1)
            y = self.down[index](F.gelu(self.up[index](self.norms[index](y))))
            x = x + (self.gamma[index] * y).permute(0, 3, 1, 2)
        return self.head(x.mean([-2, -1]))


class RepVGG(nn.Module):
    """The training form: a 3x3 branch, a 1x1 branch and a bare batch norm are summed."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.dense = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.point = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(6))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i in range(2):
            a, b, c = self.norms[3 * i : 3 * i + 3]
            x = torch.relu(sum((b(self.point[i](x)), c(x)), a(self.dense[i](x))))
        return self.fc(torch.mean(x, dim=(2, 3)))


class VGG(nn.Module):
    """Layers made from a list of numbers and letters, an adaptive pool, and a large dropout classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in (8, "M", 16, 16, "M"):
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU(True)]
                channels = item
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(nn.Linear(16 * 9, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.reshape(x.shape[0], -1))


def squeeze_net() -> nn.Module:
    """No class at all: a function returns nn.Sequential over an OrderedDict."""
    return nn.Sequential(
        OrderedDict(
            squeeze=nn.Conv2d(3, 4, 1),
            act=nn.CELU(),
            expand=nn.Conv2d(4, 16, 3, padding=1, padding_mode="reflect"),
            norm=nn.BatchNorm2d(16, affine=False),
            act2=nn.Mish(),
            pool=nn.AdaptiveMaxPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(16, 10),
        )
    )


class MixedCell(nn.Module):
    """A differentiable search cell: candidates are summed with the softmax of architecture parameters."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.alpha = nn.Parameter(1e-3 * torch.randn(2, 4))
        self.edges = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Identity(),
                    nn.AvgPool2d(3, 1, 1),
                    nn.Conv2d(channels, channels, 3, padding=1),
                    nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=channels),
                ]
            )
            for _ in range(2)
        )
        self.fc = nn.Linear(2 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.stem(x)]
        for edge, weights in zip(self.edges, F.softmax(self.alpha, dim=-1), strict=True):
            assert isinstance(edge, nn.ModuleList)
            states.append(
                torch.stack([w * op(states[-1]) for w, op in zip(weights, edge, strict=True)]).sum(0)
            )
        return self.fc(torch.cat(states[1:], 1).mean(-1).mean(-1))


def models() -> list[Model]:
    """Image classifiers."""
    classes: dict[str, type[nn.Module]] = {
        "resnet_sequential": SequentialResNet,
        "resnet_functional": FunctionalResNet,
        "densenet": DenseNet,
        "inception": Inception,
        "squeeze_excite": SqueezeExcite,
        "mobilenet": MobileNet,
        "shufflenet": ShuffleNet,
        "efficientnet_by_hand": EfficientNet,
        "convnext_by_hand": ConvNeXt,
        "repvgg": RepVGG,
        "vgg": VGG,
        "mixed_cell": MixedCell,
    }
    found = [entry(name, "convolution", kind, image()) for name, kind in classes.items()]
    sequential = entry("squeezenet", "convolution", squeeze_net, lambda: {"input": image()()["x"]})
    return [*found, sequential]
