"""Images to images, images from vectors, videos, and heads with several outputs."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ghn.models import Inputs, Model
from benchmarks.ghn.models.handwritten.entry import entry, image, vector


def double_conv(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Skip connections by concatenation, upsampling by transposed convolution, levels popped from a list."""

    def __init__(self, base: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([double_conv(3, base), double_conv(base, 2 * base)])
        self.middle = double_conv(2 * base, 4 * base)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(4 * base, 2 * base, 2, 2), nn.ConvTranspose2d(2 * base, base, 2, 2)]
        )
        self.merge = nn.ModuleList([double_conv(4 * base, 2 * base), double_conv(2 * base, base)])
        self.out = nn.Conv2d(base, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.out(x)


class DiffusionUNet(nn.Module):
    """Two inputs: noisy image and time; the sinusoidal time embedding shifts the features."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.time = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(4, dim), nn.GroupNorm(4, dim)
        self.down = nn.Conv2d(dim, dim, 3, 2, 1)
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.out = nn.Conv2d(2 * dim, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        frequency = torch.exp(-torch.arange(self.dim // 2, device=x.device) * 0.5)
        angle = t[:, None].float() * frequency[None]
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))
        x = self.stem(x)
        y = self.down(F.silu(self.norm1(x)) + time[:, :, None, None])
        q, k, v = self.qkv(self.norm2(y)).flatten(2).chunk(3, dim=1)
        attention = torch.softmax(torch.bmm(q.transpose(1, 2), k) * self.dim**-0.5, dim=-1)
        y = y + torch.bmm(v, attention.transpose(1, 2)).view_as(y)
        return self.out(torch.cat((x, self.up(y)), 1))


class FeaturePyramid(nn.Module):
    """Lateral and top-down paths joined by F.interpolate; the output is a tuple of three scales."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 12, 16)
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2, 1) for a, b in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        for stage in self.stages:
            x = F.relu(stage(x))
            features.append(x)
        outputs = [self.lateral[-1](features[-1])]
        for feature, lateral in zip(features[-2::-1], list(self.lateral)[-2::-1], strict=True):
            top = F.interpolate(outputs[0], size=feature.shape[-2:], mode="bilinear", align_corners=False)
            outputs.insert(0, lateral(feature) + top)
        return tuple(smooth(y) for smooth, y in zip(self.smooth, outputs, strict=True))


class Detector(nn.Module):
    """Dictionary output: classes, boxes, and a nested list of intermediate maps."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.heads = nn.ModuleDict({"classes": nn.Conv2d(16, 5, 1), "boxes": nn.Conv2d(16, 4, 1)})

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        feature = self.backbone(x)
        found: dict[str, Tensor | list[Tensor]] = {
            name: head(feature).permute(0, 2, 3, 1).reshape(x.shape[0], -1, head.out_channels)
            for name, head in self.heads.items()
        }
        found["auxiliary"] = [feature, F.max_pool2d(feature, 2)]
        return found


class SuperResolution(nn.Module):
    """Pixel shuffle, and a global residual by bicubic interpolation of the input."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(3, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffle(self.conv2(torch.tanh(self.conv1(x))))
        return torch.clamp(y + F.interpolate(x, scale_factor=self.scale, mode="bicubic"), -3, 3)


class Generator(nn.Module):
    """Image from noise and a label: embedding, unsqueezed vector, transposed convolutions."""

    def __init__(self, latent: int = 16) -> None:
        super().__init__()
        self.label = nn.Embedding(10, latent)
        self.main = nn.Sequential(
            nn.ConvTranspose2d(latent, 16, 4, 1, 0, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(True),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 3, 3, 2, 1, output_padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.main((z * self.label(label)).unsqueeze(-1).unsqueeze(-1))


class StyleGenerator(nn.Module):
    """The input of the convolutions is a parameter; kernels are modulated and demodulated by a style vector."""

    noise: Tensor

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, dim, 4, 4))
        self.weight = nn.Parameter(torch.randn(1, dim, dim, 3, 3))
        self.style = nn.Linear(16, dim)
        self.noise_gain = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise", torch.randn(1, 1, 4, 4))
        self.to_rgb = nn.Conv2d(dim, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        weight = self.weight * (self.style(x) + 1)[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.pow(2).sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
        y = self.constant.repeat(batch, 1, 1, 1).view(1, -1, 4, 4)
        y = F.conv2d(y, weight.flatten(0, 1), padding=1, groups=batch).view(batch, -1, 4, 4)
        y = F.leaky_relu(y + self.noise_gain * self.noise, 0.2)
        return self.to_rgb(F.interpolate(y, scale_factor=2))


class VAE(nn.Module):
    """Encoder and decoder with a reparametrised sample that is the mean in evaluation; three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.mean, self.log_variance = nn.Linear(8 * 64, 4), nn.Linear(8 * 64, 4)
        self.expand = nn.Linear(4, 8 * 64)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (8, 8, 8)), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean
        if self.training:
            z = z + torch.randn_like(z) * torch.exp(0.5 * log_variance)
        return self.decoder(self.expand(z)), mean, log_variance


class SpatialTransformer(nn.Module):
    """A localisation network predicts an affine grid that samples the image; the identity is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.localise = nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6)
        )
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.localise(x).view(-1, 2, 3)
        theta = theta + torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], device=x.device)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.size()), align_corners=False), align_corners=False)
        return self.fc(self.conv(x).relu().mean((2, 3)))


class VideoNet(nn.Module):
    """Three-dimensional convolutions, one factorised into space and time, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2))
        self.space = nn.Conv3d(8, 12, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.time = nn.Conv3d(12, 8, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.norm = nn.BatchNorm3d(8)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.up = nn.ConvTranspose3d(8, 2, 2, 2)
        self.fc = nn.Linear(8, 5)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.stem(video))
        x = F.relu(x + self.norm(self.time(self.space(x))))
        return self.fc(self.pool(x)[:, :, 0, 0, 0]), self.up(x)


class AtrousSegmenter(nn.Module):
    """Parallel dilations and an image-level branch that is broadcast back, then resized to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branches = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=rate, dilation=rate) for rate in (1, 2, 4))
        self.level = nn.Conv2d(8, 4, 1)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        y = F.hardtanh(self.stem(x))
        level = self.level(F.adaptive_avg_pool2d(y, 1)).expand(-1, -1, *y.shape[-2:])
        y = torch.cat([branch(y) for branch in self.branches] + [level], 1)
        return (
            F.interpolate(self.out(y), (height, width), mode="nearest").argmax(1).float() + self.out(y).mean()
        )


def _latent_and_label() -> Inputs:
    return {"z": torch.randn(2, 16), "label": torch.tensor([3, 7])}


def _noisy_image_and_time() -> Inputs:
    return {"x": torch.randn(2, 3, 16, 16), "t": torch.tensor([1, 40])}


def models() -> list[Model]:
    """Networks with dense or generated outputs."""
    classes: dict[str, type[nn.Module]] = {
        "unet": UNet,
        "feature_pyramid": FeaturePyramid,
        "detector": Detector,
        "super_resolution": SuperResolution,
        "vae": VAE,
        "spatial_transformer": SpatialTransformer,
        "atrous_segmenter": AtrousSegmenter,
    }
    return [
        *(entry(name, "dense output", kind, image()) for name, kind in classes.items()),
        entry("diffusion_unet", "dense output", DiffusionUNet, _noisy_image_and_time),
        entry("generator", "dense output", Generator, _latent_and_label),
        entry("style_generator", "dense output", StyleGenerator, vector(16)),
        entry("video_net", "dense output", VideoNet, lambda: {"video": torch.randn(2, 3, 4, 16, 16)}),
    ]
