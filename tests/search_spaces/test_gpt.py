"""The space of decoder-only language models."""

import numpy as np
import pytest
import torch

from nasgraph.errors import NasGraphError
from nasgraph.modules import build
from nasgraph.spaces import Candidate, SearchSpace, load_space, sample, space_names
from nasgraph.testing import SearchSpaceContract
from search_spaces.gpt import GPT


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (1, 8, 8)}, r"expects sequences of integers .*\(got shape \(1, 8, 8\)\)"),
        ({"vocabulary": 0}, "'vocabulary' to be at least 1"),
        ({"dims": (30,)}, r"number of 'heads' to divide each of 'dims'"),
        ({"max_depth": 0}, "'max_depth' to be 1 to 200"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        GPT(**{"input_shape": (16,), "num_classes": 50, **settings})  # type: ignore[arg-type]  # wrong on purpose
