"""Networks over vectors, sequences of words and steps."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Tensor, ...]]


def _noise(*shape: int) -> tuple[Tensor, ...]:
    return (torch.randn(*shape),)


def _words(count: int, length: int, *, vocabulary: int = 20) -> tuple[Tensor, ...]:
    return (torch.randint(vocabulary, (count, length)),)


def _mlp(
    activation: Callable[[], nn.Module], *, norm: Callable[[int], nn.Module] | None = None
) -> nn.Sequential:
    sizes, layers = (12, 24, 16, 16), list[nn.Module]()
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), *([norm(after)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 5))


class _Sine(nn.Module):
    """A layer of SIREN (Sitzmann et al. 2020, "Implicit neural representations with periodic activation functions")."""

    # mypy: disable-error-code="no-any-return"

    def __init__(self, before: int, after: int, *, frequency: float) -> None:
        super().__init__()
        self.linear, self.frequency = nn.Linear(before, after), frequency

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * self.linear(x))


class _ResidualMlp(nn.Module):
    """Blocks added to one stream; two of them share their weights."""

    def __init__(self, width: int = 16, hidden: int = 24) -> None:
        super().__init__()
        self.first = nn.Linear(10, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(2):
            x = x + self.down(torch.relu(self.up(x)))
        return self.last(x)


class _Gated(nn.Module):
    """A gated linear unit: one half of the units opens the other."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.last = nn.Linear(10, 32), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        return self.last(value * torch.sigmoid(gate))


class _WideAndDeep(nn.Module):
    """Looks words up, averages them, and joins them with numbers (Cheng et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.wide = nn.Embedding(20, 12), nn.Linear(6, 4)
        self.deep = nn.Sequential(nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, words: Tensor, numbers: Tensor) -> Tensor:
        return self.deep(torch.cat([self.words(words).mean(1), numbers], dim=1)) + self.wide(numbers)


class _Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 6), nn.Linear(8, 7)
        self.joined, self.last = nn.Bilinear(6, 7, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.joined(torch.tanh(self.left(x)), torch.tanh(self.right(x)))))


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: object) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.cell = kind(8, 12, batch_first=True, **settings)  # type: ignore[arg-type]  # torch's classes differ
        self.last = nn.Linear(12 * (2 if self.cell.bidirectional else 1), 4)

    def forward(self, words: Tensor) -> Tensor:
        return self.last(self.cell(self.words(words))[0].mean(1))


class _TextCnn(nn.Module):
    """Convolutions over words (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.convs = nn.ModuleList(nn.Conv1d(8, 6, size) for size in (2, 3, 4))
        self.last = nn.Linear(18, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words).transpose(1, 2)
        return self.last(torch.cat([torch.relu(conv(x)).amax(2) for conv in self.convs], dim=1))


class _Temporal(nn.Module):
    """Dilated convolutions over steps with group norms and skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 12, 1)
        self.convs = nn.ModuleList(nn.Conv1d(12, 12, 3, padding=2**i, dilation=2**i) for i in range(3))
        self.norms = nn.ModuleList(nn.GroupNorm(3, 12) for _ in range(3))
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + torch.relu(norm(conv(x)))
        return self.last(x.mean(2))


class _Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(20, 16), nn.ELU(), nn.Linear(16, 6), nn.ELU())
        self.decode = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.1), nn.Linear(16, 20))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class _TwoHeads(nn.Module):
    """One trunk, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        self.policy, self.value = nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.policy(x), torch.tanh(self.value(x))


VECTORS: Mapping[str, Callable[[], Made]] = {
    "mlp": lambda: (_mlp(nn.ReLU), _noise(4, 12)),
    "mlp-tanh": lambda: (_mlp(nn.Tanh), _noise(4, 12)),
    "mlp-gelu": lambda: (_mlp(nn.GELU), _noise(4, 12)),
    "mlp-batch-norm": lambda: (_mlp(nn.ReLU, norm=nn.BatchNorm1d), _noise(4, 12)),
    "mlp-layer-norm": lambda: (_mlp(nn.SiLU, norm=nn.LayerNorm), _noise(4, 12)),
    "mlp-prelu": lambda: (
        nn.Sequential(nn.Linear(10, 16), nn.PReLU(16), nn.Linear(16, 12), nn.PReLU(), nn.Linear(12, 3)),
        _noise(4, 10),
    ),
    "mlp-residual-shared": lambda: (_ResidualMlp(), _noise(4, 10)),
    "mlp-gated": lambda: (_Gated(), _noise(4, 10)),
    "siren": lambda: (
        nn.Sequential(_Sine(2, 16, frequency=3.0), _Sine(16, 16, frequency=1.0), nn.Linear(16, 1)),
        _noise(6, 2),
    ),
    "wide-and-deep": lambda: (_WideAndDeep(), (torch.randint(20, (4, 5)), torch.randn(4, 6))),
    "bilinear": lambda: (_Bilinear(), _noise(4, 8)),
    "autoencoder": lambda: (_Autoencoder(), _noise(4, 20)),
    "two-heads": lambda: (_TwoHeads(), _noise(4, 10)),
    "text-cnn": lambda: (_TextCnn(), _words(3, 9)),
    "temporal": lambda: (_Temporal(), _noise(3, 3, 16)),
    "rnn": lambda: (_Recurrent(nn.RNN, nonlinearity="tanh"), _words(3, 6)),
    "gru": lambda: (_Recurrent(nn.GRU, num_layers=2), _words(3, 6)),
    "lstm": lambda: (_Recurrent(nn.LSTM), _words(3, 6)),
    "lstm-both-ways": lambda: (_Recurrent(nn.LSTM, bidirectional=True), _words(3, 6)),
}
