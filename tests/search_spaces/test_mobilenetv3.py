"""The space around MobileNetV3."""

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasgraph.errors import NasGraphError
from nasgraph.ir import cost_of
from nasgraph.modules import build
from nasgraph.spaces import Architecture, Candidate, Choice, SearchSpace, replay, sample
from nasgraph.spaces.scaling import divisible
from nasgraph.testing import SearchSpaceContract
from search_spaces.mobilenetv3 import DEPTHS, EXPANSIONS, KERNELS, MobileNetV3
from tests.search_spaces.serving import assert_predictable, assert_serves

LARGE = (
    ((3, 4.0), (3, 3.0)),
    ((5, 3.0), (5, 3.0), (5, 3.0)),
    ((3, 6.0), (3, 2.5), (3, 2.3), (3, 2.3)),
    ((3, 6.0), (3, 6.0)),
    ((5, 6.0), (5, 6.0), (5, 6.0)),
)
"""Kernel and expansion of MobileNetV3-Large (Howard et al. 2019, table 1), stage by stage."""


def architecture(stages: tuple[tuple[tuple[int, float], ...], ...]) -> Architecture:
    choices: list[tuple[str, Choice]] = [
        (f"stage{place}_depth", len(blocks)) for place, blocks in enumerate(stages)
    ]
    for stage, blocks in enumerate(stages):
        for block, (kernel, expansion) in enumerate(blocks):
            at = f"stage{stage}_block{block}"
            choices += [(f"{at}_kernel", kernel), (f"{at}_expansion", expansion)]
    return Architecture("mobilenetv3", tuple(choices))


class TestMobileNetV3(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return MobileNetV3(input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 9, 23), (3, 32, 32), (3, 224, 224)])
def test_small_and_large_images_are_served(shape: tuple[int, ...]) -> None:
    assert_serves(MobileNetV3(input_shape=shape, num_classes=7))


def test_mobilenetv3_large_has_the_published_size() -> None:
    space = MobileNetV3(input_shape=(3, 224, 224), num_classes=1000, expansions=(2.3, 2.5, 3, 4, 6))
    cost = cost_of(replay(space, architecture(LARGE)).graph)
    assert cost.num_parameters == 5_483_032  # torchvision's `mobilenet_v3_large`
    assert cost.multiply_adds / 1e6 == pytest.approx(219, rel=0.02)  # Howard et al. 2019, table 3


class Reference(nn.Module):
    """A once-for-all network in plain torch, to compare with."""

    def __init__(self, stages: tuple[tuple[tuple[int, float], ...], ...], num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*unit(3, 16, 3, 2, nn.Hardswish()))
        self.first = nn.Sequential(*unit(16, 16, 3, 1, nn.ReLU(), groups=16), *unit(16, 16, 1, 1, None))
        self.blocks = nn.ModuleList()
        width = 16
        for place, (blocks, wide) in enumerate(zip(stages, (24, 40, 80, 112, 160), strict=True)):
            for block, (kernel, expansion) in enumerate(blocks):
                middle = divisible(width * expansion)
                act = nn.Hardswish() if place >= 2 else nn.ReLU()
                stride = 2 if block == 0 and place != 3 else 1
                parts = unit(width, middle, 1, 1, act) + unit(middle, middle, kernel, stride, act, middle)
                parts += [Excite(middle)] if place in (1, 3, 4) else []
                self.blocks.append(nn.Sequential(*parts, *unit(middle, wide, 1, 1, None)))
                width = wide
        self.last = nn.Sequential(*unit(160, 960, 1, 1, nn.Hardswish()))
        self.hidden, self.head = nn.Linear(960, 1280), nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in (self.first, *self.blocks):
            y = block(x)
            x = x + y if x.shape == y.shape else y
        result: Tensor = self.head(
            nn.functional.hardswish(
                self.hidden(nn.functional.adaptive_avg_pool2d(self.last(x), 1).flatten(1))
            )
        )
        return result


def unit(
    inputs: int, outputs: int, kernel: int, stride: int, act: nn.Module | None, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([act] if act else [])]


class Excite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = divisible(width / 4)
        self.down, self.up = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu())
        return x * nn.functional.hardsigmoid(gate)


def stages_of(candidate: Candidate) -> tuple[tuple[tuple[int, float], ...], ...]:
    answers = dict(candidate.architecture.choices)
    return tuple(
        tuple(
            (
                int(answers[f"stage{stage}_block{block}_kernel"]),
                float(answers[f"stage{stage}_block{block}_expansion"]),
            )
            for block in range(int(answers[f"stage{stage}_depth"]))
        )
        for stage in range(5)
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_network_computes_what_a_plain_torch_network_does(seed: int) -> None:
    space = MobileNetV3(input_shape=(3, 128, 128), num_classes=10)
    candidate = sample(space, np.random.default_rng(seed))
    reference = Reference(stages_of(candidate), 10).eval()
    ours = build(candidate.graph).eval()
    state = reference.state_dict()
    theirs = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    own = ours.state_dict()
    assert sorted(tensor.numel() for tensor in own.values()) == sorted(t.numel() for t in theirs.values())
    names = [name for name, _ in reference.named_parameters()]
    assert [prod(own[name].shape) for name, _ in ours.named_parameters()] == [
        state[name].numel() for name in names
    ]
    for (name, tensor), source in zip(ours.named_parameters(), names, strict=True):
        tensor.data.copy_(state[source].reshape(own[name].shape))
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), reference(images), rtol=1e-4, atol=1e-4)


def test_the_space_has_the_published_number_of_architectures() -> None:
    per_block = len(KERNELS) * len(EXPANSIONS)
    assert sum(per_block**depth for depth in DEPTHS) ** 5 == pytest.approx(2e19, rel=0.2)  # Cai et al. 2020


@pytest.mark.parametrize(("side", "last"), [(8, 4), (16, 4), (28, 7), (32, 4), (64, 4), (128, 4), (224, 7)])
def test_small_images_keep_at_least_four_positions_where_they_have_them(side: int, last: int) -> None:
    graph = sample(
        MobileNetV3(input_shape=(3, side, side), num_classes=10, width=1.0), np.random.default_rng(0)
    ).graph
    (pool,) = [node for node in graph.nodes[-6:] if node.op == "global_avg_pool2d"]
    assert graph.shapes[pool.inputs[0]] == (960, last, last)


def test_networks_for_small_images_are_narrower_unless_told_otherwise() -> None:
    sizes = [
        cost_of(
            sample(MobileNetV3(input_shape=(3, side, side), num_classes=10), np.random.default_rng(0)).graph
        )
        for side in (16, 32, 96)
    ]
    assert sizes[0].num_parameters < sizes[1].num_parameters / 2 < sizes[2].num_parameters / 4


def test_drop_path_grows_over_the_blocks() -> None:
    space = MobileNetV3(input_shape=(3, 32, 32), num_classes=10, drop_path=0.2, depths=(4,))
    chances = [
        float(str(node.attr("p")))
        for node in sample(space, np.random.default_rng(0)).graph.nodes
        if node.op == "drop_path"
    ]
    assert chances == pytest.approx([0.2 * place / 20 for place in range(1, 21) if place % 4 != 1])


def test_a_hypernetwork_predicts_every_parameter() -> None:
    space = MobileNetV3(input_shape=(3, 32, 32), num_classes=10)
    assert_predictable(sample(space, np.random.default_rng(0)).graph)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (8,)}, r"'mobilenetv3' expects images .*\(got shape \(8,\)\)"),
        ({"input_shape": (3, 7, 32)}, "sides of 8 to 1,024"),
        ({"width": 0.0}, "'width' of 0.1 to 16"),
        ({"kernels": (2,)}, "'kernels' to be odd"),
        ({"expansions": (0.5,)}, "'expansions' of 1 to 16"),
        ({"depths": ()}, "'depths' of 1 to 16"),
        ({"depths": (2, 2)}, "without repeats"),
        ({"drop_path": -0.1}, r"'drop_path' in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        MobileNetV3(**{"input_shape": (3, 32, 32), "num_classes": 10, **settings})  # type: ignore[arg-type]  # wrong on purpose
