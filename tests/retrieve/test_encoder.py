"""The encoder: order of nodes, batches, unit length, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.retrieve import (
    ArchitectureEncoder,
    EncoderConfig,
    encoder,
    encoder_sha256,
    load_encoder,
    save_encoder,
)
from nasgraph.retrieve.inputs import WORD_BUCKETS, join, read_graph
from tests.ir.making import branches, chain
from tests.retrieve.making import reordered, residual_network, sampled_graphs, staged_network

CONFIGS = (
    EncoderConfig(),
    EncoderConfig(num_motif_layers=0),
    EncoderConfig(word_dim=0),
    EncoderConfig(num_layers=0, num_motif_layers=0, word_dim=0, dim=8, embedding_dim=16),
)


@pytest.fixture(scope="module")
def graphs() -> list[ComputationalGraph]:
    return [*sampled_graphs(3), staged_network(), branches(4, length=3), chain(20)]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_order_of_nodes_does_not_matter(config: EncoderConfig, graphs: list[ComputationalGraph]) -> None:
    rng = np.random.default_rng(0)
    network = ArchitectureEncoder(config, seed=1)
    rows = network.embed(graphs)
    others = network.embed([reordered(graph, rng)[0] for graph in graphs])
    np.testing.assert_allclose(others, rows, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_the_other_graphs_of_a_batch_do_not_matter(
    config: EncoderConfig, graphs: list[ComputationalGraph]
) -> None:
    network = ArchitectureEncoder(config)
    alone = np.concatenate([network.embed([graph]) for graph in graphs])
    np.testing.assert_allclose(network.embed(graphs), alone, atol=1e-5)


def test_rows_are_unit_vectors_in_single_precision(graphs: list[ComputationalGraph]) -> None:
    rows = ArchitectureEncoder().embed(graphs)
    assert rows.dtype == np.float32
    assert rows.shape == (len(graphs), 128)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_no_graphs_give_no_rows() -> None:
    assert ArchitectureEncoder().embed([]).shape == (0, 128)


def test_graphs_are_read_a_few_at_a_time(
    graphs: list[ComputationalGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ArchitectureEncoder()
    whole = network.embed(graphs)
    monkeypatch.setattr(encoder, "BATCH_NODES", 100)
    np.testing.assert_allclose(network.embed(graphs), whole, atol=1e-5)


def test_embedding_keeps_the_mode_of_the_network(graphs: list[ComputationalGraph]) -> None:
    network = ArchitectureEncoder().train()
    network.embed(graphs[:1])
    assert network.training


def test_even_without_training_a_variant_is_nearer_than_another_design() -> None:
    base, deeper, other = residual_network(6), residual_network(7), chain(40)
    a, b, c = ArchitectureEncoder().embed([base, deeper, other])
    assert a @ b > a @ c + 0.2


def test_large_and_tiny_graphs_are_embedded() -> None:
    g = GraphBuilder()
    tiny = g.finish(g("input", shape=(3,)))
    rows = ArchitectureEncoder().embed([tiny, residual_network(300)])
    assert np.isfinite(rows).all()


def test_opaque_operators_have_places_of_their_own() -> None:
    def with_opaque(name: str) -> ComputationalGraph:
        g = GraphBuilder()
        x = g("linear", g("input", shape=(4,)), out_features=4)
        return g.finish(g("opaque", x, name=name, shape=(4,), dtype="float"))

    a, b = (with_opaque(name) for name in ("fft", "sort"))
    first, second = ArchitectureEncoder().embed([a, b])
    assert abs(first - second).max() > 1e-3


def test_joined_inputs_are_numbered_through(graphs: list[ComputationalGraph]) -> None:
    parts = [read_graph(graph) for graph in graphs[:5]]
    joined = join(parts)
    assert len(joined) == 5
    assert joined.num_nodes == sum(map(len, graphs[:5]))
    assert torch.bincount(joined.graph_M).tolist() == [len(graph) for graph in graphs[:5]]
    assert torch.equal(joined.graph_M[joined.source_E], joined.graph_M[joined.target_E])
    assert torch.equal(joined.graph_K[joined.motif_M], joined.graph_M)
    assert int(joined.word_W.max()) < WORD_BUCKETS
    with pytest.raises(ValueError, match="at least one graph"):
        join([])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (ArchitectureEncoder(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.words.weight, same.words.weight)
    assert not torch.equal(one.words.weight, other.words.weight)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"embedding_dim": 9999}, {"num_layers": -1}, {"word_dim": -1}])
def test_absurd_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        EncoderConfig(**wrong)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = EncoderConfig(dim=8, word_dim=4, embedding_dim=16, num_layers=1, num_motif_layers=1)
    save_encoder(ArchitectureEncoder(config, seed=5), tmp_path, recipe={"steps": 0})
    return tmp_path


def test_a_file_gives_back_the_encoder(folder: Path, graphs: list[ComputationalGraph]) -> None:
    network = load_encoder(folder)
    again = ArchitectureEncoder(network.config, seed=5)
    np.testing.assert_array_equal(network.embed(graphs), again.embed(graphs))
    assert not network.training
    assert len(encoder_sha256(folder)) == 64


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_changed_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        load_encoder(folder)


def test_foreign_and_missing_files_are_refused(folder: Path, tmp_path: Path) -> None:
    change(folder, schema="nasgraph/ghn/1")
    with pytest.raises(CheckpointError, match="to have schema"):
        load_encoder(folder)
    with pytest.raises(CheckpointError, match="No architecture encoder"):
        load_encoder(tmp_path / "nothing")


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Cannot read"):
        load_encoder(folder)


def test_other_features_are_refused(folder: Path) -> None:
    change(folder, reads={"nodes": []})
    with pytest.raises(CheckpointError, match="reads other features"):
        load_encoder(folder)


@pytest.mark.parametrize("config", [None, {}, {"dim": 8}])
def test_incomplete_configurations_are_refused(folder: Path, config: object) -> None:
    change(folder, config=config)
    with pytest.raises(CheckpointError, match="exactly the fields"):
        load_encoder(folder)


def test_wrong_sizes_are_refused(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    change(folder, config={**document["config"], "dim": "8"})
    with pytest.raises(CheckpointError, match="to be of type int"):
        load_encoder(folder)
    change(folder, config={**document["config"], "dim": 4096, "embedding_dim": 4096})
    with pytest.raises(CheckpointError, match="shape"):
        load_encoder(folder)
    change(folder, config={**document["config"], "dim": 0})
    with pytest.raises(CheckpointError, match="Expected 'dim'"):
        load_encoder(folder)
