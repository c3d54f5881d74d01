"""Images to ask a model with when nothing is known of its training data: made from a seed, the same everywhere."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nasgraph.seeding import generator

SIDE = 32
PROBES = "nasgraph/probes/1"
"""Name of this set of images. It changes when the images do."""

Picture = npt.NDArray[np.float64]


@lru_cache(maxsize=4)
def probe_images(count: int = 256) -> Tensor:
    """Colour images `[count, 3, 32, 32]` in [0, 1]; must not be changed.

    Five families in turn, so that every model finds something like what it knows: clouds (noise with the spectrum of natural
    images), gratings, scenes of overlapping discs and boxes, strokes of a pen, and symmetric silhouettes. Every third
    image is grey. Equal on every machine up to rounding; the first k of more images are the k images.

    Args:
        count: How many; at least 1.

    Raises:
        ValueError: If `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"Expected 'count' of at least 1 (got {count})")
    pictures = []
    for number in range(count):
        rng = generator(0, PROBES, number)
        picture = _FAMILIES[number % len(_FAMILIES)](rng)
        if number % 3 == 0:
            picture = np.repeat(picture.mean(0, keepdims=True), 3, axis=0)
        pictures.append(picture.clip(0, 1))
    return torch.from_numpy(np.stack(pictures)).float()


def _grid() -> tuple[Picture, Picture]:
    axis = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _colour(rng: np.random.Generator) -> Picture:
    return rng.uniform(0, 1, (3, 1, 1))


def _clouds(rng: np.random.Generator) -> Picture:
    """Noise whose amplitude falls with frequency, correlated between channels as in photographs."""
    steps = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij"))
    amplitude = 1 / np.maximum(steps, 1 / SIDE) ** rng.uniform(0.8, 1.6)
    shared, own = rng.normal(size=(1, SIDE, SIDE)), rng.normal(size=(3, SIDE, SIDE))
    noise = np.fft.ifft2(np.fft.fft2(0.8 * shared + 0.4 * own) * amplitude).real
    noise -= noise.mean()
    picture: Picture = rng.uniform(0.3, 0.7, (3, 1, 1)) + rng.uniform(0.1, 0.3) * noise / noise.std()
    return picture


def _grating(rng: np.random.Generator) -> Picture:
    """Waves of one direction under a Gaussian window."""
    rows, columns = _grid()
    angle, waves, phase = rng.uniform(0, np.pi), rng.uniform(1, 8), rng.uniform(0, 2 * np.pi)
    wave = np.cos(np.pi * waves * (rows * np.sin(angle) + columns * np.cos(angle)) + phase)
    window = np.exp(-(rows**2 + columns**2) / (2 * rng.uniform(0.3, 2.0) ** 2))
    mix = 0.5 + 0.5 * wave * window
    picture: Picture = _colour(rng) * mix + _colour(rng) * (1 - mix)
    return picture


def _scene(rng: np.random.Generator) -> Picture:
    """Discs and boxes before each other."""
    rows, columns = _grid()
    picture = np.broadcast_to(_colour(rng), (3, SIDE, SIDE)).copy()
    for _ in range(int(rng.integers(3, 12))):
        row, column, height, width = rng.uniform([-1, -1, 0.1, 0.1], [1, 1, 0.8, 0.8])
        x, y = (rows - row) / height, (columns - column) / width
        inside = x**2 + y**2 < 1 if rng.random() < 0.5 else np.maximum(abs(x), abs(y)) < 1
        picture = np.where(inside, _colour(rng), picture)
    return picture


def _strokes(rng: np.random.Generator) -> Picture:
    """One to three bent strokes, bright on black as a rule."""
    rows, columns = _grid()
    nearest = np.full((SIDE, SIDE), np.inf)
    for _ in range(int(rng.integers(1, 4))):
        points = rng.uniform(-0.75, 0.75, (4, 2))
        for t in np.linspace(0, 1, 40):
            weight = np.array([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
            row, column = weight @ points
            nearest = np.minimum(nearest, np.hypot(rows - row, columns - column))
    ink = 1 / (1 + np.exp((nearest - rng.uniform(0.06, 0.2)) * 25))[None]
    if rng.random() < 0.8:
        return np.repeat(ink, 3, axis=0)
    return _colour(rng) * ink + _colour(rng) * (1 - ink)


def _silhouette(rng: np.random.Generator) -> Picture:
    """A shape that is mirrored left to right, textured, on a plain ground."""
    rows, columns = _grid()
    knots = rng.uniform(0.1, 0.9, 6) * (rng.random(6) < 0.85)
    outline = np.interp(rows[:, 0], np.linspace(-0.9, 0.9, 6), knots)[:, None]
    shift = rng.uniform(-0.2, 0.2) * rows * (rng.random() < 0.5)
    inside = (abs(columns - shift) < outline) & (abs(rows) < 0.9)
    texture = 1 + 0.2 * np.cos(rng.uniform(0, 25) * rows + rng.uniform(0, 25) * columns)
    ground = np.zeros((3, 1, 1)) if rng.random() < 0.7 else _colour(rng)
    tint = np.full((3, 1, 1), rng.uniform(0.3, 1.0)) if rng.random() < 0.7 else _colour(rng)
    return np.where(inside, tint * texture, ground)


_FAMILIES: tuple[Callable[[np.random.Generator], Picture], ...] = (
    _clouds,
    _grating,
    _scene,
    _strokes,
    _silhouette,
)
