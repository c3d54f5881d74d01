"""What a generator is told of a data set: a few labelled examples of each of its classes.

Shape letters: N = examples, C = classes, D = numbers of an input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nasgraph.data import Split
from nasgraph.errors import ConfigError
from nasgraph.seeding import generator


class GenerateError(ConfigError):
    """Weights that cannot be generated. The message says what is wrong, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """A few examples of some classes.

    Attributes:
        inputs: Inputs, flattened.
        targets: Their classes, numbered as the outputs of the networks.
        num_classes: Outputs of the networks.
    """

    inputs: Tensor
    targets: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or len(self.inputs) != len(self.targets) or not len(self.targets):
            raise GenerateError(
                f"Expected examples [N, D] and one class for each (got {tuple(self.inputs.shape)} and "
                f"{tuple(self.targets.shape)})"
            )
        if not torch.isfinite(self.inputs).all():
            raise GenerateError("The support has inputs that are not finite")
        if int(self.targets.min()) < 0 or int(self.targets.max()) >= self.num_classes:
            raise GenerateError(f"Expected classes from 0 to {self.num_classes - 1} in the support")

    def class_means(self) -> tuple[Tensor, Tensor]:
        """The mean input of each class `[C, D]`, zero where there is none, and whether there is any, `[C]`."""
        member = torch.nn.functional.one_hot(self.targets, self.num_classes).to(self.inputs.dtype)
        count = member.sum(0)
        return member.T @ self.inputs / count.clamp(min=1)[:, None], count > 0

    def features(self) -> Tensor:
        """One vector: the mean input of each class, which classes there are, and a one. `[C * (D + 1) + 1]`."""
        means, present = self.class_means()
        return torch.cat([means.flatten(), present.to(means.dtype), means.new_ones(1)])


def draw_support(
    data: Split, classes: Sequence[int], *, num_classes: int, per_class: int = 10, seed: int = 0
) -> Support:
    """A few random examples of each class, without repetition.

    Args:
        data: Where they are drawn from.
        classes: Which classes; empty: all.
        num_classes: Outputs of the networks.
        per_class: How many of each; fewer where there are fewer.
        seed: Decides which.

    Raises:
        GenerateError: If a class has no examples.
    """
    rng = generator(seed, "support")
    labels = data.targets.cpu().numpy()
    chosen = []
    for number in classes or range(num_classes):
        places = np.flatnonzero(labels == number)
        if not len(places):
            raise GenerateError(f"The data has no examples of class {number}")
        chosen.append(rng.permutation(places)[:per_class])
    index = torch.from_numpy(np.concatenate(chosen))
    return Support(data.inputs[index].flatten(1), data.targets[index], num_classes)
