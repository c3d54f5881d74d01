"""Trained weights as a function of hyper-parameters, and the gradient of a validation loss through them.

Follows Lorraine and Duvenaud 2018, "Stochastic hyperparameter optimization through hypernetworks". Instead of training a network for every setting, a
hypernetwork learns the *response* `w*(lambda)`: `fit_response` over a whole box (their algorithm 2, global), `tune_jointly` around settings
that move down the gradient of the validation loss meanwhile (their algorithm 3, local). Departures: conditions enter by MIP, every step takes
several perturbed settings at once, and there is a warm-up before the settings move.

Letters: B = settings side by side, D = hyper-parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor, nn

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.hypernetworks.config import HypernetworkConfig
from nasgraph.meta.hypernetworks.hypernetwork import Hypernetwork
from nasgraph.seeding import derive_seed

TrainLoss = Callable[[dict[str, Tensor], Tensor], Tensor]
"""Named parameters of one network and its hyper-parameters `[D]` to a number. Pure, as it runs under `torch.vmap`; no random numbers."""
ValidationLoss = Callable[[dict[str, Tensor]], Tensor]
"""Named parameters of one network to a number, likewise."""


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds of hyper-parameters, in the units in which they are searched (logarithms for penalties).

    Attributes:
        low: Lower bounds.
        high: Upper bounds.

    Raises:
        ConfigError: If the bounds are not two vectors of one length with low < high.
    """

    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        fits = self.low.ndim == 1 and self.low.shape == self.high.shape and self.low.numel() > 0
        if not fits or not bool((self.low < self.high).all()):
            raise ConfigError(
                "Expected the bounds of a box as two vectors of one length, each low below its high "
                f"(got shapes {tuple(self.low.shape)} and {tuple(self.high.shape)})"
            )

    @classmethod
    def cube(cls, low: float, high: float, dim: int) -> "Box":
        """The same bounds for `dim` hyper-parameters."""
        return cls(torch.full((dim,), low), torch.full((dim,), high))

    @property
    def dim(self) -> int:
        """Number of hyper-parameters D."""
        return self.low.numel()

    def to_unit(self, values: Tensor) -> Tensor:
        """Settings `[..., D]` as shares of the box, 0 to 1."""
        return (values - self.low) / (self.high - self.low)

    def from_unit(self, shares: Tensor) -> Tensor:
        """The inverse of `to_unit`."""
        return self.low + shares * (self.high - self.low)

    def clamp(self, values: Tensor) -> Tensor:
        """The nearest settings in the box."""
        return torch.minimum(torch.maximum(values, self.low), self.high)


@dataclass(frozen=True, kw_only=True)
class ResponseConfig:
    """How a response is learnt.

    Attributes:
        generator: See `HypernetworkConfig`.
        hidden_dim: Likewise.
        mip: Likewise.
        steps: Training steps of the hypernetwork; of the warm-up alone in `tune_jointly`.
        samples: Settings per step.
        learning_rate: Of Adam; falls to a hundredth along a cosine in `fit_response`, is constant in `tune_jointly`.

    Raises:
        ConfigError: If a value is out of its range.
    """

    generator: str = "tensor"
    hidden_dim: int = 50
    mip: bool = True
    steps: int = 3000
    samples: int = 8
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        for name in ("steps", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        if not self.learning_rate > 0:
            raise ConfigError(f"Expected 'learning_rate' above 0 (got {self.learning_rate})")

    def hypernetwork(self, graph: ComputationalGraph, dim: int, *, seed: int) -> Hypernetwork:
        """A new hypernetwork for `dim` hyper-parameters."""
        shape = HypernetworkConfig(
            condition_dim=dim, generator=self.generator, hidden_dim=self.hidden_dim, mip=self.mip
        )
        return Hypernetwork(graph, shape, seed=seed)


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """How hyper-parameters move while their response is learnt.

    The response has to be learnt faster than the settings move: a rate ten times larger, or a perturbation of twice the size, ended worse in our
    measurements.

    Attributes:
        rounds: Steps of the settings.
        train_steps: Steps of the hypernetwork before each.
        learning_rate: Of Adam over the settings, in units of the box.
        perturbation: Standard deviation of the settings that the response is learnt at, around the present ones.

    Raises:
        ConfigError: If a value is out of its range.
    """

    rounds: int = 2000
    train_steps: int = 2
    learning_rate: float = 3e-3
    perturbation: float = 0.5

    def __post_init__(self) -> None:
        for name in ("rounds", "train_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        for name in ("learning_rate", "perturbation"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")


@dataclass(frozen=True, eq=False)
class Response:
    """A learnt response.

    Attributes:
        hypernetwork: From settings, as shares of the box, to parameters.
        box: Where it was learnt. Outside it is not asked: settings are clamped.
    """

    hypernetwork: Hypernetwork
    box: Box

    def parameters(self, values: Tensor) -> dict[str, Tensor]:
        """Named parameters for one setting `[D]` or several `[B, D]`. Differentiable in the settings inside the box.

        Raises:
            NasGraphError: If a setting has another length.
        """
        if values.ndim not in (1, 2) or values.shape[-1] != self.box.dim:
            raise NasGraphError(
                f"Expected settings of {self.box.dim} hyper-parameters (got shape {tuple(values.shape)})"
            )
        parameters: dict[str, Tensor] = self.hypernetwork(self.box.to_unit(self.box.clamp(values)))
        return parameters

    def losses(self, validation_loss: ValidationLoss, values_BD: Tensor) -> Tensor:
        """The predicted validation loss `[B]` of settings `[B, D]`."""
        losses: Tensor = torch.vmap(validation_loss)(self.parameters(values_BD))
        return losses


@dataclass(frozen=True, eq=False)
class Tuned:
    """Hyper-parameters that a response was followed to.

    `loss` is what the hypernetwork's weights reach. Judge by training anew at `values`.

    Attributes:
        values: The settings.
        loss: Predicted validation loss.
        parameters: Predicted parameters of the target at these settings, to start from.
        response: The response that they were found with.
        trace: Predicted validation loss along the way.
    """

    values: Tensor
    loss: float
    parameters: dict[str, Tensor]
    response: Response
    trace: tuple[float, ...]


def fit_response(
    graph: ComputationalGraph,
    train_loss: TrainLoss,
    box: Box,
    config: ResponseConfig | None = None,
    *,
    seed: int = 0,
) -> Response:
    """Learn the trained parameters for every setting of a box at once.

    Args:
        graph: The network that is trained.
        train_loss: What its training minimises, penalties included.
        box: Where settings are drawn, uniformly.
        config: How.
        seed: Seed of the hypernetwork and of the settings.

    Raises:
        NasGraphError: If the graph has no parameters, or the training loss becomes infinite or NaN.
    """
    config = config or ResponseConfig()
    hypernetwork = config.hypernetwork(graph, box.dim, seed=derive_seed(seed, "hypernetwork"))
    optimiser = torch.optim.Adam(hypernetwork.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, config.steps, eta_min=config.learning_rate / 100
    )
    rng = torch.Generator().manual_seed(derive_seed(seed, "settings"))
    for _ in range(config.steps):
        values_BD = box.from_unit(torch.rand(config.samples, box.dim, generator=rng))
        _learn_at(hypernetwork, box, train_loss, values_BD, optimiser)
        schedule.step()
    return Response(hypernetwork, box)


def _learn_at(
    hypernetwork: Hypernetwork,
    box: Box,
    train_loss: TrainLoss,
    values_BD: Tensor,
    optimiser: torch.optim.Optimizer,
) -> None:
    """One step on the mean training loss of some settings."""
    loss = torch.vmap(train_loss)(hypernetwork(box.to_unit(values_BD)), values_BD).mean()
    if not torch.isfinite(loss):
        raise NasGraphError(
            "The training loss is not finite: narrow the box, or lower 'learning_rate' of the response"
        )
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    nn.utils.clip_grad_norm_(hypernetwork.parameters(), 100.0)
    optimiser.step()


def tune(
    response: Response,
    validation_loss: ValidationLoss,
    *,
    starts: int = 32,
    steps: int = 200,
    learning_rate: float = 0.02,
    seed: int = 0,
) -> Tuned:
    """Follow the validation loss through a learnt response, from many starts at once.

    Args:
        response: From `fit_response`.
        validation_loss: What the settings should minimise.
        starts: Starts: the middle of the box and uniform draws; in one dimension a grid.
        steps: Steps of Adam.
        learning_rate: As a share of the box.
        seed: Seed of the starts.
    """
    box = response.box
    rng = torch.Generator().manual_seed(derive_seed(seed, "starts"))
    shares = torch.rand(starts, box.dim, generator=rng)
    shares[0] = 0.5
    if box.dim == 1:
        shares = ((torch.arange(starts) + 0.5) / starts).unsqueeze(1)
    shares = nn.Parameter(shares)
    optimiser = torch.optim.Adam([shares], lr=learning_rate)
    best = torch.full((starts,), torch.inf)
    found = shares.detach().clone()
    trace = []
    for _ in range(steps):
        losses = response.losses(validation_loss, box.from_unit(shares))
        better = losses.detach() < best
        best = torch.where(better, losses.detach(), best)
        found = torch.where(better.unsqueeze(1), shares.detach(), found)
        trace.append(float(best.min()))
        (shares.grad,) = torch.autograd.grad(losses.sum(), [shares])
        optimiser.step()
        shares.data.clamp_(0, 1)
    values_D = box.from_unit(found[best.argmin()])
    with torch.no_grad():
        parameters = response.parameters(values_D)
    return Tuned(values_D, float(best.min()), parameters, response, tuple(trace))


def tune_jointly(
    graph: ComputationalGraph,
    train_loss: TrainLoss,
    validation_loss: ValidationLoss,
    box: Box,
    config: ResponseConfig | None = None,
    joint: JointConfig | None = None,
    *,
    start: Tensor | None = None,
    seed: int = 0,
) -> Tuned:
    """Learn the response only around the present settings, and move these down the validation loss meanwhile.

    The settings may overshoot what the response has learnt, so those of the round with the lowest validation loss are returned, with the
    parameters that they had then. For many hyper-parameters, where no hypernetwork could learn a whole box.

    Args:
        graph: The network that is trained.
        train_loss: What its training minimises, penalties included.
        validation_loss: What the settings should minimise.
        box: Bounds of the settings; they are clamped to it.
        config: How the response is learnt; `steps` is the warm-up.
        joint: How the settings move.
        start: First settings `[D]`; None: the middle of the box.
        seed: Seed of the hypernetwork and of the perturbations.

    Raises:
        NasGraphError: If `start` has another length, or the training loss becomes infinite or NaN.
    """
    config, joint = config or ResponseConfig(steps=1000), joint or JointConfig()
    if start is not None and start.shape != box.low.shape:
        raise NasGraphError(f"Expected 'start' of shape ({box.dim},) (got {tuple(start.shape)})")
    hypernetwork = config.hypernetwork(graph, box.dim, seed=derive_seed(seed, "hypernetwork"))
    response = Response(hypernetwork, box)
    values_D = nn.Parameter(
        box.from_unit(torch.full((box.dim,), 0.5)) if start is None else box.clamp(start.clone())
    )
    inner = torch.optim.Adam(hypernetwork.parameters(), lr=config.learning_rate)
    outer = torch.optim.Adam([values_D], lr=joint.learning_rate)
    rng = torch.Generator().manual_seed(derive_seed(seed, "perturbations"))

    def learn_around() -> None:
        noise_BD = torch.randn(config.samples, box.dim, generator=rng) * joint.perturbation
        _learn_at(hypernetwork, box, train_loss, box.clamp(values_D.detach() + noise_BD), inner)

    for _ in range(config.steps):
        learn_around()
    trace: list[float] = []
    best = Tuned(values_D.detach().clone(), inf, {}, response, ())
    for _ in range(joint.rounds):
        for _ in range(joint.train_steps):
            learn_around()
        parameters = response.parameters(values_D)
        loss = validation_loss(parameters)
        trace.append(float(loss.detach()))
        if trace[-1] < best.loss:
            kept = {name: tensor.detach().clone() for name, tensor in parameters.items()}
            best = Tuned(values_D.detach().clone(), trace[-1], kept, response, ())
        (values_D.grad,) = torch.autograd.grad(loss, [values_D])
        outer.step()
        with torch.no_grad():
            values_D.copy_(box.clamp(values_D))
    return replace(best, trace=tuple(trace))
