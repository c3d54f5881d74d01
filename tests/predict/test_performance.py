"""Predicting any network: a module counts as its graph, and what is unlike the known ones is said to be."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from nasgraph.errors import CandidateError, ConfigError, TraceError
from nasgraph.ir import ComputationalGraph, GraphBuilder, Node, cost_of
from nasgraph.modules import build, trace
from nasgraph.predict import KnownPerformance, Performance, PerformanceMetric, performance
from nasgraph.predict.known import Outside, describe
from nasgraph.predict.performance import in_words
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, load_space, replay, sample

SHIPPED = Path(zoo.__file__).parent / "performance-cifar10"
SHAPE = (3, 16, 16)


def networks(count: int, label: str, *, shape: tuple[int, ...] = SHAPE) -> list[ComputationalGraph]:
    """Distinct small convolutional networks."""
    space = load_space("nasbench201", input_shape=shape, num_classes=10)
    rng, found = generator(0, label), dict[str, ComputationalGraph]()
    while len(found) < count:
        graph = sample(space, rng).graph
        found[graph.fingerprint] = graph
    return list(found.values())


@pytest.fixture(scope="module")
def known() -> KnownPerformance:
    graphs = networks(24, "known")
    targets = [80 + 3 * float(np.log10(1 + cost_of(graph).multiply_adds)) for graph in graphs]
    metric = PerformanceMetric(name="accuracy", unit="percent", lowest=0.0, highest=120.0)
    return KnownPerformance.of(graphs, targets, metric=metric, input_shape=SHAPE, num_classes=10)


@pytest.fixture(scope="module")
def shipped() -> KnownPerformance:
    return KnownPerformance.load(SHIPPED)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 10))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


def shuffled(graph: ComputationalGraph, seed: int) -> ComputationalGraph:
    """The same graph with its nodes in another topological order."""
    rng, placed, order = generator(seed, "order"), dict[int, int](), list[int]()
    while len(order) < len(graph):
        ready = [
            i
            for i, node in enumerate(graph.nodes)
            if i not in placed and all(s in placed for s in node.inputs)
        ]
        chosen = ready[int(rng.integers(len(ready)))]
        placed[chosen] = len(order)
        order.append(chosen)
    nodes = tuple(
        Node(graph.nodes[i].op, tuple(placed[s] for s in graph.nodes[i].inputs), graph.nodes[i].attrs)
        for i in order
    )
    return ComputationalGraph(nodes, tuple(placed[i] for i in graph.outputs))


def test_a_module_is_predicted_as_its_graph_is(known: KnownPerformance) -> None:
    module = build(networks(1, "module")[0])
    graph = trace(module, torch.randn(2, *SHAPE)).graph
    assert performance(module, known=known) == performance(graph, known=known)
    assert performance(module, known=known, example_inputs=torch.randn(3, *SHAPE)) == performance(
        module, known=known, input_shape=SHAPE
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_nodes_does_not_matter(known: KnownPerformance, seed: int) -> None:
    (graph,) = networks(1, "order")
    other = shuffled(graph, seed)
    assert other.nodes != graph.nodes
    first, second = performance(graph, known=known), performance(other, known=known)
    assert second.fingerprint == first.fingerprint
    assert (second.mean, second.low, second.high) == pytest.approx((first.mean, first.low, first.high))
    assert [n.key for n in second.nearest] == [n.key for n in first.nearest]


def test_a_network_like_the_known_ones_is_trusted(known: KnownPerformance) -> None:
    found = [performance(graph, known=known) for graph in networks(10, "others")]
    trusted = [each for each in found if each.is_trusted]
    assert len(trusted) >= 8
    assert all(each.warnings == () for each in trusted)
    for each in found:
        assert each.low <= each.mean <= each.high


@pytest.mark.parametrize("make", [mlp, ViT])
def test_a_network_of_another_family_is_warned_of(known: KnownPerformance, make: type[nn.Module]) -> None:
    found = performance(make(), known=known)
    assert not found.is_trusted
    assert found.distance > 1
    assert "unlike all 24 known architectures" in found.warnings[0]
    assert "promises nothing" in found.warnings[0]


def test_operators_that_no_known_architecture_has_are_named(known: KnownPerformance) -> None:
    found = performance(ViT(), known=known)
    assert any(
        re.search("No known architecture has what it has: .*attention", text) for text in found.warnings
    )


def test_another_input_shape_and_other_classes_are_warned_of(known: KnownPerformance) -> None:
    space = load_space("nasbench201", input_shape=(3, 24, 24), num_classes=7)
    found = performance(sample(space, generator(0, "other")).graph, known=known)
    text = " ".join(found.warnings)
    assert "read 3x16x16, this one reads 3x24x24" in text
    assert "give 10 logits, this one gives 7" in text


def test_a_much_larger_network_is_warned_of(known: KnownPerformance) -> None:
    wide = nn.Sequential(
        nn.Conv2d(3, 512, 3, padding=1), nn.ReLU(), nn.Conv2d(512, 512, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    found = performance(wide, known=known)
    assert any("more than 2 times as large" in text for text in found.warnings)
    assert any("parameters" in text and "known:" in text for text in found.warnings)


def test_a_known_graph_comes_with_its_measurement(known: KnownPerformance) -> None:
    graph = networks(24, "known")[5]
    found = performance(graph, known=known, num_nearest=2)
    assert found.measured == known.targets_N[5]
    assert (found.distance, found.nearest[0].distance, len(found.nearest)) == (0, 0, 2)
    assert performance(networks(1, "module")[0], known=known).measured is None


def test_a_higher_level_makes_a_wider_interval(known: KnownPerformance) -> None:
    (graph,) = networks(1, "level")
    found = [performance(graph, known=known, level=level) for level in (0.5, 0.8, 0.95)]
    assert len({each.mean for each in found}) == 1
    widths = [each.high - each.low for each in found]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_the_cost_is_that_of_the_graph(known: KnownPerformance) -> None:
    module = mlp()
    found = performance(module, known=known)
    assert found.cost.num_parameters == sum(p.numel() for p in module.parameters())
    assert found.cost.multiply_adds == 768 * 64 + 64 * 10


def test_an_opaque_operator_is_stated(known: KnownPerformance) -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(768, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(torch.fft.fft(x.flatten(1)).real)
            return logits

    found = performance(Sorted(), known=known)
    assert found.num_opaque >= 1
    assert any("cannot read" in text and "fft" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "expected"),
    [
        (
            "log parameters",
            float(np.log1p(5e6)),
            0.0,
            float(np.log1p(100)),
            "parameters 5e+06 (known: 0 to 100)",
        ),
        ("number of attention", 3.0, 0.0, 0.0, "number of attention 3 (known: 0)"),
        ("direct: input -> attention", 1.0, 0.0, 0.0, ""),
    ],
)
def test_columns_are_put_in_words(name: str, value: float, low: float, high: float, expected: str) -> None:
    assert in_words(Outside(column=name, value=value, low=low, high=high)) == expected


# ---- bad input


def test_a_module_that_cannot_run_on_the_shape_is_refused(known: KnownPerformance) -> None:
    with pytest.raises(TraceError, match="The forward pass of Sequential fails"):
        performance(mlp(), known=known, input_shape=(3, 5, 5))


def test_a_graph_that_computes_nothing_is_refused(known: KnownPerformance) -> None:
    g = GraphBuilder()
    graph = g.finish(g("input", shape=SHAPE))
    with pytest.raises(CandidateError, match="computes nothing"):
        performance(graph, known=known)


@pytest.mark.parametrize("level", [0.0, 0.49, 1.0, 1.5])
def test_a_level_out_of_range_is_refused(known: KnownPerformance, level: float) -> None:
    with pytest.raises(ConfigError, match=r"'level' from 0\.5 to below 1"):
        performance(mlp(), known=known, level=level)


def test_shapes_that_contradict_each_other_are_refused(known: KnownPerformance) -> None:
    (graph,) = networks(1, "module")
    with pytest.raises(ValueError, match="to be that of the graph"):
        performance(graph, known=known, input_shape=(3, 8, 8))
    with pytest.raises(ValueError, match="not both"):
        performance(mlp(), known=known, input_shape=SHAPE, example_inputs=torch.randn(2, *SHAPE))
    with pytest.raises(ValueError, match="sides of at least 1"):
        performance(mlp(), known=known, input_shape=(3, 0, 16))
    with pytest.raises(ValueError, match="no 'example_inputs' for a graph"):
        performance(graph, known=known, example_inputs=torch.randn(2, *SHAPE))


# ---- the shipped one


def test_the_shipped_one_is_whole_and_speaks_of_cifar10(shipped: KnownPerformance) -> None:
    assert (shipped.metric.data, shipped.metric.unit) == ("CIFAR-10", "percent")
    assert (shipped.input_shape, shipped.num_classes) == ((3, 32, 32), 10)
    assert len(set(shipped.fingerprints)) == len(shipped) >= 400


def test_the_shipped_rows_are_those_of_their_networks(shipped: KnownPerformance) -> None:
    space = load_space("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    for row in (0, len(shipped) - 1):
        operations = [part.split("~")[0] for part in shipped.keys[row].replace("+", "").split("|") if part]
        edges = [(source, target) for target in range(1, 4) for source in range(target)]
        choices = tuple((f"edge_{s}_{t}", op) for (s, t), op in zip(edges, operations, strict=True))
        graph = replay(space, Architecture("nasbench201", choices)).graph
        assert graph.fingerprint == shipped.fingerprints[row]
        np.testing.assert_array_equal(describe(shipped.features, [graph])[0], shipped.rows_NF[row])


@pytest.mark.slow
def test_the_shipped_one_knows_what_it_does_not_know(shipped: KnownPerformance) -> None:
    def judged(network: nn.Module | ComputationalGraph) -> Performance:
        return performance(network, known=shipped, input_shape=(3, 32, 32))

    others = networks(20, "shipped", shape=(3, 32, 32))
    assert sum(judged(graph).is_trusted for graph in others) >= 18
    large = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 10))
    for network in (ViT(), large):
        assert not judged(network).is_trusted
