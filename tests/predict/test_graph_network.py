"""The graph network: what it reads, its losses, and the predictor made of it."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.predict import GraphNetworkPredictor, NotFittedError
from nasgraph.predict.graph_network import (
    RANKING_LOSSES,
    GraphNetwork,
    NetworkConfig,
    NetworkTraining,
    PathFeatures,
    from_batch,
    graph_tensors,
    join,
    to_data,
    train_network,
    with_adapters,
)
from nasgraph.predict.graph_network.inputs import UNKNOWN, vocabulary_of
from nasgraph.predict.graph_network.training import LabelledGraphs, scores_of
from nasgraph.seeding import generator
from tests.modules.samples import sampled_graphs

POOL = sampled_graphs("convnet", 60)
MIXED = [sampled_graphs(space, 2)[1] for space in ("convnet", "mlp", "nasbench201", "vit")]
VOCABULARY = vocabulary_of([*POOL, *MIXED])
QUICK = NetworkTraining(steps=60, batch_size=16)


def network(**changes: int) -> GraphNetwork:
    return GraphNetwork(NetworkConfig(vocabulary=VOCABULARY, dim=8, num_layers=2, **changes), seed=3)


def single_node() -> ComputationalGraph:
    g = GraphBuilder()
    return g.finish(g("input", shape=(3,)))


def strange(name: str = "gat") -> ComputationalGraph:
    """A graph of an operator that the language does not know."""
    g = GraphBuilder()
    x = g("input", shape=(4,))
    return g.finish(g("add", x, g("opaque", x, name=name, shape=(4,), dtype="float")))


def shuffled(graph: ComputationalGraph, seed: int) -> ComputationalGraph:
    """The same graph written down in another topological order."""
    rng = generator(seed, "shuffled")
    order: list[int] = []
    while len(order) < len(graph):
        ready = [
            index
            for index, node in enumerate(graph.nodes)
            if index not in order and all(source in order for source in node.inputs)
        ]
        order.append(int(rng.choice(ready)))
    place = {old: new for new, old in enumerate(order)}
    nodes = tuple(
        replace(graph.nodes[old], inputs=tuple(place[source] for source in graph.nodes[old].inputs))
        for old in order
    )
    return ComputationalGraph(nodes, tuple(place[index] for index in graph.outputs))


def accuracy(graphs: Sequence[ComputationalGraph]) -> torch.Tensor:
    """A made-up accuracy that grows with the size, and a little with depth."""
    costs = [cost_of(graph) for graph in graphs]
    return torch.tensor([np.tanh(np.log(cost.num_parameters) / 12) + cost.depth / 500 for cost in costs])


def score(net: GraphNetwork, graph: ComputationalGraph) -> torch.Tensor:
    result: torch.Tensor = net(graph_tensors(graph, VOCABULARY).double())
    return result


@pytest.mark.parametrize("index", range(len(MIXED)))
def test_the_order_of_the_nodes_does_not_matter(index: int) -> None:
    graph, net = MIXED[index], network().double()
    for seed in range(3):
        other = shuffled(graph, seed)
        assert other.fingerprint == graph.fingerprint
        torch.testing.assert_close(score(net, other), score(net, graph), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(PathFeatures()([other]), PathFeatures()([graph]), rtol=1e-12)


def test_the_company_in_a_batch_does_not_matter() -> None:
    net, graphs = network().double(), [*MIXED, single_node(), strange()]
    together = net(join([graph_tensors(graph, VOCABULARY) for graph in graphs]).double())
    alone = torch.cat([score(net, graph) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_a_batch_of_pytorch_geometric_is_read_like_our_own() -> None:
    with warnings.catch_warnings():  # its import uses what torch deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric.data import Batch
    parts = [graph_tensors(graph, VOCABULARY) for graph in (*MIXED, single_node())]
    batch = from_batch(Batch.from_data_list([to_data(part) for part in parts]))
    ours = join(parts)
    for name in vars(ours):
        assert torch.equal(getattr(batch, name), getattr(ours, name)), name


def test_the_direction_of_the_computation_is_seen() -> None:
    def chain(first: str, second: str) -> ComputationalGraph:
        g = GraphBuilder()
        return g.finish(g(second, g(first, g("input", shape=(4,)))))

    net = network().double()
    assert not torch.allclose(score(net, chain("relu", "gelu")), score(net, chain("gelu", "relu")))


def test_wide_and_narrow_networks_of_one_shape_look_alike() -> None:
    def net(width: int) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("input", shape=(width, 8, 8))
        for kernel in (1, 3):
            x = g("relu", g("conv2d", x, out_channels=width, kernel_size=kernel, padding=kernel // 2))
        return g.finish(x)

    narrow, wide = graph_tensors(net(8), VOCABULARY), graph_tensors(net(64), VOCABULARY)
    torch.testing.assert_close(narrow.x_MF, wide.x_MF)
    columns = dict(zip(PathFeatures().names, (narrow.columns_GK - wide.columns_GK)[0], strict=True))
    assert abs(columns.pop("parameters")) < 0.05  # biases weigh more in narrow networks
    assert all(abs(difference) < 1e-6 for difference in columns.values())


def test_path_features_are_counts_over_all_paths() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4, 8, 8))
    spatial = g("conv2d", x, out_channels=4, kernel_size=3, padding=1)
    pooled = g("max_pool2d", spatial, kernel_size=3, stride=1, padding=1)
    graph = g.finish(g("add", g("conv2d", g("add", x, pooled), out_channels=4, kernel_size=1), x))
    columns = dict(zip(PathFeatures().names, np.expm1(PathFeatures()([graph])[0]), strict=True))
    # Paths: x; x, 1x1; x, 3x3, pool, 1x1. The walk takes the first with 1/2 and the others with 1/4 each.
    assert columns["most weight"] == pytest.approx(2)
    assert columns["fewest weight"] == pytest.approx(0)
    assert columns["mean weight"] == pytest.approx(1)
    assert columns["walk weight"] == pytest.approx(0.75)
    assert columns["mean pool"] == pytest.approx(1 / 3)
    assert columns["walk spatial"] == pytest.approx(0.25)
    assert columns["kernel area"] == pytest.approx(10)
    assert np.log1p(columns["paths"]) == pytest.approx(np.log(1 + 3))


def test_a_graph_without_a_path_has_no_counts_on_paths() -> None:
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(4, 8, 8)), out_channels=4, kernel_size=3, padding=1)
    columns = dict(zip(PathFeatures().names, PathFeatures()([g.finish(g("zero", x))])[0], strict=True))
    assert columns["spatial"] > 0
    assert columns["paths"] == columns["most weight"] == columns["mean spatial"] == 0


def test_numbers_of_paths_beyond_all_floats_are_finite() -> None:
    g = GraphBuilder()
    x = g("input", shape=(2,))
    for _ in range(1200):
        x = g("add", x, g("relu", x))
    assert PathFeatures()([g.finish(x)])[0, 0] == pytest.approx(1200 * np.log(2))


@pytest.mark.parametrize("name", sorted(RANKING_LOSSES))
def test_a_ranking_loss_pushes_better_graphs_up_and_worse_ones_down(name: str) -> None:
    scores = torch.zeros(3, dtype=torch.double, requires_grad=True)
    targets = torch.tensor([0.2, 0.9, 0.5], dtype=torch.double)
    loss = RANKING_LOSSES[name](scores, targets)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[1] < 0 < gradient[0]
    assert torch.autograd.gradcheck(
        lambda s: RANKING_LOSSES[name](s, targets),
        (torch.tensor([0.3, 1.7, -0.4]).double().requires_grad_(),),
    )
    assert loss > RANKING_LOSSES[name](8 * targets, targets) >= 0


@pytest.mark.parametrize("name", sorted(RANKING_LOSSES))
def test_a_ranking_loss_reads_the_order_of_the_targets_alone(name: str) -> None:
    scores, targets = torch.tensor([0.3, -1.0, 2.0, 0.1]), torch.tensor([0.1, 0.7, 0.2, 0.9])
    assert RANKING_LOSSES[name](scores, targets) == RANKING_LOSSES[name](scores, targets.exp() * 100)


def test_pairs_of_equal_targets_do_not_count() -> None:
    scores = torch.tensor([1.0, -1.0])
    assert float(RANKING_LOSSES["logistic"](scores, torch.zeros(2))) == 0
    assert float(RANKING_LOSSES["hinge"](scores, torch.zeros(2))) == 0


def test_the_listwise_loss_is_the_likelihood_of_the_order() -> None:
    scores = torch.tensor([0.5, -0.2, 1.0], dtype=torch.double)
    e = scores.exp()
    likelihood = e[2] / e.sum() * e[0] / (e[0] + e[1])
    torch.testing.assert_close(
        RANKING_LOSSES["listwise"](scores, torch.tensor([2.0, 1.0, 3.0], dtype=torch.double)),
        -likelihood.log() / 3,
    )


def test_unknown_operators_share_a_vector_and_differ_by_their_names() -> None:
    gat, gcn, again = (graph_tensors(strange(name), VOCABULARY) for name in ("gat", "gcn", "gat"))
    assert gat.op_M.tolist() == gcn.op_M.tolist()
    assert UNKNOWN in gat.op_M.tolist()
    net = network()
    assert torch.equal(net(gat), net(again))
    assert not torch.allclose(net(gat), net(gcn))


def test_an_operator_of_the_vocabulary_is_learnt_by_its_name() -> None:
    known = vocabulary_of([strange("gat")])
    assert known == ("add", "input", "opaque:gat")
    assert UNKNOWN not in graph_tensors(strange("gat"), known).op_M.tolist()
    assert UNKNOWN in graph_tensors(strange("gcn"), known).op_M.tolist()


def test_new_adapters_change_nothing_and_training_them_leaves_the_base_unchanged() -> None:
    base = network()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = with_adapters(base, adapter_dim=4, seed=1)
    inputs = [graph_tensors(graph, VOCABULARY) for graph in POOL[:12]]
    assert torch.equal(adapted(join(inputs)), base(join(inputs)))
    table = LabelledGraphs(inputs, torch.linspace(-1, 1, 12))
    free = [*adapted.adapters.parameters(), *adapted.score.parameters()]
    train_network(adapted, [table], replace(QUICK, steps=5), seed=0, parameters=free)
    assert not torch.equal(adapted(join(inputs)), base(join(inputs)))
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, before[name])
        if not name.startswith("score"):
            assert torch.equal(adapted.state_dict()[name], before[name])


def test_training_lowers_the_loss_and_is_a_function_of_the_seed() -> None:
    inputs = [graph_tensors(graph, VOCABULARY) for graph in POOL[:30]]
    table = LabelledGraphs(inputs, accuracy(POOL[:30]).float())
    state = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        net = network()
        runs.append((train_network(net, [table], QUICK, seed=seed), scores_of(net, inputs)[0]))
    assert np.mean(runs[0][0][-10:]) < np.mean(runs[0][0][:10])
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("loss", sorted(RANKING_LOSSES))
def test_the_predictor_ranks_graphs_that_it_has_not_seen(loss: str) -> None:
    predictor = GraphNetworkPredictor(replace(QUICK, loss=loss), num_members=2, dim=16, num_layers=2)
    predictor.fit(POOL[:40], accuracy(POOL[:40]))
    prediction = predictor.predict(POOL[40:])
    assert kendalltau(prediction.mean, accuracy(POOL[40:])).statistic > 0.5
    assert prediction.std is not None
    assert bool((prediction.std > 0).all())
    assert float((prediction.mean - accuracy(POOL[40:])).abs().mean()) < 0.1


def test_predictions_follow_the_unit_of_the_targets() -> None:
    def fitted(targets: torch.Tensor) -> torch.Tensor:
        predictor = GraphNetworkPredictor(replace(QUICK, steps=10), num_members=1, dim=8, num_layers=1)
        predictor.fit(POOL[:20], targets)
        return predictor.predict(POOL[20:30]).mean

    plain = fitted(accuracy(POOL[:20]))
    torch.testing.assert_close(fitted(100 * accuracy(POOL[:20]) - 7), 100 * plain - 7)


def test_graphs_of_one_node_and_of_operators_never_seen_are_predicted() -> None:
    predictor = GraphNetworkPredictor(replace(QUICK, steps=3), num_members=1, dim=8, num_layers=1)
    predictor.fit([*POOL[:10], single_node()], torch.cat([accuracy(POOL[:10]), torch.zeros(1)]))
    assert bool(predictor.predict([single_node(), strange(), MIXED[3]]).mean.isfinite().all())
    assert len(predictor.predict([])) == 0


def test_constant_targets_are_predicted_as_they_are() -> None:
    predictor = GraphNetworkPredictor(replace(QUICK, steps=3), num_members=1, dim=8, num_layers=1)
    predictor.fit(POOL[:10], torch.full((10,), 0.7))
    assert predictor.predict(POOL[:3]).mean.tolist() == pytest.approx([0.7] * 3, abs=0.5)


def test_one_labelled_graph_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least 8 labelled graphs \\(got 1\\)"):
        GraphNetworkPredictor().fit(POOL[:1], torch.ones(1))


def test_targets_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        GraphNetworkPredictor().fit(POOL[:9], torch.tensor([float("nan")] * 9))


def test_predicting_before_fitting_is_refused() -> None:
    with pytest.raises(NotFittedError):
        GraphNetworkPredictor().predict(POOL[:1])


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="member"):
        GraphNetworkPredictor(num_members=0)
    with pytest.raises(ConfigError, match="'start'"):
        GraphNetworkPredictor(tuning="adapters")
    with pytest.raises(ConfigError, match="same operators"):
        GraphNetworkPredictor(start=[network(), GraphNetwork(NetworkConfig(vocabulary=("add",)))])
    with pytest.raises(ConfigError, match="op_dropout"):
        NetworkTraining(op_dropout=1.0)
    with pytest.raises(UnknownNameError, match="hinge"):
        NetworkTraining(loss="hing")
    with pytest.raises(ConfigError, match="'dim'"):
        NetworkConfig(vocabulary=(), dim=0)
