"""Training, resuming, files, and bad input."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import ParameterGraphError, collate, parameter_graph, stack_parameter_graphs
from nasgraph.meta.networks import (
    EmbeddingConfig,
    Epoch,
    FitConfig,
    Metanetwork,
    MetanetworkConfig,
    RefineConfig,
    embed_groups,
    fit_embedding,
    fit_predictor,
    fit_refinement,
    grouped,
    load_metanetwork,
    metanetwork_description,
    predict_groups,
    refined,
    save_metanetwork,
    shipped_metanetwork,
)
from nasgraph.meta.networks.batches import Group, batches
from nasgraph.meta.networks.segments import segments
from nasgraph.meta.population import load_sample_population, perceptron
from nasgraph.meta.views import agreement
from nasgraph.modules import run_network
from tests.meta.graph.networks import full_state
from tests.meta.networks.making import GRAPHS, make

SMALL = {"layers": 2, "node_dim": 12, "edge_dim": 6, "graph_dim": 8, "frequencies": 4}


def stack(graph: ComputationalGraph, count: int, *, seed: int) -> dict[str, Tensor]:
    """Random networks whose weights have different sizes."""
    rng = torch.Generator().manual_seed(seed)
    state = full_state(graph, dtype=torch.float32)
    size = torch.rand(count, generator=rng) * 2
    return {
        name: torch.randn(count, *tensor.shape, generator=rng) * size.reshape(-1, *[1] * tensor.dim())
        for name, tensor in state.items()
    }


def data(count: int = 24, *, seed: int = 0) -> tuple[list[Group], list[Tensor]]:
    """Two architectures; the target is the share of the first weights' size."""
    groups: list[Group] = [
        (graph, stack(graph, count, seed=seed + i))
        for i, graph in enumerate((perceptron((5,)), perceptron((4, 4))))
    ]
    targets = [1 / (1 + next(iter(stacked.values())).flatten(1).std(1)) for _, stacked in groups]
    return groups, targets


def small(**settings: int | str) -> MetanetworkConfig:
    """A shape for seconds."""
    return MetanetworkConfig(**{**SMALL, **settings})  # type: ignore[arg-type]  # a table of both


@pytest.mark.parametrize("output", ["share", "number"])
def test_a_metanetwork_learns_the_size_of_weights(output: str) -> None:
    groups, targets = data()
    factor = 1.0 if output == "share" else 50.0
    losses: list[Epoch] = []
    metanetwork = fit_predictor(
        (groups, [factor * each for each in targets]),
        shape=small(output=output),
        config=FitConfig(epochs=25, batch_size=8, learning_rate=1e-2),
        on_epoch=losses.append,
    )
    unseen, truth = data(seed=7)
    found = torch.cat([each[:, 0] for each in predict_groups(metanetwork, unseen)]) / factor
    error = F.mse_loss(found, torch.cat(truth)) / torch.cat(truth).var()
    assert error < 0.15
    assert losses[-1].loss < losses[0].loss


def test_the_same_seed_gives_the_same_metanetwork_and_another_seed_another() -> None:
    groups, targets = data(6)
    found = [
        fit_predictor(
            (groups, targets), shape=small(), config=FitConfig(epochs=2, seed=seed, noise=0.05)
        ).state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    groups, targets = data(8)
    val = data(4, seed=5)
    config = FitConfig(epochs=4, batch_size=4)

    class KilledError(Exception):
        pass

    def kill(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KilledError

    whole = fit_predictor((groups, targets), val=val, shape=small(), config=config)
    with pytest.raises(KilledError):
        fit_predictor(
            (groups, targets), val=val, shape=small(), config=config, folder=tmp_path, on_epoch=kill
        )
    seen: list[int] = []
    again = fit_predictor(
        (groups, targets),
        val=val,
        shape=small(),
        config=config,
        folder=tmp_path,
        on_epoch=lambda e: seen.append(e.number),
    )
    assert seen == [3, 4]
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    with pytest.raises(CheckpointError, match="other settings"):
        fit_predictor((groups, targets), val=val, shape=small(layers=1), config=config, folder=tmp_path)


def test_training_stops_when_validation_does_not_improve() -> None:
    groups, targets = data(4)
    val = (groups, [1 - each for each in targets])
    seen: list[Epoch] = []
    fit_predictor(
        (groups, targets),
        val=val,
        shape=small(),
        config=FitConfig(epochs=60, patience=2, learning_rate=1e-2),
        on_epoch=seen.append,
    )
    assert len(seen) < 60
    assert not seen[-1].is_best
    assert not seen[-2].is_best


@pytest.mark.parametrize("kind", ["message_passing", "relational", "scale"])
def test_a_metanetwork_survives_the_disk(tmp_path: Path, kind: str) -> None:
    metanetwork = make(kind, dtype=torch.float32)
    save_metanetwork(metanetwork, tmp_path, recipe={"seed": 1}, targets=("accuracy", "loss"))
    again = load_metanetwork(tmp_path)
    graph = GRAPHS["convolutions"]
    pg = parameter_graph(graph, full_state(graph, dtype=torch.float32))
    assert torch.equal(again.predict(pg), metanetwork.predict(pg))
    assert metanetwork_description(tmp_path)["targets"] == ["accuracy", "loss"]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    save_metanetwork(make("scale"), tmp_path, recipe={})
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="checksum"):
        load_metanetwork(tmp_path)
    with pytest.raises(CheckpointError, match="No metanetwork"):
        load_metanetwork(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["message_passing", "relational", "scale"])
def test_edits_can_be_trained_through_the_network_that_they_edit(kind: str) -> None:
    graph = perceptron((6,), input_shape=(4,), num_classes=3)
    rng = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(32, 4, generator=rng), torch.randint(3, (32,), generator=rng)
    pg = parameter_graph(graph, full_state(graph, dtype=torch.float32))
    metanetwork = Metanetwork(small(kind=kind), seed=0)
    optimizer = torch.optim.Adam(metanetwork.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        state = pg.to_states(*metanetwork.edit(pg))[0]
        loss = F.cross_entropy(run_network(graph, state, (inputs,))[0], labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.03


def test_embeddings_are_unit_vectors() -> None:
    groups, _ = data(5)
    for each in embed_groups(Metanetwork(small()), groups):
        assert each.shape == (5, 64)
        torch.testing.assert_close(each.norm(dim=1), torch.ones(5))


def test_groups_of_single_networks_give_what_each_gives_alone() -> None:
    graphs = [perceptron((5,)), perceptron((4, 4)), perceptron((5,)), GRAPHS["attention"]]
    networks = [(graph, full_state(graph, seed=i, dtype=torch.float32)) for i, graph in enumerate(graphs)]
    groups, places = grouped(networks)
    metanetwork = make("message_passing", dtype=torch.float32)
    found = predict_groups(metanetwork, groups)
    for own, each in zip(places, found, strict=True):
        for place, row in zip(own.tolist(), each, strict=True):
            torch.testing.assert_close(row, metanetwork.predict(parameter_graph(*networks[place]))[0])


def test_batches_have_every_network_once_and_are_bounded() -> None:
    groups, _ = data(9)
    found = list(batches(groups, size=4, max_edges=1500, rng=torch.Generator().manual_seed(0)))
    pairs = [(number, row) for batch in found for number, rows in batch for row in rows.tolist()]
    assert sorted(pairs) == [(number, row) for number in range(2) for row in range(9)]
    assert all(sum(len(rows) for _, rows in batch) <= 4 for batch in found)
    whole = [
        stack_parameter_graphs(groups[0][0], groups[0][1]),
        stack_parameter_graphs(groups[1][0], groups[1][1]),
    ]
    assert collate(whole).num_graphs == 18


def test_sums_and_copies_over_segments_have_right_values_and_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    index = torch.tensor([2, 0, 2, 2, 4])
    there = segments(index, 5)
    rows = torch.randn(5, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    want = torch.zeros(5, 3, dtype=torch.float64).index_add(0, index, rows)
    torch.testing.assert_close(there.sum(rows), want)
    torch.testing.assert_close(there.copy(want), want[index])
    torch.testing.assert_close(there.softmax(rows)[[0, 2, 3]], rows[[0, 2, 3]].softmax(0))
    assert torch.autograd.gradcheck(there.sum, rows)
    assert torch.autograd.gradgradcheck(lambda x: there.copy(there.sum(x * x)), rows)


def test_bad_input_is_named() -> None:
    groups, targets = data(4)
    with pytest.raises(ConfigError, match="shares"):
        fit_predictor((groups, [each + 1 for each in targets]), shape=small())
    with pytest.raises(ConfigError, match="rows of targets for group 1"):
        fit_predictor((groups, [targets[0], targets[1][:2]]), shape=small())
    with pytest.raises(ConfigError, match="not all finite"):
        fit_predictor((groups, [targets[0] * float("nan"), targets[1]]), shape=small())
    with pytest.raises(ConfigError, match="'heads' to divide"):
        MetanetworkConfig(kind="relational", node_dim=10, heads=4)
    with pytest.raises(ConfigError, match="one of message_passing"):
        MetanetworkConfig(kind="other")
    broken = {name: tensor * float("nan") for name, tensor in groups[0][1].items()}
    with pytest.raises(ParameterGraphError, match="not finite"):
        fit_predictor(([(groups[0][0], broken)], targets[:1]), shape=small(), config=FitConfig(epochs=1))
    with pytest.raises(NasGraphError):
        predict_groups(Metanetwork(small()), [(groups[0][0], {})])


def test_a_diverged_network_gives_a_number() -> None:
    groups, _ = data(3)
    graph, stacked = groups[0]
    # The scale kind reads weights linearly, so it bears less.
    for kind, factor in (("message_passing", 1e6), ("relational", 1e6), ("scale", 1e2)):
        huge = {name: tensor * factor for name, tensor in stacked.items()}
        assert torch.isfinite(predict_groups(make(kind, dtype=torch.float32), [(graph, huge)])[0]).all()


def test_a_trained_embedding_finds_the_noisy_copy_of_each_network() -> None:
    groups, _ = data(12)
    rng = torch.Generator().manual_seed(3)
    noisy: list[Group] = [
        (graph, {name: t * (1 + 0.1 * torch.randn(t.shape, generator=rng)) for name, t in stacked.items()})
        for graph, stacked in groups
    ]
    losses: list[float] = []
    found = fit_embedding(
        groups,
        shape=small(embedding_dim=16),
        config=EmbeddingConfig(epochs=25, batch_size=12, learning_rate=5e-3, noise=0.1),
        on_epoch=lambda _, loss: losses.append(loss),
    )
    own, other = (torch.cat(embed_groups(found, each)) for each in (groups, noisy))
    rank = (own @ other.T).argsort(1, descending=True).argsort(1).diagonal()
    assert (rank < 2).float().mean() > 0.8
    assert losses[-1] < losses[0]


def test_networks_of_one_lineage_are_drawn_together() -> None:
    groups, _ = data(12)
    lineages = [torch.arange(12) % 2, torch.arange(12) % 2]
    found = fit_embedding(
        groups,
        lineages=lineages,
        shape=small(embedding_dim=16),
        config=EmbeddingConfig(epochs=40, batch_size=24, learning_rate=1e-2),
    )
    own, label = torch.cat(embed_groups(found, groups)), torch.cat(lineages)
    alike = own @ own.T
    same = label[:, None] == label[None]
    assert alike[same].mean() > alike[~same].mean() + 0.05
    with pytest.raises(ConfigError, match="lineages of"):
        fit_embedding(groups, lineages=lineages[:1])


def test_refinement_lowers_the_loss_of_networks_that_it_was_trained_on() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 4, generator=rng)
    labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    networks = []
    for seed, width in enumerate((5, 6)):
        graph = perceptron((width,), input_shape=(4,), num_classes=3)
        networks.append((graph, full_state(graph, seed=seed, dtype=torch.float32)))
    metanetwork = Metanetwork(small(), seed=0)
    losses: list[float] = []
    fit_refinement(
        metanetwork,
        networks,
        inputs,
        labels,
        config=RefineConfig(steps=80, batch_size=32, learning_rate=1e-2),
        on_step=lambda _, loss: losses.append(loss),
    )
    for graph, state in networks:
        before, after = (
            F.cross_entropy(run_network(graph, each, (inputs,))[0], labels).item()
            for each in (state, refined(metanetwork, (graph, state)))
        )
        assert after < before
    with pytest.raises(ConfigError, match="Expected networks"):
        fit_refinement(metanetwork, [], inputs, labels)


def test_the_shipped_metanetwork_tells_the_accuracy_of_networks_of_the_shipped_population() -> None:
    metanetwork = load_metanetwork(shipped_metanetwork())
    assert metanetwork_description(shipped_metanetwork())["targets"] == ["test_accuracy"]
    assert sum(file.stat().st_size for file in shipped_metanetwork().iterdir()) < 2**20
    population = load_sample_population()
    groups = list(population.by_architecture())
    said = torch.cat(
        [each[:, 0] for each in predict_groups(metanetwork, [(g.graph, g.state) for g in groups])]
    )
    truth = torch.cat([torch.from_numpy(population.table["test_accuracy"][g.indices]) for g in groups])
    found = agreement(said, truth)
    assert found["r2"] > 0.6
    assert found["tau"] > 0.5
    with pytest.raises(CheckpointError, match="No installed package"):
        shipped_metanetwork("nothing")
