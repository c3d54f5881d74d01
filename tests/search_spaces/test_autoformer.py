"""Vision transformers whose layers differ."""

import numpy as np
import pytest
import torch
from torch import nn

from nasgraph.errors import NasGraphError
from nasgraph.ir import cost_of
from nasgraph.modules import build
from nasgraph.spaces import Architecture, Choice, SearchSpace, enumerate_candidates, replay, sample
from nasgraph.spaces.scaling import enlarge
from nasgraph.testing import SearchSpaceContract
from search_spaces.autoformer import SIZES, AutoFormer, Options
from tests.search_spaces.serving import assert_predictable, assert_serves


def alike(dim: int, depth: int, heads: int, ratio: float) -> Architecture:
    """The architecture whose layers are all of one form."""
    choices: list[tuple[str, Choice]] = [("dim", dim), ("depth", depth)]
    for place in range(depth):
        choices += [(f"layer{place}_heads", heads), (f"layer{place}_mlp_ratio", ratio)]
    return Architecture("autoformer", tuple(choices))


class TestAutoFormer(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return AutoFormer(input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 9, 21), (3, 32, 32), (3, 224, 224)])
def test_small_and_large_images_are_served(shape: tuple[int, ...]) -> None:
    assert_serves(AutoFormer(input_shape=shape, num_classes=7))


@pytest.mark.parametrize(
    ("size", "dim", "heads", "parameters", "giga_multiply_adds"),
    [
        # Touvron et al. 2021, table 1 (5 M and 22 M); the exact numbers are those of timm's `deit_tiny_patch16_224` and
        # `deit_small_patch16_224`; multiply-adds of the AutoFormer paper.
        ("tiny", 192, 3, 5_717_416, 1.2),
        ("small", 384, 6, 22_050_664, 4.7),
    ],
)
def test_deit_is_in_the_space_with_its_published_size(
    size: str, dim: int, heads: int, parameters: int, giga_multiply_adds: float
) -> None:
    space = AutoFormer(input_shape=(3, 224, 224), num_classes=1000, size=size)
    cost = cost_of(replay(space, alike(dim, 12, heads, 4.0)).graph)
    assert cost.num_parameters == parameters
    assert cost.multiply_adds / 1e9 == pytest.approx(giga_multiply_adds, rel=0.06)


def test_a_layer_computes_what_the_layer_of_torch_does() -> None:
    only = Options((32,), (2.0,), (2,), (3,), head_dim=16)
    space = AutoFormer(input_shape=(3, 8, 8), num_classes=5, size=only, patch_size=2)
    (candidate,) = enumerate_candidates(space)
    ours = build(candidate.graph).eval()
    layers = [nn.TransformerEncoderLayer(32, 2, 64, 0.0, "gelu", 1e-5, True, True) for _ in range(3)]
    tokens = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    own = [tensor.detach() for tensor in ours.parameters()]
    # The table of patches, the class token and the positions come first, in the order of their nodes.
    shapes = [tuple(tensor.shape) for tensor in own]
    conv, bias = own[shapes.index((32, 3, 2, 2))], own[shapes.index((32, 3, 2, 2)) + 1]
    klass, places = own[shapes.index((1, 32))], own[shapes.index((17, 32))]
    rest = own[4:]
    with torch.no_grad():
        x = nn.functional.conv2d(tokens, conv, bias, stride=2).flatten(2).transpose(1, 2)
        x = torch.cat([klass.expand(2, 1, 32), x], 1) + places
        for layer in layers:
            n1, b1, wq, bq, wk, bk, wv, bv, wo, bo, n2, b2, w1, c1, w2, c2 = rest[:16]
            rest = rest[16:]
            layer.norm1.weight.copy_(n1)
            layer.norm1.bias.copy_(b1)
            layer.norm2.weight.copy_(n2)
            layer.norm2.bias.copy_(b2)
            layer.self_attn.in_proj_weight.copy_(torch.cat([wq, wk, wv]))
            layer.self_attn.in_proj_bias.copy_(torch.cat([bq, bk, bv]))
            layer.self_attn.out_proj.weight.copy_(wo)
            layer.self_attn.out_proj.bias.copy_(bo)
            layer.linear1.weight.copy_(w1)
            layer.linear1.bias.copy_(c1)
            layer.linear2.weight.copy_(w2)
            layer.linear2.bias.copy_(c2)
            x = layer(x)
        x = nn.functional.layer_norm(x[:, 0], (32,), rest[0], rest[1])
        expected = nn.functional.linear(x, rest[2], rest[3])
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-4, atol=1e-4)


def test_every_layer_has_heads_and_a_ratio_of_its_own() -> None:
    candidate = sample(AutoFormer(input_shape=(3, 32, 32), num_classes=10), np.random.default_rng(1))
    answers = dict(candidate.architecture.choices)
    asked = [answers[f"layer{place}_heads"] for place in range(int(answers["depth"]))]
    built = [node.attr("num_heads") for node in candidate.graph.nodes if node.op == "attention"]
    assert asked == built
    assert len(set(built)) > 1


def test_the_tiny_space_has_as_many_architectures_as_its_options_say() -> None:
    options = SIZES["tiny"]
    per_layer = len(options.heads) * len(options.mlp_ratios)
    assert len(options.dims) * sum(per_layer**depth for depth in options.depths) > 1e9


def test_growing_reaches_a_network_of_the_size_wanted() -> None:
    space = AutoFormer(input_shape=(1, 8, 8), num_classes=10)
    limit = 100_000

    path = enlarge(
        space,
        alike(32, 2, 1, 2.0),
        names=lambda _: True,
        score=lambda graphs: [-abs(cost_of(graph).num_parameters - limit) for graph in graphs],
        fits=lambda graph: cost_of(graph).num_parameters <= limit,
        rng=np.random.default_rng(0),
    )
    sizes = [cost_of(each.graph).num_parameters for each in path]
    assert sizes[0] < sizes[-1] <= limit
    assert sizes[-1] > 0.9 * limit


def test_drop_path_grows_from_zero_over_the_layers() -> None:
    space = AutoFormer(input_shape=(1, 8, 8), num_classes=10, drop_path=0.1)
    graph = replay(space, alike(32, 5, 2, 2.0)).graph
    chances = [float(str(node.attr("p"))) for node in graph.nodes if node.op == "drop_path"]
    assert chances == pytest.approx([0.025, 0.025, 0.05, 0.05, 0.075, 0.075, 0.1, 0.1])


def test_a_hypernetwork_predicts_every_parameter() -> None:
    space = AutoFormer(input_shape=(1, 8, 8), num_classes=10)
    assert_predictable(sample(space, np.random.default_rng(0)).graph)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (8,)}, r"'autoformer' expects images .*\(got shape \(8,\)\)"),
        ({"input_shape": (3, 3, 32)}, "sides of 4 to 1,024"),
        ({"input_shape": (3, 331, 333)}, "finds no square patch that cuts 331 x 333"),
        ({"size": "huge"}, r"'size' to be one of micro, tiny, small, base \(got 'huge'\)"),
        ({"patch_size": 5}, "cannot cut 32 x 32 .* with sides of 5"),
        ({"drop_path": 1.0}, r"'drop_path' in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        AutoFormer(**{"input_shape": (3, 32, 32), "num_classes": 10, **settings})  # type: ignore[arg-type]  # wrong on purpose


def test_impossible_options_are_refused() -> None:
    with pytest.raises(NasGraphError, match="'heads' above 0 and without repeats"):
        Options((32,), (2.0,), (2, 2), (3,))
    with pytest.raises(NasGraphError, match="at most 200 layers"):
        Options((32,), (2.0,), (2,), (300,))
