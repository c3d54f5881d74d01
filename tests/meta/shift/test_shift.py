"""Estimates without labels: exact where they must be, ranked with the error where data shift."""

from functools import cache

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.shift import (
    RetrainConfig,
    ShiftError,
    average_confidence,
    average_thresholded_confidence,
    label_free_estimates,
    mean_entropy,
    retraining_discrepancy,
    shift_images,
    shift_nodes,
    source_error,
)
from nasgraph.modules import StateError, initial_parameters, run_network

torch.set_num_threads(1)


def logits(count: int = 500, *, networks: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits whose labels are drawn from them: a calibrated network."""
    rng = torch.Generator().manual_seed(seed)
    values = 2 * torch.randn(networks, count, 4, generator=rng)
    labels = torch.multinomial(values[0].softmax(-1), 1, generator=rng)[:, 0]
    return values, labels


def mlp() -> ComputationalGraph:
    g = GraphBuilder()
    x = g("relu", g("linear", g("input", shape=(6,)), out_features=10))
    return g.finish(g("linear", x, out_features=3))


def message_passing() -> ComputationalGraph:
    g = GraphBuilder()
    x = g("relu", g("gcn_conv", g("input", shape=(6,)), out_features=10))
    return g.finish(g("gcn_conv", x, out_features=3))


@cache
def trained(
    *, passes_messages: bool
) -> tuple[ComputationalGraph, dict[str, Tensor], dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Graph, state, initial state, inputs, labels and edges of a network trained on three blobs that keep to themselves."""
    graph, rng = message_passing() if passes_messages else mlp(), torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    centres = 2 * torch.eye(6)[:3]
    inputs = centres[labels] + torch.randn(90, 6, generator=rng)
    ring = torch.arange(90)
    edges = torch.cat([torch.stack([ring, ring.roll(3)]), torch.stack([ring.roll(3), ring])], dim=1)
    initial = initial_parameters(graph, seed=0)
    state = {name: tensor.clone().requires_grad_() for name, tensor in initial.items()}
    optimizer = torch.optim.Adam(state.values(), lr=0.01, weight_decay=5e-4)
    for _ in range(40):
        optimizer.zero_grad()
        (out,) = run_network(graph, state, [inputs], edges=edges)
        F.cross_entropy(out, labels).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    return graph, {name: tensor.detach() for name, tensor in state.items()}, initial, inputs, labels, edges


@pytest.mark.parametrize("score", ["confidence", "entropy"])
def test_atc_is_exact_on_the_source_itself(score: str) -> None:
    source, labels = logits()
    found = average_thresholded_confidence(source, labels, source, score=score)  # type: ignore[arg-type]  # a text from pytest
    torch.testing.assert_close(found, source_error(source, labels))


def test_confidence_tells_the_error_of_a_calibrated_network() -> None:
    source, labels = logits(20_000, networks=1)
    found = float(average_confidence(source)[0])
    assert found == pytest.approx(float(source_error(source, labels)[0]), abs=0.01)


def test_each_network_is_judged_by_itself() -> None:
    source, labels = logits()
    target, _ = logits(seed=1)
    together = label_free_estimates(source, labels, target)
    for network in range(3):
        alone = label_free_estimates(source[network], labels, target[network])
        for name, values in together.items():
            torch.testing.assert_close(values[network], alone[name])


def test_estimates_are_zero_and_one_at_the_ends() -> None:
    sure = torch.tensor([[50.0, 0.0, 0.0]]).repeat(10, 1)
    unsure = torch.zeros(10, 3)
    assert float(average_confidence(sure)) == pytest.approx(0.0, abs=1e-9)
    assert float(mean_entropy(unsure)) == pytest.approx(1.0)
    assert float(mean_entropy(sure)) == pytest.approx(0.0, abs=1e-9)
    wrong = average_thresholded_confidence(sure, torch.ones(10, dtype=torch.long), sure)
    assert float(wrong) == 1.0


def test_estimates_rank_shifts_of_a_trained_network_by_their_error() -> None:
    graph, state, _, inputs, labels, _ = trained(passes_messages=False)
    rng = torch.Generator().manual_seed(3)
    errors: list[float] = []
    said: dict[str, list[float]] = {}
    (source,) = run_network(graph, state, [inputs])
    for step in range(8):
        shifted = inputs * (1 - step / 8) + 0.1 * torch.randn(inputs.shape, generator=rng)
        (target,) = run_network(graph, state, [shifted])
        errors.append(float(source_error(target, labels)))
        for name, value in label_free_estimates(source, labels, target).items():
            said.setdefault(name, []).append(float(value))
    assert {name for name, values in said.items() if spearmanr(values, errors).statistic < 0.5} == set()


@pytest.mark.parametrize("passes_messages", [False, True])
def test_training_again_on_the_same_data_leads_closer_than_on_shifted_data(passes_messages: bool) -> None:
    graph, state, initial, inputs, _, edges = trained(passes_messages=passes_messages)
    given = edges if passes_messages else None
    config = RetrainConfig(max_steps=60)
    same = retraining_discrepancy(graph, state, initial, inputs, edges=given, config=config)
    shifted = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(9)) * 3
    other = retraining_discrepancy(graph, state, initial, shifted, edges=given, config=config)
    assert same.distance < other.distance
    assert same.has_converged
    assert abs(same.reached - same.reference) <= 0.1 * same.reference


def test_training_again_is_deterministic_and_changes_nothing() -> None:
    graph, state, initial, inputs, _, edges = trained(passes_messages=True)
    before = {name: tensor.clone() for name, tensor in initial.items()}
    runs = [retraining_discrepancy(graph, state, initial, inputs, edges=edges, seed=4) for _ in range(2)]
    assert runs[0] == runs[1]
    assert all(torch.equal(before[name], initial[name]) for name in before)


def test_blur_is_that_of_scipy_and_strength_zero_is_none() -> None:
    images = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = shift_images(images, "blur", 1.0)
    wanted = gaussian_filter(images[1, 2].numpy(), 1.0, mode="nearest", radius=3)
    torch.testing.assert_close(found[1, 2], torch.from_numpy(wanted))
    for kind in ("noise", "blur", "contrast", "erase"):
        assert torch.equal(shift_images(images, kind, 0.0), images)
        assert not torch.equal(shift_images(images, kind, 0.5), images)


def test_edges_stay_undirected_and_come_and_go_as_said() -> None:
    *_, inputs, _, edges = trained(passes_messages=True)
    _, fewer = shift_nodes(inputs, edges, "drop_edges", 0.5)
    _, more = shift_nodes(inputs, edges, "add_edges", 0.5)
    assert fewer.shape[1] < edges.shape[1] < more.shape[1] == edges.shape[1] * 3 // 2
    for each in (fewer, more):
        assert {(a, b) for a, b in each.T.tolist()} == {(b, a) for a, b in each.T.tolist()}
    masked, same = shift_nodes(inputs, edges, "feature_mask", 0.5)
    assert torch.equal(same, edges)
    assert float((masked == 0).float().mean()) == pytest.approx(0.5, abs=0.1)


def test_what_cannot_be_judged_is_refused() -> None:
    graph, state, initial, inputs, _, _ = trained(passes_messages=True)
    with pytest.raises(ShiftError, match="pass the 'edges'"):
        retraining_discrepancy(graph, state, initial, inputs)
    with pytest.raises(StateError, match="the initial network"):
        retraining_discrepancy(graph, state, {}, inputs)
    source, labels = logits()
    with pytest.raises(ValueError, match="same networks"):
        label_free_estimates(source, labels, source[:2])
    with pytest.raises(ValueError, match="finite"):
        label_free_estimates(source * float("nan"), labels, source)
    with pytest.raises(ConfigError, match="'drop_edges' from 0 to 1"):
        shift_nodes(inputs, torch.zeros(2, 1, dtype=torch.long), "drop_edges", 2.0)
    with pytest.raises(ConfigError, match="'margin' above 0"):
        RetrainConfig(margin=0)
