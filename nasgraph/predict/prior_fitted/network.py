"""The in-context network: labelled rows and rows to predict go in, predictive distributions come out.

A transformer without positions over rows (Müller et al., "Transformers Can Do Bayesian Inference", 2022): labelled rows
attend to each other, rows to predict attend to labelled rows only. Its answer for a row is a mixture of normal densities.
Some components start at what the smoothers of `rows` say, weighted by how well they predict left-out rows of the table
(pseudo-Bayesian model averaging, Geisser and Eddy 1979); the network moves, widens and weights them, and adds free ones.
So the untrained network is a blend of smoothers, and training on the prior teaches when to leave it.

Shape letters: B = tables, C = labelled rows, Q = rows to predict, D = columns of a description, H = size of the state,
M = components of the mixture, S = smoothers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.predict.prior_fitted.mixture import Mixture
from nasgraph.predict.prior_fitted.rows import NUM_COLUMNS, NUM_PLACES, SMOOTHERS

NUM_SMOOTHERS = len(SMOOTHERS)
NUM_FREE = 3
LEAST_SCALE = 0.02
LEAST_ODDS, FREE_ODDS = -12.0, -3.0


@dataclass(frozen=True, eq=False)
class Reading:
    """What the network keeps of the labelled rows; it serves any number of rows to predict.

    Attributes:
        states: Their states before each block.
        merit: Log of the odds of each smoother, the best at zero, before they are tempered.
    """

    states: tuple[Float[Tensor, "tables context dim"], ...]
    merit: Float[Tensor, "tables smoothers"]


@dataclass(frozen=True, kw_only=True)
class PriorFittedConfig:
    """Sizes of the network.

    Attributes:
        dim: Size of a row's state.
        num_layers: Blocks of attention.
        num_heads: Heads of each. Must divide `dim`.
        smoothers: Whether the network hears the smoothers. Without them it is a plain prior-fitted network.

    Raises:
        ConfigError: If a size is not positive or the heads do not divide the state.
    """

    dim: int = 96
    num_layers: int = 4
    num_heads: int = 4
    smoothers: bool = True

    def __post_init__(self) -> None:
        if min(self.dim, self.num_layers, self.num_heads) < 1 or max(self.dim, self.num_layers) > 4096:
            raise ConfigError("Expected 'dim', 'num_layers' and 'num_heads' between 1 and 4096")
        if self.dim % self.num_heads:
            raise ConfigError(f"Expected 'num_heads' to divide 'dim' (got {self.num_heads} and {self.dim})")


class PriorFittedNetwork(nn.Module):
    """Posterior predictive distributions in one pass.

    The order of the labelled rows does not matter, and rows to predict do not influence each other.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: PriorFittedConfig) -> None:
        super().__init__()
        self.config = config
        self.read_row = nn.Linear(NUM_COLUMNS, config.dim)
        self.read_target = nn.Linear(1 + NUM_SMOOTHERS, config.dim)
        self.blocks = nn.ModuleList(_Block(config.dim, config.num_heads) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.trust = nn.Parameter(torch.tensor(-1.0))
        num_mixed = 3 * (NUM_SMOOTHERS + NUM_FREE)
        self.answer = nn.Sequential(
            nn.Linear(config.dim, config.dim), nn.GELU(), nn.Linear(config.dim, num_mixed)
        )
        last = self.answer[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self,
        rows_BCD: Float[Tensor, "tables context columns"],
        targets_BC: Float[Tensor, "tables context"],
        rows_BQD: Float[Tensor, "tables queries columns"],
    ) -> Mixture:
        """Predict rows from labelled rows; targets have mean zero and variance one in each table."""
        return self.predict(self.read(rows_BCD, targets_BC), rows_BQD)

    def read(
        self, rows_BCD: Float[Tensor, "tables context columns"], targets_BC: Float[Tensor, "tables context"]
    ) -> Reading:
        """Read the labelled rows of each table."""
        said = rows_BCD[..., NUM_PLACES : NUM_PLACES + NUM_SMOOTHERS]
        errors = targets_BC.unsqueeze(-1) - (said if self.config.smoothers else 0.0 * said)
        known = self.read_target(torch.cat([targets_BC.unsqueeze(-1), errors], dim=-1))
        state = self.read_row(self._visible(rows_BCD)) + known
        states = []
        for block in self.blocks:
            states.append(state)
            state = block(state, state)
        merit = -0.5 * targets_BC.shape[1] * (errors**2).mean(dim=1).clamp_min(1e-4).log()
        return Reading(tuple(states), merit - merit.amax(dim=-1, keepdim=True))

    def predict(self, reading: Reading, rows_BQD: Float[Tensor, "tables queries columns"]) -> Mixture:
        """Predict rows from what `read` returned."""
        state = self.read_row(self._visible(rows_BQD))
        for block, context in zip(self.blocks, reading.states, strict=True):
            state = block(state, context)
        logit, shift, widen = self.answer(self.norm(state)).chunk(3, dim=-1)
        mean, std = rows_BQD[..., NUM_PLACES : NUM_PLACES + 2 * NUM_SMOOTHERS].chunk(2, dim=-1)
        free = (*mean.shape[:-1], NUM_FREE)
        if self.config.smoothers:
            mean = torch.cat([mean, mean.mean(-1, keepdim=True).expand(free)], dim=-1)
            std = torch.cat([std, std.new_ones(free)], dim=-1)
        else:
            mean, std = torch.zeros_like(logit), torch.ones_like(logit)
        odds = (F.softplus(self.trust) * reading.merit).clamp_min(LEAST_ODDS)
        start = F.pad(odds, (0, NUM_FREE), value=FREE_ODDS).unsqueeze(1)
        scale = std * torch.exp(3.0 * torch.tanh(widen / 3.0)) + LEAST_SCALE
        return Mixture((logit + start).log_softmax(dim=-1), mean + shift * std, scale)

    def _visible(self, rows: Float[Tensor, "tables rows columns"]) -> Float[Tensor, "tables rows columns"]:
        if self.config.smoothers:
            return rows
        return torch.cat([rows[..., :NUM_PLACES], torch.zeros_like(rows[..., NUM_PLACES:])], dim=-1)


class _Block(nn.Module):
    """Attention to labelled rows, then a feed-forward layer; normalised before each."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(
        self, state_BQH: Float[Tensor, "tables rows dim"], context_BCH: Float[Tensor, "tables context dim"]
    ) -> Float[Tensor, "tables rows dim"]:
        """New states of rows that look at labelled rows."""
        query = self.query(self.norm(state_BQH)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = self.key_value(self.norm(context_BCH)).chunk(2, dim=-1)
        key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (key, value))
        seen = F.scaled_dot_product_attention(query, key, value)
        state_BQH = state_BQH + self.out(seen.transpose(1, 2).flatten(-2))
        result: Tensor = state_BQH + self.feed(state_BQH)
        return result
