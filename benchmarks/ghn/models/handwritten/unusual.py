"""Unusual control flow, outputs and side effects, all of which ordinary code has."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.ghn.models import Model
from benchmarks.ghn.models.handwritten.entry import entry, image, sequence, vector


class InPlace(nn.Module):
    """Writes into tensors: +=, slices, relu_, mul_ with a parameter, copy_ into a new buffer, masked_fill_."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu_()
        y += x
        y[:, 0] = self.second(x[:, 0])
        y[:, 1:3] *= 2
        y.mul_(self.gain).masked_fill_(y > 3, 3.0)
        out = torch.empty_like(y)
        out[..., ::2].copy_(y[..., ::2])
        out[..., 1::2] = -y[..., 1::2]
        return out


class OutArgument(nn.Module):
    """Results are written through `out=` arguments and into rows of a zero tensor."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.zeros(3, x.shape[0], 4)
        with torch.no_grad():
            offset = torch.empty(x.shape[0], 1)
            torch.mean(x, dim=1, keepdim=True, out=offset)
        for index, layer in enumerate(self.layers):
            rows[index] = layer(x) - offset
        return rows.permute(1, 0, 2).reshape(x.shape[0], -1)


class RemembersState(nn.Module):
    """Keeps tensors and counters as Python attributes across calls, and passes data through them in forward."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(dim, dim), nn.Linear(dim, 3)
        self.calls = 0
        self.last_feature: Tensor | None = None
        self.cache: dict[str, Tensor] = {}

    def encode(self, x: Tensor) -> None:
        self.last_feature = torch.tanh(self.encoder(x))
        self.cache["norm"] = self.last_feature.norm(dim=1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.encode(x)
        assert self.last_feature is not None
        return self.decoder(self.last_feature / self.cache["norm"])


class ShapeControl(nn.Module):
    """Layers are chosen by the input's shape: an optional crop, a loop until the image is small, an early return."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.shrink = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.wide = nn.Linear(8, 4)
        self.never = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x.unsqueeze(0)
        x = self.lift(x)
        while x.shape[-1] > 2:
            x = self.shrink(x).relu()
        if x.numel() > 10_000:
            return self.never(x.mean((2, 3)))
        return self.wide(x.sum((-1, -2)))


class DataBranch(nn.Module):
    """`if x.sum() > 0`: which layer runs depends on the values; the other one stays unused."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.positive, self.negative = nn.Linear(dim, 4), nn.Sequential(nn.Linear(dim, 8), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.positive(x)
        return self.negative(x)


class DataLoop(nn.Module):
    """A while loop until the state is small, and `.item()` as a divisor: a real tensor is needed."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.step = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = torch.tanh(self.step(x)) * 0.5
            if x.abs().max().item() < 0.05:
                break
        return self.out(x / max(x.abs().max().item(), 1e-6))


class Fourier(nn.Module):
    """Mixing by FFT, a learnt filter as a real parameter viewed as complex, and the inverse transform."""

    def __init__(self, length: int = 8, dim: int = 16) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(length // 2 + 1, dim, 2) * 0.5)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.rfft(self.norm(x), dim=1, norm="ortho") * torch.view_as_complex(self.filter)
        return x + torch.fft.irfft(y, n=x.shape[1], dim=1, norm="ortho") + torch.fft.fft2(x).real


class Outputs(NamedTuple):
    logits: Tensor
    hidden: list[Tensor]
    extra: dict[str, Any]


class NestedOutput(nn.Module):
    """A named tuple of a tensor, a list and a dictionary that also holds a number, a string and None."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))

    def forward(self, x: Tensor) -> Outputs:
        hidden = []
        for layer in self.layers:
            x = F.gelu(layer(x))
            hidden.append(x)
        return Outputs(
            x.mean(1), hidden, {"score": x.sum(), "count": len(hidden), "name": "x", "nothing": None}
        )


@dataclass
class Prediction:
    mean: Tensor
    deviation: Tensor


class DataclassInside(nn.Module):
    """Submodules pass dataclasses to each other; the last one returns tensors."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.mean, self.deviation = nn.Linear(dim, 2), nn.Linear(dim, 2)

    def predict(self, x: Tensor) -> Prediction:
        return Prediction(mean=self.mean(x), deviation=F.softplus(self.deviation(x)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        prediction = self.predict(x)
        return {"low": prediction.mean - prediction.deviation, "high": prediction.mean + prediction.deviation}


class RunningStatistics(nn.Module):
    """Normalises by running buffers of its own, which a training step updates in place."""

    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("square", torch.ones(dim))
        self.register_buffer("steps", torch.tensor(0))
        self.scale = nn.Parameter(torch.ones(dim))
        self.out = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
                self.square = 0.9 * self.square + 0.1 * x.pow(2).mean(0)
                self.steps += 1
        return self.out(self.scale * (x - self.mean) / (self.square - self.mean**2).clamp_min(1e-5).sqrt())


class BatchNormInTraining(nn.Module):
    """In training mode: batch norm would move its statistics, so a trace that runs it changes the module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.conv(x)).relu().mean((2, 3)))


class Checkpointed(nn.Module):
    """Blocks run under activation checkpointing, which recomputes them in the backward pass."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.ReLU()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.as_tensor(checkpoint(block, x, use_reentrant=False))
        return x


class RoundSign(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 4) / 4

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class QuantisationAware(nn.Module):
    """Weights pass a rounding autograd.Function and a fake quantisation before the matrix product."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = RoundSign.apply(self.first.weight)  # type: ignore[no-untyped-call]  # torch's own is untyped
        x = F.relu(F.linear(x, rounded, self.first.bias))
        weight = torch.fake_quantize_per_tensor_affine(self.second.weight, 0.05, 0, -128, 127)
        binary = torch.sign(weight) * weight.abs().mean(dim=1, keepdim=True)
        return F.linear(x, 0.5 * (weight + binary), self.second.bias)


class Hooked(nn.Module):
    """Forward hooks: one records a feature map, one replaces the output of a layer."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(2 * dim, 3)
        self.features: list[Tensor] = []
        self.first.register_forward_hook(self._record)
        self.second.register_forward_hook(lambda _module, _inputs, output: torch.sigmoid(output))

    def _record(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.features.append(output)

    def forward(self, x: Tensor) -> Tensor:
        self.features.clear()
        x = self.second(self.first(x))
        return self.head(torch.cat([x, self.features[0]], dim=1))


class Ensemble(nn.Module):
    """torch.vmap of F.linear over the stacked parameters of the members."""

    def __init__(self, members: int = 3, dim: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, 4, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(members, 4))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = torch.vmap(F.linear, in_dims=(None, 0, 0))(x, self.weight, self.bias)
        return outputs.mean(0)


class LowerPrecision(nn.Module):
    """The middle layer runs in bfloat16 under autocast, and the result is cast back."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.first(x)
        return self.second(x.float().softmax(-1))


class DoublePrecision(nn.Module):
    """All parameters in float64, the input in float32 and cast in forward."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, 8), nn.LogSigmoid(), nn.Linear(8, 3)).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(torch.float64)).to(x.dtype)


class InnerGradient(nn.Module):
    """An energy network: the output is the gradient of a scalar by the input, taken inside forward."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, 12), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            energy = self.second(torch.tanh(self.first(x))).sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=self.training)
        return -force


class Repeated(nn.Module):
    """A recursive forward and a Sequential that holds the same layer twice."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        layer = nn.Linear(dim, dim)
        self.net = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU())

    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        return x if depth == 0 else self.forward(self.net(x), depth - 1)


def models() -> list[Model]:
    """Networks with unusual flow, output or side effects."""
    over_vectors: dict[str, type[nn.Module]] = {
        "out_argument": OutArgument,
        "remembers_state": RemembersState,
        "data_branch": DataBranch,
        "data_loop": DataLoop,
        "dataclass_inside": DataclassInside,
        "running_statistics": RunningStatistics,
        "checkpointed": Checkpointed,
        "quantisation_aware": QuantisationAware,
        "hooked": Hooked,
        "ensemble_vmap": Ensemble,
        "lower_precision": LowerPrecision,
        "double_precision": DoublePrecision,
        "inner_gradient": InnerGradient,
        "repeated_layer": Repeated,
    }
    over_sequences: dict[str, type[nn.Module]] = {
        "in_place": InPlace,
        "fourier": Fourier,
        "nested_output": NestedOutput,
    }
    return [
        *(entry(name, "unusual flow", kind, vector()) for name, kind in over_vectors.items()),
        *(entry(name, "unusual flow", kind, sequence()) for name, kind in over_sequences.items()),
        entry("shape_control", "unusual flow", ShapeControl, image()),
        entry("batch_norm_in_training", "unusual flow", BatchNormInTraining, image(), training=True),
        entry("running_statistics_in_training", "unusual flow", RunningStatistics, vector(), training=True),
    ]
