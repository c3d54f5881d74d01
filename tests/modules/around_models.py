"""Small models of the families that people bring, as they write them."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return; `Module.__call__` is untyped)

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Basic(nn.Module):
    """ResNet's basic block (He et al. 2016)."""

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down: nn.Module = nn.Identity()
        if stride > 1 or width != out:
            self.down = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Basic(8, 8), Basic(8, 8))
        self.layer2 = nn.Sequential(Basic(8, 16, 2), Basic(16, 16), Basic(16, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


class Excite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    """MobileNet's inverted residual (Sandler et al. 2018), with or without excitation."""

    def __init__(self, width: int, out: int, *, stride: int = 1, excite: bool = False) -> None:
        super().__init__()
        wide = 3 * width
        self.body = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            Excite(wide) if excite else nn.Identity(),
            nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.adds = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet(*, excite: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        Inverted(8, 12, stride=2, excite=excite), Inverted(12, 12, excite=excite), Inverted(12, 12, excite=excite),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


class Dense(nn.Module):
    """DenseNet's growth by concatenation (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 4 * i), nn.ReLU(), nn.Conv2d(8 + 4 * i, 4, 3, padding=1))
            for i in range(3)
        )
        self.transition, self.fc = nn.Conv2d(20, 10, 1), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = F.avg_pool2d(self.transition(torch.cat(features, 1)), 2)
        return self.fc(x.mean((2, 3)))


class Inception(nn.Module):
    """Parallel branches and a concatenation (Szegedy et al. 2015), with group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 1)
        self.b = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1))
        self.c = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 8, 1))
        self.norm, self.fc = nn.GroupNorm(4, 32), nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(torch.cat([self.a(x), self.b(x), self.c(x)], 1)))
        return self.fc(F.max_pool2d(x, 4).flatten(1))


class Attention(nn.Module):
    """Self-attention written by hand: one projection, reshapes and products of matrices."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = ((q @ k.transpose(-2, -1)) * (dim // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Encoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(dim), nn.LayerNorm(dim), Attention(dim, 2)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with a class token and learnt positions (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 24)), nn.Parameter(torch.zeros(1, 17, 24))
        self.blocks = nn.Sequential(Encoder(24), Encoder(24))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class TextEncoder(nn.Module):
    """Torch's own transformer layers over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


class Shuffle(nn.Module):
    """Channels that are split, grouped and shuffled (ShuffleNet V2, Ma et al. 2018), then gated (GLU)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.grouped, self.gate, self.fc = (
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            nn.Conv2d(16, 24, 1),
            nn.Linear(12, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat([left, F.relu(self.grouped(right))], 1)
        x = x.view(len(x), 2, 8, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        value, gate = self.gate(x).chunk(2, 1)
        return self.fc((value * gate.sigmoid()).mean((2, 3)))


class UNet(nn.Module):
    """Down, up, and a concatenation across (Ronneberger et al. 2015); its output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 3, 1)
        self.norm = nn.InstanceNorm2d(16, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        first = F.silu(self.first(x))
        deep = F.silu(self.norm(self.down(first)))
        return self.last(torch.cat([first, self.up(deep)], 1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0].mean(1))


def mlp() -> nn.Module:
    hidden = [layer for _ in range(3) for layer in (nn.Linear(20, 20), nn.BatchNorm1d(20), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), *hidden, nn.Dropout(), nn.Linear(20, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16 * 5 * 5, 30), nn.Tanh(), nn.Linear(30, 10),
    )  # fmt: skip


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    width = 3
    for out in (8, 8, 0, 16, 16, 16, 0):
        if out:
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16, 24), nn.ReLU(), nn.Linear(24, 10))


def tcn() -> nn.Module:
    """Dilated convolutions over time (Bai et al. 2018)."""
    return nn.Sequential(
        nn.Conv1d(4, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv1d(8, 8, 3, padding=2, dilation=2), nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


IMAGE = torch.zeros(2, 3, 16, 16)
TOKENS = torch.zeros(2, 7, dtype=torch.long)

MODELS: Mapping[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, torch.zeros(2, 1, 8, 8)),
    "lenet": (lenet, torch.zeros(2, 3, 32, 32)),
    "vgg": (vgg, IMAGE),
    "resnet": (ResNet, IMAGE),
    "mobilenet": (lambda: mobilenet(excite=False), IMAGE),
    "excited mobilenet": (lambda: mobilenet(excite=True), IMAGE),
    "densenet": (Dense, IMAGE),
    "inception": (Inception, IMAGE),
    "vit": (ViT, IMAGE),
    "text": (TextEncoder, TOKENS),
    "shuffle": (Shuffle, IMAGE),
    "unet": (UNet, IMAGE),
    "lstm": (Recurrent, TOKENS),
    "tcn": (tcn, torch.zeros(2, 4, 32)),
}
