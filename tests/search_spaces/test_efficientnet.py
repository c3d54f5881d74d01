"""The space around EfficientNet."""

import numpy as np
import pytest

from nasgraph.errors import NasGraphError
from nasgraph.ir import cost_of
from nasgraph.spaces import SearchSpace, replay, sample
from nasgraph.testing import SearchSpaceContract
from search_spaces.efficientnet import EfficientNet, efficientnet_b0
from tests.search_spaces.serving import assert_predictable, assert_serves


class TestEfficientNet(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return EfficientNet(input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 9, 23), (3, 32, 32), (3, 224, 224)])
def test_small_and_large_images_are_served(shape: tuple[int, ...]) -> None:
    assert_serves(EfficientNet(input_shape=shape, num_classes=7))


@pytest.mark.parametrize(
    ("width", "depth", "side", "parameters", "giga_multiply_adds"),
    [
        # Widths, depths and resolutions of the authors' program; counts of torchvision; multiply-adds of table 2.
        (1.0, 1.0, 224, 5_288_548, 0.39),
        (1.0, 1.1, 240, 7_794_184, 0.70),
        (1.1, 1.2, 260, 9_109_994, 1.0),
        (1.2, 1.4, 300, 12_233_232, 1.8),
        (1.4, 1.8, 380, 19_341_616, 4.2),
        (1.6, 2.2, 456, 30_389_784, 9.9),
        (1.8, 2.6, 528, 43_040_704, 19.0),
        (2.0, 3.1, 600, 66_347_960, 37.0),
    ],
)
def test_b0_to_b7_have_the_published_size(
    width: float, depth: float, side: int, parameters: int, giga_multiply_adds: float
) -> None:
    space = EfficientNet(input_shape=(3, side, side), num_classes=1000, width=width, depth=depth)
    cost = cost_of(replay(space, efficientnet_b0()).graph)
    assert cost.num_parameters == parameters
    assert cost.multiply_adds / 1e9 == pytest.approx(giga_multiply_adds, rel=0.05)


def test_drop_path_grows_from_zero_over_the_blocks() -> None:
    space = EfficientNet(input_shape=(3, 224, 224), num_classes=1000, drop_path=0.2)
    graph = replay(space, efficientnet_b0()).graph
    chances = [float(str(node.attr("p"))) for node in graph.nodes if node.op == "drop_path"]
    # Of the sixteen blocks, nine are residual.
    assert chances == pytest.approx([0.2 * place / 16 for place in (2, 4, 6, 7, 9, 10, 12, 13, 14)])
    plain = replay(EfficientNet(input_shape=(3, 224, 224), num_classes=1000), efficientnet_b0()).graph
    assert len(plain) == len(graph) - len(chances)


def test_a_hypernetwork_predicts_every_parameter() -> None:
    space = EfficientNet(input_shape=(3, 32, 32), num_classes=10)
    assert_predictable(sample(space, np.random.default_rng(0)).graph)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (8,)}, r"'efficientnet' expects images .*\(got shape \(8,\)\)"),
        ({"input_shape": (3, 7, 32)}, "sides of 8 to 1,024"),
        ({"num_classes": 0}, "'num_classes' to be at least 1"),
        ({"width": 0.0}, "'depth' and 'width' of 0.1 to 16"),
        ({"drop_path": 1.0}, r"'drop_path' in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        EfficientNet(**{"input_shape": (3, 32, 32), "num_classes": 10, **settings})  # type: ignore[arg-type]  # wrong on purpose
