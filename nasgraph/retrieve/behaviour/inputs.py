"""Images of one data set as inputs for a model of another: channels, size and normalisation, all explicit."""

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Normalisation
from nasgraph.errors import CandidateError

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


def fit_images(images: Tensor, shape: tuple[int, ...], *, normalisation: Normalisation | None) -> Tensor:
    """Images in [0, 1] as a model wants them.

    Grey becomes colour by repetition, colour becomes grey by luminance; the size is changed bilinearly, with
    antialiasing; then the model's own normalisation is applied: a fixed model wants what it was trained with.

    Args:
        images: `[n, channels, height, width]` in [0, 1], or `[n, features]`.
        shape: Input shape of the model, without the batch.
        normalisation: The model's, read per channel for values in [0, 1] (its `scale` is that of its own raw data and is not
            used); None: mean 0 and variance 1 per channel over `images` themselves.

    Raises:
        CandidateError: If there is no such conversion: other channel counts than 1 and 3, tables of another width, a table
            for an image model, or statistics of another number of channels.
    """
    if images.ndim != len(shape) + 1:
        raise CandidateError(
            f"The model reads inputs of shape {shape}, the data has {tuple(images.shape[1:])}: no conversion"
        )
    if images.ndim == 4:
        fitted = resize(to_channels(images, shape[0]), (shape[1], shape[2]))
    elif tuple(images.shape[1:]) == shape:
        fitted = images
    else:
        raise CandidateError(f"The model reads {shape} features, the data has {tuple(images.shape[1:])}")
    return _normalised(fitted, normalisation)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Images with 1 or 3 channels as images with `channels` channels; the same images where they have them already.

    Raises:
        CandidateError: For any other pair of counts.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if (have, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    if (have, channels) == (3, 1):
        weights = images.new_tensor(LUMINANCE).reshape(1, 3, 1, 1)
        return (images * weights).sum(1, keepdim=True)
    raise CandidateError(
        f"Images of {have} channels cannot become images of {channels}: only 1 and 3 convert"
    )


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images of another height and width, bilinear with antialiasing; the same images where they have it already."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def _normalised(fitted: Tensor, normalisation: Normalisation | None) -> Tensor:
    axes = (0, *range(2, fitted.ndim))
    if normalisation is None:
        mean, std = fitted.mean(axes), fitted.std(axes, correction=0)
    else:
        mean, std = fitted.new_tensor(normalisation.mean), fitted.new_tensor(normalisation.std)
    if len(mean) != fitted.shape[1]:
        raise CandidateError(
            f"The model's normalisation has {len(mean)} channels, its input {fitted.shape[1]}"
        )
    shape = (1, -1) + (1,) * (fitted.ndim - 2)
    return (fitted - mean.reshape(shape)) / torch.where(std > 0, std, 1).reshape(shape)
