"""Mixtures of experts, adapters and generated weights: parameters that reach an operator by a detour."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ghn.models import Model
from benchmarks.ghn.models.handwritten.entry import entry, sequence, vector


class SoftExperts(nn.Module):
    """All experts run; the gate's softmax weights their stacked outputs."""

    def __init__(self, dim: int = 16, experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, experts)
        self.experts = nn.ModuleList([nn.Linear(dim, dim) for _ in range(experts)])

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-1)
        return torch.einsum("bde,be->bd", outputs, F.softmax(self.gate(x), dim=-1))


class TopExperts(nn.Module):
    """A loop over experts with `torch.where` and `index_add_`: which rows an expert sees depends on the data."""

    def __init__(self, dim: int = 16, experts: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.view(-1, x.shape[-1])
        weight, chosen = torch.topk(self.router(flat).softmax(-1), 2, dim=-1)
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == index)
            out.index_add_(0, rows, expert(flat[rows]) * weight[rows, slot, None])
        return out.view_as(x)


class SkippingExperts(nn.Module):
    """Experts that no row chose are not run at all: with these inputs some parameters stay unused."""

    def __init__(self, dim: int = 16, experts: int = 16) -> None:
        super().__init__()
        self.router = nn.Linear(dim, experts)
        self.experts = nn.ModuleList(nn.Linear(dim, dim) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x).argmax(dim=-1)
        out = x.clone()
        for index, expert in enumerate(self.experts):
            rows = chosen == index
            if rows.any():
                out[rows] = expert(x[rows])
        return out


class BatchedExperts(nn.Module):
    """The weights of all experts in one three-axis parameter, used by bmm and baddbmm."""

    def __init__(self, dim: int = 16, experts: int = 4) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, dim, 2 * dim) * dim**-0.5)
        self.up_bias = nn.Parameter(torch.zeros(experts, 1, 2 * dim))
        self.down = nn.Parameter(torch.randn(experts, 2 * dim, dim) * dim**-0.5)
        self.gate = nn.Parameter(torch.randn(dim, experts))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        gate = (flat @ self.gate).softmax(-1)
        hidden = torch.baddbmm(self.up_bias, flat.expand(len(self.up), -1, -1), self.up).relu()
        return (torch.bmm(hidden, self.down) * gate.t().unsqueeze(-1)).sum(0).view_as(x)


class SlotExperts(nn.Module):
    """Soft mixture: rows are mixed into slots, and the slots' outputs back into rows; indexed experts."""

    def __init__(self, dim: int = 16, experts: int = 2, slots: int = 2) -> None:
        super().__init__()
        self.phi = nn.Parameter(torch.randn(dim, experts, slots) * dim**-0.5)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.experts = nn.ModuleDict({f"expert_{index}": nn.Linear(dim, dim) for index in range(experts)})

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.einsum(
            "btd,des->btes", F.normalize(x, dim=-1), self.scale * F.normalize(self.phi, dim=0)
        )
        slots = torch.einsum("btes,btd->besd", logits.softmax(1), x)
        outputs = torch.stack([self.experts[f"expert_{i}"](slots[:, i]) for i in range(slots.shape[1])], 1)
        combine = logits.flatten(2).softmax(-1).view_as(logits)
        return torch.einsum("btes,besd->btd", combine, outputs)


class LowRankAdapter(nn.Module):
    """A frozen linear layer whose weight is added to the product of two small trainable matrices."""

    def __init__(self, dim: int = 16, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(dim, dim).requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, dim) * 0.1)
        self.lora_b = nn.Parameter(torch.zeros(dim, rank))
        self.scaling = 4 / rank

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + self.scaling * self.lora_b @ self.lora_a
        return F.linear(x, weight, self.base.bias)


class HyperNetwork(nn.Module):
    """The weights of the main network are the output of a small one; one of them is then sliced and reshaped."""

    def __init__(self, dim: int = 16, hidden: int = 8) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.embedding = nn.Parameter(torch.randn(2, 4))
        self.make = nn.Linear(4, hidden * dim + hidden)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.make(self.embedding).mean(0)
        split = self.hidden * self.dim
        weight, bias = made[:split].view(self.hidden, self.dim), made[split:]
        return self.head(torch.tanh(F.linear(x, weight, bias)))


class FastWeights(nn.Module):
    """A linear layer's weight is updated inside forward by outer products of what it sees."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.slow = nn.Linear(dim, dim, bias=False)
        self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.rate = nn.Parameter(torch.tensor([0.1]))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.slow.weight.expand(x.shape[0], -1, -1)
        outputs = []
        for step in x.unbind(dim=1):
            weight = weight + self.rate.sigmoid() * torch.einsum(
                "bi,bj->bij", self.value(step), self.key(step)
            )
            outputs.append(torch.einsum("bij,bj->bi", weight, step) / weight.norm(dim=(1, 2)).unsqueeze(1))
        return torch.stack(outputs, dim=1)


def models() -> list[Model]:
    """Mixtures of experts and networks that compute their weights."""
    over_sequences: dict[str, type[nn.Module]] = {
        "top_experts": TopExperts,
        "batched_experts": BatchedExperts,
        "slot_experts": SlotExperts,
        "fast_weights": FastWeights,
    }
    over_vectors: dict[str, type[nn.Module]] = {
        "soft_experts": SoftExperts,
        "skipping_experts": SkippingExperts,
        "low_rank_adapter": LowRankAdapter,
        "hypernetwork": HyperNetwork,
    }
    return [
        *(entry(name, "experts", kind, sequence()) for name, kind in over_sequences.items()),
        *(entry(name, "experts", kind, vector()) for name, kind in over_vectors.items()),
    ]
