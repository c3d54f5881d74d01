"""Shuffled batches of a split that lies in memory, and light augmentation of a batch.

Nothing here touches a global generator: the order is a function of seed and epoch, and augmentation
draws from the generator it is given. All functions return new tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.data.records import Split
from nasgraph.seeding import generator


def batches(
    split: Split, *, batch_size: int, seed: int, epoch: int, drop_last: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a split in random order.

    Every example comes once (without `drop_last`). The order is a pure function of `seed`, `epoch` and
    the number of examples, so a run that resumes at epoch 7 need not replay the six before. It does not
    depend on the device. Different epochs have unrelated orders.

    Args:
        split: Examples, on any device.
        batch_size: Examples per batch; the last batch may have fewer.
        seed: Seed of the run.
        epoch: Number of the pass.
        drop_last: Leave out a last batch that is not full.

    Returns:
        Inputs `[batch, *input_shape]` and targets `[batch]`, batch by batch, on the split's device.

    Raises:
        ValueError: At once, if `batch_size` is below 1, or `drop_last` would leave nothing.
    """
    if batch_size < 1:
        raise ValueError(f"Expected 'batch_size' of at least 1 (got {batch_size})")
    if drop_last and batch_size > len(split):
        raise ValueError(f"Expected 'batch_size' of at most {len(split)} with 'drop_last' (got {batch_size})")
    return _iterate(split, batch_size, seed, epoch, drop_last)


def _iterate(
    split: Split, batch_size: int, seed: int, epoch: int, drop_last: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.from_numpy(generator(seed, "batches", epoch).permutation(len(split)))
    order = order.to(split.targets.device)
    stop = len(order) - len(order) % batch_size if drop_last else len(order)
    for start in range(0, stop, batch_size):
        index = order[start : start + batch_size]
        yield split.inputs[index], split.targets[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Light random changes that keep the class. The default changes nothing.

    Args:
        shift_pixels: Images move by up to so many pixels along each axis.
        flip: Mirror half of the images left to right. Not for digits or text.
        noise_std: Standard deviation of Gaussian noise, in units of the normalised inputs.

    Raises:
        ValueError: If a number is negative.
    """

    shift_pixels: int = 0
    flip: bool = False
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        if self.shift_pixels < 0 or self.noise_std < 0:
            got = f"{self.shift_pixels} and {self.noise_std}"
            raise ValueError(f"Expected 'shift_pixels' and 'noise_std' of at least 0 (got {got})")


def augment(
    x: Float[Tensor, "batch *input_shape"], settings: Augmentation, *, rng: torch.Generator
) -> Float[Tensor, "batch *input_shape"]:
    """Shift, flip and add noise, each only if `settings` ask for it, in this order.

    Args:
        x: Normalised inputs. Images `[batch, channels, height, width]`, unless only noise is asked for.
        settings: What to do.
        rng: Source of the choices, on any device. One on the CPU gives the same result for every device.
    """
    if settings.shift_pixels:
        x = random_shift(x, settings.shift_pixels, rng=rng)
    if settings.flip:
        x = random_flip(x, rng=rng)
    if settings.noise_std:
        x = add_noise(x, settings.noise_std, rng=rng)
    return x


def random_shift(
    x: Float[Tensor, "batch channels height width"], pixels: int, *, rng: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Move each image by -`pixels` to `pixels` along each axis; its edge is repeated where it moved away.

    Repeated rather than black, because zero is not the background of a normalised image.
    """
    num_images, num_channels, height, width = x.shape
    moves = torch.randint(-pixels, pixels + 1, (2, num_images, 1), generator=rng, device=rng.device).to(
        x.device
    )
    rows = (torch.arange(height, device=x.device) - moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) - moves[1]).clamp(0, width - 1)
    images = torch.arange(num_images, device=x.device)[:, None, None, None]
    channels = torch.arange(num_channels, device=x.device)[:, None, None]
    return x[images, channels, rows[:, None, :, None], columns[:, None, None, :]]


def random_flip(
    x: Float[Tensor, "batch channels height width"], *, rng: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Mirror each image left to right with probability one half."""
    flip = torch.randint(0, 2, (len(x), 1, 1, 1), generator=rng, device=rng.device).bool().to(x.device)
    return torch.where(flip, x.flip(-1), x)


def add_noise(x: Float[Tensor, " *shape"], std: float, *, rng: torch.Generator) -> Float[Tensor, " *shape"]:
    """Add independent Gaussian noise of standard deviation `std` to every number."""
    noise = torch.randn(x.shape, generator=rng, device=rng.device, dtype=x.dtype)
    return x + std * noise.to(x.device)
