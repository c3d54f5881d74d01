"""Well-known networks in plain PyTorch, with the number of parameters that they are known to have.

`networks.py` writes some of them as graphs; these are what a user has, a module.
"""

# mypy: disable-error-code="no-any-return"

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class _Residual(nn.Module):
    """A block of ResNet: basic (two convolutions) or bottleneck (three)."""

    def __init__(self, inputs: int, width: int, stride: int, *, expansion: int) -> None:
        super().__init__()
        outputs = width * expansion
        plan = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        if expansion > 1:
            plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.convs = nn.ModuleList(_conv(a, b, kernel, s) for a, b, kernel, s in plan)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in plan)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if place < len(self.convs) - 1:
                y = self.relu(y)
        y = y + (x if self.shortcut is None else self.shortcut(x))
        return self.relu(y)


def _resnet(blocks: Sequence[int], expansion: int) -> nn.Module:
    layers: list[nn.Module] = [
        _conv(3, 64, 7, 2),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and not block else 1
            layers.append(_Residual(inputs, 64 * 2**stage, stride, expansion=expansion))
            inputs = 64 * 2**stage * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def resnet18() -> nn.Module:
    """He et al. 2016: 11,689,512 parameters."""
    return _resnet((2, 2, 2, 2), 1)


def resnet50() -> nn.Module:
    """He et al. 2016: 25,557,032 parameters."""
    return _resnet((3, 4, 6, 3), 4)


class _Dense(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), _conv(4 * growth, growth, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = torch.cat(features, 1)
        return self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))


class _DenseBlock(nn.Module):
    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Dense(inputs + i * growth, growth) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


def densenet201() -> nn.Module:
    """Huang et al. 2017: 20,013,928 parameters."""
    layers: list[nn.Module] = [_conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate((6, 12, 48, 32)):
        layers.append(_DenseBlock(channels, count, 32))
        channels += 32 * count
        layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU())
        if stage < 3:
            layers += [_conv(channels, channels // 2, 1), nn.AvgPool2d(2, 2)]
            channels //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class _Encoder(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021."""

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, 197, dim) * 0.02)
        self.blocks = nn.Sequential(*(_Encoder(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit_b16() -> nn.Module:
    """ViT-B/16: 86,567,656 parameters."""
    return VisionTransformer(dim=768, depth=12, heads=12)


class _Squeeze(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(nn.functional.silu(self.down(self.pool(x)))))


class _Inverted(nn.Module):
    """MBConv, or FusedMBConv where `fused`."""

    def __init__(self, inputs: int, outputs: int, expand: int, stride: int, *, fused: bool) -> None:
        super().__init__()
        wide, parts = inputs * expand, list[nn.Module]()
        if fused and expand == 1:
            parts = [
                _conv(inputs, outputs, 3, stride),
                nn.BatchNorm2d(outputs, eps=1e-3),
                nn.SiLU(inplace=True),
            ]
        elif fused:
            parts = [_conv(inputs, wide, 3, stride), nn.BatchNorm2d(wide, eps=1e-3), nn.SiLU(inplace=True)]
        else:
            parts = [_conv(inputs, wide, 1), nn.BatchNorm2d(wide, eps=1e-3), nn.SiLU(inplace=True)]
            parts += [
                _conv(wide, wide, 3, stride, wide),
                nn.BatchNorm2d(wide, eps=1e-3),
                nn.SiLU(inplace=True),
            ]
            parts += [_Squeeze(wide, inputs // 4)]
        if expand > 1:
            parts += [_conv(wide, outputs, 1), nn.BatchNorm2d(outputs, eps=1e-3)]
        self.body = nn.Sequential(*parts)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + x if self.is_residual else y


def efficientnet_v2_l() -> nn.Module:
    """Tan and Le 2021: 118,515,272 parameters."""
    plan = (
        (True, 1, 1, 32, 4), (True, 4, 2, 64, 7), (True, 4, 2, 96, 7), (False, 4, 2, 192, 10), (False, 6, 1, 224, 19),
        (False, 6, 2, 384, 25), (False, 6, 1, 640, 7),
    )  # fmt: skip
    layers: list[nn.Module] = [_conv(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3), nn.SiLU(inplace=True)]
    inputs = 32
    for fused, expand, stride, outputs, count in plan:
        for block in range(count):
            layers.append(_Inverted(inputs, outputs, expand, 1 if block else stride, fused=fused))
            inputs = outputs
    layers += [_conv(inputs, 1280, 1), nn.BatchNorm2d(1280, eps=1e-3), nn.SiLU(inplace=True)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1280, 1000)
    )


def gpt2_small() -> nn.Module:
    """GPT-2 small of the `transformers` library (Radford et al. 2019), random weights: 124,439,808 parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel  # optional, and slow to import

    return GPT2LMHeadModel(GPT2Config(use_cache=False))
