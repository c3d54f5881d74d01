"""Loss prompts: given a network and its loss, draw the network that training would make of it at a wanted loss.

After Peebles et al. 2022, "Learning to learn with generative models of neural network checkpoints" (G.pt): a diffusion model over
checkpoints of many runs, conditioned on current weights, current loss and wanted loss, with an output that is a residual on the
current weights and a last layer that starts at zero. Departures: tokens are hidden units rather than slices of layers, and what is
diffused is the change of the weights, not the weights themselves.

Shape letters: B = networks, P = numbers of a network, S = states of a run, R = runs, W = width.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import CheckpointError
from nasgraph.files import Json
from nasgraph.hyper.checkpoint import check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.ir import ComputationalGraph, graph_from_json, graph_to_json
from nasgraph.meta.generate.diffusion import frequencies, signal_shares
from nasgraph.meta.generate.space import flatten_stack, shapes_of, unflatten
from nasgraph.meta.generate.support import GenerateError
from nasgraph.meta.generate.unit_tokens import UnitTokens
from nasgraph.meta.population import Stack
from nasgraph.modules import State
from nasgraph.seeding import derive_seed

SCHEMA = "nasgraph/loss-prompt/1"
_MAX_LOG_LOSS = 4.0  # losses from e^-4 to e^4 are told apart
_EMA = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """How a prompter is built and trained.

    Attributes:
        width, depth, heads: Of the transformer.
        timesteps: Of the diffusion.
        steps: Training steps.
        batch_size: Pairs of states per step.
        learning_rate: Peak of AdamW's.
        from_start: Share of the pairs whose first state is the first of its run.
        seed: Of everything.
    """

    width: int = 96
    depth: int = 3
    heads: int = 4
    timesteps: int = 50
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 1e-3
    from_start: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "timesteps", "steps", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise GenerateError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        if self.width % self.heads:
            raise GenerateError(f"Expected 'heads' to divide 'width' (got {self.heads} and {self.width})")
        if not 0 <= self.from_start <= 1:
            raise GenerateError(f"Expected 'from_start' in [0, 1] (got {self.from_start})")


class _Block(nn.Module):
    """Attention and a perceptron, each after a norm, scaled and shifted by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.modulate = nn.Linear(width, 4 * width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift, scale2, shift2 = self.modulate(condition)[:, None].chunk(4, dim=2)
        y = self.norms[0](x) * (1 + scale) + shift
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.mix(y).chunk(3, 2))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = self.norms[1](x) * (1 + scale2) + shift2
        result: Tensor = x + self.down(F.silu(self.up(y)))
        return result


class PromptNetwork(nn.Module):
    """The clean change of the weights from a noisy one, the current weights, and the losses. Starts at zero.

    Beside what the transformer says, a share of the current weights and of the noisy change passes straight through: tokens are
    longer than the transformer is wide.
    """

    def __init__(self, lengths: list[int], config: PromptConfig) -> None:
        super().__init__()
        width = config.width
        self.enter = nn.ModuleList(nn.Linear(2 * length, width) for length in lengths)
        self.leave = nn.ModuleList(nn.Linear(width, length) for length in lengths)
        self.condition = nn.Sequential(nn.Linear(96, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * len(lengths))
        for layer in (*self.leave, self.gate):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, current: list[Tensor], noisy: list[Tensor], time_B: Tensor, loss_B: Tensor, wanted_B: Tensor
    ) -> list[Tensor]:
        parts = [frequencies(each) for each in (time_B, _place(loss_B), _place(wanted_B))]
        condition = self.condition(torch.cat(parts, dim=1))
        tokens = [
            layer(torch.cat([a, b], dim=2)) for layer, a, b in zip(self.enter, current, noisy, strict=True)
        ]
        x = torch.cat(tokens, dim=1)
        for block in self.blocks:
            x = block(x, condition)
        pieces = self.norm(x).split([token.shape[1] for token in tokens], dim=1)
        gates = self.gate(F.silu(condition))[:, :, None, None].unflatten(1, (2, -1))
        return [
            layer(piece) + gates[:, 0, group] * current[group] + gates[:, 1, group] * noisy[group]
            for group, (layer, piece) in enumerate(zip(self.leave, pieces, strict=True))
        ]


def _place(loss_B: Tensor) -> Tensor:
    """The logarithm of a loss as a number in [0, 1]."""
    return (loss_B.clamp(min=1e-6).log() / (2 * _MAX_LOG_LOSS) + 0.5).clamp(0, 1)


class LossPrompter:
    """Draws weights for a wanted loss. Make one with `LossPrompter.fit` or `LossPrompter.load`.

    Attributes:
        graph: The architecture that it knows.
    """

    def __init__(
        self,
        graph: ComputationalGraph,
        shapes: dict[str, tuple[int, ...]],
        network: PromptNetwork,
        config: PromptConfig,
        scales: Tensor,
    ) -> None:
        self.graph, self._shapes, self._network, self._config = graph, shapes, network.eval(), config
        self._scales = scales  # of weights and of changes, [2, P]
        self._tokens = UnitTokens(graph, shapes)

    @staticmethod
    def fit(
        graph: ComputationalGraph,
        trajectories: list[Stack],
        losses_RS: Tensor,
        config: PromptConfig | None = None,
    ) -> "LossPrompter":
        """Learn from the states of many runs.

        Args:
            graph: The architecture.
            trajectories: The states of all runs at one moment, from the first moment to the last.
            losses_RS: Their losses.
            config: How to train.

        Raises:
            GenerateError: If there are fewer than two moments or runs, or numbers are not finite.
        """
        config = config or PromptConfig()
        if len(trajectories) < 2 or losses_RS.shape[1] != len(trajectories) or len(losses_RS) < 2:
            raise GenerateError(
                f"Expected two or more runs and moments, and a loss of each (got {tuple(losses_RS.shape)} "
                f"losses and {len(trajectories)} moments)"
            )
        shapes = shapes_of(trajectories[0])
        rows_RSP = torch.stack([flatten_stack(stack) for stack in trajectories], dim=1)
        if not torch.isfinite(rows_RSP).all() or not torch.isfinite(losses_RS).all():
            raise GenerateError("The states and losses of all runs must be finite: leave diverged runs out")
        scales = _scales(rows_RSP, UnitTokens(graph, shapes))
        network = _train(rows_RSP / scales[0], losses_RS, scales, UnitTokens(graph, shapes), config)
        return LossPrompter(graph, shapes, network, config, scales)

    @torch.no_grad()
    def generate(self, stack: State, *, loss_B: Tensor, wanted_B: Tensor, seed: int) -> Stack:
        """Weights of the wanted loss, one network for each of the stack.

        Args:
            stack: Current states, `[B, ...]` each.
            loss_B: Their losses.
            wanted_B: The losses to reach.
            seed: Decides the noise.

        Raises:
            GenerateError: If the states are not of the architecture that it knows.
        """
        if shapes_of(stack) != self._shapes:
            raise GenerateError(
                f"Expected states with tensors {self._shapes} (got {shapes_of(stack)}): "
                "a prompter knows one architecture"
            )
        rows = flatten_stack(stack) / self._scales[0]
        rng = torch.Generator().manual_seed(derive_seed(seed, "prompt"))
        current = self._tokens.gather(rows)
        x = torch.randn(rows.shape, generator=rng)
        share = signal_shares(self._config.timesteps)
        for step in range(self._config.timesteps - 1, -1, -1):
            now, before = share[step], share[step - 1] if step else torch.ones(())
            keep = now / before
            time = torch.full((len(rows),), step / self._config.timesteps)
            clean = self._tokens.scatter(
                self._network(current, self._tokens.gather(x), time, loss_B, wanted_B)
            )
            mean = (before.sqrt() * (1 - keep) * clean + keep.sqrt() * (1 - before) * x) / (1 - now)
            x = mean + ((1 - keep) * (1 - before) / (1 - now)).sqrt() * torch.randn(x.shape, generator=rng)
        return unflatten(rows * self._scales[0] + x * self._scales[1], self._shapes)

    def save(self, folder: Path, *, recipe: dict[str, Json]) -> None:
        """Write it: weights, then the description that makes them valid."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        facts: dict[str, Json] = {
            "graph": graph_to_json(self.graph),
            "shapes": {name: list(shape) for name, shape in self._shapes.items()},
            "config": cast(Json, asdict(self._config)),
        }
        write_network(folder, {**tensors, "scales": self._scales}, facts, schema=SCHEMA, recipe=recipe)

    @staticmethod
    def load(folder: Path) -> "LossPrompter":
        """Read one.

        Raises:
            CheckpointError: If a file is missing, damaged or foreign, or tensors do not fit.
        """
        document = read_description(folder, schema=SCHEMA, what="loss prompter")
        config = read_config(folder, document.get("config"), PromptConfig)
        text, shapes = document.get("graph"), document.get("shapes")
        if not isinstance(text, str) or not isinstance(shapes, dict):
            raise CheckpointError(f"The description of the loss prompter in '{folder}' is not whole")
        tensors = read_weights_of(folder, document)
        graph = graph_from_json(text, source=f"'{folder}'")
        sizes = {name: tuple(cast("list[int]", shape)) for name, shape in sorted(shapes.items())}
        lengths = [each.shape[1] for each in UnitTokens(graph, sizes).index]
        with torch.device("meta"):
            network = PromptNetwork(lengths, config)
        own = {
            name.removeprefix("network."): each
            for name, each in tensors.items()
            if name.startswith("network.")
        }
        check_state(network, own, source=folder)
        network = network.to_empty(device="cpu")
        network.load_state_dict(own)
        if "scales" not in tensors:
            raise CheckpointError(f"'{folder}' lacks tensor 'scales'")
        return LossPrompter(graph, sizes, network, config, tensors["scales"])


def _scales(rows_RSP: Tensor, tokens: UnitTokens) -> Tensor:
    """Sizes of the weights, and of their changes over a run: equal for all units of a group."""
    result = []
    for values in (rows_RSP.flatten(0, 1), (rows_RSP - rows_RSP[:, :1]).flatten(0, 1)):
        square = values.square().mean(0)[None]
        even = [token.mean(1, keepdim=True).expand_as(token) for token in tokens.gather(square)]
        result.append(tokens.scatter(even)[0].sqrt().clamp(min=1e-6))
    return torch.stack(result)


def _train(
    rows_RSP: Tensor, losses_RS: Tensor, scales: Tensor, tokens: UnitTokens, config: PromptConfig
) -> PromptNetwork:
    """Train on pairs of states of one run, the later one as target. Returns the average of late weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "prompt network"))
        network = PromptNetwork([each.shape[1] for each in tokens.index], config)
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    share = signal_shares(config.timesteps)
    rng = torch.Generator().manual_seed(derive_seed(config.seed, "prompt training"))
    runs, moments = losses_RS.shape
    for step in range(config.steps):
        run = torch.randint(runs, (config.batch_size,), generator=rng)
        first = torch.randint(moments - 1, run.shape, generator=rng)
        first[torch.rand(run.shape, generator=rng) < config.from_start] = 0
        last = first + 1 + (torch.rand(run.shape, generator=rng) * (moments - 1 - first)).long()
        current = rows_RSP[run, first]
        clean = (rows_RSP[run, last] - current) * scales[0] / scales[1]
        time = torch.randint(config.timesteps, run.shape, generator=rng)
        left = share[time][:, None]
        noisy = left.sqrt() * clean + (1 - left).sqrt() * torch.randn(clean.shape, generator=rng)
        found = network(
            tokens.gather(current),
            tokens.gather(noisy),
            time / config.timesteps,
            losses_RS[run, first],
            losses_RS[run, last],
        )
        loss = F.mse_loss(tokens.scatter(found), clean)
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            weight = min(_EMA, (step + 1) / (step + 10))
            for name, tensor in network.state_dict().items():
                average[name].lerp_(tensor, 1 - weight)
    network.load_state_dict(average)
    return network.eval()
