"""Rankings of models for a data set, and what goes wrong in them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from nasgraph.data import Normalisation, Split, load_dataset
from nasgraph.errors import CandidateError, ConfigError, DataError, UnknownNameError, ZooError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import build
from nasgraph.retrieve.behaviour import (
    METHODS,
    Alignment,
    AlignmentConfig,
    Candidate,
    QueryData,
    RankConfig,
    candidate_from_graph,
    describe_data,
    describe_model,
    lazy_candidate,
    outputs_of,
    query_from_dataset,
    query_from_split,
    rank_models,
    train_alignment,
)
from tests.retrieve.behaviour.toy import knowing_candidate, linear_candidate, planted, stripes

QUERY = stripes(6, seed=3)


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    models, episodes = planted(3, seed=0)
    return train_alignment(models, episodes, config=AlignmentConfig(hidden_dim=8, vector_dim=4))


@pytest.fixture(scope="module")
def candidates(alignment: Alignment) -> tuple[Candidate, ...]:
    """A model that knows the classes, and five that do not."""
    plain = [knowing_candidate("knows"), *(linear_candidate(f"m{k}", classes=2, seed=k) for k in range(5))]
    mean = describe_data(stripes(2)).mean
    return tuple(
        replace(
            each,
            vector=alignment.model_vector(describe_model(each, stripes(4).inputs)),
            encoder=alignment.digest,
            data_mean=tuple(value + place for value in mean),
        )
        for place, each in enumerate(plain)
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_candidate_is_in_the_ranking_once_and_the_same_again(
    method: str, candidates: tuple[Candidate, ...], alignment: Alignment
) -> None:
    first, again = (
        rank_models(order, QUERY, method=method, alignment=alignment, config=RankConfig(num_probed=3))
        for order in (candidates, candidates[::-1])
    )
    assert sorted(each.reference for each in first) == sorted(each.reference for each in candidates)
    assert [(e.reference, e.score) for e in first] == [(e.reference, e.score) for e in again]
    assert all(each.reason and each.seconds >= 0 and not each.failed for each in first)


@pytest.mark.parametrize("method", ["linear-probe", "logme", "leep", "nearest-mean"])
def test_the_model_that_knows_the_classes_comes_first(method: str, candidates: tuple[Candidate, ...]) -> None:
    assert rank_models(candidates, QUERY, method=method)[0].reference == "knows"


@pytest.mark.parametrize("method", ["linear-probe", "logme", "leep", "two-stage"])
def test_a_candidate_that_fails_is_listed_last_with_its_reason_and_stops_no_other(
    method: str, candidates: tuple[Candidate, ...], alignment: Alignment
) -> None:
    def raises(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of cheese")

    bad = (
        replace(candidates[1], reference="a raises", forward=raises, vector=None),
        replace(
            candidates[1], reference="b nan", forward=lambda x: x.flatten(1)[:, :2] * torch.nan, vector=None
        ),
        replace(candidates[1], reference="c channels", input_shape=(5, 8, 8), vector=None),
        replace(candidates[1], reference="d table", input_shape=(64,), vector=None),
        replace(candidates[1], reference="e classes", num_classes=7, vector=None),
        replace(candidates[1], reference="f rows", forward=lambda x: x.flatten(1)[:1, :2], vector=None),
    )
    ranked = rank_models((*bad, *candidates), QUERY, method=method, alignment=alignment)
    assert [each.reference for each in ranked[-6:]] == [each.reference for each in bad]
    assert all(each.failed for each in ranked[-6:])
    assert not any(each.failed for each in ranked[:-6])
    for each, word in zip(
        ranked[-6:], ("out of cheese", "NaN", "5", "no conversion", "7 classes", "1 rows"), strict=True
    ):
        assert word in each.reason
        assert each.reference in each.reason


def test_vectors_of_another_encoder_are_not_compared(
    candidates: tuple[Candidate, ...], alignment: Alignment
) -> None:
    mixed = (replace(candidates[0], encoder="f" * 64), replace(candidates[1], vector=None), *candidates[2:])
    ranked = rank_models(mixed, QUERY, method="know2vec", alignment=alignment)
    assert {each.reference: each.failed for each in ranked[-2:]} == {"knows": True, "m0": True}
    reasons = {each.reference: each.reason for each in ranked}
    assert "another encoder" in reasons["knows"]
    assert "no vector" in reasons["m0"]


def test_two_stages_run_the_nearest_and_those_without_vector_and_say_so_of_the_others(
    candidates: tuple[Candidate, ...], alignment: Alignment
) -> None:
    by_vector = rank_models(candidates[1:], QUERY, method="know2vec", alignment=alignment)
    mixed = (replace(candidates[0], vector=None), *candidates[1:])
    ranked = rank_models(mixed, QUERY, alignment=alignment, config=RankConfig(num_probed=2))
    run = {each.reference for each in ranked if each.method == "linear-probe"}
    assert run == {"knows", *(each.reference for each in by_vector[:2])}
    rest = [each for each in ranked if each.method == "know2vec"]
    assert [each.reference for each in rest] == [each.reference for each in by_vector[2:]]
    assert all(each.reason.startswith("not run: place ") for each in rest)


def test_two_stages_run_everything_where_there_are_few_or_nothing_is_stored(
    candidates: tuple[Candidate, ...], alignment: Alignment
) -> None:
    probe = [each.reference for each in rank_models(candidates, QUERY, method="linear-probe")]
    assert [each.reference for each in rank_models(candidates, QUERY, alignment=alignment)] == probe
    bare = [replace(each, vector=None, data_mean=None) for each in candidates]
    ranked = rank_models(bare, QUERY, config=RankConfig(num_probed=1))
    assert [each.reference for each in ranked] == probe


def test_without_an_alignment_two_stages_begin_with_the_nearest_mean(
    candidates: tuple[Candidate, ...],
) -> None:
    nearest = [each.reference for each in rank_models(candidates, QUERY, method="nearest-mean")]
    ranked = rank_models(candidates, QUERY, config=RankConfig(num_probed=2))
    assert {each.reference for each in ranked if each.method == "linear-probe"} == set(nearest[:2])
    assert [each.reference for each in ranked[2:]] == nearest[2:]


def test_log_me_reads_features_and_the_others_outputs_unless_told_otherwise() -> None:
    knows = knowing_candidate("a")
    seen: list[str] = []

    def noting(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(x: torch.Tensor) -> torch.Tensor:
            seen.append(name)
            return knows.forward(x)

        return run

    noted = replace(knows, forward=noting("outputs"), features=noting("features"))
    for method in ("linear-probe", "logme", "leep"):
        for config in (RankConfig(), RankConfig(reads="outputs"), RankConfig(reads="features")):
            rank_models([noted], QUERY, method=method, config=config)
    assert seen == [
        *("outputs", "outputs", "features"),
        *("features", "outputs", "features"),
        *("outputs", "outputs", "outputs"),
    ]


def test_a_table_is_ranked_by_running_models_and_refused_by_methods_that_look_at_images(
    alignment: Alignment,
) -> None:
    query = QueryData(torch.randn(12, 4), torch.arange(12) % 2)
    model = Candidate(reference="t", forward=lambda x: x[:, :2], input_shape=(4,), num_classes=2)
    assert not rank_models([model], query, alignment=alignment)[0].failed
    with pytest.raises(DataError, match="table"):
        rank_models([model], query, method="know2vec", alignment=alignment)


def test_what_makes_no_ranking_is_refused(candidates: tuple[Candidate, ...]) -> None:
    with pytest.raises(UnknownNameError, match="Close: 'logme'"):
        rank_models(candidates, QUERY, method="logmee")
    with pytest.raises(ConfigError, match="'knows' twice"):
        rank_models([candidates[0], candidates[0]], QUERY)
    with pytest.raises(ConfigError, match="needs an alignment"):
        rank_models(candidates, QUERY, method="know2vec")
    with pytest.raises(ConfigError, match="num_probed"):
        RankConfig(num_probed=0)
    with pytest.raises(ConfigError, match="'measure' to be one of linear-probe"):
        RankConfig(measure="random")
    assert rank_models([], QUERY) == ()


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), "one class only"),
        (torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 2, 2]), "class 1 has no example"),
        (torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2_000_000_000, 1]), "class 2 has no example"),
        (torch.rand(4, 1, 8, 8), torch.tensor([-1, 0, 1, 1]), "labels from 0"),
        (torch.rand(4, 1, 8, 8), torch.tensor([0, 1]), "one integer label per"),
        (torch.rand(4, 1, 8, 8), torch.tensor([]), "one integer label per"),
        (torch.rand(4, 1, 8, 8), torch.tensor([0.0, 1.0, 0.0, 1.0]), "one integer label per"),
        (torch.rand(4, 1, 8, 8) * 255, torch.tensor([0, 1, 0, 1]), "pixels from 0 to 1"),
        (torch.full((4, 1, 8, 8), float("nan")), torch.tensor([0, 1, 0, 1]), "NaN"),
        (torch.rand(4, 8, 8), torch.tensor([0, 1, 0, 1]), "channels, height, width"),
        (torch.zeros((4, 1, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), "real numbers"),
        (torch.rand(0, 1, 8, 8), torch.tensor([], dtype=torch.long), "no examples"),
    ],
)
def test_bad_queries_are_refused_in_words(inputs: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        QueryData(inputs, labels)


def test_a_query_of_a_data_set_has_pixels_of_the_full_range_and_so_many_of_each_class() -> None:
    dataset = load_dataset("digits")
    query = query_from_dataset(dataset, per_class=5)
    assert torch.bincount(query.labels).tolist() == [5] * 10
    # The digits' sixteen grey values lie in bytes; the brightest must not be nearly black.
    assert (float(query.inputs.min()), float(query.inputs.max())) == (0.0, 1.0)
    again = query_from_dataset(dataset, per_class=5)
    assert torch.equal(again.inputs, query.inputs)


def test_undoing_the_normalisation_gives_the_pixels_back() -> None:
    pixels = torch.rand((20, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    pixels[0, 0, 0, 0], pixels[0, 0, 0, 1] = 0, 1
    normal = Normalisation(1 / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    labels = torch.arange(20) % 2
    query = query_from_split(Split(normal.apply(pixels * 255), labels), normal)
    order = torch.cat([pixels[labels == 0], pixels[labels == 1]])
    assert torch.equal(query.labels, torch.arange(2).repeat_interleave(10))
    torch.testing.assert_close(query.inputs.sum((1, 2, 3)).sort().values, order.sum((1, 2, 3)).sort().values)


def test_classes_that_do_not_occur_are_left_out_of_a_query() -> None:
    split = Split(torch.rand(6, 1, 4, 4), torch.tensor([7, 7, 2, 2, 2, 7]))
    query = query_from_split(split, Normalisation(1.0, (0.0,), (1.0,)))
    assert sorted(query.labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_a_graph_gives_its_logits_and_what_its_last_layer_reads() -> None:
    builder = GraphBuilder()
    x = builder(
        "relu", builder("linear", builder("flatten", builder("input", shape=(1, 4, 4))), out_features=6)
    )
    graph = builder.finish(builder("linear", x, out_features=3))
    module = build(graph, seed=1).eval()
    state = dict(module.state_dict())
    normal = Normalisation(1.0, (0.0,), (1.0,))
    candidate = candidate_from_graph("g", graph, state, normalisation=normal)
    images = torch.rand((5, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = module(images)
    torch.testing.assert_close(outputs_of(candidate, images), logits.double())
    features = outputs_of(candidate, images, features=True)
    head = [tensor.double() for name, tensor in state.items() if name.startswith(f"n{len(graph) - 1}.")]
    weight, bias = sorted(head, key=lambda tensor: -tensor.ndim)
    torch.testing.assert_close(features @ weight.T + bias, logits.double())


def test_a_lazy_candidate_is_read_once_when_it_is_run_and_is_the_same_model() -> None:
    builder = GraphBuilder()
    x = builder("linear", builder("flatten", builder("input", shape=(1, 4, 4))), out_features=6)
    graph = builder.finish(builder("linear", x, out_features=3))
    state = dict(build(graph, seed=1).state_dict())
    reads = []

    def load() -> tuple[ComputationalGraph, dict[str, torch.Tensor]]:
        reads.append(graph)
        return graph, state

    eager = candidate_from_graph("g", graph, state, normalisation=None)
    lazy = lazy_candidate(eager, load)
    assert not reads
    images = torch.rand((5, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(outputs_of(lazy, images), outputs_of(eager, images))
    assert torch.equal(outputs_of(lazy, images, features=True), outputs_of(eager, images, features=True))
    assert len(reads) == 1


def test_a_lazy_candidate_that_cannot_be_read_is_listed_with_the_reason() -> None:
    def load() -> tuple[ComputationalGraph, dict[str, torch.Tensor]]:
        raise ZooError("the weights of 'gone/3' vanished")

    gone = lazy_candidate(linear_candidate("gone"), load)
    ranked = rank_models([gone, linear_candidate("here")], QUERY, method="linear-probe")
    assert [each.failed for each in ranked] == [False, True]
    assert "vanished" in ranked[1].reason


def test_a_graph_that_is_no_classifier_is_refused() -> None:
    builder = GraphBuilder()
    graph = builder.finish(builder("relu", builder("input", shape=(1, 4, 4))))
    with pytest.raises(CandidateError, match="expected one number per class"):
        candidate_from_graph("g", graph, {}, normalisation=None)
