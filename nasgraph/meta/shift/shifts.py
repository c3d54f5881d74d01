"""Shifts of data whose strength is known, to test estimates of the error with."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.seeding import derive_seed

ImageShift = Literal["noise", "blur", "contrast", "erase"]
NodeShift = Literal["feature_noise", "feature_mask", "drop_edges", "add_edges"]


def shift_images(
    images: Float[Tensor, "examples channels height width"],
    kind: ImageShift,
    strength: float,
    *,
    seed: int = 0,
) -> Float[Tensor, "examples channels height width"]:
    """Images that are harder to read. Strength 0 leaves them as they are.

    Args:
        images: Normalised images; not changed.
        kind: `noise`: Gaussian, with `strength` as its standard deviation in units of the images' own. `blur`: Gaussian, `strength` pixels wide. `contrast`: all
            differences from an image's mean are divided by 1 + strength. `erase`: each pixel is set to the mean with chance `strength`, at most 1.
        strength: At least 0.
        seed: Decides noise and erased pixels.

    Raises:
        ConfigError: If the kind is not known or the strength out of range.
    """
    if not 0 <= strength <= (1 if kind == "erase" else 1e6):
        raise ConfigError(
            f"Expected a strength of '{kind}' of at least 0 (for 'erase' at most 1; got {strength})"
        )
    rng = torch.Generator().manual_seed(derive_seed(seed, "shift", kind))
    if strength == 0:
        return images
    if kind == "noise":
        return images + strength * images.std() * torch.randn(images.shape, generator=rng)
    if kind == "contrast":
        mean = images.mean((1, 2, 3), keepdim=True)
        return mean + (images - mean) / (1 + strength)
    if kind == "erase":
        gone = torch.rand(images.shape, generator=rng) < strength
        return torch.where(gone, images.mean(), images)
    if kind == "blur":
        return _blurred(images, strength)
    raise ConfigError(f"No shift of images named '{kind}'. There are: noise, blur, contrast, erase")


def _blurred(images: Tensor, width: float) -> Tensor:
    reach = max(1, round(3 * width))
    place = torch.arange(-reach, reach + 1, dtype=images.dtype)
    line = torch.exp(-(place**2) / (2 * width**2))
    line = (line / line.sum()).expand(images.shape[1], 1, -1)
    rows = F.conv2d(
        F.pad(images, (reach, reach, 0, 0), "replicate"), line.unsqueeze(2), groups=images.shape[1]
    )
    return F.conv2d(F.pad(rows, (0, 0, reach, reach), "replicate"), line.unsqueeze(3), groups=images.shape[1])


def shift_nodes(
    features: Float[Tensor, "nodes features"],
    edges: Int64[Tensor, "2 edges"],
    kind: NodeShift,
    strength: float,
    *,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """A graph that is harder to read. Strength 0 leaves it as it is.

    Args:
        features: Of the nodes; not changed.
        edges: Every undirected edge in both directions.
        kind: `feature_noise`: each feature vector is mixed with that of another node, `strength` of it at most 1. `feature_mask`: each feature is set to zero with chance
            `strength`. `drop_edges`: each undirected edge goes with that chance. `add_edges`: so many random edges come, as a share of those there are.
        strength: From 0 to 1; `add_edges` may have more.
        seed: Decides all of it.

    Returns:
        Features and edges.

    Raises:
        ConfigError: If the kind is not known or the strength out of range.
    """
    if strength < 0 or (strength > 1 and kind != "add_edges"):
        raise ConfigError(f"Expected a strength of '{kind}' from 0 to 1 (got {strength})")
    rng = torch.Generator().manual_seed(derive_seed(seed, "shift", kind))
    num_nodes = len(features)
    if strength == 0:
        return features, edges
    if kind == "feature_noise":
        other = features[torch.randperm(num_nodes, generator=rng)]
        return (1 - strength) * features + strength * other, edges
    if kind == "feature_mask":
        return features * (torch.rand(features.shape, generator=rng) >= strength), edges
    if kind == "drop_edges":
        one_way = edges[:, edges[0] < edges[1]]
        kept = one_way[:, torch.rand(one_way.shape[1], generator=rng) >= strength]
        return features, torch.cat([kept, kept.flip(0)], dim=1)
    if kind == "add_edges":
        count = round(strength * edges.shape[1] / 2)
        first = torch.randint(0, num_nodes, (count,), generator=rng)
        second = (first + torch.randint(1, num_nodes, (count,), generator=rng)) % num_nodes
        new = torch.stack([first, second])
        return features, torch.cat([edges, new, new.flip(0)], dim=1)
    raise ConfigError(
        f"No shift of nodes named '{kind}'. There are: feature_noise, feature_mask, drop_edges, add_edges"
    )
