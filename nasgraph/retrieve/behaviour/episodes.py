"""What an alignment learns from: queries cut from data sets at hand, with how well each model serves them.

The teacher is a linear probe with plenty of labels, measured on held-out images: what the vectors are to foretell without running a model. All
models are run once over all images; after that a query costs milliseconds, so there can be hundreds of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nasgraph.errors import ConfigError, DataError
from nasgraph.retrieve.behaviour.alignment import Episode
from nasgraph.retrieve.behaviour.data_side import describe_classes
from nasgraph.retrieve.behaviour.features import image_features
from nasgraph.retrieve.behaviour.records import Candidate, QueryData, outputs_of
from nasgraph.seeding import generator

RIDGE = 1e-2
_MAX_CLASS_SETS = 5000


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """How queries are cut from data sets.

    Attributes:
        count: Queries in all, data sets in turn.
        num_classes: Classes per query; of data sets with fewer, all.
        shots: Images per class that a query shows; one of them per query.
        taught: Images per class that the teacher's probe is fitted to; the others measure it.

    Raises:
        ConfigError: If a number is out of range.
    """

    count: int = 400
    num_classes: int = 5
    shots: tuple[int, ...] = (5, 20)
    taught: int = 40

    def __post_init__(self) -> None:
        if self.count < 1 or self.num_classes < 2 or self.taught < 1:
            raise ConfigError(
                "Expected 'count' and 'taught' of at least 1 and 'num_classes' of at least 2 "
                f"(got {self.count}, {self.taught} and {self.num_classes})"
            )
        if not self.shots or min(self.shots) < 1:
            raise ConfigError(f"Expected 'shots' of at least 1 each (got {self.shots})")


def draw_episodes(
    candidates: Sequence[Candidate],
    datasets: Sequence[QueryData],
    *,
    class_sets: Sequence[Sequence[tuple[int, ...]]] | None = None,
    config: EpisodeConfig | None = None,
    seed: int = 0,
) -> tuple[Episode, ...]:
    """Cut queries from labelled images and measure every model on each.

    Same arguments, same episodes, on one machine.

    Args:
        candidates: Models to learn from.
        datasets: Labelled images, many per class.
        class_sets: For each data set the sets of classes that queries may have; None: all.
        config: Settings; None: the defaults.
        seed: Decides classes and images.

    Raises:
        ConfigError: If there is no data set, or `class_sets` does not fit.
        DataError: If a class has no more images than the teacher is fitted to.
        CandidateError: If a model fails. Leave it out.
    """
    config = config or EpisodeConfig()
    if not datasets or not candidates:
        raise ConfigError(f"Expected candidates and data sets (got {len(candidates)} and {len(datasets)})")
    if class_sets is not None and len(class_sets) != len(datasets):
        raise ConfigError(
            f"Expected class sets for each of {len(datasets)} data sets (got {len(class_sets)})"
        )
    sources = [_Source.of(data, candidates, config) for data in datasets]
    allowed = class_sets or [_class_sets(data.num_classes, config.num_classes) for data in datasets]
    rng = generator(seed, "episodes")
    episodes = []
    for number in range(config.count):
        place = number % len(sources)
        classes = allowed[place][int(rng.integers(len(allowed[place])))]
        shots = config.shots[int(rng.integers(len(config.shots)))]
        episodes.append(sources[place].episode(classes, shots, config.taught, rng))
    return tuple(episodes)


def _class_sets(num_classes: int, size: int) -> list[tuple[int, ...]]:
    every = itertools.combinations(range(num_classes), min(size, num_classes))
    return list(itertools.islice(every, _MAX_CLASS_SETS))


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A data set as all models see it."""

    by_class: tuple[Tensor, ...]
    features: Tensor
    outputs: tuple[Tensor, ...]

    @staticmethod
    def of(data: QueryData, candidates: Sequence[Candidate], config: EpisodeConfig) -> "_Source":
        by_class = tuple((data.labels == label).nonzero()[:, 0] for label in range(data.num_classes))
        fewest = min(len(index) for index in by_class)
        if fewest <= config.taught:
            raise DataError(
                f"Expected more than {config.taught} images of every class to learn from (the smallest class has {fewest})"
            )
        outputs = tuple(outputs_of(candidate, data.inputs, features=True) for candidate in candidates)
        return _Source(by_class, image_features(data.inputs), outputs)

    def episode(self, classes: tuple[int, ...], shots: int, taught: int, rng: np.random.Generator) -> Episode:
        """One query of these classes, and how well a probe on each model does on the images that it was not fitted to."""
        mixed = [
            self.by_class[label][torch.from_numpy(rng.permutation(len(self.by_class[label])))]
            for label in classes
        ]
        shown, label_of_shown = _joined([index[: min(shots, taught)] for index in mixed])
        fitted, label_of_fitted = _joined([index[:taught] for index in mixed])
        held, label_of_held = _joined([index[taught:] for index in mixed])
        scores = tuple(
            _held_out_accuracy(out[fitted], label_of_fitted, out[held], label_of_held) for out in self.outputs
        )
        return Episode(describe_classes(self.features[shown], label_of_shown), scores)


def _joined(groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    labels = [torch.full((len(group),), label) for label, group in enumerate(groups)]
    return torch.cat(list(groups)), torch.cat(labels)


def _held_out_accuracy(x: Tensor, labels: Tensor, x_held: Tensor, labels_held: Tensor) -> float:
    """Accuracy of a ridge classifier with free intercept."""
    mean = x.mean(0)
    centred = x - mean
    gram = centred.T @ centred
    penalty = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    targets = torch.nn.functional.one_hot(labels).to(x.dtype)
    offset = targets.mean(0)
    weights = torch.linalg.solve(
        gram + penalty * torch.eye(len(gram), dtype=x.dtype), centred.T @ (targets - offset)
    )
    predicted = (x_held - mean) @ weights + offset
    return float((predicted.argmax(1) == labels_held).double().mean())
