"""The fixed lists of architectures: they come out again, they are what they claim, none of them is trained on."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from nasgraph.errors import UnknownNameError
from nasgraph.hyper import (
    held_out_candidates,
    held_out_fingerprints,
    split_list,
    training_candidate,
)
from nasgraph.hyper.prefetch import Draw
from nasgraph.hyper.splits import DIGITS, TRAINING_SIZE
from nasgraph.ir import ComputationalGraph
from nasgraph.spaces import Candidate, Choice, SearchSpace, load_space, replay
from tests.hyper.toy import ToySpace

LIST = split_list()
NAMES = tuple(LIST.splits)
SHAPES = [(1, 8, 8), (3, 16, 16), (3, 32, 32)]


def candidates(name: str, *, count: int | None = 20, shape: tuple[int, ...] = (3, 32, 32)) -> list[Candidate]:
    return LIST.named(name).candidates(input_shape=shape, num_classes=10, count=count)


def training(shape: tuple[int, ...], count: int = 300) -> list[Candidate]:
    space = load_space("convnet", input_shape=shape, num_classes=10)
    return [training_candidate(space, i) for i in range(count)]


def choices(candidate: Candidate) -> dict[str, Choice]:
    return dict(candidate.architecture.choices)


def test_there_are_a_million_training_architectures_and_five_hundred_for_each_evaluation() -> None:
    assert TRAINING_SIZE >= 1_000_000
    assert set(NAMES) == {"id_val", "id_test", "wide", "deep", "dense", "norm_free", "predefined"}
    for name, split in LIST.splits.items():
        number = len(split.fingerprints)
        assert number == 500 if name != "predefined" else number >= 12
        assert len(set(split.fingerprints)) == number


@pytest.mark.parametrize("name", NAMES)
def test_a_split_comes_out_as_it_was_listed(name: str) -> None:
    split = LIST.named(name)
    found = split.candidates(input_shape=LIST.input_shape, num_classes=LIST.num_classes, count=25)
    listed = split.fingerprints[:25]
    assert tuple(candidate.graph.fingerprint[:DIGITS] for candidate in found) == listed


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_split_has_its_checksum(name: str) -> None:
    found = candidates(name, count=None)
    text = " ".join(candidate.graph.fingerprint for candidate in found)
    assert hashlib.sha256(text.encode()).hexdigest() == LIST.named(name).sha256


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_split_serves_images_of_every_size(name: str, shape: tuple[int, ...]) -> None:
    for candidate in candidates(name, count=5, shape=shape):
        graph = candidate.graph
        assert [graph.shapes[index] for index in graph.inputs] == [shape]
        assert [graph.shapes[index] for index in graph.outputs] == [(10,)]


# ---- what the splits claim


def stem_width(graph: ComputationalGraph) -> int:
    """Channels of the first convolution, which stages keep or widen."""
    stem = next(index for index, node in enumerate(graph.nodes) if node.op == "conv2d")
    return graph.shapes[stem][0]


def independent_paths(graph: ComputationalGraph) -> int:
    """Rank of the cycles of the graph without directions: 0 for a chain."""
    return sum(len(node.inputs) for node in graph.nodes) - len(graph.nodes) + 1


def blocks_per_stage(candidate: Candidate) -> list[int]:
    return [int(answer) for name, answer in choices(candidate).items() if name.endswith("_blocks")]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "measure", "bound"),
    [
        ("wide", lambda c: stem_width(c.graph), lambda c: stem_width(c.graph)),
        ("deep", lambda c: min(blocks_per_stage(c)), lambda c: max(blocks_per_stage(c))),
        ("dense", lambda c: independent_paths(c.graph), lambda c: independent_paths(c.graph)),
    ],
)
def test_out_of_distribution_is_beyond_whatever_training_draws(
    name: str,
    measure: Callable[[Candidate], int],
    bound: Callable[[Candidate], int],
    shape: tuple[int, ...],
) -> None:
    assert not LIST.named(name).in_distribution
    assert min(map(measure, candidates(name, shape=shape))) > max(map(bound, training(shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_wide_split_is_wider_than_the_last_stage_in_training_can_be(shape: tuple[int, ...]) -> None:
    widest = max(
        graph.shapes[index][0]
        for graph in (candidate.graph for candidate in training(shape, 100))
        for index in [graph.nodes[graph.outputs[0]].inputs[0]]
        if graph.nodes[index].op == "global_avg_pool2d"
    )
    assert widest <= 64
    assert min(stem_width(candidate.graph) for candidate in candidates("wide", shape=shape)) > 64


@pytest.mark.parametrize("shape", SHAPES)
def test_dense_networks_have_more_paths_than_the_training_space_permits(shape: tuple[int, ...]) -> None:
    # A block adds at most three paths (cell: join and skip; gate) and the space has at most so many blocks.
    drawn = training(shape)
    num_stages = max(len(blocks_per_stage(candidate)) for candidate in drawn)
    most_blocks = max(max(blocks_per_stage(candidate)) for candidate in drawn)
    bound = 3 * num_stages * most_blocks
    assert max(independent_paths(candidate.graph) for candidate in drawn) <= bound
    assert min(independent_paths(candidate.graph) for candidate in candidates("dense", shape=shape)) > bound


def test_networks_without_norms_have_none() -> None:
    for candidate in candidates("norm_free", count=60):
        assert not [node.op for node in candidate.graph.nodes if "norm" in node.op]


@pytest.mark.parametrize("name", ["id_val", "id_test", "norm_free"])
def test_in_distribution_is_what_the_training_space_can_give(name: str) -> None:
    assert LIST.named(name).in_distribution
    space = load_space("convnet", input_shape=(3, 32, 32), num_classes=10)
    for candidate in candidates(name):
        assert replay(space, candidate.architecture) == candidate


def test_the_predefined_networks_are_those_of_the_hand() -> None:
    names = {str(choices(candidate)["network"]) for candidate in candidates("predefined", count=None)}
    assert {"resnet20", "vgg", "mobilenet_v2", "densenet", "convnext", "vit", "mlp_mixer"} <= names


# ---- what is kept out of training


def test_nothing_of_the_splits_is_ever_drawn() -> None:
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    held_out = held_out_fingerprints([space], input_shape=(1, 8, 8), num_classes=10)
    drawn = {item.graph.fingerprint for step in range(10) for item in Draw((space,), 8, 0, held_out)(step)}
    for name in NAMES:
        found = candidates(name, count=40, shape=(1, 8, 8))
        fingerprints = {candidate.graph.fingerprint for candidate in found}
        assert not fingerprints & drawn
        assert not LIST.named(name).in_distribution or fingerprints <= held_out


def test_a_drawn_architecture_that_is_held_out_is_replaced() -> None:
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    first = Draw((space,), 4, 0)(0)
    held_out = frozenset({first[0].graph.fingerprint})
    again = Draw((space,), 4, 0, held_out)(0)
    assert [item.graph for item in again[:3]] == [item.graph for item in first[1:]]


def test_held_out_architectures_are_always_the_same() -> None:
    first, again = (held_out_candidates([ToySpace()], count=count) for count in (5, 8))
    assert first == again[:5]
    assert len({candidate.graph.fingerprint for candidate in again}) > 1


def test_the_validation_split_begins_with_the_held_out_architectures() -> None:
    space = load_space("convnet", input_shape=(3, 32, 32), num_classes=10)
    assert candidates("id_val", count=10) == held_out_candidates([space], count=10)


def test_spaces_without_a_list_hold_out_a_hundred_of_their_own() -> None:
    space = load_space("mlp", input_shape=(1, 8, 8), num_classes=10)
    expected = {candidate.graph.fingerprint for candidate in held_out_candidates([space], count=100)}
    assert held_out_fingerprints([space], input_shape=(1, 8, 8), num_classes=10) == expected


def test_training_architectures_are_a_function_of_their_number() -> None:
    space: SearchSpace = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    assert training_candidate(space, 7) == training_candidate(space, 7)
    fingerprints = {training_candidate(space, i).graph.fingerprint for i in range(200)}
    assert len(fingerprints) > 190
    assert np.mean([len(training_candidate(space, i).graph) for i in range(20)]) > 10


def test_an_unknown_split_or_list_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"No evaluation split named 'wider'\. Close: 'wide'"):
        LIST.named("wider")
    with pytest.raises(UnknownNameError, match="Known: 'convnet'"):
        split_list("mlp")
