"""Zero-cost proxies, beside independent computations and published values."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import UnknownNameError
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.modules import GraphModule, build, initial_parameters
from nasgraph.predict import PROXIES, proxy_scores
from nasgraph.spaces import replay
from search_spaces.nasbench201 import NASBench201, architecture_from_string
from tests.modules.samples import sampled_graphs

SEED = 3


def noise_batch(count: int = 6, shape: tuple[int, ...] = (1, 8, 8)) -> Split:
    rng = torch.Generator().manual_seed(1)
    return Split(torch.randn(count, *shape, generator=rng), torch.arange(count) % 10)


def graphs() -> list[ComputationalGraph]:
    return [*sampled_graphs("nasbench201", 3), *sampled_graphs("convnet", 3), *sampled_graphs("mlp", 2)]


def weight_layers(module: GraphModule) -> list[nn.Parameter]:
    roles = {name: spec.role for name, spec in module.graph.parameters.items()}
    return [parameter for name, parameter in module.named_parameters() if roles[name] == "weight"]


@pytest.mark.parametrize("name", ["grad_norm", "snip"])
@pytest.mark.parametrize("index", range(8))
def test_gradient_proxies_equal_those_of_a_torch_module_trained_the_usual_way(name: str, index: int) -> None:
    graph, batch = graphs()[index], noise_batch()
    module = build(graph, seed=SEED).train()
    assert all(node.op != "dropout" for node in graph.nodes), "the proxies run without dropout"
    F.cross_entropy(module(batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]  # untyped
    expected = 0.0
    for weight in weight_layers(module):
        if weight.grad is not None:
            product = weight.grad if name == "grad_norm" else (weight * weight.grad).abs()
            expected += float((product.norm() if name == "grad_norm" else product.sum()).detach())
    assert PROXIES[name](graph, batch, seed=SEED) == pytest.approx(expected, rel=1e-4)


class TwoLayers(nn.Module):
    """A convolution with a norm, and a linear map; written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(F.relu(self.norm(self.conv(x))).mean((2, 3)))
        return logits


def two_layers() -> tuple[ComputationalGraph, TwoLayers]:
    g = GraphBuilder()
    x = g(
        "batch_norm",
        g("conv2d", g("input", shape=(1, 6, 6)), out_channels=4, kernel_size=3, padding=1, bias=False),
    )
    graph = g.finish(g("linear", g("global_avg_pool2d", g("relu", x)), out_features=3))
    module = TwoLayers()
    own = list(initial_parameters(graph, seed=SEED).values())
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), own, strict=True):
            parameter.copy_(value)
    return graph, module


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
    expected = 2 * total - flow(conv * 0, linear) - flow(conv, linear * 0)
    found = PROXIES["synflow"](graph, noise_batch(2, (1, 6, 6)), seed=SEED)
    assert found == pytest.approx(math.log(float(expected)), rel=1e-9)


def test_nwot_is_the_log_determinant_of_the_codes_of_a_module_written_by_hand() -> None:
    graph, module = two_layers()
    batch = noise_batch(5, (1, 6, 6))
    with torch.no_grad():
        codes = (module.norm(module.conv(batch.inputs)) > 0).flatten(1).numpy()
    alike = np.array([[float((first == second).sum()) for second in codes] for first in codes])
    expected = np.log(np.linalg.det(alike))
    assert PROXIES["nwot"](graph, batch, seed=SEED) == pytest.approx(expected, rel=1e-6)


def test_jacov_is_the_score_of_numpys_correlation_of_gradients_taken_one_by_one() -> None:
    g = GraphBuilder()
    x = g("tanh", g("linear", g("input", shape=(7,)), out_features=9))
    graph = g.finish(g("linear", x, out_features=3))
    batch = noise_batch(4, (7,))
    module = build(graph, seed=SEED)
    rows = []
    for example in batch.inputs:
        leaf = example.clone().requires_grad_()
        module(leaf[None]).sum().backward()
        assert leaf.grad is not None
        rows.append(leaf.grad.double().numpy())
    values = np.linalg.eigvalsh(np.corrcoef(np.stack(rows))) + 1e-5
    expected = -float((np.log(values) + 1 / values).sum())
    assert PROXIES["jacov"](graph, batch, seed=SEED) == pytest.approx(expected, rel=1e-4)


def test_counts_are_those_of_the_cost_table() -> None:
    for graph in graphs():
        (scores,) = proxy_scores(
            [graph], noise_batch(), names=("num_parameters", "multiply_adds", "num_weight_layers")
        )
        module = build(graph)
        assert scores["num_parameters"] == sum(parameter.numel() for parameter in module.parameters())
        assert scores["multiply_adds"] == cost_of(graph).multiply_adds
        assert scores["num_weight_layers"] == len(weight_layers(module))


@pytest.mark.parametrize("name", sorted(PROXIES))
def test_a_proxy_is_reproducible_and_touches_neither_its_batch_nor_the_global_generator(name: str) -> None:
    batch, state = noise_batch(), torch.get_rng_state()
    before = batch.inputs.clone()
    for graph in graphs():
        first, second = (PROXIES[name](graph, batch, seed=SEED) for _ in range(2))
        assert first == second
        assert not math.isnan(first)
    assert torch.equal(batch.inputs, before)
    assert not batch.inputs.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["synflow", "nwot", "grad_norm", "snip", "jacov"])
def test_another_seed_draws_other_weights(name: str) -> None:
    graph, batch = sampled_graphs("nasbench201", 3)[2], noise_batch()
    assert PROXIES[name](graph, batch, seed=0) != PROXIES[name](graph, batch, seed=1)


def test_a_network_that_ignores_its_input_stands_at_the_bottom() -> None:
    g = GraphBuilder()
    x = g("zero", g("linear", g("input", shape=(4,)), out_features=4))
    graph = g.finish(g("linear", g("tanh", x), out_features=3))
    batch = noise_batch(4, (4,))
    (scores,) = proxy_scores([graph], batch, names=("synflow", "nwot", "jacov"))
    assert scores == dict.fromkeys(scores, -math.inf)


def test_examples_that_a_network_cannot_tell_apart_give_nwot_no_score() -> None:
    batch = noise_batch(4)
    twins = Split(torch.cat([batch.inputs, batch.inputs]), torch.cat([batch.targets, batch.targets]))
    assert PROXIES["nwot"](sampled_graphs("mlp", 1)[0], twins, seed=0) < 0


def test_an_unknown_proxy_is_refused_with_its_neighbours() -> None:
    with pytest.raises(UnknownNameError, match=r"zero-cost proxy named 'sinflow'.* Close: 'synflow'"):
        proxy_scores([], noise_batch(), names=("sinflow",))


COUNT = 40
"""Cells compared with the published table."""


@pytest.fixture(scope="module")
def published(shared_data: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Strings of some NAS-Bench-201 cells, and the proxies of NAS-Bench-Suite-Zero on CIFAR-10 for them."""
    table, cells = (np.load(shared_data / f"nasbench201{part}.npz") for part in ("_zero_cost", ""))
    rows = np.random.default_rng(0).choice(len(table["index"]), COUNT, replace=False)
    columns = {str(name): table["cifar10"][rows, k] for k, name in enumerate(table["proxy_names"])}
    return [str(cells["arch_str"][index]) for index in table["index"][rows]], columns


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> Split:
    """64 training images of CIFAR-10, scaled to about unit variance."""
    table = np.load(shared_data / "cifar10_tiny.npz")
    images, labels = (torch.from_numpy(table[name][:64]) for name in ("x_train", "y_train"))
    return Split(((images.permute(0, 3, 1, 2) / 255 - 0.47) / 0.25).contiguous(), labels.long())


@pytest.mark.parametrize(
    ("ours", "theirs", "side", "least"),
    [
        ("num_parameters", "params", 32, 0.999),
        ("multiply_adds", "flops", 32, 0.99),
        ("synflow", "synflow", 32, 0.99),
        ("synflow", "synflow", 16, 0.99),
        ("nwot", "nwot", 16, 0.93),
    ],
)
def test_proxies_rank_cells_as_the_published_ones_do(
    published: tuple[list[str], dict[str, np.ndarray]],
    photographs: Split,
    ours: str,
    theirs: str,
    side: int,
    least: float,
) -> None:
    strings, columns = published
    space = NASBench201(input_shape=(3, side, side), num_classes=10)
    images = F.adaptive_avg_pool2d(photographs.inputs, side)
    batch = Split(images, photographs.targets)
    cells = [replay(space, architecture_from_string(text)).graph for text in strings]
    found = [PROXIES[ours](cell, batch, seed=0) for cell in cells]
    assert spearmanr(found, columns[theirs]).statistic >= least


def test_parameter_counts_are_the_published_ones(
    published: tuple[list[str], dict[str, np.ndarray]],
) -> None:
    strings, columns = published
    space = NASBench201(input_shape=(3, 32, 32), num_classes=10)
    for text, millions in zip(strings, columns["params"], strict=True):
        graph = replay(space, architecture_from_string(text)).graph
        assert cost_of(graph).num_parameters == pytest.approx(1e6 * millions, abs=0.5)


def test_nwot_has_the_size_of_the_published_one(
    published: tuple[list[str], dict[str, np.ndarray]], photographs: Split
) -> None:
    """Same number of images; theirs saw others, with other weights."""
    strings, columns = published
    space = NASBench201(input_shape=(3, 32, 32), num_classes=10)
    for text, expected in list(zip(strings, columns["nwot"], strict=True))[:3]:
        graph = replay(space, architecture_from_string(text)).graph
        assert PROXIES["nwot"](graph, photographs, seed=0) == pytest.approx(expected, rel=0.05)
