"""Latent diffusion of weights, conditioned on a data set.

After Soro et al. 2024, "Diffusion-based neural network weights generation" (D2NWG): networks are points of a latent space, an
encoder turns a few examples of each class into a vector, and a denoising diffusion model (Ho, Jain and Abbeel 2020, equations 4, 7 and
14) draws latents given that vector. Departures: the latent space is that of principal components (a variational auto-encoder gains
nothing on a few hundred networks), the network predicts the clean latent rather than the noise, and the encoder is trained with it
and a contrastive loss, not before.

Shape letters: B = networks, C = classes, D = numbers of an input, K = latent size, T = timesteps, W = width.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.generate.baselines import fit_ridge
from nasgraph.meta.generate.generator import Generator, GeneratorConfig, TrainingSet, check_support
from nasgraph.meta.generate.space import WeightSpace
from nasgraph.meta.generate.support import Support
from nasgraph.meta.population import Stack
from nasgraph.seeding import derive_seed

_TEMPERATURE = 0.1
_EMA = 0.995


def signal_shares(timesteps: int) -> Tensor:
    """How much of the clean latent is left at each timestep, `[T]` (cosine schedule of Nichol and Dhariwal 2021, equation 17)."""
    place = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    share = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
    return (share[1:] / share[0]).clamp(1e-4, 0.9999).float()


def frequencies(values_B: Tensor, *, size: int = 32) -> Tensor:
    """Sines and cosines of numbers in [0, 1] at geometric frequencies, `[B, size]`."""
    rates = torch.exp(torch.linspace(0, math.log(1000.0), size // 2, device=values_B.device))
    angle = values_B[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class SetEncoder(nn.Module):
    """A vector of a data set from the mean inputs of its classes: the same whatever the order of examples."""

    def __init__(self, num_classes: int, input_size: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(input_size + num_classes, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.outer = nn.Sequential(nn.SiLU(), nn.Linear(width, width))
        self.direct = nn.Linear(num_classes * (input_size + 1), width)
        self.num_classes = num_classes

    def forward(self, means_BCD: Tensor, present_BC: Tensor) -> Tensor:
        labels = torch.eye(self.num_classes, device=means_BCD.device).expand(len(means_BCD), -1, -1)
        x = self.inner(torch.cat([means_BCD, labels], dim=2)) * present_BC[:, :, None]
        flat = torch.cat([means_BCD.flatten(1), present_BC], dim=1)
        result: Tensor = self.outer(x.sum(1) / present_BC.sum(1, keepdim=True).clamp(min=1)) + self.direct(
            flat
        )
        return result


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.condition, self.down = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        update: Tensor = self.down(F.silu(self.up(self.norm(x)) + self.condition(condition)))
        return x + update


class Denoiser(nn.Module):
    """The clean latent from a noisy one, the share of noise, and the vector of a data set."""

    def __init__(self, latent_dim: int, *, num_classes: int, input_size: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = SetEncoder(num_classes, input_size, width)
        self.time = nn.Linear(32, width)
        self.enter, self.leave = nn.Linear(latent_dim, width), nn.Linear(width, latent_dim)
        self.guess = nn.Linear(width, latent_dim)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.match = nn.Linear(latent_dim, width)

    def forward(self, noisy_BK: Tensor, time_B: Tensor, condition_BW: Tensor) -> Tensor:
        condition = condition_BW + self.time(frequencies(time_B))
        x = self.enter(noisy_BK)
        for block in self.blocks:
            x = block(x, condition)
        result: Tensor = self.leave(x) + self.guess(condition_BW)
        return result


class DiffusionGenerator(Generator):
    """Draws networks for a data set by denoising in the latent space of the training networks."""

    kind: ClassVar[str] = "diffusion"

    def __init__(
        self, space: WeightSpace, denoiser: Denoiser, *, base_FK: Tensor, timesteps: int, input_size: int
    ) -> None:
        self.space, self.denoiser, self.base_FK = space, denoiser.eval(), base_FK
        self.timesteps, self.input_size = timesteps, input_size

    @staticmethod
    def fit(training: TrainingSet, config: GeneratorConfig) -> "DiffusionGenerator":
        """Train the encoder and the denoiser."""
        space = WeightSpace.fit(
            training.graph, training.stack, dim=config.latent_dim, alignment=config.alignment
        )
        latents = space.encode(training.stack)
        base = (
            fit_ridge(training, latents.double(), config).float().contiguous()
            if config.residual
            else latents.new_zeros(
                training.num_classes * (training.data.inputs[0].numel() + 1) + 1, latents.shape[1]
            )
        )
        denoiser = train_denoiser(training, latents, base, config)
        return DiffusionGenerator(
            space,
            denoiser,
            base_FK=base,
            timesteps=config.timesteps,
            input_size=training.data.inputs[0].numel(),
        )

    @property
    def graph(self) -> ComputationalGraph:
        return self.space.graph

    @torch.no_grad()
    def generate(self, support: Support, *, count: int, seed: int) -> Stack:
        check_support(
            support, num_classes=self.denoiser.encoder.num_classes, input_size=self.input_size, count=count
        )
        means, present = support.class_means()
        condition = self.denoiser.encoder(means[None], present[None].float()).expand(count, -1)
        rng = torch.Generator().manual_seed(derive_seed(seed, "diffusion"))
        latent = sample_latents(
            self.denoiser, condition, timesteps=self.timesteps, latent_dim=len(self.space.scale), rng=rng
        )
        return self.space.decode(latent + support.features() @ self.base_FK)

    def tensors(self) -> dict[str, Tensor]:
        return {
            **{f"denoiser.{name}": tensor for name, tensor in self.denoiser.state_dict().items()},
            "base": self.base_FK,
        }


def sample_latents(
    denoiser: Denoiser, condition_BW: Tensor, *, timesteps: int, latent_dim: int, rng: torch.Generator
) -> Tensor:
    """Draw latents step by step, from noise to none (Ho et al. 2020, equations 6 and 7, with the clean latent predicted)."""
    share = signal_shares(timesteps)
    x = torch.randn(len(condition_BW), latent_dim, generator=rng)
    for step in range(timesteps - 1, -1, -1):
        now = share[step]
        before = share[step - 1] if step else torch.ones(())
        keep = now / before
        clean = denoiser(x, torch.full((len(x),), step / timesteps), condition_BW)
        mean = (before.sqrt() * (1 - keep) * clean + keep.sqrt() * (1 - before) * x) / (1 - now)
        noise = torch.randn(x.shape, generator=rng)
        x = mean + ((1 - keep) * (1 - before) / (1 - now)).sqrt() * noise
    return x


def train_denoiser(
    training: TrainingSet, latents_BK: Tensor, base_FK: Tensor, config: GeneratorConfig
) -> Denoiser:
    """Train a denoiser and its encoder. Each step sees networks with other supports. Returns the average of late weights."""
    bank = _SupportBank(training, per_class=config.per_class)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "denoiser"))
        denoiser = Denoiser(
            latents_BK.shape[1],
            num_classes=training.num_classes,
            input_size=training.data.inputs[0].numel(),
            width=config.width,
            depth=config.depth,
        )
    average = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    share = signal_shares(config.timesteps)
    rng = torch.Generator().manual_seed(derive_seed(config.seed, "diffusion training"))
    for step in range(config.steps):
        rows = torch.randint(len(training), (config.batch_size,), generator=rng)
        means, present = bank.draw(rows, rng)
        features = torch.cat([means.flatten(1), present, torch.ones(len(rows), 1)], dim=1)
        clean = latents_BK[rows] - features @ base_FK
        time = torch.randint(config.timesteps, (len(rows),), generator=rng)
        left = share[time][:, None]
        noisy = left.sqrt() * clean + (1 - left).sqrt() * torch.randn(clean.shape, generator=rng)
        condition = denoiser.encoder(means, present)
        loss = F.mse_loss(denoiser(noisy, time / config.timesteps, condition), clean)
        if config.contrastive:
            loss = loss + config.contrastive * _contrast(
                condition, denoiser.match(latents_BK[rows]), bank.sets[rows]
            )
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        with torch.no_grad():
            weight = min(_EMA, (step + 1) / (step + 10))
            for name, tensor in denoiser.state_dict().items():
                average[name].lerp_(tensor, 1 - weight)
    denoiser.load_state_dict(average)
    return denoiser.eval()


def _contrast(first_BW: Tensor, second_BW: Tensor, sets_B: Tensor) -> Tensor:
    """Cross-entropy of telling which network belongs to which data set; others on the same classes do not count as wrong."""
    score = F.normalize(first_BW, dim=1) @ F.normalize(second_BW, dim=1).T / _TEMPERATURE
    same = (sets_B[:, None] == sets_B[None]) & ~torch.eye(len(sets_B), dtype=torch.bool)
    return F.cross_entropy(score.masked_fill(same, -torch.inf), torch.arange(len(sets_B)))


class _SupportBank:
    """Draws supports of many networks at once."""

    def __init__(self, training: TrainingSet, *, per_class: int) -> None:
        inputs, targets = training.data.inputs.flatten(1), training.data.targets
        self.by_class = [inputs[targets == number] for number in range(training.num_classes)]
        self.present = torch.zeros(len(training), training.num_classes)
        for row, classes in enumerate(training.classes):
            self.present[row, list(classes or range(training.num_classes))] = 1
        numbers = {classes: place for place, classes in enumerate(dict.fromkeys(training.classes))}
        self.sets = torch.tensor([numbers[classes] for classes in training.classes])
        self.per_class = per_class

    def draw(self, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean inputs `[B, C, D]` of fresh supports, and which classes there are, `[B, C]`."""
        present = self.present[rows]
        means = []
        for examples in self.by_class:
            size = max(1, len(examples))
            place = torch.randint(size, (len(rows), self.per_class), generator=rng)
            means.append(
                examples[place].mean(1) if len(examples) else torch.zeros(len(rows), examples.shape[1])
            )
        return torch.stack(means, dim=1) * present[:, :, None], present
