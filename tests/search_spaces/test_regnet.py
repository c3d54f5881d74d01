"""AnyNet and RegNet."""

from math import prod

import numpy as np
import pytest

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.spaces import Architecture, Choice, SearchSpace, enumerate_candidates, replay, sample
from nasgraph.testing import SearchSpaceContract
from search_spaces.regnet import AnyNet, RegNet, compatible_stage, quantised_widths
from tests.search_spaces.serving import assert_predictable, assert_serves


@pytest.mark.parametrize("kind", [RegNet, AnyNet])
class TestRegNetAndAnyNet(SearchSpaceContract):
    @pytest.fixture
    def space(self, kind: type[SearchSpace]) -> SearchSpace:
        return kind(input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize("kind", [RegNet, AnyNet])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 9, 23), (3, 32, 32), (3, 224, 224)])
def test_small_and_large_images_are_served(kind: type[SearchSpace], shape: tuple[int, ...]) -> None:
    assert_serves(kind(input_shape=shape, num_classes=7))


def published(
    block: str, depth: int, w_0: int, w_a: float, w_m: float, group_width: int
) -> ComputationalGraph:
    """The only network of a space with these numbers as its only options."""
    space = RegNet(
        input_shape=(3, 224, 224),
        num_classes=1000,
        depths=(depth,),
        initial_widths=(w_0,),
        slopes=(w_a,),
        multipliers=(w_m,),
        group_widths=(group_width,),
        blocks=(block,),
    )
    (candidate,) = enumerate_candidates(space)
    return candidate.graph


@pytest.mark.parametrize(
    ("numbers", "millions", "giga_multiply_adds"),
    [
        # The paper's lists of top RegNetX and RegNetY models, with the second digit from the authors' model zoo.
        (("x", 13, 24, 36.44, 2.49, 8), 2.68, 0.20),
        (("x", 22, 24, 24.48, 2.54, 16), 5.16, 0.40),
        (("x", 16, 56, 35.73, 2.28, 16), 7.26, 0.80),
        (("x", 18, 80, 34.01, 2.25, 24), 9.19, 1.60),
        (("y", 13, 24, 36.44, 2.49, 8), 3.16, 0.20),
        (("y", 16, 48, 27.89, 2.09, 8), 4.34, 0.40),
    ],
)
def test_published_networks_have_the_published_size(
    numbers: tuple[str, int, int, float, float, int], millions: float, giga_multiply_adds: float
) -> None:
    cost = cost_of(published(*numbers))
    assert cost.num_parameters / 1e6 == pytest.approx(millions, abs=0.006)
    assert cost.multiply_adds / 1e9 == pytest.approx(giga_multiply_adds, rel=0.03)


@pytest.mark.parametrize(
    ("numbers", "parameters"),
    [
        (("x", 16, 56, 35.73, 2.28, 16), 7_259_656),  # torchvision's `regnet_x_800mf`
        (("y", 16, 48, 27.89, 2.09, 8), 4_344_144),  # torchvision's `regnet_y_400mf`
    ],
)
def test_parameters_are_those_of_torchvision_to_the_last(
    numbers: tuple[str, int, int, float, float, int], parameters: int
) -> None:
    assert cost_of(published(*numbers)).num_parameters == parameters


@pytest.mark.parametrize(
    ("last", "parameters"),
    [
        (
            384,
            5_157_512,
        ),  # the paper: 393.3 / 8 is 49 multiples of eight, and 392 / 16 = 24.5 groups are rounded to even
        (400, 5_495_976),  # torchvision's `regnet_x_400mf`, whose rounding goes up
    ],
)
def test_regnetx_400mf_is_an_anynet_with_either_rounding(last: int, parameters: int) -> None:
    widths = (32, 64, 160, last)
    choices: list[tuple[str, Choice]] = []
    for stage, (depth, width) in enumerate(zip((1, 2, 7, 12), widths, strict=True)):
        at = f"stage{stage}"
        choices += [(f"{at}_depth", depth), (f"{at}_width", width), (f"{at}_bottleneck", 1)]
        choices.append((f"{at}_group_width", 16))
    space = AnyNet(input_shape=(3, 224, 224), num_classes=1000, widths=widths, group_widths=(16,))
    graph = replay(space, Architecture("anynet", (*choices, ("block", "x")))).graph
    assert cost_of(graph).num_parameters == parameters
    if last == 384:
        assert graph.fingerprint == published("x", 22, 24, 24.48, 2.54, 16).fingerprint


def test_regnetx_200mf_has_the_published_stages() -> None:
    widths = quantised_widths(13, initial_width=24, slope=36.44, multiplier=2.49)
    # Depths 1, 1, 4, 7 and widths 24, 56, 152, 368 in the paper's list of top RegNetX models.
    assert widths == [24] + [56] + [152] * 4 + [368] * 7


@pytest.mark.parametrize("seed", range(5))
def test_quantised_widths_never_fall_and_stay_near_the_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, slope, multiplier = (
        8 * int(rng.integers(1, 20)),
        float(rng.uniform(1, 60)),
        float(rng.uniform(1.5, 3)),
    )
    widths = quantised_widths(20, initial_width=start, slope=slope, multiplier=multiplier)
    assert widths == sorted(widths)
    assert all(width % 8 == 0 for width in widths)
    line = start + slope * np.arange(20)
    # Half a step of the exponent either way, and half a multiple of eight.
    assert (np.abs(widths - line) <= line * (multiplier**0.5 - 1) + 4).all()


@pytest.mark.parametrize("bottleneck", [1, 2, 4])
@pytest.mark.parametrize("group_width", [1, 3, 8, 32, 1000])
@pytest.mark.parametrize("width", [8, 24, 152, 392])
def test_groups_divide_the_middle_and_widths_stay_near(width: int, group_width: int, bottleneck: int) -> None:
    stage = compatible_stage(1, width=width, bottleneck=bottleneck, group_width=group_width)
    assert stage.middle % stage.group_width == 0
    assert stage.width == stage.middle * bottleneck
    assert abs(stage.width - width) <= bottleneck * stage.group_width


def test_the_stages_of_a_regnet_are_those_of_some_anynet() -> None:
    shape = (3, 32, 32)
    regnet = RegNet(
        input_shape=shape, num_classes=10, depths=(4,), initial_widths=(16,), slopes=(24.0,), multipliers=(2.0,),
        group_widths=(8,), blocks=("x",),
    )  # fmt: skip
    anynet = AnyNet(
        input_shape=shape, num_classes=10, max_depth=2, widths=(16, 32, 64, 128), bottlenecks=(1,), group_widths=(8,),
        num_stages=3, blocks=("x",),
    )  # fmt: skip
    (ours,) = enumerate_candidates(regnet)
    assert ours.graph.fingerprint in {each.graph.fingerprint for each in enumerate_candidates(anynet)}


def test_excitation_adds_a_quarter_of_what_comes_in() -> None:
    x, y = (published(block, 13, 24, 36.44, 2.49, 8) for block in "xy")
    shapes = {spec.shape for spec in y.parameters.values()} - {spec.shape for spec in x.parameters.values()}
    assert (92, 368) in shapes  # 368 channels come in and leave; a quarter of them in between
    assert sum(prod(s.shape) for s in y.parameters.values()) > sum(
        prod(s.shape) for s in x.parameters.values()
    )


@pytest.mark.parametrize("kind", [RegNet, AnyNet])
def test_a_hypernetwork_predicts_every_parameter(kind: type[SearchSpace]) -> None:
    assert_predictable(sample(kind(input_shape=(1, 8, 8), num_classes=10), np.random.default_rng(0)).graph)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (8,)}, r"'regnet' expects images .*\(got shape \(8,\)\)"),
        ({"num_classes": 0}, "'num_classes' to be at least 1"),
        ({"depths": (0,)}, "'depths' of 1 to 200"),
        ({"multipliers": (1.0,)}, "'multipliers' of 1.1 to 8"),
        ({"group_widths": (8, 8)}, "without repeats"),
        ({"blocks": ("z",)}, "'blocks' to be 'x', 'y' or both"),
        ({"slopes": (1000.0,)}, r"widths up to 8,192 \(the options reach 12,032\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        RegNet(**{"input_shape": (3, 32, 32), "num_classes": 10, **settings})  # type: ignore[arg-type]  # wrong on purpose
