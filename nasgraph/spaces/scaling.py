"""Making networks larger by rule: compound scaling, fast scaling, and growing along the choices of a space.

With depth `d`, width `w` and resolution `r` as multiples of a base network, a convolutional network's multiply-adds grow
as `d w^2 r^2`, its activations (elements that its convolutions give) as `d w r^2` and its parameters as `d w^2`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Protocol

import numpy as np

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.spaces.choosers import PreferringChooser, SamplingChooser, replay
from nasgraph.spaces.space import (
    Architecture,
    Candidate,
    Question,
    SearchSpace,
    realise,
)

GraphScore = Callable[[Sequence[ComputationalGraph]], Sequence[float]]
"""Graphs to numbers, higher is better."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiples of a base network.

    Attributes:
        depth: Of the number of blocks.
        width: Of the number of channels.
        resolution: Of the sides of the image.
    """

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        for name in ("depth", "width", "resolution"):
            value = getattr(self, name)
            if not isfinite(value) or value <= 0:
                raise NasGraphError(f"Expected '{name}' of a scale to be above 0 (got {value})")

    @property
    def multiply_adds(self) -> float:
        """Multiple of the multiply-adds, before widths and depths are rounded."""
        return self.depth * self.width**2 * self.resolution**2

    @property
    def activations(self) -> float:
        """Multiple of the elements that convolutions give, before rounding."""
        return self.depth * self.width * self.resolution**2

    @property
    def parameters(self) -> float:
        """Multiple of the parameters, before rounding."""
        return self.depth * self.width**2


def compound(phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> Scale:
    """Compound scaling (Tan and Le, "EfficientNet: Rethinking Model Scaling", 2019, eq. 3).

    Depth `alpha^phi`, width `beta^phi`, resolution `gamma^phi`. With the constants of the paper, the multiply-adds
    grow by about `2^phi`, the activations by about `1.75^phi`.

    Args:
        phi: How often the resources are doubled.
        alpha: Base of the depth.
        beta: Base of the width.
        gamma: Base of the resolution.
    """
    return Scale(alpha**phi, beta**phi, gamma**phi)


def fast(multiply_adds: float, *, alpha: float = 0.8) -> Scale:
    """Fast compound scaling (Dollar et al., "Fast and Accurate Model Scaling", 2021).

    Depth `s^((1 - alpha) / 2)`, width `s^(alpha / 2)` and resolution `s^((1 - alpha) / 4)` for `s` times the
    multiply-adds. Then the activations grow by `s^(1 - alpha / 2)`: close to the square root of `s`, the least there is, for
    `alpha` close to 1 (only width is scaled), and on accelerators the time goes with them.

    Args:
        multiply_adds: The multiple of multiply-adds that is wanted, `s`.
        alpha: Share of the scaling that the width takes, 0 to 1; 0.8 in the paper. A third is uniform scaling.

    Raises:
        NasGraphError: If a number is out of bounds.
    """
    if not multiply_adds > 0 or not 0 <= alpha <= 1:
        raise NasGraphError(
            f"Expected 'multiply_adds' above 0 and 'alpha' from 0 to 1 (got {multiply_adds} and {alpha})"
        )
    rest = 1 - alpha
    return Scale(multiply_adds ** (rest / 2), multiply_adds ** (alpha / 2), multiply_adds ** (rest / 4))


def divisible(width: float, by: int = 8) -> int:
    """The nearest multiple of `by`, but not below nine tenths of `width` (Howard et al. 2019; Tan and Le 2019)."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded if rounded >= 0.9 * width else rounded + by


def scaled_depth(depth: int, multiple: float) -> int:
    """Blocks of a stage, rounded up (Tan and Le 2019). The rounding takes no notice of errors of the last digits."""
    return ceil(round(depth * multiple, 9))


def scaled_shape(input_shape: tuple[int, ...], resolution: float) -> tuple[int, ...]:
    """The shape of an image with other sides, rounded to whole pixels."""
    channels, *sides = input_shape
    return (channels, *(max(1, round(side * resolution)) for side in sides))


class ScalableSpace(Protocol):
    """A class of search spaces whose networks can be made deeper and wider by settings."""

    def __call__(
        self, *, input_shape: tuple[int, ...], num_classes: int, depth: float, width: float
    ) -> SearchSpace: ...


def scaled_space(
    space: ScalableSpace, scale: Scale, *, input_shape: tuple[int, ...], num_classes: int
) -> SearchSpace:
    """The space of networks that are larger by `scale` and ask the same questions as the base.

    Args:
        space: Its class, such as `EfficientNet`, `RegNet` or `AnyNet`.
        scale: From `compound`, `fast` or by hand.
        input_shape: `(channels, height, width)` of the base; the scaled space reads larger images.
        num_classes: Length of the output.
    """
    return space(
        input_shape=scaled_shape(input_shape, scale.resolution),
        num_classes=num_classes,
        depth=scale.depth,
        width=scale.width,
    )


def enlarge(
    space: SearchSpace,
    seed: Architecture,
    *,
    names: Callable[[str], bool],
    score: GraphScore,
    fits: Callable[[ComputationalGraph], bool],
    rng: np.random.Generator,
    max_steps: int = 1000,
) -> tuple[Candidate, ...]:
    """Grow an architecture step by step, each time by the one increment that scores best.

    The growing rule of Chen et al., "Auto-scaling Vision Transformers without Training", 2022, on the choices
    of any space: in each step every choice that may grow is tried with its next larger answer; among those that fit,
    the best-scored is kept (of equals the first). The paper scores by the ranks of two training-free signals; `score`
    may be any function, such as a zero-cost proxy divided by what the step costs.

    Args:
        space: Where to grow.
        seed: Where to start.
        names: Which choices may grow. Their answers have to be numbers.
        score: What to prefer. It sees all graphs of one step together, so that ranks can be taken.
        fits: Whether a graph is within the resources.
        rng: Answers questions that become necessary, such as those of a new layer.
        max_steps: Most increments.

    Returns:
        The candidates from the seed to the largest, each one increment larger than the one before.

    Raises:
        NasGraphError: If an answer that should grow is no number.
    """
    path = [replay(space, seed)]
    while len(path) <= max_steps:
        larger = [each for each in _increments(space, path[-1], names, rng) if fits(each.graph)]
        if not larger:
            break
        scores = np.nan_to_num(np.asarray(score([each.graph for each in larger]), dtype=float), nan=-np.inf)
        path.append(larger[int(scores.argmax())])
    return tuple(path)


def _increments(
    space: SearchSpace, candidate: Candidate, names: Callable[[str], bool], rng: np.random.Generator
) -> list[Candidate]:
    answers = dict(candidate.architecture.choices)
    _, questions = realise(space, PreferringChooser(answers, SamplingChooser(rng)))
    found = []
    for question in questions:
        larger = _next_larger(question) if names(question.name) else None
        if larger is not None:
            preferred = {**answers, question.name: larger}
            found.append(realise(space, PreferringChooser(preferred, SamplingChooser(rng)))[0])
    return found


def _next_larger(question: Question) -> int | float | None:
    if any(isinstance(option, bool | str) for option in question.options):
        raise NasGraphError(f"The choice '{question.name}' cannot grow: its options are no numbers")
    numbers = [option for option in question.options if isinstance(option, int | float)]
    return min((number for number in numbers if number > float(question.answer)), default=None)
