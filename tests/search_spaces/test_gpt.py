"""The space of decoder-only language models."""

import numpy as np
import pytest
import torch

from nasgraph.errors import NasGraphError
from nasgraph.modules import build
from nasgraph.spaces import (
    Architecture,
    Candidate,
    Choice,
    SearchSpace,
    load_space,
    replay,
    sample,
    space_names,
)
from nasgraph.testing import SearchSpaceContract
from search_spaces.gpt import GPT, hw_gpt_bench


def drawn(space: SearchSpace, **wanted: object) -> Candidate:
    """The first sample with these choices."""
    rng = np.random.default_rng(0)
    while True:
        candidate = sample(space, rng)
        if dict(candidate.architecture.choices).items() >= wanted.items():
            return candidate


def test_it_is_installed_under_its_name() -> None:
    assert "gpt" in space_names()
    assert load_space("gpt", input_shape=(16,), num_classes=50).name == "gpt"


class TestNextToken(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return load_space("gpt", input_shape=(16,), num_classes=50)


class TestClassificationOfBytes(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return GPT(input_shape=(12,), num_classes=4, vocabulary=256)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("tied", [False, True])
def test_no_position_sees_what_comes_after_it(activation: str, tied: bool) -> None:
    space = GPT(input_shape=(10,), num_classes=30, every_position=True)
    module = build(drawn(space, activation=activation, tied=tied).graph).eval()
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 30, (2, 10), generator=rng)
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 30
    with torch.no_grad():
        ours, theirs = module(tokens), module(changed)
    assert ours.shape == (2, 10, 30)
    torch.testing.assert_close(ours[:, :6], theirs[:, :6])
    assert not torch.allclose(ours[:, 6:], theirs[:, 6:])


def test_the_logits_are_those_of_the_last_position() -> None:
    whole, last = (GPT(input_shape=(10,), num_classes=30, every_position=every) for every in (True, False))
    long, short = (sample(space, np.random.default_rng(5)) for space in (whole, last))
    assert long.architecture == short.architecture
    tokens = torch.randint(0, 30, (3, 10), generator=torch.Generator().manual_seed(0))
    first, second = build(long.graph).eval(), build(short.graph).eval()
    state = dict(zip(second.state_dict(), first.state_dict().values(), strict=True))
    second.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(second(tokens), first(tokens)[:, -1])


def test_a_tied_table_is_one_parameter_that_is_used_twice() -> None:
    space = GPT(input_shape=(10,), num_classes=30)
    for tied, number in ((True, 1), (False, 2)):
        graph = drawn(space, tied=tied).graph
        assert sum(30 in spec.shape for spec in graph.parameters.values()) == number


def test_another_vocabulary_cannot_be_tied() -> None:
    space = GPT(input_shape=(10,), num_classes=4, vocabulary=256)
    assert "tied" not in dict(sample(space, np.random.default_rng(0)).architecture.choices)


def test_gpt2_small_is_in_a_space_of_its_size() -> None:
    space = GPT(input_shape=(1024,), num_classes=50257, dims=(768,), heads=(12,), max_depth=12)
    graph = drawn(
        space, tied=True, mlp_ratio=4, activation="gelu", norm="layer_norm", norm_place="before", positions=True, depth=12
    ).graph  # fmt: skip
    number = sum(int(np.prod(spec.shape)) for spec in graph.parameters.values())
    assert number == 124_439_808  # of `openai-community/gpt2`


class TestLayersThatDiffer(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return GPT(
            input_shape=(6,), num_classes=20, heads=(1, 2, 3), head_dim=8, per_layer=True, biases=(True, False), max_depth=3,
            activations=("gelu", "swiglu_full"),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("dim", "heads", "ratios", "bias", "parameters"),
    [
        # Two rows of HW-GPT-Bench's own file `GPT-S` (Apache 2.0).
        (768, (4, 12, 12, 4, 4, 12, 12, 8, 4, 12), (2, 2, 4, 4, 3, 3, 3, 4, 4, 2), False, 148_591_104),
        (768, (12, 4, 12, 4, 4, 12, 8, 12, 4, 12), (4, 2, 4, 4, 4, 3, 4, 3, 2, 2), False, 150_360_576),
    ],
)
def test_networks_of_hw_gpt_bench_have_the_parameters_of_the_benchmark(
    dim: int, heads: tuple[int, ...], ratios: tuple[int, ...], bias: bool, parameters: int
) -> None:
    choices: list[tuple[str, Choice]] = [("dim", dim), ("activation", "swiglu_full"), ("norm", "layer_norm")]
    choices += [("norm_place", "before"), ("bias", bias), ("positions", False), ("depth", len(heads))]
    for place, (number, ratio) in enumerate(zip(heads, ratios, strict=True)):
        choices += [(f"layer{place}_heads", number), (f"layer{place}_mlp_ratio", ratio)]
    choices.append(("tied", False))
    graph = replay(hw_gpt_bench(), Architecture("gpt", tuple(choices))).graph
    assert sum(int(np.prod(spec.shape)) for spec in graph.parameters.values()) == parameters


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (1, 8, 8)}, r"expects sequences of integers .*\(got shape \(1, 8, 8\)\)"),
        ({"vocabulary": 0}, "'vocabulary' to be at least 1"),
        ({"dims": (30,)}, r"number of 'heads' to divide each of 'dims'"),
        ({"max_depth": 0}, "'max_depth' to be 1 to 200"),
        ({"min_depth": 7}, "'min_depth' to be 1 to 'max_depth'"),
        ({"mlp_ratios": ()}, "'mlp_ratios' and 'head_dim' of at least 1"),
        ({"activations": ("tanh",)}, "'activations' to be different ones of"),
        ({"biases": ()}, "'biases' to be different ones of"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        GPT(**{"input_shape": (16,), "num_classes": 50, **settings})  # type: ignore[arg-type]  # wrong on purpose
