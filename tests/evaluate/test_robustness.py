"""Noise and blur: reproducible example by example, of the size they claim, and the measuring that uses them."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import kstest
from torch import Tensor

from nasgraph.data import DataSet, load_dataset
from nasgraph.evaluate.measure import measure
from nasgraph.evaluate.robustness import Corruption, measure_logits
from nasgraph.ir import GraphBuilder
from nasgraph.modules import Program, build
from tests.modules.samples import random_constants, sampled_graphs


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_dataset("digits")


def pictures(count: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 9, 8, generator=torch.Generator().manual_seed(seed))


def test_noise_does_not_depend_on_how_examples_are_batched() -> None:
    inputs, noise = pictures(10), Corruption("noise", 0.5, seed=3)
    whole = noise.apply(inputs)
    parts = torch.cat([noise.apply(inputs[start : start + 3], first=start) for start in range(0, 10, 3)])
    assert torch.equal(parts, whole)
    assert torch.equal(noise.apply(inputs), whole)


def test_noise_is_normal_of_the_stated_size_and_new_for_each_example() -> None:
    zeros = torch.zeros(200, 3, 9, 8)
    noise = Corruption("noise", 0.2).apply(zeros)
    assert kstest((noise / 0.2).flatten().numpy(), "norm").pvalue > 0.01
    pairs = np.corrcoef(noise.flatten(1).numpy())[np.triu_indices(200, 1)]
    assert np.abs(pairs).max() < 0.35  # 216 independent numbers: a standard deviation of 0.07
    assert not torch.equal(Corruption("noise", 0.2, seed=1).apply(zeros), noise)


def test_a_larger_level_scales_the_same_noise() -> None:
    inputs = pictures(4)
    one, two = (Corruption("noise", level).apply(inputs) - inputs for level in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one, atol=1e-5, rtol=1e-5)


def test_noise_leaves_torchs_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Corruption("noise", 0.1).apply(pictures(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_that_of_scipy(sigma: float) -> None:
    inputs = pictures(2)
    reach = [min(int(np.ceil(3 * sigma)), size - 1) for size in inputs.shape[2:]]
    expected = ndimage.gaussian_filter(
        inputs.double().numpy(), sigma, axes=(2, 3), radius=reach, mode="nearest"
    )
    found = Corruption("blur", sigma).apply(inputs)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_nothing_is_changed_without_a_corruption() -> None:
    inputs = pictures(2)
    assert Corruption().apply(inputs) is inputs


@pytest.mark.parametrize(
    "wrong", [("noise", 0.0), ("noise", -1.0), ("blur", float("nan")), ("none", 0.5), ("noise", 1e9)]
)
def test_levels_that_mean_nothing_are_refused(wrong: tuple[str, float]) -> None:
    with pytest.raises(ValueError, match="level"):
        Corruption(*wrong)  # type: ignore[arg-type]  # what a card of a stranger may say


def test_only_images_are_blurred() -> None:
    with pytest.raises(ValueError, match="images to blur"):
        Corruption("blur", 1.0).apply(torch.zeros(3, 5))


@pytest.mark.parametrize("batch_size", [50, 256, 1000])
def test_logits_give_the_accuracy_and_the_loss_that_measuring_does(digits: DataSet, batch_size: int) -> None:
    graph = sampled_graphs("convnet", 1)[0]
    state, split = build(graph, seed=1).state_dict(), digits.test
    logits = measure_logits(graph, state, split, batch_size=batch_size)
    loss, accuracy = measure(Program(graph), state, split, batch_size=batch_size)
    assert int((logits.argmax(1) == split.targets).sum()) / len(split) == accuracy
    assert float(torch.nn.functional.cross_entropy(logits, split.targets)) == pytest.approx(loss, rel=1e-5)


def test_constants_of_a_graph_are_read_from_the_state(digits: DataSet) -> None:
    g = GraphBuilder()
    x = g("mul", g("input", shape=(1, 8, 8)), g("constant", shape=(1, 8, 8)))
    graph = g.finish(g("linear", g("flatten", x), out_features=10))
    module = build(graph, constants=random_constants(graph)).eval()
    logits = measure_logits(graph, module.state_dict(), digits.test, batch_size=100)
    with torch.inference_mode():
        torch.testing.assert_close(logits, module(digits.test.inputs))
