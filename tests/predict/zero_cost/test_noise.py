"""Proxies that feed noise, beside direct evaluation with the same noise and weights."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.predict.zero_cost import meco, zen
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import as_examples
from nasgraph.predict.zero_cost.watching import Watch
from nasgraph.seeding import derive_seed
from tests.predict.zero_cost.networks import Linears, noise_batch, two_layers

SHAPE = (1, 6, 6)


def normal(shape: tuple[int, ...], *labels: str) -> Tensor:
    """The numbers that seed 0 draws under some labels."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed(0, "zero_cost", *labels)))


def test_zen_is_the_log_shift_of_the_last_map_plus_the_log_deviations_before_norms() -> None:
    _, module = two_layers()
    x, step = normal((5, *SHAPE), "zen"), normal((5, *SHAPE), "zen step")
    weight = normal((4, 1, 3, 3), "zen", "weights")

    def features(x: Tensor) -> tuple[Tensor, float]:
        before = F.conv2d(x, weight, padding=1)
        deviation = math.sqrt(float(before.var((0, 2, 3), correction=0).mean()))
        return F.relu(F.batch_norm(before, None, None, training=True)), math.log(deviation)

    (first, correction), (second, _) = features(x), features(x + 0.01 * step)
    shift = float((first - second).flatten(1).norm(dim=1).mean()) / 0.01
    assert zen(module, noise_batch(5, SHAPE)) == pytest.approx(math.log(shift) + correction, rel=1e-4)


def test_zen_of_a_linear_map_without_norms_is_the_log_length_of_the_mapped_noise() -> None:
    step, weight = normal((5, 4), "zen step"), normal((3, 4), "zen", "weights")
    expected = math.log(float((step @ weight.T).norm(dim=1).mean()))
    assert zen(Linears((4, 3)), noise_batch(5, (4,))) == pytest.approx(expected, rel=1e-3)


def test_meco_is_the_smallest_eigenvalue_of_numpys_correlation_of_channels() -> None:
    _, module = two_layers()
    x, weight = normal((5, *SHAPE), "noise"), normal((4, 1, 3, 3), "noise", "weights")
    maps = F.conv2d(x, weight, padding=1).transpose(0, 1).flatten(1).double().numpy()
    expected = np.linalg.eigvalsh(np.corrcoef(maps))[0]
    assert meco(module, noise_batch(5, SHAPE)) == pytest.approx(expected, rel=1e-4)


def test_noise_proxies_look_at_no_image() -> None:
    _, module = two_layers()
    first, second = noise_batch(5, SHAPE), noise_batch(5, SHAPE)
    second.inputs.mul_(3)
    for measure in (zen, meco):
        assert measure(module, first) == measure(module, second)
        assert measure(module, first) != measure(module, first, seed=1)


def test_drawn_weights_are_scaled_by_their_fan_in_and_biases_are_zero() -> None:
    _, module = two_layers()
    probes = Probes(module, as_examples(noise_batch(5, SHAPE)), seed=0, watch=Watch())
    (layer, head) = probes.noise().layers
    weight = normal((4, 1, 3, 3), "noise", "weights") * math.sqrt(2 / 9)
    torch.testing.assert_close(layer.y, F.conv2d(layer.x, weight, padding=1))
    torch.testing.assert_close(head.again(torch.zeros(1, 4), torch.zeros(3, 4)), torch.zeros(1, 3))
