"""Parameters that are tied, held in containers, cut from one another, parametrised, frozen or unused."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from benchmarks.ghn.models import Inputs, Model
from benchmarks.ghn.models.handwritten.entry import entry, image, tokens, vector


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's weight transposed, read through `.t()`."""

    def __init__(self, dim: int = 16, code: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(code, dim) * dim**-0.5)
        self.encoder_bias, self.decoder_bias = nn.Parameter(torch.zeros(code)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(F.linear(x, self.weight, self.encoder_bias))
        return F.linear(code, self.weight.t(), self.decoder_bias)


class TiedLanguageModel(nn.Module):
    """Embedding and output share one weight, which the factorised output multiplies by `.T`; GRU between."""

    def __init__(self, vocabulary: int = 50, dim: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.rnn(self.embed(tokens))[0] @ self.embed.weight.T + self.bias


class SharedLayers(nn.Module):
    """One block object under two names and in a list; another pair shares only the bias."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Linear(dim, dim)
        self.decoder = self.encoder
        self.stack = nn.ModuleList([self.encoder, nn.Linear(dim, dim), self.encoder])
        self.stack[1].bias = self.encoder.bias

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.stack:
            x = F.relu(layer(x)) + x
        return self.decoder(x)


class DictionaryOfParameters(nn.Module):
    """Half of the parameters live in a ParameterDict and are used by name, one of them by two operators."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.lift = nn.Linear(dim, dim)
        self.weights = nn.ParameterDict(
            {
                "first": torch.randn(dim, dim) * 0.2,
                "second": torch.randn(dim, 3) * 0.2,
                "gain": torch.ones(dim),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x) * self.weights["gain"]
        for name in ("first", "second"):
            x = torch.mm(x.tanh(), self.weights[name])
        return x - self.weights["gain"].mean()


class RawFunctional(nn.Module):
    """No layers: convolution, batch norm, layer norm and linear by functional calls on bare parameters."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) * 0.2)
        self.gamma, self.beta = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.register_buffer("running_mean", torch.zeros(8))
        self.register_buffer("running_var", torch.ones(8))
        self.norm_weight = nn.Parameter(torch.ones(8))
        self.w, self.b = nn.Parameter(torch.randn(10, 8) * 0.3), nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, stride=2, padding=1)
        x = F.batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, self.training)
        x = F.layer_norm(F.relu(x).mean((2, 3)), (8,), self.norm_weight, None)
        return F.linear(x, self.w, self.b)


class FlatParameter(nn.Module):
    """One flat vector holds all weights; forward cuts it with narrow, view and split."""

    def __init__(self, dim: int = 16, hidden: int = 8) -> None:
        super().__init__()
        self.sizes = [hidden * dim, hidden, 3 * hidden, 3]
        self.dim, self.hidden = dim, hidden
        self.flat = nn.Parameter(torch.randn(sum(self.sizes)) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        w1, b1, w2, b2 = torch.split(self.flat, self.sizes)
        x = F.relu(F.linear(x, w1.view(self.hidden, self.dim), b1))
        return torch.addmm(b2, x, w2.view(3, self.hidden).t())


class JoinedParameters(nn.Module):
    """Query, key and value weights are concatenated in forward and used by one linear call."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(dim, dim) * dim**-0.5) for _ in range(3))
        self.bias = nn.ParameterList([nn.Parameter(torch.zeros(dim)) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        qkv = F.linear(x, torch.cat([self.q, self.k, self.v]), torch.cat(list(self.bias)))
        q, k, v = qkv.chunk(3, dim=-1)
        return torch.softmax(q.unsqueeze(-1) * k.unsqueeze(-2), dim=-1) @ v.unsqueeze(-1)


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


class Positive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


class Parametrised(nn.Module):
    """Own parametrisations, two on one weight in a chain, and an orthogonal one whose base is its own."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 3)
        parametrize.register_parametrization(self.first, "weight", Symmetric())
        parametrize.register_parametrization(self.first, "weight", Positive())
        orthogonal(self.second)
        parametrize.register_parametrization(self.third, "bias", Positive())

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.tanh(self.second(self.first(x) / 16)))


class ScalarGains(nn.Module):
    """Rezero gains of no axes, a temperature of one element, and a learnt mixture of activations."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.alphas = nn.ParameterList(nn.Parameter(torch.tensor(0.1)) for _ in range(3))
        self.temperature = nn.Parameter(torch.tensor([2.0]))
        self.mix = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.mix.softmax(0)
        for layer, alpha in zip(self.layers, self.alphas, strict=True):
            y = layer(x)
            x = x + alpha * (first * torch.relu(y) + second * torch.sin(y))
        return F.softmax(x / self.temperature, dim=-1)


class DeadHead(nn.Module):
    """An auxiliary head that only training uses, and a parameter that nothing uses."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.body, self.head, self.auxiliary = nn.Linear(dim, dim), nn.Linear(dim, 3), nn.Linear(dim, 3)
        self.forgotten = nn.Parameter(torch.randn(5, 7))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = F.relu(self.body(x))
        if self.training:
            return self.head(h), self.auxiliary(h)
        return self.head(h)


class UsedButIgnored(nn.Module):
    """A layer is run and its result thrown away; another one is detached; a third is multiplied by zero."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.thrown, self.detached, self.zeroed = (
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
        )
        self.head = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        _ = self.thrown(x)
        return self.head(self.detached(x).detach() + 0 * self.zeroed(x))


class Frozen(nn.Module):
    """A frozen backbone under no_grad, a trained head, and a frozen table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2))
        self.backbone.requires_grad_(False)
        self.positions = nn.Parameter(torch.randn(8, 64), requires_grad=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            feature = self.backbone(x)
        return self.head((feature + self.positions).mean(-1))


class DataAttribute(nn.Module):
    """Reads its weights through `.data` and `.detach()`, and a bias through a view with other strides."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn(dim, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.layer.weight.data, self.layer.bias.detach())
        return x @ self.table.as_strided((self.table.shape[0], 2), (4, 2))


class OptionalParameters(nn.Module):
    """register_parameter(None), an empty parameter, and a name set by a loop with setattr."""

    scale: nn.Parameter | None

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.register_parameter("scale", None)
        self.empty = nn.Parameter(torch.zeros(0, dim))
        for index in range(2):
            setattr(self, f"layer_{index}", nn.Linear(dim, dim, bias=bool(index)))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.empty], dim=0)
        for index in range(2):
            x = getattr(self, f"layer_{index}")(x).relu()
        return x if self.scale is None else x * self.scale


class IndexedParameter(nn.Module):
    """Rows of a parameter by integer tensors, gather and advanced indexing; a codebook for each of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, 50, 8))
        self.order = nn.Parameter(torch.randn(50, 4))
        self.head = nn.Linear(20, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        both = torch.cat([self.table[0][tokens], self.table[1, tokens]], dim=-1)
        ordered = torch.index_select(self.order, 0, tokens.flatten()).view(*tokens.shape, 4)
        picked = torch.gather(self.order, 0, tokens[:, :4].contiguous()).mean()
        return self.head(torch.cat([both, ordered], -1)).mean(1) + picked


class PropertyParameter(nn.Module):
    """Parameters under another name: a property, a closure and a plain list that torch does not know of."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self._raw = nn.Parameter(torch.zeros(dim, dim))
        self.inner = nn.Linear(dim, dim)
        self.alias = [self.inner.weight]

    @property
    def weight(self) -> Tensor:
        return torch.linalg.matrix_exp(0.1 * (self._raw - self._raw.mT))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight) @ self.alias[0] + self.inner.bias


def initialised_lazy() -> nn.Module:
    """Lazy layers after one call have ordinary parameters."""
    net = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    net.eval()(torch.zeros(2, 3, 16, 16))
    return net


class HundredLayers(nn.Module):
    """A hundred narrow layers with a residual each: long graphs must stay quick."""

    def __init__(self, dim: int = 8, depth: int = 100) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.norm(x + torch.tanh(layer(x)))
        return x


def _sequential_image() -> Inputs:
    return {"input": torch.randn(2, 3, 16, 16)}


def models() -> list[Model]:
    """Networks with unusual parameters."""
    over_vectors: dict[str, type[nn.Module]] = {
        "tied_autoencoder": TiedAutoencoder,
        "shared_layers": SharedLayers,
        "parameter_dict": DictionaryOfParameters,
        "flat_parameter": FlatParameter,
        "joined_parameters": JoinedParameters,
        "parametrised": Parametrised,
        "scalar_gains": ScalarGains,
        "dead_head": DeadHead,
        "used_but_ignored": UsedButIgnored,
        "data_attribute": DataAttribute,
        "optional_parameters": OptionalParameters,
        "property_parameter": PropertyParameter,
    }
    return [
        *(entry(name, "unusual parameters", kind, vector()) for name, kind in over_vectors.items()),
        entry("tied_language_model", "unusual parameters", TiedLanguageModel, tokens()),
        entry("indexed_parameter", "unusual parameters", IndexedParameter, tokens()),
        entry("raw_functional", "unusual parameters", RawFunctional, image()),
        entry("frozen", "unusual parameters", Frozen, image()),
        entry("initialised_lazy", "unusual parameters", initialised_lazy, _sequential_image),
        entry("hundred_layers", "unusual parameters", HundredLayers, vector(8)),
    ]
