"""One fixed description of an image: what both sides of the retrieval are measured with.

The first two orders of a scattering transform (Bruna and Mallat, "Invariant Scattering Convolution Networks", 2013, section 2): moduli
of oriented band-pass filters, and of a second filter over these, averaged over a coarse grid; beside them the mean colours of the
grid. No weights, no training, no downloads; a few hundred numbers per image.

Shape letters: N = images, C = channels, S = side, K = filters, D = features.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.retrieve.behaviour.inputs import LUMINANCE, resize, to_channels

SIDE = 32
"""Images are resized to this side."""
GRID = 4
SCALES = (0.35, 0.175, 0.0875)
"""Centre frequencies in cycles per pixel."""
ORIENTATIONS = 6
_CHUNK = 128

NUM_FEATURES = GRID * GRID * (3 + len(SCALES) * ORIENTATIONS) + ORIENTATIONS * ORIENTATIONS * 3
"""Length of a description."""
EXTRACTOR = "nasgraph/scattering/1"
"""Name of this description. Vectors that were made with another one must not be compared."""


def image_features(images: Tensor) -> Tensor:
    """Describe images, each by itself: the same image gives the same numbers in any batch up to rounding.

    Grey images count as colour images of three equal channels. The numbers are square roots of non-negative averages, so
    that a few strong edges do not drown the rest.

    Args:
        images: `[n, channels, height, width]` in [0, 1], 1 or 3 channels.

    Returns:
        `[n, NUM_FEATURES]`.

    Raises:
        CandidateError: If the images have another number of channels.
    """
    parts = [_chunk_features(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)]
    return torch.cat(parts) if parts else images.new_zeros(0, NUM_FEATURES)


def _chunk_features(images: Tensor) -> Tensor:
    x_NCSS = resize(to_channels(images, 3).float(), (SIDE, SIDE)).clamp(0, 1)
    grey_NSS = (x_NCSS * x_NCSS.new_tensor(LUMINANCE).reshape(1, 3, 1, 1)).sum(1)
    grey_NSS = grey_NSS - grey_NSS.mean((1, 2), keepdim=True)
    filters_KSS = _filters()
    first_NKSS = _modulus(grey_NSS[:, None], filters_KSS)
    colour = F.adaptive_avg_pool2d(x_NCSS, GRID).flatten(1)
    edges = F.adaptive_avg_pool2d(first_NKSS, GRID).flatten(1)
    return torch.cat([colour.sqrt(), edges.sqrt(), _second_order(first_NKSS, filters_KSS).sqrt()], 1)


def _second_order(first_NKSS: Tensor, filters_KSS: Tensor) -> Tensor:
    """Averages over the image of the moduli of coarser filters over the moduli of finer ones."""
    number, parts = ORIENTATIONS, []
    for fine in range(len(SCALES) - 1):
        for coarse in range(fine + 1, len(SCALES)):
            below = first_NKSS[:, fine * number : (fine + 1) * number]
            above = filters_KSS[coarse * number : (coarse + 1) * number]
            moduli = _modulus(below.unsqueeze(2), above)
            parts.append(moduli.mean((-2, -1)).flatten(1))
    return torch.cat(parts, 1)


def _modulus(x: Tensor, filters_KSS: Tensor) -> Tensor:
    modulus: Tensor = torch.fft.ifft2(torch.fft.fft2(x) * filters_KSS).abs()
    return modulus


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Analytic Gaussian band-pass filters in the frequency domain, without response to a constant."""
    axis = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    filters = []
    for frequency in SCALES:
        for turn in range(ORIENTATIONS):
            angle = math.pi * turn / ORIENTATIONS
            along = u * math.cos(angle) + v * math.sin(angle)
            across = v * math.cos(angle) - u * math.sin(angle)
            width = frequency / 2.2
            response = torch.exp(-((along - frequency) ** 2 + (across * 1.4) ** 2) / (2 * width**2))
            at_zero = math.exp(-(frequency**2) / (2 * width**2))
            low = torch.exp(-(along**2 + (across * 1.4) ** 2) / (2 * width**2))
            filters.append(response - at_zero * low)
    return torch.stack(filters).float()
