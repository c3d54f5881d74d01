"""The settings of a training: what decides its result, and what only decides how fast it runs."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from nasgraph.data import Augmentation
from nasgraph.errors import ConfigError
from nasgraph.hyper.distributed import Ranks

Precision = Literal["fp32", "bf16"]
_ABOVE_ZERO = ("steps", "meta_batch", "batch_size", "checkpoint_every", "learning_rate", "clip_norm")
_AT_LEAST_ZERO = ("warmup_steps", "weight_decay", "norm_penalty")
_SHARES = ("label_smoothing", "ema_decay")


@dataclass(frozen=True, kw_only=True)
class GHNTrainConfig:
    """Settings of one training. Equal settings, equal result, bit by bit, on one machine.

    Attributes:
        steps: Optimiser steps.
        meta_batch: Architectures per step.
        batch_size: Images per step, shared by its architectures.
        learning_rate: Peak of AdamW's learning rate: linear warm-up, then a cosine down to zero.
        warmup_steps: Length of the warm-up.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: Largest norm of the gradient.
        seed: Decides initial parameters, architectures, images and augmentation.
        checkpoint_every: Steps between checkpoints.
        shift_pixels, flip, noise_std: Augmentation of the images, see `nasgraph.data.Augmentation`.
        label_smoothing: Share of each target that is spread evenly over all classes.
        norm_penalty: Factor of the sum of the norms of the predicted tensors, added to the loss of each architecture
            (3e-5 in GHN-3, Knyazev et al. 2023). Off by default: our decoder fixes the magnitude of every weight up to
            a learnt gain in [exp(-2), exp(2)], so there is no growth that would have to be held down.
        ema_decay: Decay of the moving average of the parameters that a finished training gives, see `WeightAverage`;
            0: the last parameters.
        precision: "bf16": the target networks run under autocast to bfloat16. The hypernetwork itself stays in single
            precision, since it is the small part and its decoder divides by small root mean squares.
    """

    steps: int = 3000
    meta_batch: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    shift_pixels: int = 1
    flip: bool = False
    noise_std: float = 0.1
    label_smoothing: float = 0.0
    norm_penalty: float = 0.0
    ema_decay: float = 0.0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        for name in _AT_LEAST_ZERO:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Expected '{name}' of at least 0 (got {getattr(self, name)})")
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' from 0 to below 1 (got {getattr(self, name)})")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"Expected 'precision' to be 'fp32' or 'bf16' (got {self.precision!r})")

    @property
    def augmentation(self) -> Augmentation:
        """The image augmentation that the settings describe."""
        return Augmentation(shift_pixels=self.shift_pixels, flip=self.flip, noise_std=self.noise_std)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a training is run. Has no influence on its result, but for rounding where there are several ranks.

    Attributes:
        workers: Processes that draw and encode architectures ahead of time; 0: the training does it itself.
        ranks: Which process this is among several that train together, see `joined_ranks`.
    """

    workers: int = 0
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= 256:
            raise ConfigError(f"Expected 'workers' from 0 to 256 (got {self.workers})")
