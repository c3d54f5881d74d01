"""Proxies from gradients of single examples, beside gradients taken one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.ir import GraphBuilder
from nasgraph.modules import build
from nasgraph.predict import PROXIES
from nasgraph.predict.zero_cost import epe_nas, jacov, ntk
from tests.predict.zero_cost.networks import SEED, Linears, Residual, noise_batch, seeded, two_layers


def input_gradients(module: nn.Module, inputs: Tensor) -> np.ndarray:
    """Of the summed outputs, one example after the other."""
    rows = []
    for example in inputs:
        leaf = example.clone().requires_grad_()
        module(leaf[None]).sum().backward()
        assert leaf.grad is not None
        rows.append(leaf.grad.double().flatten().numpy())
    return np.stack(rows)


def test_jacov_is_the_score_of_numpys_correlation_of_gradients_taken_one_by_one() -> None:
    g = GraphBuilder()
    x = g("tanh", g("linear", g("input", shape=(7,)), out_features=9))
    graph = g.finish(g("linear", x, out_features=3))
    batch = noise_batch(4, (7,))
    values = np.linalg.eigvalsh(np.corrcoef(input_gradients(build(graph, seed=SEED), batch.inputs))) + 1e-5
    expected = -float((np.log(values) + 1 / values).sum())
    assert PROXIES["jacov"](graph, batch, seed=SEED) == pytest.approx(expected, rel=1e-4)


def test_epe_nas_sums_the_logarithms_of_numpys_correlations_within_classes() -> None:
    module = nn.Sequential(Linears((7, 9), seed=1), nn.Tanh(), Linears((9, 3), seed=2))
    batch = Split(noise_batch(7, (7,)).inputs, torch.tensor([0, 0, 0, 2, 2, 1, 5]))
    gradients = input_gradients(module, batch.inputs)
    expected = 0.0
    for rows in (gradients[:3], gradients[3:5], gradients[5:6], gradients[6:]):
        expected += abs(np.log(np.abs(np.atleast_2d(np.corrcoef(rows))) + 1e-5).sum())
    assert epe_nas(module, batch) == pytest.approx(expected, rel=1e-4)


def test_epe_nas_compares_classes_in_pairs_where_there_are_many() -> None:
    module = nn.Sequential(Linears((7, 9), seed=1), nn.Tanh(), Linears((9, 3), seed=2))
    batch = Split(noise_batch(202, (7,)).inputs, torch.arange(202) // 2)
    gradients, errors = input_gradients(module, batch.inputs), []
    for place in range(101):
        correlation = np.corrcoef(gradients[2 * place : 2 * place + 2])
        errors.append(np.log(np.abs(correlation) + 1e-5).sum() / np.linalg.norm(correlation))
    pairs = sum(abs(a - b) for place, a in enumerate(errors) for b in errors[place + 1 :])
    assert epe_nas(module, batch) == pytest.approx(pairs / 101, rel=1e-4)


def explicit_ntk(module: nn.Module, inputs: Tensor) -> float:
    """Minus log condition number from the gradient of each example's summed outputs by all weights."""
    weights = [p for p in module.parameters() if p.dim() > 1]
    rows = []
    for example in inputs:
        gradients = torch.autograd.grad(module(example[None]).sum(), weights)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]).double())
    jacobian = torch.stack(rows)
    values = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    return float((values[0] / values[-1]).log())


class Convolutions(nn.Module):
    """Every kind of layer that has gradients per example, and no norm over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.groups = nn.Conv2d(4, 6, 3, groups=2, padding="same")
        self.back = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.tokens = nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.back(F.gelu(self.groups(torch.tanh(self.stem(x)))))
        x = torch.tanh(self.tokens(x.flatten(2).transpose(1, 2)))
        x = x + torch.tanh(F.linear(x, self.head.weight.new_ones(5, 5)))
        logits: Tensor = self.head(x.mean(1))
        return logits


def test_ntk_is_the_condition_number_of_the_kernel_of_an_explicit_jacobian() -> None:
    for module, shape in ((seeded(Convolutions), (1, 6, 6)), (Linears((6, 5, 4), rectify=True), (6,))):
        inputs = noise_batch(4, shape).inputs
        assert ntk(module, Split(inputs, torch.zeros(4, dtype=torch.int64))) == pytest.approx(
            explicit_ntk(module, inputs), rel=1e-3
        )


def test_a_weight_that_is_used_twice_adds_up_in_the_ntk() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.map(torch.tanh(self.map(x)))
            return y

    module, batch = seeded(Twice), noise_batch(4, (5,))
    assert ntk(module, batch) == pytest.approx(explicit_ntk(module, batch.inputs), rel=1e-3)


def test_with_batch_norm_the_ntk_takes_gradients_by_each_examples_own_copy_of_the_weights() -> None:
    _, module = two_layers()
    batch = noise_batch(5, (1, 6, 6))
    convs = module.conv.weight.detach().expand(5, 4, 1, 3, 3).clone().requires_grad_()
    linears = module.linear.weight.detach().expand(5, 3, 4).clone().requires_grad_()
    maps = F.conv2d(batch.inputs.transpose(0, 1), convs.flatten(0, 1), padding=1, groups=5).reshape(
        5, 4, 6, 6
    )
    hidden = F.relu(F.batch_norm(maps, None, None, training=True)).mean((2, 3))
    outputs = torch.einsum("boi,bi->bo", linears, hidden) + module.linear.bias
    gradients = torch.autograd.grad(outputs.sum(), [convs, linears])
    jacobian = torch.cat([gradient.flatten(1) for gradient in gradients], 1).double()
    values = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    assert ntk(module, batch) == pytest.approx(float((values[0] / values[-1]).log()), rel=1e-3)


def test_the_order_of_the_examples_does_not_matter() -> None:
    module, batch = seeded(Residual), noise_batch(8, classes=3)
    turned = Split(batch.inputs.flip(0), batch.targets.flip(0))
    for measure in (jacov, epe_nas, ntk):
        assert measure(module, turned) == pytest.approx(measure(module, batch), rel=1e-3)
