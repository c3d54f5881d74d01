"""Networks over vectors, sets, points and graphs, with one or several inputs."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ghn.models import Inputs, Model
from benchmarks.ghn.models.handwritten.entry import entry, vector


class PlainMLP(nn.Module):
    """Batch norm over vectors, dropout, and the activation chosen by a string."""

    def __init__(self, activation: str = "leaky_relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 24), nn.Linear(24, 24), nn.Linear(24, 4)])
        self.norm = nn.BatchNorm1d(24)
        self.activation: Callable[[Tensor], Tensor] = getattr(F, activation)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.dropout(self.activation(self.norm(layer(x))), training=self.training)
        return self.layers[-1](x)


class Highway(nn.Module):
    """Gates decide between a layer and its input; gate biases start at -2."""

    def __init__(self, dim: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -2)  # type: ignore[arg-type]  # a Parameter

    def forward(self, x: Tensor) -> Tensor:
        for layer, gate in zip(self.layers, self.gates, strict=True):
            t = gate(x).sigmoid()
            x = torch.lerp(x, layer(x).relu(), t)
        return x


class Siren(nn.Module):
    """Sines of a scaled linear layer over random Fourier features held in a buffer."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 8))
        self.first, self.second, self.out = nn.Linear(16, 24), nn.Linear(24, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x @ self.frequencies
        x = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
        return self.out(torch.sin(30 * self.second(torch.sin(30 * self.first(x)))))


class RadianceField(nn.Module):
    """Position and direction enter at different depths, the position a second time by a skip; two heads."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.pts = nn.ModuleList(
            [nn.Linear(15, width), nn.Linear(width, width), nn.Linear(width + 15, width)]
        )
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.view = nn.Linear(width + 9, width // 2)
        self.rgb = nn.Linear(width // 2, 3)

    @staticmethod
    def encode(x: Tensor, levels: int) -> Tensor:
        parts = [x]
        for level in range(levels):
            parts += [torch.sin(2.0**level * x), torch.cos(2.0**level * x)]
        return torch.cat(parts, -1)

    def forward(self, position: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encode(position, 2)
        h = encoded
        for i, layer in enumerate(self.pts):
            if i == 2:
                h = torch.cat([encoded, h], -1)
            h = F.relu(layer(h))
        seen = self.view(torch.cat([self.feature(h), self.encode(direction, 1)], -1))
        return torch.sigmoid(self.rgb(F.relu(seen))), F.softplus(self.density(h)).squeeze(-1)


class FiLM(nn.Module):
    """A condition scales and shifts the features of an image network; the second input may be left out."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(3, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.condition = nn.Linear(4, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        y = self.norm(self.conv1(x))
        if condition is not None:
            scale, shift = self.condition(condition)[..., None, None].chunk(2, dim=1)
            y = (1 + scale) * y + shift
        return self.conv2(F.relu(y)).amax(dim=(2, 3))


class Siamese(nn.Module):
    """One tower is called on both inputs; the output is a distance."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(16, 24), nn.LayerNorm(24), nn.SELU(), nn.Linear(24, 8))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.tower(left), self.tower(right)
        return self.scale * F.pairwise_distance(a, b) + F.cosine_similarity(a, b)


class DeepSets(nn.Module):
    """A sum over a masked set: sum, mean and maximum of the members, then an outer network."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24))
        self.rho = nn.Sequential(nn.Linear(72, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.phi(x) * mask.unsqueeze(-1)
        largest = h.masked_fill(~mask.bool().unsqueeze(-1), -1e9).max(dim=1).values
        return self.rho(torch.cat([h.sum(1), h.sum(1) / mask.sum(1, keepdim=True), largest], dim=-1))


class PointNet(nn.Module):
    """A predicted 3x3 transform multiplies the points; convolutions of width one, then a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU())
        self.to_matrix = nn.Linear(8, 9)
        self.conv1, self.conv2 = nn.Conv1d(3, 16, 1), nn.Conv1d(16, 32, 1)
        self.bn = nn.BatchNorm1d(32)
        self.segment = nn.Conv1d(48, 2, 1)

    def forward(self, points: Tensor) -> Tensor:
        x = points.transpose(2, 1)
        matrix = self.to_matrix(torch.max(self.transform(x), 2)[0]).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(points, matrix).transpose(2, 1)
        local = F.relu(self.conv1(x))
        whole = torch.max(self.bn(self.conv2(local)), 2, keepdim=True)[0].repeat(1, 1, x.shape[2])
        return self.segment(torch.cat([local, whole], 1))


class GraphConvolution(nn.Module):
    """Two layers of support-then-aggregate over a normalised dense adjacency in a buffer."""

    adjacency: Tensor

    def __init__(self, nodes: int = 6) -> None:
        super().__init__()
        links = (torch.rand(nodes, nodes) < 0.4).float()
        links = ((links + links.t() + torch.eye(nodes)) > 0).float()
        degree = links.sum(1).rsqrt()
        self.register_buffer("adjacency", degree[:, None] * links * degree[None])
        self.weight1 = nn.Parameter(torch.empty(16, 12))
        self.weight2 = nn.Parameter(torch.empty(12, 4))
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(4))
        nn.init.xavier_uniform_(self.weight1)
        nn.init.xavier_uniform_(self.weight2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.matmul(self.adjacency, torch.matmul(x, self.weight1)) + self.bias1
        return torch.matmul(self.adjacency, x.relu().matmul(self.weight2)).add(self.bias2).mean(1)


class GraphAttention(nn.Module):
    """Edges as an index input: gather, scatter_add and scatter_reduce for the softmax over neighbours."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(16, dim, bias=False)
        self.att_src, self.att_dst = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        h = self.lin(x)
        score = F.leaky_relu((h * self.att_src).sum(-1)[source] + (h * self.att_dst).sum(-1)[target], 0.2)
        top = torch.full((x.shape[0],), -1e9).scatter_reduce(0, target, score, "amax")
        weight = torch.exp(score - top[target])
        total = torch.zeros(x.shape[0]).scatter_add(0, target, weight)
        weight = weight / (total[target] + 1e-9)
        return torch.zeros_like(h).index_add(0, target, weight[:, None] * h[source]) + self.bias


class BilinearScore(nn.Module):
    """nn.Bilinear on two inputs, with a threshold and a soft shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 6)
        self.bilinear = nn.Bilinear(8, 6, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        score = self.bilinear(F.softshrink(self.left(left), 0.1), F.threshold(self.right(right), 0.0, 0.1))
        return F.softmin(score, dim=-1)


class WideAndDeep(nn.Module):
    """EmbeddingBag for ragged categories with offsets, a bag of weights, and a cross network on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8, mode="mean")
        self.wide = nn.EmbeddingBag(20, 1, mode="sum")
        self.cross = nn.Parameter(torch.randn(2, 12))
        self.cross_bias = nn.Parameter(torch.zeros(2, 12))
        self.deep = nn.Sequential(nn.Linear(12, 16), nn.Softplus(), nn.Linear(16, 1))

    def forward(self, numbers: Tensor, categories: Tensor, offsets: Tensor) -> Tensor:
        x0 = x = torch.cat([self.bag(categories, offsets), numbers], dim=1)
        for weight, bias in zip(self.cross, self.cross_bias, strict=True):
            x = x0 * (x @ weight).unsqueeze(1) + bias + x
        return self.deep(x).add(self.wide(categories, offsets)).squeeze(-1)


class CouplingFlow(nn.Module):
    """Real NVP: alternating mask buffers, an exponential of a bounded scale, and the log-determinant."""

    masks: Tensor

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        even = torch.arange(dim) % 2
        self.register_buffer("masks", torch.stack([even, 1 - even]).float())
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 24), nn.Tanh(), nn.Linear(24, 2 * dim)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logdet = x.new_zeros(x.shape[0])
        for mask, net in zip(self.masks, self.nets, strict=True):
            scale, shift = net(x * mask).tensor_split(2, dim=1)
            scale = torch.tanh(scale) * (1 - mask)
            x = x * mask + (1 - mask) * (x * scale.exp() + shift)
            logdet = logdet + scale.sum(1)
        return x, logdet


class NeuralODE(nn.Module):
    """One vector field is integrated by a Runge-Kutta step, so it is called eight times in all."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(dim + 1, 24), nn.Tanh(), nn.Linear(24, dim))

    def f(self, t: float, x: Tensor) -> Tensor:
        return self.field(torch.cat([x, torch.full((x.shape[0], 1), t)], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        step = 0.5
        for t in (0.0, 0.5):
            k1 = self.f(t, x)
            k2 = self.f(t + step / 2, x + step / 2 * k1)
            k3 = self.f(t + step / 2, x + step / 2 * k2)
            k4 = self.f(t + step, x + step * k3)
            x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x


class VectorQuantiser(nn.Module):
    """The nearest entry of a codebook by cdist and argmin, and the straight-through trick with detach."""

    def __init__(self, dim: int = 16, codes: int = 8) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(dim, 4), nn.Linear(4, dim)
        self.codebook = nn.Embedding(codes, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        nearest = torch.cdist(z, self.codebook.weight).argmin(dim=1)
        chosen = self.codebook(nearest)
        return self.decoder(z + (chosen - z).detach()), F.mse_loss(chosen, z.detach())


class Splines(nn.Module):
    """A Kolmogorov-Arnold layer: radial basis functions of each input, with a coefficient for every pair."""

    centres: Tensor

    def __init__(self, channels_in: int = 16, channels: int = 5, knots: int = 6) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, knots))
        self.coefficients = nn.Parameter(torch.randn(channels, channels_in, knots) * 0.1)
        self.base = nn.Parameter(torch.randn(channels, channels_in) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        basis = torch.exp(-((x.unsqueeze(-1) - self.centres) ** 2))
        return torch.tensordot(basis, self.coefficients, dims=([1, 2], [1, 2])) + F.silu(x) @ self.base.T


class ActorCritic(nn.Module):
    """A policy and a value from one trunk, with a state-independent log deviation as a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, 24), nn.Tanh())
        self.mean, self.value = nn.Linear(24, 3), nn.Linear(24, 1)
        self.log_std = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        policy = torch.distributions.Normal(self.mean(h), self.log_std.exp(), validate_args=False)
        log_prob: Tensor = policy.log_prob(policy.mean * 0.5)  # type: ignore[no-untyped-call]  # torch's
        return log_prob.sum(-1), self.value(h).squeeze(-1)


class DuelingQ(nn.Module):
    """Two streams of unequal width joined by broadcasting, less the mean advantage."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(16, 24)
        self.value = nn.Linear(24, 1)
        self.advantage = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.shared(x))
        value, advantage = self.value(h), self.advantage(h)
        return value + (advantage - advantage.mean(-1, keepdim=True))


def _pair() -> Inputs:
    return {"left": torch.randn(2, 16), "right": torch.randn(2, 16)}


def _rays() -> Inputs:
    return {"position": torch.randn(2, 5, 3), "direction": F.normalize(torch.randn(2, 5, 3), dim=-1)}


def _image_and_condition() -> Inputs:
    return {"x": torch.randn(2, 3, 8, 8), "condition": torch.randn(2, 4)}


def _masked_set() -> Inputs:
    return {"x": torch.randn(2, 5, 16), "mask": torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])}


def _ragged() -> Inputs:
    return {
        "numbers": torch.randn(2, 4),
        "categories": torch.tensor([3, 5, 7, 1, 19]),
        "offsets": torch.tensor([0, 2]),
    }


def _small_graph() -> Inputs:
    return {
        "x": torch.randn(5, 16),
        "edge_index": torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 0]]),
    }


def models() -> list[Model]:
    """Networks over vectors, sets, points and graphs."""
    over_vectors: dict[str, type[nn.Module]] = {
        "mlp": PlainMLP,
        "highway": Highway,
        "coupling_flow": CouplingFlow,
        "neural_ode": NeuralODE,
        "vector_quantiser": VectorQuantiser,
        "splines": Splines,
        "actor_critic": ActorCritic,
        "dueling_q": DuelingQ,
    }
    return [
        *(entry(name, "vectors", kind, vector()) for name, kind in over_vectors.items()),
        entry("siren", "vectors", Siren, vector(2)),
        entry("radiance_field", "vectors", RadianceField, _rays),
        entry("film", "vectors", FiLM, _image_and_condition),
        entry("siamese", "vectors", Siamese, _pair),
        entry("bilinear", "vectors", BilinearScore, _pair),
        entry("wide_and_deep", "vectors", WideAndDeep, _ragged),
        entry("deep_sets", "sets and graphs", DeepSets, _masked_set),
        entry("pointnet", "sets and graphs", PointNet, lambda: {"points": torch.randn(2, 10, 3)}),
        entry("graph_convolution", "sets and graphs", GraphConvolution, lambda: {"x": torch.randn(2, 6, 16)}),
        entry("graph_attention", "sets and graphs", GraphAttention, _small_graph),
    ]
