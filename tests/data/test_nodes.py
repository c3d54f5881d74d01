"""Data sets whose examples are the nodes of one graph."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasgraph.data import DataRequest, DataSet, Preparation, load_dataset
from nasgraph.data import load as loading
from nasgraph.data.nodes import RawNodeData, prepare_nodes
from nasgraph.data.planetoid import load_citeseer, load_cora
from nasgraph.errors import ConfigError, DataError

FEATURES = np.array(
    [[2, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 3, 0, 1], [1, 0, 0, 0]], dtype=np.float32
)
EDGES = np.array([[0, 0, 3, 1], [1, 4, 2, 5]])


def archive(**changes: Any) -> dict[str, Any]:
    """A graph of six nodes in the form of the planetoid archives."""
    rows, columns = FEATURES.nonzero()
    arrays = {
        "x_indptr": np.concatenate([[0], np.bincount(rows, minlength=6).cumsum()]).astype(np.int32),
        "x_indices": columns.astype(np.int32),
        "x_data": FEATURES[rows, columns],
        "x_shape": np.array([6, 4], dtype=np.int32),
        "y": np.array([0, 1, 2, 0, 1, 6], dtype=np.int8),
        "edge_index": EDGES.astype(np.int32),
        "train_idx": np.array([1, 0], dtype=np.int32),
        "val_idx": np.array([3, 2], dtype=np.int32),
        "test_idx": np.array([5], dtype=np.int32),
    }
    return {**arrays, **changes}


def raw_of(folder: Path, arrays: Mapping[str, Any]) -> RawNodeData:
    np.savez(folder / "planetoid_cora.npz", **arrays)
    return load_cora(DataRequest(folder))


def small(folder: Path, **changes: Any) -> DataSet:
    return prepare_nodes(raw_of(folder, archive(**changes)), name="cora", settings=Preparation())


def test_the_parts_are_those_of_the_public_split(tmp_path: Path) -> None:
    data = small(tmp_path)
    parts = (data.search.train, data.search.validation, data.test)
    assert [part.nodes.index.tolist() for part in parts if part.nodes] == [[1, 0], [3, 2], [5]]
    assert [part.targets.tolist() for part in parts] == [[1, 0], [0, 2], [6]]
    assert (data.input_shape, data.num_classes) == ((4,), 7)


def test_features_are_divided_by_their_sum_and_a_node_without_any_keeps_zeros(tmp_path: Path) -> None:
    data = small(tmp_path)
    assert data.search.graph is not None
    dense = data.search.graph.features.to_dense()
    expected = FEATURES / np.maximum(FEATURES.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(dense.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(data.search.train.inputs, dense[[1, 0]])
    torch.testing.assert_close(data.search.validation.inputs, dense[[3, 2]])


def test_every_edge_stands_there_in_both_directions(tmp_path: Path) -> None:
    graph = small(tmp_path).search.graph
    assert graph is not None
    pairs = {(int(a), int(b)) for a, b in graph.edges.t()}
    assert pairs == {(a, b) for a, b in EDGES.T} | {(b, a) for a, b in EDGES.T}
    assert graph.edges.shape == (2, 8)
    assert graph.edges[1].tolist() == sorted(graph.edges[1].tolist())


def test_a_search_sees_all_nodes_and_edges_but_no_label_of_a_test_node(tmp_path: Path) -> None:
    one = small(tmp_path)
    other = small(tmp_path, y=np.array([0, 1, 2, 0, 1, 3], dtype=np.int8))
    for part, twin in (
        (one.search.train, other.search.train),
        (one.search.validation, other.search.validation),
    ):
        assert torch.equal(part.targets, twin.targets)
    assert one.test.targets.tolist() != other.test.targets.tolist()
    assert one.sha256 != other.sha256


def test_the_hash_is_of_the_content_alone(tmp_path: Path) -> None:
    wide = {name: array.astype(np.int64) for name, array in archive().items() if name != "x_data"}
    assert small(tmp_path).sha256 == small(tmp_path, **wide).sha256
    assert small(tmp_path).sha256 != small(tmp_path, train_idx=np.array([0, 1])).sha256


def test_picking_and_moving_keep_the_place_in_the_graph(tmp_path: Path) -> None:
    data = small(tmp_path)
    picked = data.search.train.pick(torch.tensor([1]))
    assert picked.nodes is not None
    assert picked.nodes.index.tolist() == [0]
    moved = data.to("cpu").search.train.nodes
    assert moved is not None
    assert data.search.graph is not None
    assert torch.equal(moved.graph.edges, data.search.graph.edges)
    with pytest.raises(ValueError, match=r"one target per node .got 2 and 1"):
        replace(picked, nodes=data.search.train.nodes)


def test_a_plug_in_that_gives_nodes_is_prepared_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw_of(tmp_path, archive())
    monkeypatch.setattr(loading, "load_plugin", lambda *_, **__: lambda _: raw)
    data = load_dataset("cora", data_dir=tmp_path)
    assert data.search.graph is not None
    with pytest.raises(ConfigError, match=r"'cora' is a graph with a public split. Leave out 'image_size'"):
        load_dataset("cora", data_dir=tmp_path, image_size=8)
    with pytest.raises(ConfigError, match="and 'num_train'"):
        load_dataset("cora", data_dir=tmp_path, num_train=2)


def test_a_seed_that_has_no_effect_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = raw_of(tmp_path, archive())
    one = prepare_nodes(raw, name="cora", settings=Preparation(split_seed=3))
    assert "'cora' has a public split, so 'split_seed' has no effect" in caplog.text
    assert torch.equal(one.search.train.targets, small(tmp_path).search.train.targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.array([0, 1, 2, 0, 1, 7])}, "expected 'labels' from 0 to 6 .got 0 to 7"),
        ({"y": np.array([0, 1, 2])}, r"expected 'labels' as int64 \[6\]"),
        ({"y": np.zeros(6, dtype=np.float32)}, "Expected integers as 'y'"),
        ({"edge_index": np.array([[0, 1], [1, 0]])}, "every edge once, between two different nodes"),
        ({"edge_index": np.array([[2], [2]])}, "every edge once, between two different nodes"),
        ({"edge_index": np.array([[0], [6]])}, "expected 'edges' from 0 to 5"),
        ({"edge_index": np.array([0, 1])}, "expected 'edges'"),
        ({"val_idx": np.array([1])}, "each node at most once in train, validation and test"),
        ({"val_idx": np.array([], dtype=np.int64)}, "at least one node in 'validation'"),
        ({"train_idx": np.array([0])}, "at least 2 classes in the training nodes"),
        ({"x_indptr": np.array([0, 3, 4, 4, 8, 10, 12])}, "'row_starts' from 0 to"),
        ({"x_indptr": np.array([0, 3, 2, 4, 8, 10, 11])}, "'row_starts' to rise"),
        ({"x_indices": np.array([0, 3, 2, 1, 0, 1, 2, 3, 1, 3, 0])}, "in ascending order"),
        ({"x_data": np.full(11, np.nan, dtype=np.float32)}, "a feature is NaN or infinite"),
        ({"x_data": np.ones(3, dtype=np.float32)}, "one float32 value per feature"),
        ({"x_shape": np.array([5, 4])}, "'x_shape' in .* to be nodes and features"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        raw_of(tmp_path, archive(**changes))


def test_a_missing_file_is_named_and_pickles_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "ind.cora.x").write_bytes(b"\x80\x02")
    with pytest.raises(
        DataError, match=r"There is no 'planetoid_cora.npz' in .* pickles, which are not opened"
    ):
        load_cora(DataRequest(tmp_path))
    incomplete = archive()
    del incomplete["test_idx"]
    with pytest.raises(DataError, match=r"Expected the arrays .*test_idx"):
        raw_of(tmp_path, incomplete)


@pytest.mark.parametrize(
    ("load", "nodes", "features", "edges", "classes", "train"),
    [(load_cora, 2708, 1433, 5278, 7, 140), (load_citeseer, 3327, 3703, 4552, 6, 120)],
)
def test_the_published_graphs_have_the_published_sizes(
    shared_data: Path, load: Any, nodes: int, features: int, edges: int, classes: int, train: int
) -> None:
    data = prepare_nodes(load(DataRequest(shared_data)), name="real", settings=Preparation())
    assert data.search.graph is not None
    assert tuple(data.search.graph.features.shape) == (nodes, features)
    assert data.search.graph.edges.shape == (2, 2 * edges)
    assert data.num_classes == classes
    assert [len(p) for p in (data.search.train, data.search.validation, data.test)] == [train, 500, 1000]
    assert torch.bincount(data.search.train.targets).tolist() == [20] * classes
