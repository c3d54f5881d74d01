"""Spaces of networks for the nodes of a graph."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.errors import InvalidChoiceError, NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import build
from nasgraph.seeding import generator
from nasgraph.spaces import ReplayChooser, SearchSpace, enumerate_candidates, realise, replay, sample
from nasgraph.testing import SearchSpaceContract
from search_spaces.gnn import ACTIVATIONS, GNN, KINDS
from search_spaces.nasbench_graph import LINKS, OPERATIONS, NASBenchGraph, architecture_of

FEATURES, CLASSES = (20,), 4
PLAIN: dict[str, object] = {
    **{"hidden_dim": 16, "dropout": 0.0, "activation": "relu", "batch_norm": False, "layers": 2},
    **{"kind_1": "gcn", "kind_2": "gat", "heads": 4, "skip": "none", "pre_layers": 0, "post_layers": 0},
    "output": "linear",
}


class TestGNN(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return GNN(input_shape=FEATURES, num_classes=CLASSES)


class TestNASBenchGraph(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return NASBenchGraph(input_shape=FEATURES, num_classes=CLASSES, hidden_dim=8)


def graph_with(**changes: object) -> ComputationalGraph:
    space = GNN(input_shape=FEATURES, num_classes=CLASSES)
    answers = {name: answer for name, answer in {**PLAIN, **changes}.items() if answer is not None}
    return realise(space, ReplayChooser(answers))[0].graph  # type: ignore[arg-type]  # all are choices


def ops(graph: ComputationalGraph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_a_plain_network_has_one_operator_per_layer() -> None:
    assert ops(graph_with()) == ["input", "linear", "gcn_conv", "relu", "gat_conv", "relu", "linear"]


def test_the_networks_of_kipf_and_of_velickovic_are_in_the_space_but_for_a_linear_map() -> None:
    for kind, heads in (("gcn", None), ("gat", 8)):
        shape = {"layers": 1, "kind_1": kind, "kind_2": None, "heads": heads, "dropout": 0.5}
        graph = graph_with(**shape, output="messages", post_layers=None)
        layer = ["dropout", f"{kind}_conv"]
        assert ops(graph) == ["input", "dropout", "linear", f"{kind}_conv", "relu", *layer]
        if kind == "gat":
            assert [node.attr("num_heads") for node in graph.nodes if node.op == "gat_conv"] == [8, 1]


def test_every_choice_is_seen_in_the_graph() -> None:
    base = graph_with()
    changes: dict[str, object] = {
        **{"hidden_dim": 32, "dropout": 0.5, "activation": "elu", "batch_norm": True, "kind_1": "arma"},
        **{"heads": 2, "skip": "sum", "pre_layers": 1, "post_layers": 1},
    }
    found = [graph_with(**{name: value}) for name, value in changes.items()]
    found += [graph_with(output="messages", post_layers=None)]
    found += [graph_with(skip="concat"), graph_with(layers=1, kind_2=None, heads=None)]
    found += [graph_with(kind_1="sage", aggregation=kind) for kind in ("sum", "mean", "max")]
    assert len({graph.fingerprint for graph in (base, *found)}) == len(found) + 1


def test_skip_connections_add_or_concatenate() -> None:
    assert Counter(ops(graph_with(skip="sum")))["add"] == 2
    joined = graph_with(skip="concat")
    place = ops(joined).index("concat")
    assert joined.shapes[place] == (32,)
    assert "concat" not in ops(graph_with(skip="concat", layers=1, kind_2=None, heads=None))


@pytest.mark.parametrize("space_of", [GNN, NASBenchGraph])
def test_sampled_networks_run_on_a_graph(space_of: type[SearchSpace]) -> None:
    space = space_of(input_shape=FEATURES, num_classes=CLASSES)
    rng = generator(0, "gnn")
    x = torch.randn(9, *FEATURES, generator=torch.Generator().manual_seed(0))
    edges = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
    for _ in range(20):
        result = build(sample(space, rng).graph)(x, edges=edges)
        assert result.shape == (9, CLASSES)
        assert result.isfinite().all()


def test_all_kinds_and_activations_occur() -> None:
    space, rng = GNN(input_shape=FEATURES, num_classes=CLASSES), generator(0, "kinds")
    seen = {op for _ in range(100) for op in ops(sample(space, rng).graph)}
    assert seen >= {f"{kind}_conv" for kind in KINDS} | set(ACTIVATIONS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (1, 8, 8)}, r"one vector of features each.*got shape \(1, 8, 8\)"),
        ({"num_classes": 0}, "'num_classes' of at least 1"),
        ({"max_layers": 0}, "'max_layers' of 1 to 100"),
        ({"heads": (3,)}, "'heads' to divide each of 'hidden_dims'"),
        ({"hidden_dims": ()}, "'hidden_dims' and 'heads' above 0"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NasGraphError, match=message):
        GNN(**{"input_shape": FEATURES, "num_classes": CLASSES, **settings})  # type: ignore[arg-type]


# ---- NAS-Bench-Graph


def test_skip_adds_no_node_and_what_no_node_reads_is_concatenated() -> None:
    space = NASBenchGraph(input_shape=FEATURES, num_classes=CLASSES, hidden_dim=8)
    chain = replay(space, architecture_of((0, 1, 2, 3), ("gcn", "skip", "fc", "skip"))).graph
    layer = ["gcn_conv", "batch_norm", "relu", "linear", "batch_norm", "relu"]
    assert ops(chain) == ["input", *layer, "linear", "relu", "linear"]
    wide = replay(space, architecture_of((0, 0, 0, 0), ("gcn", "gat", "gin", "fc"))).graph
    assert wide.shapes[ops(wide).index("concat")] == (32,)


def test_architectures_that_are_one_network_have_one_graph() -> None:
    space = NASBenchGraph(input_shape=FEATURES, num_classes=CLASSES, hidden_dim=8)
    for one, other in (
        (((0, 0, 0, 0), ("gcn", "gat", "gin", "fc")), ((0, 0, 0, 0), ("fc", "gin", "gat", "gcn"))),
        (((0, 1, 2, 3), ("gcn", "skip", "fc", "skip")), ((0, 1, 2, 3), ("skip", "gcn", "fc", "skip"))),
        (((0, 0, 1, 2), ("gcn", "gat", "gin", "fc")), ((0, 0, 1, 2), ("gat", "gcn", "fc", "gin"))),
    ):
        graphs = [replay(space, architecture_of(*cell)).graph for cell in (one, other)]
        assert graphs[0].fingerprint == graphs[1].fingerprint


@pytest.mark.parametrize(
    ("link", "operations", "message"),
    [
        ((0, 0, 2, 2), ("gcn",) * 4, "one of the links 0000, .* .got '0022'"),
        ((0, 0, 0, 0), ("gcn",) * 3, "and 4 operations"),
        ((0, 0, 0, 0), ("gcn", "skip", "gcn", "gcn"), "Node 2 cannot be 'skip'"),
        ((0, 1, 2, 3), ("skip",) * 4, "Node 4 cannot be 'skip'"),
        ((0, 1, 2, 3), ("gcn", "gru", "gcn", "gcn"), "Node 2 cannot be 'gru'"),
    ],
)
def test_cells_that_the_benchmark_does_not_have_are_refused(
    link: tuple[int, ...], operations: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidChoiceError, match=message):
        architecture_of(link, operations)


def test_parameter_counts_are_the_published_ones(shared_data: Path) -> None:
    """But for the matrix that PyG's ARMA layer holds and does not use, and for the norms of `skip`."""
    space = NASBenchGraph(input_shape=(1433,), num_classes=7, hidden_dim=256)
    with np.load(shared_data / "nasbench_graph_light.npz", allow_pickle=False) as table:
        links, numbers, published = table["link"], table["ops"], table["cora_params_M"]
        assert tuple(table["op_names"]) == OPERATIONS
    for row in generator(0, "rows").choice(len(links), 150, replace=False):
        names = [OPERATIONS[number] for number in numbers[row]]
        graph = replay(space, architecture_of(links[row].tolist(), names)).graph
        unused = 256 * 256 * names.count("arma") + 2 * 256 * names.count("skip")
        assert cost_of(graph).num_parameters + unused == round(float(published[row]) * 1e6)


@pytest.mark.slow
def test_there_are_as_many_graphs_as_the_benchmark_has_architectures() -> None:
    space = NASBenchGraph(input_shape=(4,), num_classes=2, hidden_dim=2)
    assert len({candidate.graph.fingerprint for candidate in enumerate_candidates(space)}) == 26_206


def test_the_nine_shapes_are_those_of_the_benchmark() -> None:
    space = NASBenchGraph(input_shape=FEATURES, num_classes=CLASSES, hidden_dim=2)
    first = next(iter(islice(enumerate_candidates(space), 1)))
    assert len(LINKS) == 9
    assert dict(first.architecture.choices)["link"] in LINKS
