"""Data sets whose examples are the nodes of one graph: what a loader returns, and how it is prepared."""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nasgraph.data.prepare import Preparation
from nasgraph.data.records import Array, DataGraph, DataSet, Nodes, Normalisation, SearchData, Split
from nasgraph.data.splitting import IntArray
from nasgraph.errors import ConfigError, DataError
from nasgraph.files import canonical_json
from nasgraph.modules.kernels.sparse import sparse_rows

logger = logging.getLogger(__name__)

MAX_DENSE_BYTES = 8 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawNodeData:
    """What a loader of a graph with labelled nodes returns: the content and the split as published.

    An instance is checked: whoever holds one need not check again. The arrays must not be changed.

    Args:
        row_starts: Where each node's features start in `columns`, and where the last ones end: nodes + 1 integers.
        columns: Numbers of the features that are not zero, ascending within a node.
        values: Their values, float32.
        num_features: Length of a node's feature vector.
        labels: Class of every node, integers that index `class_names`.
        edges: `[2, edges]`, every undirected edge once, without loops.
        train, validation, test: Nodes of the public split, disjoint. A node may be in none.
        class_names: One name per class.
        licence: Licence of the data, or what is known about it.
        source: Where the data is from. Error messages begin with it.

    Raises:
        DataError: If something has another form, refers to a node or class that is not there, or is repeated.
    """

    row_starts: IntArray
    columns: IntArray
    values: npt.NDArray[np.float32]
    num_features: int
    labels: IntArray
    edges: IntArray
    train: IntArray
    validation: IntArray
    test: IntArray
    class_names: tuple[str, ...]
    licence: str
    source: str

    def __post_init__(self) -> None:
        self._check_features()
        self._refuse("labels", self.labels, limit=len(self.class_names), shape=(self.num_nodes,))
        self._refuse("edges", self.edges, limit=self.num_nodes, shape=(2, self.edges.shape[-1]))
        low, high = self.edges.min(axis=0), self.edges.max(axis=0)
        if (low == high).any() or len(np.unique(low * self.num_nodes + high)) < self.edges.shape[1]:
            raise DataError(f"{self.source}: expected every edge once, between two different nodes")
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            self._refuse(name, part, limit=self.num_nodes, shape=(len(part),))
            if len(part) == 0:
                raise DataError(f"{self.source}: expected at least one node in '{name}' (got 0)")
        split = np.concatenate([self.train, self.validation, self.test])
        if len(np.unique(split)) < len(split):
            raise DataError(f"{self.source}: expected each node at most once in train, validation and test")
        if len(np.unique(self.labels[self.train])) < 2:
            raise DataError(f"{self.source}: expected at least 2 classes in the training nodes (got 1)")

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.row_starts) - 1

    def _check_features(self) -> None:
        count = len(self.columns)
        self._refuse("row_starts", self.row_starts, limit=count + 1, shape=(len(self.row_starts),))
        if self.num_nodes < 1 or self.row_starts[0] != 0 or self.row_starts[-1] != count:
            raise DataError(f"{self.source}: expected 'row_starts' from 0 to the number of values")
        if (np.diff(self.row_starts) < 0).any():
            raise DataError(f"{self.source}: expected 'row_starts' to rise")
        self._refuse("columns", self.columns, limit=self.num_features, shape=(count,))
        place = np.repeat(np.arange(self.num_nodes), np.diff(self.row_starts)) * self.num_features
        if (np.diff(place + self.columns) <= 0).any():
            raise DataError(f"{self.source}: expected the features of each node in ascending order")
        if self.values.dtype != np.float32 or self.values.shape != self.columns.shape:
            got = f"{self.values.dtype} {list(self.values.shape)}"
            raise DataError(
                f"{self.source}: expected one float32 value per feature that is not zero (got {got})"
            )
        if not np.isfinite(self.values).all():
            raise DataError(f"{self.source}: a feature is NaN or infinite")

    def _refuse(self, name: str, numbers: Array, *, limit: int, shape: tuple[int, ...]) -> None:
        """Refuse what is not an array of 64-bit integers from 0 to below `limit`."""
        if numbers.dtype != np.int64 or numbers.shape != shape:
            got = f"{numbers.dtype} {list(numbers.shape)}"
            raise DataError(f"{self.source}: expected '{name}' as int64 {list(shape)} (got {got})")
        if numbers.size and (numbers.min() < 0 or numbers.max() >= limit):
            wrong = f"{numbers.min()} to {numbers.max()}"
            raise DataError(f"{self.source}: expected '{name}' from 0 to {limit - 1} (got {wrong})")


def prepare_nodes(raw: RawNodeData, *, name: str, settings: Preparation) -> DataSet:
    """Prepare a graph with its public split. The features of each node are divided by the sum of their magnitudes, as
    Kipf and Welling (2017) do; a node without features keeps zeros.

    Args:
        raw: Content as published.
        name: Name to record.
        settings: There is nothing to divide or size, so all have to be the default. A `split_seed` is recorded.

    Raises:
        ConfigError: If `settings` ask for a size.
        DataError: If the features of all split nodes would need more than 8 GiB.
    """
    if settings.image_size is not None or settings.num_train is not None:
        raise ConfigError(f"'{name}' is a graph with a public split. Leave out 'image_size' and 'num_train'")
    if settings.split_seed != 0:
        logger.warning("'%s' has a public split, so 'split_seed' has no effect", name)
    parts = (raw.train, raw.validation, raw.test)
    if 4 * sum(map(len, parts)) * raw.num_features > MAX_DENSE_BYTES:
        raise DataError(f"{raw.source}: the features of {sum(map(len, parts)):,} nodes are too large")
    features = _features(raw)
    graph = DataGraph(features, _both_directions(raw.edges))
    train, validation, test = (_split(raw, graph, index) for index in parts)
    same = (0.0,) * raw.num_features, (1.0,) * raw.num_features
    return DataSet(
        search=SearchData(name, (raw.num_features,), len(raw.class_names), train, validation),
        test=test,
        class_names=raw.class_names,
        sha256=_sha256(raw),
        split_seed=settings.split_seed,
        licence=raw.licence,
        source=raw.source,
        normalisation=Normalisation(1.0, *same),
    )


def _features(raw: RawNodeData) -> Tensor:
    counts = np.diff(raw.row_starts)
    row = np.repeat(np.arange(raw.num_nodes), counts)
    total = np.bincount(row, weights=np.abs(raw.values, dtype=np.float64), minlength=raw.num_nodes)
    total[total == 0] = 1.0
    values = (raw.values / total[row]).astype(np.float32)
    shape = (raw.num_nodes, raw.num_features)
    starts, columns = (torch.from_numpy(np.ascontiguousarray(part)) for part in (raw.row_starts, raw.columns))
    return sparse_rows(starts, columns, torch.from_numpy(values), shape, check=True)


def _both_directions(edges: IntArray) -> Tensor:
    """Each edge in both directions, in the order of the targets, which makes summing over neighbours fast."""
    both: npt.NDArray[np.int64] = np.concatenate([edges, edges[::-1]], axis=1)
    return torch.from_numpy(np.ascontiguousarray(both[:, np.lexsort((both[0], both[1]))]))


def _split(raw: RawNodeData, graph: DataGraph, index: IntArray) -> Split:
    nodes = torch.from_numpy(index)
    rows = torch.zeros(len(index), raw.num_features)
    starts, columns, values = (
        graph.features.crow_indices(),
        graph.features.col_indices(),
        graph.features.values(),
    )
    for row, node in enumerate(index.tolist()):
        own = slice(int(starts[node]), int(starts[node + 1]))
        rows[row, columns[own]] = values[own]
    return Split(rows, torch.from_numpy(raw.labels[index]), Nodes(graph, nodes))


def _sha256(raw: RawNodeData) -> str:
    """Over class names, shapes and values of everything published, in one byte order."""
    digest = hashlib.sha256(canonical_json([list(raw.class_names), raw.num_features]).encode())
    arrays = (
        raw.row_starts,
        raw.columns,
        raw.values,
        raw.labels,
        raw.edges,
        raw.train,
        raw.validation,
        raw.test,
    )
    for array in arrays:
        kind = "<f4" if array.dtype == np.float32 else "<i8"
        digest.update(canonical_json([kind, list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array, dtype=kind).data)
    return digest.hexdigest()
