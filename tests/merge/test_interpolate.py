"""Between two networks: ends that are exact, statistics that are those of the data."""

import pytest
import torch
from torch import nn

from nasgraph.ir import GraphBuilder
from nasgraph.merge import Barrier, barrier, interpolate, recompute_batch_norm, repair_activations
from nasgraph.merge.states import activations
from tests.merge.networks import blobs, random_state, small_convnet


def test_interpolation_is_exact_at_both_ends_and_linear_between() -> None:
    graph = small_convnet()
    a, b = random_state(graph, seed=0), random_state(graph, seed=1)
    for name in a:
        assert torch.equal(interpolate(a, b, 0.0)[name], a[name])
        assert torch.equal(interpolate(a, b, 1.0)[name], b[name])
        torch.testing.assert_close(interpolate(a, b, 0.25)[name], 0.75 * a[name] + 0.25 * b[name])


def test_constants_and_integers_are_never_averaged() -> None:
    a = {"n1.weight": torch.zeros(2), "n2.value": torch.ones(2), "n3.value": torch.tensor([1, 2])}
    b = {"n1.weight": torch.ones(2), "n2.value": torch.zeros(2), "n3.value": torch.tensor([3, 4])}
    middle = interpolate(a, b, 0.5)
    assert middle["n1.weight"].tolist() == [0.5, 0.5]
    assert middle["n2.value"].tolist() == [1.0, 1.0]
    assert middle["n3.value"].tolist() == [1, 2]
    assert middle["n3.value"].dtype == torch.int64


def test_the_barrier_is_the_largest_rise_above_the_line_between_the_ends() -> None:
    line = Barrier((0.0, 0.5, 1.0), (1.0, 3.0, 2.0), (0.8, 0.5, 0.6))
    assert line.loss == pytest.approx(1.5)
    assert line.accuracy == pytest.approx(0.2)
    convex = Barrier((0.0, 0.5, 1.0), (1.0, 0.5, 1.0), (0.8, 0.9, 0.8))
    assert (convex.loss, convex.accuracy) == (0.0, 0.0)


def test_recomputed_statistics_are_those_that_torch_computes() -> None:
    """One batch norm on one batch: torch's own layer with a momentum of one is the independent source."""
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(1, 6, 6)), out_channels=4, kernel_size=3, bias=True)
    graph = g.finish(g("linear", g("flatten", g("relu", g("batch_norm", x))), out_features=3))
    state, data = random_state(graph, dtype=torch.float32), blobs()
    found = recompute_batch_norm(graph, state, data.train, batch_size=10_000)
    layer = nn.BatchNorm2d(4, momentum=1.0).train()
    layer(nn.functional.conv2d(data.train.inputs, state["n1.weight"], state["n1.bias"]))
    torch.testing.assert_close(found["n2.running_mean"], layer.running_mean)
    torch.testing.assert_close(found["n2.running_var"], layer.running_var)
    assert torch.equal(found["n1.weight"], state["n1.weight"])


def test_statistics_pooled_over_batches_hardly_depend_on_the_size_of_the_batch() -> None:
    graph, data = small_convnet(), blobs(600)
    state = random_state(graph, dtype=torch.float32)
    whole = recompute_batch_norm(graph, state, data.train, batch_size=10_000)
    parts = recompute_batch_norm(graph, state, data.train, batch_size=100)
    for name in ("n2.running_mean", "n2.running_var"):  # the first norm reads the same in both
        torch.testing.assert_close(parts[name], whole[name])
    torch.testing.assert_close(parts["n5.running_var"], whole["n5.running_var"], rtol=0.1, atol=0.05)


def test_networks_without_batch_norm_are_returned_as_they_are() -> None:
    graph = small_convnet(norm=False)
    state = random_state(graph, dtype=torch.float32)
    assert recompute_batch_norm(graph, state, blobs().train) == state


def test_repair_gives_every_channel_the_deviation_between_its_parents() -> None:
    graph, data = small_convnet(norm=False), blobs()
    a, b = (random_state(graph, seed=seed, dtype=torch.float32) for seed in range(2))
    mended = repair_activations(graph, interpolate(a, b, 0.5), a, b, 0.5, data.train)
    for node, axis in ((1, 1), (3, 1)):

        def moments(state: dict[str, torch.Tensor], node: int = node, axis: int = axis) -> torch.Tensor:
            ((value,),) = list(activations(graph, state, data.train, [node], batch_size=10_000))
            x = value.double().movedim(axis, 0).flatten(1)
            return torch.stack([x.mean(1), x.std(1)])

        torch.testing.assert_close(moments(mended), (moments(a) + moments(b)) / 2, rtol=1e-4, atol=1e-4)


def test_repair_leaves_a_network_between_itself_and_itself_alone() -> None:
    graph, data = small_convnet(norm=False), blobs()
    state = random_state(graph, dtype=torch.float32)
    mended = repair_activations(graph, state, state, state, 0.3, data.train)
    for name, tensor in state.items():
        torch.testing.assert_close(mended[name], tensor)


def test_wrong_settings_are_refused() -> None:
    graph, data = small_convnet(), blobs()
    state = random_state(graph, dtype=torch.float32)
    with pytest.raises(ValueError, match="at least 2 'points'"):
        barrier(graph, state, state, data.validation, points=1)
    with pytest.raises(ValueError, match="pass them as 'train'"):
        barrier(graph, state, state, data.validation, repair=True)
