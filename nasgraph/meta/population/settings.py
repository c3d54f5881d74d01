"""How each network of a population is trained: settings of one network, and the ranges that they are drawn from."""

import math
from dataclasses import dataclass

from nasgraph.errors import ConfigError
from nasgraph.seeding import derive_seed, generator


class PopulationError(ConfigError):
    """A population that cannot be trained or read. The message says what is wrong, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """How one network is trained: by stochastic gradient descent on cross-entropy.

    Attributes:
        seed: Decides the order of examples and which labels are wrong.
        initial_seed: Decides the initial weights. Networks with equal ones, equal gain and equal graph start alike.
        gain: Factor of the initial weights; biases and norms start as they always do.
        learning_rate: Constant over the training.
        momentum: Share of the last step that is added to the next.
        weight_decay: Added to the gradient, times the parameter (L2).
        label_noise: Share of the training labels that are replaced with another class, once, before the training.
        steps: Steps until it stops. 0: it stays as it starts.
        classes: The classes whose examples it sees, ascending. Empty: all.
    """

    seed: int
    initial_seed: int
    gain: float = 1.0
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    label_noise: float = 0.0
    steps: int = 200
    classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("gain", "learning_rate"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise PopulationError(f"Expected a finite '{name}' above 0 (got {getattr(self, name)})")
        for name in ("momentum", "label_noise"):
            if not 0 <= getattr(self, name) < 1:
                raise PopulationError(f"Expected '{name}' in [0, 1) (got {getattr(self, name)})")
        if self.steps < 0 or not 0 <= self.weight_decay < math.inf:
            raise PopulationError(
                f"Expected 'steps' and 'weight_decay' of at least 0 (got {self.steps}, {self.weight_decay})"
            )
        if tuple(sorted(set(self.classes))) != self.classes:
            raise PopulationError(f"Expected 'classes' in ascending order, each once (got {self.classes})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """What settings are drawn from. Pairs are (low, high).

    A population whose members all reach the same accuracy teaches nothing: the default ranges spread the test accuracy of small
    perceptrons on digits from chance to the best that they can reach.

    Attributes:
        gain, learning_rate, weight_decay: Drawn uniformly in their logarithm.
        momentum: One of these.
        noisy_share: Share of the networks that have wrong labels.
        label_noise: Drawn uniformly for those.
        steps: Drawn uniformly in its logarithm, and rounded.
        class_sets: The class sets that networks are trained on, in turn; empty: all classes for each network.
        shared_initial: Whether all networks of one graph start from the same weights (gain aside).
    """

    gain: tuple[float, float] = (0.25, 2.5)
    learning_rate: tuple[float, float] = (0.01, 1.6)
    weight_decay: tuple[float, float] = (1e-6, 1e-2)
    momentum: tuple[float, ...] = (0.0,)
    noisy_share: float = 0.5
    label_noise: tuple[float, float] = (0.05, 0.6)
    steps: tuple[int, int] = (40, 600)
    class_sets: tuple[tuple[int, ...], ...] = ()
    shared_initial: bool = False

    def __post_init__(self) -> None:
        for name in ("gain", "learning_rate", "weight_decay", "steps"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise PopulationError(f"Expected 0 < low <= high in '{name}' (got {low}, {high})")
        low, high = self.label_noise
        if not 0 <= low <= high < 1 or not 0 <= self.noisy_share <= 1 or not self.momentum:
            raise PopulationError(
                "Expected 'label_noise' in [0, 1), 'noisy_share' in [0, 1] and at least one 'momentum'"
            )


def draw_settings(ranges: Ranges, *, seed: int, index: int) -> NetworkSettings:
    """The settings of network number `index`. Equal arguments, equal settings; independent of all other networks."""
    rng = generator(seed, "settings", index)

    def log_uniform(bounds: tuple[float, float]) -> float:
        return float(math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))

    gain, learning_rate, weight_decay = map(
        log_uniform, (ranges.gain, ranges.learning_rate, ranges.weight_decay)
    )
    steps = round(log_uniform(ranges.steps))
    momentum = float(ranges.momentum[int(rng.integers(len(ranges.momentum)))])
    noise = float(rng.uniform(*ranges.label_noise))
    is_noisy = bool(rng.random() < ranges.noisy_share)
    classes = ranges.class_sets[index % len(ranges.class_sets)] if ranges.class_sets else ()
    return NetworkSettings(
        seed=derive_seed(seed, "network", index),
        initial_seed=derive_seed(seed, "initial")
        if ranges.shared_initial
        else derive_seed(seed, "initial", index),
        gain=gain,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        label_noise=noise if is_noisy else 0.0,
        steps=steps,
        classes=classes,
    )
