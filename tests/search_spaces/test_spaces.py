"""What is particular to the spaces `convnet`, `mlp` and `vit`."""

from collections import Counter

import numpy as np
import pytest

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.spaces import Architecture, Candidate, SearchSpace, load_space, sample
from search_spaces.convnet import KINDS, ConvNet
from search_spaces.mlp import MLP
from search_spaces.vit import ViT


def samples(space: SearchSpace, number: int) -> list[Candidate]:
    rng = np.random.default_rng(0)
    return [sample(space, rng) for _ in range(number)]


def ops_of(graph: ComputationalGraph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


def answer(architecture: Architecture, name: str) -> object:
    return dict(architecture.choices)[name]


# ---- convnet


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 9, 13), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 8, 64)]
)
def test_convnet_serves_every_size(shape: tuple[int, ...]) -> None:
    for candidate in samples(ConvNet(input_shape=shape, num_classes=7), 40):
        assert candidate.graph.shapes[0] == shape
        assert candidate.graph.shapes[candidate.graph.outputs[0]] == (7,)


def test_convnets_for_digits_are_small_and_diverse() -> None:
    candidates = samples(ConvNet(input_shape=(1, 8, 8), num_classes=10), 400)
    parameters = np.array([cost_of(candidate.graph).num_parameters for candidate in candidates])
    nodes = np.array([len(candidate.graph) for candidate in candidates])
    assert np.quantile(parameters, 0.01) < 3_000
    assert np.quantile(parameters, 0.97) < 250_000
    assert nodes.max() < 120
    assert 20 < np.median(nodes) < 60
    assert len({candidate.graph.fingerprint for candidate in candidates}) == len(candidates)


def test_convnets_use_every_kind_of_block_and_operator() -> None:
    candidates = samples(ConvNet(input_shape=(1, 16, 16), num_classes=10), 300)
    kinds = {value for c in candidates for name, value in c.architecture.choices if name.endswith("_kind")}
    assert kinds == set(KINDS)
    nodes = [node for candidate in candidates for node in candidate.graph.nodes]
    found = {node.op for node in nodes}
    assert found >= {
        "batch_norm",
        "group_norm",
        "max_pool2d",
        "avg_pool2d",
        "concat",
        "add",
        "mul",
        "flatten",
        "reshape",
    }
    convolutions = [dict(node.attrs) for node in nodes if node.op == "conv2d"]
    assert {attrs["kernel_size"] for attrs in convolutions} == {(1, 1), (3, 3), (5, 5)}
    assert any(attrs["dilation"] == (2, 2) for attrs in convolutions)
    assert any(attrs["groups"] == 4 for attrs in convolutions)
    assert any(attrs["groups"] == attrs["out_channels"] for attrs in convolutions)


def test_convnets_without_norm_exist_and_have_biases_instead() -> None:
    candidates = samples(ConvNet(input_shape=(1, 8, 8), num_classes=10), 200)
    norm_free = [c for c in candidates if answer(c.architecture, "norm") == "none"]
    assert 0.1 < len(norm_free) / len(candidates) < 0.4
    for candidate in candidates:
        biases = {node.attr("bias") for node in candidate.graph.nodes if node.op == "conv2d"}
        has_norm = bool(ops_of(candidate.graph).keys() & {"batch_norm", "group_norm"})
        assert biases == {not has_norm}
        assert has_norm == (candidate not in norm_free)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((64,), {}, "expects images"),
        ((1, 7, 8), {}, "sides of 8 to 64"),
        ((3, 65, 65), {}, "sides of 8 to 64"),
        ((1, 8, 8), {"widths": (6,)}, "multiples of four"),
        ((1, 8, 8), {"widths": ()}, "multiples of four"),
        ((1, 8, 8), {"max_width": 16}, "no width above the largest"),
        ((1, 8, 8), {"max_blocks": 0}, "'max_blocks' to be 1 to 8"),
    ],
)
def test_convnet_refuses_what_it_cannot_serve(
    shape: tuple[int, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(NasGraphError, match=message):
        ConvNet(input_shape=shape, num_classes=10, **settings)  # type: ignore[arg-type]  # wrong on purpose


def test_convnet_settings_hold() -> None:
    space = ConvNet(input_shape=(1, 8, 8), num_classes=10, widths=(4,), max_width=4, max_blocks=1)
    for candidate in samples(space, 40):
        assert answer(candidate.architecture, "width") == 4
        assert {answer(candidate.architecture, f"stage{stage}_blocks") for stage in range(2)} <= {0, 1}


# ---- mlp


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8), (2, 3, 4, 5)])
def test_mlp_flattens_any_shape(shape: tuple[int, ...]) -> None:
    for candidate in samples(MLP(input_shape=shape, num_classes=3), 30):
        assert ops_of(candidate.graph)["flatten"] == (len(shape) > 1)
        depth = answer(candidate.architecture, "depth")
        assert ops_of(candidate.graph)["linear"] == int(str(depth)) + 1


def test_mlp_adds_only_where_widths_are_equal() -> None:
    candidates = samples(MLP(input_shape=(16,), num_classes=3, widths=(16, 32)), 200)
    asked = [name for c in candidates for name, _ in c.architecture.choices if name.endswith("_residual")]
    assert asked
    assert not any(
        name.startswith("layer0") for name in asked
    )  # the data is as wide as a layer, but no layer
    assert any(ops_of(candidate.graph)["add"] for candidate in candidates)


@pytest.mark.parametrize(
    "settings", [{"widths": ()}, {"widths": (0,)}, {"max_depth": 0}, {"input_shape": ()}]
)
def test_mlp_refuses_settings_out_of_bounds(settings: dict[str, object]) -> None:
    with pytest.raises(NasGraphError, match="Expected"):
        MLP(**({"input_shape": (4,), "num_classes": 2} | settings))  # type: ignore[arg-type]  # wrong on purpose


# ---- vit


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20), (1, 28, 28), (3, 32, 32), (3, 224, 224)])
def test_vit_cuts_images_into_4_to_256_tokens(shape: tuple[int, ...]) -> None:
    for candidate in samples(ViT(input_shape=shape, num_classes=5), 30):
        graph = candidate.graph
        tokens = next(graph.shapes[i][0] for i, node in enumerate(graph.nodes) if node.op == "permute")
        assert 4 <= tokens <= 256


def test_vit_variants_differ_in_the_ways_that_they_say() -> None:
    for candidate in samples(ViT(input_shape=(1, 8, 8), num_classes=5), 100):
        ops, choices = ops_of(candidate.graph), dict(candidate.architecture.choices)
        depth = int(choices["depth"])
        class_token = choices["pooling"] == "class_token"
        assert ops["attention"] == depth + class_token
        assert ops["parameter"] == 2 * class_token + (choices["positions"] is True)
        assert ops["mean"] == (not class_token)
        assert ops["layer_norm"] == 2 * depth + (choices["norm_place"] == "before")
        assert ops[str(choices["activation"])] == depth


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (64,)}, "expects images"),
        ({"input_shape": (1, 1, 3)}, "no square patch"),
        ({"input_shape": (1, 1009, 1013)}, "no square patch"),
        ({"dims": (10,)}, "'heads' to divide"),
        ({"heads": ()}, "'heads' to divide"),
        ({"max_depth": 0}, "'max_depth'"),
    ],
)
def test_vit_refuses_what_it_cannot_serve(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        ViT(**({"input_shape": (1, 8, 8), "num_classes": 2} | settings))  # type: ignore[arg-type]  # wrong on purpose


def test_a_misspelt_space_is_answered_with_the_closest_name() -> None:
    with pytest.raises(
        NasGraphError, match=r"No search space named 'nb201'.*'nasbench201'.*nasgraph spaces list"
    ):
        load_space("nb201", input_shape=(1, 8, 8), num_classes=10)
