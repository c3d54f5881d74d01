"""Losses and gradients of target networks: exact, one network at a time, in either precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.encode import batch_graphs
from nasgraph.hyper import GHNTrainConfig, GraphHyperNetwork
from nasgraph.hyper.meta_loss import backward, summed, target_outcome, target_outcomes
from nasgraph.hyper.prefetch import Draw, DrawnGraph
from nasgraph.modules import Program, RunContext
from nasgraph.spaces import SearchSpace, load_space
from tests.hyper.toy import ToySpace, tiny_config, toy_data, toy_training

CONFIG = toy_training()


def drawn(count: int = 5, *, space: SearchSpace | None = None, step: int = 0) -> list[DrawnGraph]:
    return Draw((ToySpace() if space is None else space,), count, 0)(step)


def gradients_of(ghn: GraphHyperNetwork) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in ghn.named_parameters()
        if parameter.grad is not None
    }


def one_large_backward(
    ghn: GraphHyperNetwork, graphs: list[DrawnGraph], images: Tensor, targets: Tensor, config: GHNTrainConfig
) -> dict[str, Tensor]:
    """The gradient of the mean loss as autograd finds it in one pass through everything."""
    ghn.zero_grad()
    losses = []
    for item, parameters in zip(graphs, ghn(batch_graphs([g.encoded for g in graphs])), strict=True):
        (logits,) = Program(item.graph)(parameters, [images], RunContext(len(images), training=True))
        loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        losses.append(loss + config.norm_penalty * sum(tensor.norm() for tensor in parameters.values()))
    torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return gradients_of(ghn)


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, label_smoothing=0.1), replace(CONFIG, norm_penalty=1e-2)]
)
def test_one_network_at_a_time_gives_the_gradient_of_all_at_once(config: GHNTrainConfig) -> None:
    ghn = GraphHyperNetwork(tiny_config(), seed=0)
    graphs, batch = drawn(), toy_data().train.pick(torch.arange(16))
    expected = one_large_backward(ghn, graphs, batch.inputs, batch.targets, config)
    ghn.zero_grad()
    predicted = ghn(batch_graphs([item.encoded for item in graphs]))
    outcomes = target_outcomes(graphs, predicted, batch.inputs, batch.targets, config=config, step=0)
    backward(predicted, outcomes, divisor=float(len(graphs)))
    found = gradients_of(ghn)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_a_network_that_overflows_is_left_out_of_the_gradient_and_the_means() -> None:
    ghn = GraphHyperNetwork(tiny_config(), seed=0)
    graphs, batch = drawn(6, space=ToySpace(may_overflow=True)), toy_data().train.pick(torch.arange(16))
    predicted = ghn(batch_graphs([item.encoded for item in graphs]))
    outcomes = target_outcomes(graphs, predicted, batch.inputs, batch.targets, config=CONFIG, step=0)
    finite = [bool(outcome.is_finite) for outcome in outcomes]
    assert 0 < sum(finite) < 6
    num_finite, loss, accuracy, skipped = summed(outcomes, ghn.device).tolist()
    assert (num_finite, skipped) == (sum(finite), 6 - sum(finite))
    assert np.isfinite([loss, accuracy]).all()
    backward(predicted, outcomes, divisor=num_finite)
    found = gradients_of(ghn)
    kept = [item for item, is_finite in zip(graphs, finite, strict=True) if is_finite]
    expected = one_large_backward(ghn, kept, batch.inputs, batch.targets, CONFIG)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_running_a_network_changes_no_prediction_and_sends_nothing_beyond_it() -> None:
    ghn = GraphHyperNetwork(tiny_config(), seed=0)
    (item,), batch = drawn(1), toy_data().train.pick(torch.arange(16))
    (parameters,) = ghn(batch_graphs([item.encoded]))
    before = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    outcome = target_outcome(
        item.graph, parameters, batch.inputs, batch.targets, config=CONFIG, dropout_seed=0
    )
    assert gradients_of(ghn) == {}
    assert outcome.gradients.keys() == parameters.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in parameters.items())
    assert not outcome.loss.requires_grad


def test_label_smoothing_spreads_a_share_of_the_target() -> None:
    (item,), batch = drawn(1), toy_data().train.pick(torch.arange(16))
    (parameters,) = GraphHyperNetwork(tiny_config(), seed=0).predict([item.graph])
    (logits,) = Program(item.graph)(parameters, [batch.inputs], RunContext(16, training=True))
    target = 0.9 * F.one_hot(batch.targets, 3) + 0.1 / 3
    outcome = target_outcome(
        item.graph,
        parameters,
        batch.inputs,
        batch.targets,
        config=replace(CONFIG, label_smoothing=0.1),
        dropout_seed=0,
    )
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(outcome.loss, expected)


def test_the_norm_penalty_pulls_every_tensor_towards_zero() -> None:
    (item,), batch = drawn(1), toy_data().train.pick(torch.arange(16))
    (parameters,) = GraphHyperNetwork(tiny_config(), seed=0).predict([item.graph])
    plain, pulled = (
        target_outcome(
            item.graph,
            parameters,
            batch.inputs,
            batch.targets,
            config=replace(CONFIG, norm_penalty=penalty),
            dropout_seed=0,
        )
        for penalty in (0.0, 0.5)
    )
    for name, tensor in parameters.items():
        expected = plain.gradients[name] + 0.5 * tensor / tensor.norm()
        torch.testing.assert_close(pulled.gradients[name], expected)


@pytest.mark.parametrize("name", ["convnet", "mlp", "nasbench201", "vit"])
def test_half_precision_runs_every_space_close_to_single(name: str) -> None:
    space = load_space(name, input_shape=(3, 16, 16), num_classes=10)
    graphs = drawn(6, space=space)
    rng = torch.Generator().manual_seed(0)
    images, targets = torch.randn(16, 3, 16, 16, generator=rng), torch.randint(0, 10, (16,), generator=rng)
    predicted = GraphHyperNetwork(tiny_config(), seed=0).predict([item.graph for item in graphs])
    single, half = (
        target_outcomes(
            graphs, predicted, images, targets, config=replace(CONFIG, precision=precision), step=0
        )
        for precision in ("fp32", "bf16")
    )
    for one, other in zip(single, half, strict=True):
        assert bool(one.is_finite)
        assert bool(other.is_finite)
        assert abs(float(one.loss) - float(other.loss)) < 0.05 * float(one.loss)
        assert all(gradient.dtype == torch.float32 for gradient in other.gradients.values())
        ours, theirs = (
            torch.cat([gradient.flatten() for gradient in outcome.gradients.values()])
            for outcome in (one, other)
        )
        assert float(F.cosine_similarity(ours, theirs, dim=0)) > 0.8
