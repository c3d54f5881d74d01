"""Whether generated weights are new, or training networks again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nasgraph.meta.generate.support import GenerateError


@dataclass(frozen=True, slots=True)
class Novelty:
    """How far generated networks are from the nearest training network, against how far real networks that were held out are.

    Attributes:
        generated: Median distance of generated networks to their nearest training network.
        held_out: That of really trained networks that were held out.
        ratio: The first divided by the second. Far below 1: the generator repeats what it was trained on.
    """

    generated: float
    held_out: float
    ratio: float


def nearest_distance(rows_BP: Tensor, training_NP: Tensor) -> Tensor:
    """Euclidean distance of each row to the nearest of the others, `[B]`."""
    return torch.cdist(rows_BP.double(), training_NP.double()).min(1).values


def novelty(generated_BP: Tensor, held_out_BP: Tensor, training_NP: Tensor) -> Novelty:
    """Compare distances to the nearest training network. A 2025 study (arXiv 2506.07998) found that published generators mostly memorise.

    Args:
        generated_BP: Generated networks as rows, aligned as the others are.
        held_out_BP: Really trained ones that the generator has not seen.
        training_NP: The training networks.

    Raises:
        GenerateError: If there are none of one kind.
    """
    if not len(generated_BP) or not len(held_out_BP) or not len(training_NP):
        raise GenerateError("Expected generated, held-out and training networks (got none of one kind)")
    made = float(nearest_distance(generated_BP, training_NP).median())
    real = float(nearest_distance(held_out_BP, training_NP).median())
    return Novelty(made, real, made / real if real else float("nan"))
