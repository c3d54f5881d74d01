"""Proxies from rectifiers, beside direct evaluation."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nasgraph.data import Split
from nasgraph.predict.zero_cost import module_scores, nwot, regularised_swap, swap
from tests.predict.zero_cost.networks import SEED, Linears, Residual, noise_batch, seeded, two_layers


def test_nwot_is_the_log_determinant_of_the_codes_of_a_module_written_by_hand() -> None:
    graph, module = two_layers()
    batch = noise_batch(5, (1, 6, 6))
    with torch.no_grad():
        codes = (module.norm(module.conv(batch.inputs)) > 0).flatten(1).numpy()
    alike = np.array([[float((first == second).sum()) for second in codes] for first in codes])
    expected = np.log(np.linalg.det(alike))
    assert nwot(graph, batch, seed=SEED) == pytest.approx(expected, rel=1e-6)
    assert nwot(module, batch) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [5, 8, 9, 64, 70])
def test_swap_is_the_number_of_different_columns_over_all_rectifiers(count: int) -> None:
    module, batch = Linears((6, 40, 30, 3), rectify=True), noise_batch(count, (6,))
    first, second, _ = module.weights
    hidden = batch.inputs @ first.T
    switched = torch.cat([hidden, hidden.clamp(min=0) @ second.T], 1)[:64] > 0
    assert swap(module, batch) == len({tuple(column) for column in switched.T.tolist()})


def test_swap_is_at_most_what_the_units_and_the_examples_allow() -> None:
    module = Linears((6, 200, 3), rectify=True)
    assert swap(module, noise_batch(3, (6,))) <= 2**3
    assert swap(module, noise_batch(60, (6,))) <= 200


def test_the_size_prior_of_swap_is_one_at_its_mean() -> None:
    assert regularised_swap(7.0, 100.0, mean=100.0, width=30.0) == 7.0
    assert regularised_swap(7.0, 130.0, mean=100.0, width=30.0**2) == pytest.approx(7.0 / math.e)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "make", [nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.Hardswish]
)
def test_every_rectifier_counts_by_the_sign_of_its_input_in_place_or_not(
    make: type[nn.ReLU], inplace: bool
) -> None:
    batch = noise_batch(5, (6,))
    found = nwot(nn.Sequential(Linears((6, 50)), make(inplace=inplace)), batch)
    assert found == nwot(nn.Sequential(Linears((6, 50)), nn.ReLU()), batch)


def test_the_order_of_the_examples_does_not_matter() -> None:
    module, batch = seeded(Residual), noise_batch(8)
    turned = Split(batch.inputs.flip(0), batch.targets.flip(0))
    for measure in (nwot, swap):
        assert measure(module, turned) == pytest.approx(measure(module, batch), rel=1e-6)


def test_examples_that_a_network_cannot_tell_apart_have_no_nwot() -> None:
    batch = noise_batch(4, (6,))
    twins = torch.cat([batch.inputs, batch.inputs])
    scores = module_scores(Linears((6, 50, 3), rectify=True), twins, names=("nwot", "swap"))
    assert math.isnan(scores["nwot"])
    assert scores.reasons == {"nwot": "the rectifiers cannot tell all examples apart"}
    assert scores["swap"] > 0
