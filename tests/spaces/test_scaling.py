"""Rules that make networks larger."""

from collections.abc import Sequence
from math import prod

import numpy as np
import pytest

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.spaces import Architecture, SearchSpace, replay, sample
from nasgraph.spaces.scaling import (
    Scale,
    compound,
    divisible,
    enlarge,
    fast,
    scaled_depth,
    scaled_shape,
    scaled_space,
)
from search_spaces.efficientnet import EfficientNet, efficientnet_b0
from search_spaces.mlp import MLP
from search_spaces.regnet import RegNet

FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0)


def activations(graph: ComputationalGraph) -> int:
    """Elements that convolutions give, the measure of Radosavovic et al. 2020 and Dollar et al. 2021."""
    return sum(
        prod(shape)
        for shape, node in zip(graph.shapes, graph.nodes, strict=True)
        if node.op == "conv2d"
    )  # fmt: skip


def slope(scales: Sequence[Scale], space: type[EfficientNet | RegNet], architecture: Architecture) -> float:
    """Exponent of the activations as a power of the multiply-adds, fitted to real graphs."""
    sizes = []
    for scale in scales:
        scaled = scaled_space(space, scale, input_shape=(3, 128, 128), num_classes=10)
        graph = replay(scaled, architecture).graph
        sizes.append((cost_of(graph).multiply_adds, activations(graph)))
    flops, elements = np.log(np.array(sizes, dtype=float)).T
    return float(np.polyfit(flops, elements, 1)[0])


def a_regnet() -> Architecture:
    space = RegNet(input_shape=(3, 128, 128), num_classes=10)
    return sample(space, np.random.default_rng(3)).architecture


SPACES = pytest.mark.parametrize(
    ("space", "architecture"), [(EfficientNet, efficientnet_b0()), (RegNet, a_regnet())]
)


@SPACES
def test_fast_scaling_makes_activations_grow_like_the_root_of_the_multiply_adds(
    space: type[EfficientNet | RegNet], architecture: Architecture
) -> None:
    width_only = slope([fast(factor, alpha=1.0) for factor in FACTORS], space, architecture)
    usual = slope([fast(factor) for factor in FACTORS], space, architecture)
    assert width_only == pytest.approx(0.5, abs=0.06)
    assert usual == pytest.approx(0.6, abs=0.06)  # 1 - alpha / 2


@SPACES
def test_compound_scaling_costs_more_activations_than_fast_scaling(
    space: type[EfficientNet | RegNet], architecture: Architecture
) -> None:
    found = slope([compound(phi) for phi in range(5)], space, architecture)
    # ln(1.2 * 1.1 * 1.15^2) / ln(1.2 * 1.1^2 * 1.15^2)
    assert found == pytest.approx(0.854, abs=0.07)


@pytest.mark.parametrize("alpha", [0.0, 1 / 3, 0.8, 1.0])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0, 100.0])
def test_fast_scaling_reaches_the_multiply_adds_that_are_wanted(factor: float, alpha: float) -> None:
    scale = fast(factor, alpha=alpha)
    assert scale.multiply_adds == pytest.approx(factor)
    assert scale.activations == pytest.approx(factor ** (1 - alpha / 2))


def test_a_third_is_uniform_scaling() -> None:
    scale = fast(8.0, alpha=1 / 3)
    assert scale.depth == pytest.approx(scale.width**2) == pytest.approx(scale.resolution**2)


def test_compound_scaling_doubles_the_multiply_adds_with_each_step() -> None:
    for phi in range(8):
        assert compound(phi).multiply_adds == pytest.approx(2**phi, rel=0.05 * (phi + 1))
    assert compound(0) == Scale()


@pytest.mark.parametrize(("phi", "published", "tolerance"), [(1, 9_109_994, 0), (2, 12_233_232, 0.005)])
def test_compound_scaling_of_b0_gives_the_published_networks(
    phi: int, published: int, tolerance: float
) -> None:
    """B2 is B0 at phi 1, and B3 is it at phi 2 with width and depth rounded to 1.2 and 1.4 (counts of torchvision)."""
    space = scaled_space(EfficientNet, compound(phi), input_shape=(3, 224, 224), num_classes=1000)
    cost = cost_of(replay(space, efficientnet_b0()).graph)
    assert abs(cost.num_parameters / published - 1) <= tolerance


def test_a_scale_of_one_changes_nothing() -> None:
    for space, architecture in ((EfficientNet, efficientnet_b0()), (RegNet, a_regnet())):
        same = scaled_space(space, fast(1.0), input_shape=(3, 128, 128), num_classes=10)
        base = space(input_shape=(3, 128, 128), num_classes=10)
        assert replay(same, architecture).graph == replay(base, architecture).graph


@pytest.mark.parametrize(
    ("width", "rounded"), [(1, 8), (11, 16), (12, 16), (19, 24), (25.6, 24), (26.7, 32), (28, 32), (35.2, 32)]
)
def test_widths_become_multiples_of_eight_that_are_not_much_smaller(width: float, rounded: int) -> None:
    assert divisible(width) == rounded
    assert rounded >= 0.9 * width


@pytest.mark.parametrize(
    ("depth", "multiple", "scaled"), [(3, 1.0, 3), (2, 1.1, 3), (10, 1.1, 11), (3, 0.4, 2)]
)
def test_depths_are_rounded_up(depth: int, multiple: float, scaled: int) -> None:
    assert scaled_depth(depth, multiple) == scaled


def test_only_the_sides_of_an_image_are_scaled() -> None:
    assert scaled_shape((3, 224, 112), 1.5) == (3, 336, 168)


@pytest.mark.parametrize("make", [lambda: fast(0.0), lambda: fast(2.0, alpha=1.1), lambda: Scale(depth=-1.0)])
def test_impossible_scales_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(NasGraphError, match="Expected"):
        make()


# ---- growing


def parameters(graph: ComputationalGraph) -> int:
    return cost_of(graph).num_parameters


def small_mlp(space: SearchSpace) -> Architecture:
    rng = np.random.default_rng(0)
    return min((sample(space, rng) for _ in range(60)), key=lambda each: parameters(each.graph)).architecture


def test_growing_takes_the_best_scored_increment_within_the_resources() -> None:
    space = MLP(input_shape=(1, 8, 8), num_classes=10)
    limit = 30_000
    path = enlarge(
        space,
        small_mlp(space),
        names=lambda name: "depth" in name or "width" in name,
        score=lambda graphs: [-parameters(graph) for graph in graphs],  # the smallest step
        fits=lambda graph: parameters(graph) <= limit,
        rng=np.random.default_rng(0),
    )
    sizes = [parameters(each.graph) for each in path]
    assert len(path) > 3
    assert max(sizes) <= limit
    assert len({each.architecture for each in path}) == len(path)
    assert all(replay(space, each.architecture) == each for each in path)


def test_growing_stops_at_the_end_of_the_space_and_after_as_many_steps_as_asked() -> None:
    space = MLP(input_shape=(1, 8, 8), num_classes=10)
    seed = small_mlp(space)
    longest = enlarge(
        space, seed, names=lambda name: "width" in name, score=lambda graphs: [0.0] * len(graphs),
        fits=lambda _: True, rng=np.random.default_rng(0),
    )  # fmt: skip
    again = enlarge(
        space, seed, names=lambda name: "width" in name, score=lambda graphs: [0.0] * len(graphs),
        fits=lambda _: True, rng=np.random.default_rng(0), max_steps=2,
    )  # fmt: skip
    assert again == longest[:3]


def test_a_choice_of_words_cannot_grow() -> None:
    space = MLP(input_shape=(1, 8, 8), num_classes=10)
    with pytest.raises(NasGraphError, match="'activation' cannot grow: its options are no numbers"):
        enlarge(
            space, small_mlp(space), names=lambda name: name == "activation", score=lambda graphs: [0.0] * len(graphs),
            fits=lambda _: True, rng=np.random.default_rng(0),
        )  # fmt: skip
