"""A small prior-fitted network for learning curves: one forward pass instead of Bayesian inference.

Shape letters: B = curves, L = points of a curve, Q = queries per point, F = features, D = state size, K = bars.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import ConfigError

POINT_FEATURES, QUERY_FEATURES = 10, 6


@dataclass(frozen=True, kw_only=True)
class CurveNetworkConfig:
    """Size of the network.

    Attributes:
        dim: Size of a point's state.
        num_layers: Transformer blocks.
        num_heads: Attention heads. Must divide `dim`.
        hidden_dim: Size within the feed-forward parts and the head.
        num_bars: Bars of the answer; even.
        max_points: Most points of a curve that are read; longer ones are thinned.

    Raises:
        ConfigError: If a size is not positive, or does not fit.
    """

    dim: int = 128
    num_layers: int = 4
    num_heads: int = 4
    hidden_dim: int = 256
    num_bars: int = 256
    max_points: int = 64

    def __post_init__(self) -> None:
        for name in ("dim", "num_layers", "num_heads", "hidden_dim", "num_bars", "max_points"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ConfigError(f"Expected '{name}' between 1 and 4096 (got {getattr(self, name)})")
        if self.dim % self.num_heads:
            raise ConfigError(f"Expected 'num_heads' to divide 'dim' (got {self.num_heads} and {self.dim})")
        if self.num_bars % 2:
            raise ConfigError(f"Expected an even 'num_bars' (got {self.num_bars})")


class CurveNetwork(nn.Module):
    """Reads a curve from left to right and says after every point how it will go on.

    A prior-fitted network in the sense of Mueller et al. 2022 and Adriaensen et al. 2023: trained on curves drawn from a
    prior until its answer is the posterior. It departs from theirs in three ways, all of which save time on a CPU. Attention
    is causal, so that one pass learns from every prefix of a curve. A query does not attend; a head reads the state of the
    last point that is known, and the time that is asked for. And the bars divide the *change* since the last known value,
    narrow near zero, so that 256 of them are fine enough late in a training, when little changes any more.

    Guaranteed: the answer after point i depends on the points up to i only. Bars that lie outside [0, 1] altogether, as
    seen from the last value, get no mass.
    """

    def __init__(self, config: CurveNetworkConfig) -> None:
        super().__init__()
        self.config = config
        dim, hidden = config.dim, config.hidden_dim
        self.embed = nn.Sequential(nn.Linear(POINT_FEATURES, dim), nn.GELU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(_Block(dim, config.num_heads, hidden) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(dim)
        self.state_in = nn.Linear(dim, hidden)
        self.query_in = nn.Sequential(nn.Linear(QUERY_FEATURES, dim), nn.GELU(), nn.Linear(dim, hidden))
        self.head = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.out = nn.Linear(hidden, config.num_bars)

    def forward(
        self,
        times_BL: Float[Tensor, "curves points"],
        heights_BL: Float[Tensor, "curves points"],
        targets_BLQ: Float[Tensor, "curves points queries"],
    ) -> Float[Tensor, "curves points queries bars"]:
        """Logarithms of the bars' masses, up to a constant; minus infinity for bars that cannot be.

        Args:
            times_BL: When each value was measured, in (0, 1].
            heights_BL: The values, in [0, 1].
            targets_BLQ: For each prefix the times that are asked for.
        """
        x_BLD = self.embed(point_features(times_BL, heights_BL))
        for block in self.blocks:
            x_BLD = block(x_BLD)
        state_BL1H = self.state_in(self.norm(x_BLD)).unsqueeze(2)
        query_BLQH = self.query_in(query_features(times_BL, heights_BL, targets_BLQ))
        logits_BLQK = self.out(self.head(state_BL1H + query_BLQH))
        possible_BLK = possible_bars(heights_BL, self.config.num_bars)
        masked: Tensor = logits_BLQK.masked_fill(~possible_BLK.unsqueeze(2), float("-inf"))
        return masked


class _Block(nn.Module):
    """Attention to earlier points and itself, then a feed-forward part; norms first."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix_in, self.mix_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x_BLD: Tensor) -> Tensor:
        parts = self.mix_in(self.attention_norm(x_BLD)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x_BLD = x_BLD + self.mix_out(mixed.transpose(1, 2).flatten(2))
        added: Tensor = x_BLD + self.feed(self.feed_norm(x_BLD))
        return added


def point_features(
    times_BL: Float[Tensor, "curves points"], heights_BL: Float[Tensor, "curves points"]
) -> Float[Tensor, "curves points features"]:
    """What the network sees of each point: its time and height, and how both changed since the point before."""
    before_BL = F.pad(heights_BL[:, :-1], (1, 0))
    before_BL = torch.cat([heights_BL[:, :1], before_BL[:, 1:]], dim=1)
    change_BL = heights_BL - before_BL
    passed_BL = times_BL - F.pad(times_BL[:, :-1], (1, 0))
    count = torch.arange(1, times_BL.shape[1] + 1, dtype=times_BL.dtype, device=times_BL.device)
    best_BL = heights_BL.cummax(dim=1).values
    return torch.stack(
        [
            times_BL,
            _log_time(times_BL),
            _log_time(passed_BL),
            (count.log() / math.log(64)).expand_as(times_BL),
            2 * heights_BL - 1,
            (1 - heights_BL + 0.01).log() / 2 + 1,
            torch.asinh(change_BL * 100) / 3,
            torch.tanh(change_BL * 10),
            torch.asinh((best_BL - heights_BL) * 100) / 3,
            torch.asinh((heights_BL - heights_BL[:, :1]) * 20) / 3,
        ],
        dim=-1,
    )


def query_features(
    times_BL: Float[Tensor, "curves points"],
    heights_BL: Float[Tensor, "curves points"],
    targets_BLQ: Float[Tensor, "curves points queries"],
) -> Float[Tensor, "curves points queries features"]:
    """What the head sees of each question: the time asked for, and how far away it is."""
    now_BL1, height_BL1 = times_BL.unsqueeze(-1), heights_BL.unsqueeze(-1)
    return torch.stack(
        [
            targets_BLQ,
            _log_time(targets_BLQ),
            targets_BLQ - now_BL1,
            (targets_BLQ / now_BL1).log() / 2,
            _log_time((targets_BLQ - now_BL1).clamp(min=0)),
            height_BL1.expand_as(targets_BLQ),
        ],
        dim=-1,
    )


def bar_borders(num_bars: int) -> Float[Tensor, " borders"]:
    """Ends of the bars over the change of height, from -1 to 1: 0.0005 wide near zero, 0.04 at the ends."""
    even = torch.linspace(-1, 1, num_bars + 1, dtype=torch.double)
    borders = torch.sinh(5 * even) / math.sinh(5)
    borders[0], borders[num_bars // 2], borders[-1] = -1.0, 0.0, 1.0
    return borders


def possible_bars(
    heights_BL: Float[Tensor, "curves points"], num_bars: int
) -> Bool[Tensor, "curves points bars"]:
    """Which bars overlap [0, 1] when they are counted from the last height."""
    borders_K = bar_borders(num_bars).to(heights_BL)
    low_BLK, high_BLK = heights_BL.unsqueeze(-1) + borders_K[:-1], heights_BL.unsqueeze(-1) + borders_K[1:]
    return (high_BLK > 1e-6) & (low_BLK < 1 - 1e-6)


def bar_loss(
    logits_BLQK: Float[Tensor, "curves points queries bars"],
    heights_BL: Float[Tensor, "curves points"],
    values_BLQ: Float[Tensor, "curves points queries"],
) -> Float[Tensor, ""]:
    """Mean negative log density of the values that were asked for: cross-entropy of bars and the logarithm of their width.

    A value at 0 or 1 belongs to the outermost possible bar. Widths are those of whole bars, also where [0, 1] cuts one,
    which shifts the loss by a constant that no weight can change.
    """
    num_bars = logits_BLQK.shape[-1]
    borders_K = bar_borders(num_bars).to(heights_BL)
    change_BLQ = values_BLQ - heights_BL.unsqueeze(-1)
    bar_BLQ = torch.searchsorted(borders_K, change_BLQ.contiguous(), right=True) - 1
    first_BL1, last_BL1 = _ends(possible_bars(heights_BL, num_bars))
    bar_BLQ = torch.minimum(torch.maximum(bar_BLQ, first_BL1), last_BL1)
    width = (borders_K[1:] - borders_K[:-1]).log()[bar_BLQ]
    surprise = F.cross_entropy(logits_BLQK.flatten(0, 2), bar_BLQ.flatten(), reduction="none")
    return (surprise + width.flatten()).mean()


def _ends(possible_BLK: Tensor) -> tuple[Tensor, Tensor]:
    """First and last possible bar of each point."""
    count = possible_BLK.shape[-1]
    first = possible_BLK.int().argmax(dim=-1, keepdim=True)
    last = count - 1 - possible_BLK.flip(-1).int().argmax(dim=-1, keepdim=True)
    return first, last


def _log_time(times: Tensor) -> Tensor:
    return (times.clamp(min=1e-3) * 100).log() / 4
