"""Proxies from gradients of the loss, beside closed forms and the usual way of training."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import build
from nasgraph.predict import PROXIES
from nasgraph.predict.zero_cost import (
    Examples,
    fisher,
    grad_norm,
    grasp,
    module_scores,
    plain,
    snip,
    synflow,
    zico,
)
from tests.predict.zero_cost.networks import (
    SEED,
    Linears,
    Residual,
    noise_batch,
    seeded,
    some_graphs,
    two_layers,
    weight_parameters,
)

GRAPHS = range(len(some_graphs()))


@pytest.mark.parametrize("index", GRAPHS)
def test_they_equal_those_of_a_torch_module_trained_the_usual_way(index: int) -> None:
    graph, batch = some_graphs()[index], noise_batch()
    module = build(graph, seed=SEED).train()
    assert all(node.op != "dropout" for node in graph.nodes), "the proxies run without dropout"
    F.cross_entropy(module(batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    found = [each for each in weight_parameters(module).values() if each.grad is not None]
    pairs = [(each.detach(), each.grad) for each in found if each.grad is not None]
    expected = {
        "grad_norm": sum(float(gradient.norm()) for _, gradient in pairs),
        "snip": sum(float((weight * gradient).abs().sum()) for weight, gradient in pairs),
        "plain": sum(float((weight * gradient).sum()) for weight, gradient in pairs),
    }
    for name, value in expected.items():
        assert PROXIES[name](graph, batch, seed=SEED) == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_a_linear_network_has_the_gradients_that_algebra_gives() -> None:
    module, batch = Linears((5, 4, 3)), noise_batch(6, (5,), classes=3)
    first, second = module.weights
    x, hidden = batch.inputs, batch.inputs @ first.T
    error = ((hidden @ second.T).softmax(1) - F.one_hot(batch.targets, 3)) / len(batch)
    by_second, by_first = error.T @ hidden, (error @ second).T @ x
    pairs = [(first, by_first), (second, by_second)]
    assert grad_norm(module, batch) == pytest.approx(float(by_first.norm() + by_second.norm()), rel=1e-5)
    assert snip(module, batch) == pytest.approx(sum(float((w * g).abs().sum()) for w, g in pairs), rel=1e-5)
    assert plain(module, batch) == pytest.approx(sum(float((w * g).sum()) for w, g in pairs), rel=1e-4)
    effects = [hidden * (error @ second), (hidden @ second.T) * error]
    assert fisher(module, batch) == pytest.approx(
        sum(float(e.square().mean(0).sum()) / 2 for e in effects), rel=1e-5
    )


def test_snip_is_the_gradient_by_masks_of_ones() -> None:
    module, batch = seeded(Residual).eval(), noise_batch()
    own = dict(module.named_parameters())
    masks = {
        n: torch.ones_like(p).requires_grad_() for n, p in own.items() if n.endswith("weight") and p.dim() > 1
    }
    masked = {name: own[name].detach() * mask for name, mask in masks.items()}
    module.block[1].train()  # type: ignore[index,union-attr]  # the only batch norm
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    logits, _ = functional_call(module, {**masked, **buffers}, (batch.inputs,))
    gradients = torch.autograd.grad(F.cross_entropy(logits, batch.targets), list(masks.values()))
    expected = sum(float(gradient.abs().sum()) for gradient in gradients)
    assert snip(module, batch) == pytest.approx(expected, rel=1e-4)


def test_fisher_is_the_squared_slope_of_the_loss_by_gates_on_channels_of_single_examples() -> None:
    module, batch = seeded(Residual).eval(), noise_batch()
    gates: list[Tensor] = []

    def gate(_: nn.Module, __: object, y: Tensor) -> Tensor:
        gates.append(torch.ones(*y.shape[:2], *(1,) * (y.dim() - 2), requires_grad=True))
        return y * gates[-1]

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(gate) for layer in layers]
    module.block[1].train()  # type: ignore[index,union-attr]  # the only batch norm
    slopes = torch.autograd.grad(F.cross_entropy(module(batch.inputs)[0], batch.targets), gates)
    for handle in handles:
        handle.remove()
    expected = sum(float(slope.flatten(1).square().mean(0).sum()) / 2 for slope in slopes)
    assert fisher(module, batch) == pytest.approx(expected, rel=1e-4)


def double_loss(graph: ComputationalGraph, batch: Split) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The loss of a batch as a function of the weights, and the weights, in double precision."""
    module = build(graph, seed=SEED).train().double()
    own = weight_parameters(module)

    def loss(*weights: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            given = dict(zip(own, weights, strict=True))
            logits = functional_call(module, given, (batch.inputs.double(),))
        return F.cross_entropy(logits, batch.targets)

    return loss, tuple(weight.detach().requires_grad_() for weight in own.values())


@pytest.mark.parametrize("index", GRAPHS)
def test_grasp_is_the_slope_of_the_gradient_along_itself(index: int) -> None:
    graph, batch = some_graphs()[index], noise_batch()
    loss, weights = double_loss(graph, batch)
    start = torch.autograd.grad(loss(*weights), weights, materialize_grads=True, allow_unused=True)

    def along(step: float) -> Tensor:
        moved = tuple((w + step * g).detach().requires_grad_() for w, g in zip(weights, start, strict=True))
        gradient = torch.autograd.grad(loss(*moved), moved, materialize_grads=True, allow_unused=True)
        return torch.stack([(w.detach() * g).sum() for w, g in zip(weights, gradient, strict=True)]).sum()

    step = 1e-8
    expected = -float(along(step) - along(-step)) / (2 * step)
    assert grasp(graph, batch, seed=SEED) == pytest.approx(expected, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("index", [0, 6, 8])
def test_grasp_is_the_product_with_the_hessian_that_torch_finds(index: int) -> None:
    graph, batch = some_graphs()[index], noise_batch()
    loss, weights = double_loss(graph, batch)
    gradient = torch.autograd.grad(loss(*weights), weights)
    _, hessian = torch.autograd.functional.hvp(loss, weights, gradient)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    expected = -sum(float((w.detach() * h).sum()) for w, h in zip(weights, hessian, strict=True))
    assert grasp(graph, batch, seed=SEED) == pytest.approx(expected, rel=1e-3)


def test_grasp_is_the_squared_gradient_where_a_norm_follows_every_weight() -> None:
    """Scale invariance: the gradient of such a network is homogeneous of degree -1, so H w = -g (Euler)."""
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(1, 6, 6)), out_channels=4, kernel_size=3, padding=1, bias=False)
    x = g("relu", g("batch_norm", x, eps=1e-12))
    x = g("conv2d", x, out_channels=5, kernel_size=3, bias=False)
    graph = g.finish(g("global_avg_pool2d", g("tanh", g("batch_norm", x, eps=1e-12))))
    module, batch = build(graph, seed=SEED), noise_batch(8, (1, 6, 6), classes=5)
    loss = F.cross_entropy(module(batch.inputs), batch.targets)
    gradients = torch.autograd.grad(loss, list(weight_parameters(module).values()))
    squares = sum(float(gradient.square().sum()) for gradient in gradients)
    assert grasp(graph, batch, seed=SEED) == pytest.approx(squares, rel=1e-4)
    assert plain(graph, batch, seed=SEED) == pytest.approx(0.0, abs=1e-5)


def test_zico_is_that_of_two_batches_by_themselves() -> None:
    module, batch = Linears((5, 4, 3), rectify=True), noise_batch(6, (5,), classes=3)
    halves = []
    for part in (slice(0, 3), slice(3, 6)):
        loss = F.cross_entropy(module(batch.inputs[part]), batch.targets[part])
        halves.append([g.double() for g in torch.autograd.grad(loss, list(module.parameters()))])
    expected = 0.0
    for layer in zip(*halves, strict=True):
        both = torch.stack(layer)
        deviation = both.std(0, correction=0)
        ratio = both.abs().mean(0) / deviation
        expected += math.log(float(ratio[deviation > 0].sum()))
    assert zico(module, batch) == pytest.approx(expected, rel=1e-4)


def test_synflow_of_a_linear_network_is_the_sum_over_paths_of_the_products_of_weights() -> None:
    module, batch = Linears((3, 4, 2, 3)), noise_batch(2, (3,))
    first, second, third = (weight.abs().double() for weight in module.weights)
    paths = sum(
        float(first[b, a] * second[c, b] * third[d, c])
        for a, b, c, d in product(range(3), range(4), range(2), range(3))
    )
    # each of the three layers carries the whole flow
    assert synflow(module, batch) == pytest.approx(math.log(3 * paths), rel=1e-9)


def test_synflow_is_the_flow_that_finite_differences_find() -> None:
    graph, module = two_layers()
    conv, linear, bias = (
        p.detach().double().abs() for p in (module.conv.weight, module.linear.weight, module.linear.bias)
    )

    def flow(conv: Tensor, linear: Tensor) -> Tensor:
        x = F.conv2d(torch.ones(1, 1, 6, 6, dtype=torch.float64), conv, padding=1)
        return (x.clamp(min=0).mean((2, 3)) @ linear.T + bias).sum()

    # R is linear in each weight tensor alone: the sum of w * dR/dw is R less R with that tensor at zero.
    total = flow(conv, linear)
    expected = math.log(float(2 * total - flow(conv * 0, linear) - flow(conv, linear * 0)))
    assert synflow(graph, noise_batch(2, (1, 6, 6)), seed=SEED) == pytest.approx(expected, rel=1e-9)
    assert synflow(module, noise_batch(2, (1, 6, 6))) == pytest.approx(expected, rel=1e-9)


def test_synflow_of_a_deep_wide_network_does_not_overflow() -> None:
    module = Linears((64,) * 121)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    # R = 64**121 for every layer: beyond single precision by far
    expected = 121 * math.log(64) + math.log(120)
    assert synflow(module, noise_batch(2, (64,))) == pytest.approx(expected, rel=1e-12)


def test_a_regression_has_a_mean_squared_error_and_a_caller_any_loss() -> None:
    module, rng = Linears((5, 3)), torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 5, generator=rng), torch.randn(6, 3, generator=rng)
    (weight,) = module.parameters()
    squares = torch.autograd.grad(F.mse_loss(module(x), y), weight)[0].norm()
    absolute = torch.autograd.grad(F.l1_loss(module(x), y), weight)[0].norm()
    assert grad_norm(module, Examples((x,), y)) == pytest.approx(float(squares), rel=1e-5)
    found = module_scores(module, x, y, names=("grad_norm",), loss=F.l1_loss)
    assert found["grad_norm"] == pytest.approx(float(absolute), rel=1e-5)
