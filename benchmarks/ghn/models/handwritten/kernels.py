"""Convolutions whose kernels are computed, masked, shared out or normalised before they are used."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from benchmarks.ghn.models import Model
from benchmarks.ghn.models.handwritten.entry import entry, image


class WeightNormNet(nn.Module):
    """Convolutions and a linear layer under weight normalisation, as parametrisations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.conv2 = weight_norm(nn.Conv2d(8, 8, 3, 2, padding=1))
        self.fc = weight_norm(nn.Linear(8, 10), dim=None)  # type: ignore[arg-type]  # torch documents None

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.conv2(F.elu(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


class SpectralDiscriminator(nn.Module):
    """Spectral normalisation, whose buffers a training step would change, with leaky ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            spectral_norm(nn.Conv2d(3, 8, 4, 2, 1)),
            nn.LeakyReLU(0.2, inplace=True),
            spectral_norm(nn.Conv2d(8, 16, 4, 2, 1)),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.out = spectral_norm(nn.Linear(16 * 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.main(x).flatten(start_dim=1)).squeeze(1)


class StandardisedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        std = self.weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5
        weight = (self.weight - mean) / std
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormVariety(nn.Module):
    """A subclass of Conv2d that standardises its weight; group, instance and local response norms; PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = StandardisedConv2d(3, 8, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, 8)
        self.act1 = nn.PReLU(8)
        self.conv2 = StandardisedConv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(8, affine=True)
        self.act2 = nn.PReLU()
        self.norm3 = nn.LayerNorm([8, 16, 16])
        self.local = nn.LocalResponseNorm(3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.act2(self.norm2(self.conv2(x)))
        return self.fc(self.local(self.norm3(x)).sum((2, 3)) / x[0, 0].numel())


class CondConv(nn.Module):
    """Every example has a kernel of its own, mixed from a bank of kernels, by one grouped convolution."""

    def __init__(self, experts: int = 3, channels: int = 8) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(experts, channels, 3, 3, 3) * 0.1)
        self.router = nn.Linear(3, experts)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = torch.sigmoid(self.router(x.mean((2, 3)))) @ self.bank.flatten(1)
        weight = weight.view(b * self.bank.shape[1], c, 3, 3)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b)
        return self.fc(y.view(b, -1, h * w).relu().mean(-1))


class MaskedConv2d(nn.Conv2d):
    mask: Tensor

    def __init__(self, kind: str, channels_in: int, channels: int, kernel: int) -> None:
        super().__init__(channels_in, channels, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        mask[kernel // 2, kernel // 2 + (kind == "B") :] = 0
        mask[kernel // 2 + 1 :] = 0
        self.register_buffer("mask", mask.expand_as(self.weight).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Autoregressive: kernels are multiplied by a mask buffer in forward."""

    def __init__(self) -> None:
        super().__init__()
        first: list[nn.Module] = [MaskedConv2d("A", 1, 8, 5), nn.ReLU()]
        rest: list[nn.Module] = [MaskedConv2d("B", 8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)]
        self.net = nn.Sequential(*first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class ScaledWeights(nn.Module):
    """Norm-free: scalar gains as parameters, squared activations, and an anti-aliasing kernel as a buffer."""

    kernel: Tensor

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)]
        )
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(())), nn.Parameter(torch.tensor(0.5))])
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer(
            "kernel", torch.outer(row, row).expand(channels, 1, 3, 3).clone(), persistent=False
        )
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gains[0] * F.relu(self.convs[0](x)) ** 2
        x = F.conv2d(x, self.kernel, stride=2, padding=1, groups=x.shape[1])
        x = x + self.gains[1] * torch.tanh(self.convs[1](x))
        return self.fc(x.flatten(2).logsumexp(-1))


def models() -> list[Model]:
    """Image networks with unusual kernels."""
    classes: dict[str, type[nn.Module]] = {
        "weight_norm": WeightNormNet,
        "spectral_norm": SpectralDiscriminator,
        "norm_variety": NormVariety,
        "condconv": CondConv,
        "scaled_weights": ScaledWeights,
    }
    found = [entry(name, "convolution", kind, image()) for name, kind in classes.items()]
    return [*found, entry("pixelcnn", "convolution", PixelCNN, image(channels=1))]
