"""Spaces around torch modules."""

import pickle
from functools import cache

import pytest
import torch
from torch import nn

from nasgraph.errors import NasGraphError, UnsupportedOpError
from nasgraph.ir import check_graph
from nasgraph.modules import build, trace
from nasgraph.modules.around import around
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, Choice, SearchSpace, realise, replay, sample
from nasgraph.spaces.around import AroundConfig, AroundGraph
from nasgraph.testing import SearchSpaceContract
from tests.modules.around_models import IMAGE, MODELS, TOKENS, Attention, ResNet, ViT, mlp, mobilenet, vgg


@cache
def space_of(name: str) -> AroundGraph:
    make, example = MODELS[name]
    return around(make(), example)


def answered(space: SearchSpace, **answers: Choice) -> Candidate:
    """The original with some answers changed."""
    assert isinstance(space, AroundGraph)
    original = dict(space.original.choices)
    assert set(answers) <= {offer.name for offer in space.offers}

    class Changed:
        def categorical(self, name, options):  # type: ignore[no-untyped-def]
            return answers.get(name, original.get(name, options[0]))

        def integer(self, name: str, low: int, high: int) -> int:
            return int(answers.get(name, original.get(name, low)))

    return realise(space, Changed())[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_original_answers_give_the_original_graph(name: str) -> None:
    make, example = MODELS[name]
    space = space_of(name)
    original = replay(space, space.original)
    assert original.graph.fingerprint == trace(make(), example).graph.fingerprint
    assert dict(original.architecture.choices) == {
        offer.name: offer.original
        for offer in space.offers
        if offer.name in dict(original.architecture.choices)
    }


@pytest.mark.parametrize("name", MODELS)
def test_any_combination_of_answers_is_a_network_with_the_same_ends(name: str) -> None:
    space = space_of(name)
    before = space.graph
    rng = generator(0, "around", name)
    fingerprints = set()
    for _ in range(60):
        candidate = sample(space, rng)
        graph = candidate.graph
        check_graph(graph)
        fingerprints.add(graph.fingerprint)
        assert [graph.shapes[i] for i in graph.inputs] == [before.shapes[i] for i in before.inputs]
        assert [graph.shapes[i] for i in graph.outputs] == [before.shapes[i] for i in before.outputs]
        assert replay(space, candidate.architecture) == candidate
    assert len(fingerprints) > 30


@pytest.mark.parametrize("name", MODELS)
def test_variants_run(name: str) -> None:
    space, example = space_of(name), MODELS[name][1]
    rng = generator(1, "around", name)
    for _ in range(3):
        graph = sample(space, rng).graph
        output = build(graph).eval()(example)
        assert output.shape == (2, *graph.shapes[graph.outputs[0]])
        assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", MODELS)
def test_each_single_change_gives_another_network(name: str) -> None:
    space = space_of(name)
    original = dict(space.original.choices)
    for offer in space.offers:
        for option in offer.options:
            if option != offer.original and offer.name in original:
                changed = answered(space, **{offer.name: option}).graph
                assert changed.fingerprint != space.graph.fingerprint, (offer.name, option)


@pytest.mark.parametrize("name", MODELS)
def test_a_pickled_space_asks_and_gives_the_same(name: str) -> None:
    space = space_of(name)
    copy: AroundGraph = pickle.loads(pickle.dumps(space))
    assert copy.offers == space.offers
    assert sample(copy, generator(2)) == sample(space, generator(2))


class TestAroundResNet(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return space_of("resnet")


class TestAroundMobileNet(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return space_of("excited mobilenet")


# ---- what the choices mean


def test_choices_have_the_names_of_the_modules() -> None:
    names = {offer.name for offer in space_of("resnet").offers}
    assert {"layer2.0.conv1 width", "layer2.0.down.0 kernel", "layer1 depth", "bn1 pooling"} <= names
    assert names == {offer.name for offer in around(ResNet(), IMAGE).offers}


def test_a_width_on_a_residual_stream_changes_all_of_it() -> None:
    graph = answered(space_of("resnet"), **{"conv1 width": 12}).graph
    widths = [int(str(node.attr("out_channels"))) for node in graph.nodes if node.op == "conv2d"]
    before = [
        int(str(node.attr("out_channels"))) for node in space_of("resnet").graph.nodes if node.op == "conv2d"
    ]
    assert widths[:5] == [12, 8, 12, 8, 12]  # the stem, and what each block of the first stage gives
    assert widths[5:] == before[5:]


def test_heads_and_the_scale_of_scores_follow_a_width_through_reshapes() -> None:
    graph = answered(space_of("vit"), **{"blocks.0.attention.qkv width": 36}).graph
    scales = [float(str(node.attr("scale"))) for node in graph.nodes if node.op == "affine"]
    assert scales == pytest.approx([6**-0.5, 12**-0.5])
    shapes = [node.attr("shape") for node in graph.nodes if node.op == "reshape"]
    assert (17, 3, 2, 6) in shapes


def test_the_first_linear_layer_follows_the_channels_that_are_flattened() -> None:
    space = space_of("lenet")
    graph = answered(space, **{"3 width": 8}).graph
    name = next(name for name, spec in graph.parameters.items() if spec.shape[-1] == 8 * 25)
    assert graph.parameters[name].shape == (30, 200)


def test_group_norms_and_heads_limit_widths_to_multiples() -> None:
    offers = {offer.name: offer for offer in space_of("inception").offers}
    assert all(isinstance(width, int) and width % 4 == 0 for width in offers["a width"].options)
    offers = {offer.name: offer for offer in space_of("text").offers}
    options = offers["encoder.layers.0.self_attn.in_proj width 1"].options
    assert all(isinstance(width, int) and width % 4 == 0 for width in options)


def test_more_blocks_are_equal_blocks_with_parameters_of_their_own() -> None:
    space = space_of("text")
    one, four = (answered(space, **{"encoder.layers depth": depth}).graph for depth in (1, 4))
    assert [graph.fingerprint for graph in (one, four)] == [
        trace(_text(depth), TOKENS).graph.fingerprint for depth in (1, 4)
    ]


def _text(depth: int) -> nn.Module:
    model = MODELS["text"][0]()
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
    return model


def test_a_wider_kernel_is_the_module_with_that_kernel() -> None:
    model = vgg()
    assert isinstance(model, nn.Sequential)
    model[3] = nn.Conv2d(8, 8, 5, padding=2)
    assert (
        answered(space_of("vgg"), **{"3 kernel": 5}).graph.fingerprint
        == trace(model, IMAGE).graph.fingerprint
    )


def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one() -> None:
    model = vgg()
    assert isinstance(model, nn.Sequential)
    model[3] = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.Conv2d(8, 8, 1))
    changed = answered(space_of("vgg"), **{"3 kind": "separable"}).graph
    assert changed.fingerprint == trace(model, IMAGE).graph.fingerprint


def test_a_depthwise_convolution_can_become_dense() -> None:
    model = mobilenet(excite=False)
    body = model.get_submodule("3.body")
    assert isinstance(body, nn.Sequential)
    body[3] = nn.Conv2d(24, 24, 3, 2, 1, bias=False)
    changed = answered(space_of("mobilenet"), **{"3.body.3 kind": "dense"}).graph
    assert changed.fingerprint == trace(model, IMAGE).graph.fingerprint


def test_an_excitation_can_be_left_out() -> None:
    space = space_of("excited mobilenet")
    changed = answered(space, **{f"{block}.body.6 kept": False for block in (3, 4, 5)}).graph
    assert changed.fingerprint == space_of("mobilenet").graph.fingerprint


def test_activations_change_together_or_one_by_one() -> None:
    together = around(mlp(), MODELS["mlp"][1]).offers
    apart = around(mlp(), MODELS["mlp"][1], config=AroundConfig(shared_activation=False)).offers
    assert [offer.name for offer in together if "activation" in offer.name] == ["activation relu"]
    assert [offer.name for offer in apart if "activation" in offer.name] == [
        f"{name} activation" for name in ("1", "4", "7", "10")
    ]


# ---- what stays as it is


def test_what_stays_is_listed_with_its_reason() -> None:
    reasons = {part.what: part.reason for part in space_of("vit").fixed}
    assert reasons["head width"] == "it is an output of the network"
    assert reasons["patches kernel"] == "it divides its input into patches"


def test_a_stream_that_starts_at_the_input_keeps_its_width() -> None:
    space = around(nn.Sequential(Attention(8, 2), Attention(8, 2)), torch.zeros(2, 5, 8))
    assert [offer.name for offer in space.offers if offer.name.endswith("width")] == [
        "0.qkv width",
        "1.qkv width",
    ]
    assert "1.proj width" in {part.what for part in space.fixed}


def test_only_the_wanted_families_are_offered() -> None:
    space = around(ResNet(), IMAGE, config=AroundConfig(families=("depth", "kernel")))
    assert {offer.name.rpartition(" ")[2] for offer in space.offers} == {"depth", "kernel"}


def test_an_operator_that_cannot_be_built_is_refused_with_its_reason() -> None:
    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sort(self.layer(x)).values

    with pytest.raises(UnsupportedOpError, match="Sorting uses operators that cannot be built anew: 'sort'"):
        around(Sorting(), torch.zeros(2, 8))


def test_a_network_without_anything_to_vary_is_refused() -> None:
    with pytest.raises(NasGraphError, match=r"Nothing in this network can be varied.*an output"):
        around(nn.Linear(4, 2), torch.zeros(2, 4))


def test_constants_can_become_parameters_that_are_learnt() -> None:
    class Sine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 12), nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            places = torch.sin(torch.arange(5.0))[:, None] * torch.ones(12)
            result: torch.Tensor = self.last(torch.relu(self.first(x) + places).mean(1))
            return result

    fixed, learnt = (
        around(Sine(), torch.zeros(2, 5, 8), learn_constants=learn, name="sine") for learn in (False, True)
    )
    assert "constant" in {node.op for node in fixed.graph.nodes}
    assert "first width" in {part.what for part in fixed.fixed}
    assert "first width" in {offer.name for offer in learnt.offers}
    assert build(sample(learnt, generator(0)).graph)(torch.zeros(2, 5, 8)).shape == (2, 2)


def test_the_name_tells_modules_apart() -> None:
    assert around(ResNet(), IMAGE).name.startswith("around-resnet-")
    assert around(ResNet(), IMAGE).name != around(ViT(), IMAGE).name
    assert around(ViT(), IMAGE, name="mine").name == "mine"
