"""The components of AZ-NAS, beside direct evaluation; and where blocks end."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.predict.zero_cost import az_nas, expressivity, module_scores, progressivity, trainability
from nasgraph.predict.zero_cost.az_nas import _blocks
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import as_examples
from nasgraph.predict.zero_cost.watching import Watch
from nasgraph.seeding import derive_seed
from tests.predict.zero_cost.networks import Linears, noise_batch, seeded


def block_values(module: nn.Module, shape: tuple[int, ...], count: int = 6) -> list[Tensor]:
    batch = as_examples(noise_batch(count, shape))
    return _blocks(Probes(module, batch, seed=0, watch=Watch()).noise())


class Cells(nn.Module):
    """A stem, two residual blocks of which the second halves the image, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.first = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.second = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.head = nn.Linear(8, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.first(x)
        z = self.second(y) + self.shortcut(y)
        logits: Tensor = self.head(F.relu(z).mean((2, 3)))
        return logits


def test_a_residual_block_is_one_block_and_the_head_is_none() -> None:
    values = block_values(seeded(Cells), (1, 8, 8))
    assert [tuple(value.shape[1:]) for value in values] == [(4, 8, 8), (4, 8, 8), (8, 4, 4)]
    assert bool((values[2] >= 0).all()), "the rectifier before the pooling belongs to the last block"
    assert not bool((values[1] >= 0).all()), "a rectifier inside a branch does not"


def test_a_chain_has_one_block_per_layer_but_the_last() -> None:
    assert [value.shape[1] for value in block_values(Linears((6, 5, 4, 3), rectify=True), (6,))] == [5, 4]


def entropy(features: Tensor) -> float:
    covariance = np.cov(features.detach().double().numpy(), rowvar=False)
    spectrum = np.linalg.eigvalsh(covariance).clip(0)
    share = spectrum[spectrum > 0] / spectrum.sum()
    return float(-(share * np.log(share)).sum())


def test_expressivity_and_progressivity_come_from_the_entropies_of_numpys_spectra() -> None:
    module, batch = seeded(Cells), noise_batch(6, (1, 8, 8))
    entropies = [
        entropy(value.permute(0, 2, 3, 1).reshape(-1, value.shape[1]))
        for value in block_values(module, (1, 8, 8))
    ]
    assert expressivity(module, batch) == pytest.approx(sum(entropies), rel=1e-6)
    assert progressivity(module, batch) == pytest.approx(min(np.diff(entropies)), rel=1e-6)
    assert all(0 <= value <= math.log(8) for value in entropies)


def test_trainability_is_that_of_the_pulled_back_signs() -> None:
    """For a chain of linear maps the pull-back of signs v by W is v W, example by example."""
    module, batch = Linears((6, 5, 4, 3)), noise_batch(50, (6,))
    label = derive_seed(0, "zero_cost", "noise", "weights")
    rng = torch.Generator().manual_seed(label)
    weights = [torch.randn(b, a, generator=rng) * math.sqrt(2 / a) for a, b in ((6, 5), (5, 4), (4, 3))]
    signs = torch.randint(
        0, 2, (50, 4), generator=torch.Generator().manual_seed(derive_seed(0, "zero_cost", "trainability"))
    )
    v = (signs * 2 - 1).float()
    norm = np.linalg.norm(((v @ weights[1]).T @ v / 50).numpy(), 2)
    assert trainability(module, batch) == pytest.approx(2 - norm - 1 / norm, rel=1e-4)


def test_trainability_is_at_most_zero() -> None:
    assert trainability(seeded(Cells), noise_batch(6, (1, 8, 8))) <= 0


def test_the_combination_is_best_for_the_network_that_leads_in_all_components() -> None:
    names = ("expressivity", "progressivity", "trainability", "multiply_adds")
    rows = [dict.fromkeys(names, value) for value in (2.0, math.nan, 3.0)]
    found = az_nas(rows).mean
    assert found.tolist() == pytest.approx([4 * math.log(2 / 3), 4 * math.log(1 / 3), 0.0])


def test_a_network_of_one_layer_has_no_block() -> None:
    scores = module_scores(
        Linears((6, 3)), noise_batch(6, (6,)).inputs, names=("expressivity", "trainability")
    )
    assert all(math.isnan(value) for value in scores.scores.values())
    assert "no block" in scores.reasons["expressivity"]
