"""Cora and CiteSeer with the public split of Planetoid (Yang, Cohen and Salakhutdinov, "Revisiting Semi-Supervised
Learning with Graph Embeddings", 2016).

The published files are pickles, which nasgraph never opens. It reads archives of plain arrays made from them:
`planetoid_<name>.npz` with `x_indptr`, `x_indices`, `x_data`, `x_shape` (compressed rows of the features), `y`,
`edge_index` (each undirected edge once), `train_idx`, `val_idx` and `test_idx`.
"""

import numpy as np

from nasgraph.data.arrays import open_npz
from nasgraph.data.nodes import RawNodeData
from nasgraph.data.records import Array, DataRequest
from nasgraph.data.splitting import IntArray
from nasgraph.errors import DataError

_INTEGERS = ("x_indptr", "x_indices", "x_shape", "y", "edge_index", "train_idx", "val_idx", "test_idx")
_SOURCE = "https://github.com/kimiyoung/planetoid"


def load_cora(request: DataRequest) -> RawNodeData:
    """2,708 papers on machine learning in 7 classes: 1,433 words, 5,278 citations; 140 nodes to train on, 500 to
    validate, 1,000 to test.

    Raises:
        DataError: If the file is missing or damaged.
    """
    return _load(request, "cora", num_classes=7)


def load_citeseer(request: DataRequest) -> RawNodeData:
    """3,327 papers in 6 classes: 3,703 words, 4,552 citations; 120 nodes to train on, 500 to validate, 1,000 to test.

    Raises:
        DataError: If the file is missing or damaged.
    """
    return _load(request, "citeseer", num_classes=6)


def _load(request: DataRequest, name: str, *, num_classes: int) -> RawNodeData:
    file = f"planetoid_{name}.npz"
    places = [folder / file for folder in (request.data_dir, request.data_dir / "planetoid")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"There is no '{file}' in '{request.data_dir}'. The published files are pickles, which are not opened; "
            "docs/gnn.md says which arrays the archive holds"
        )
    arrays = open_npz(path, required=(*_INTEGERS, "x_data"))
    whole = {key: _integers(arrays[key], f"'{key}' in '{path}'") for key in _INTEGERS}
    if whole["x_shape"].shape != (2,) or len(whole["x_indptr"]) != whole["x_shape"][0] + 1:
        raise DataError(f"Expected 'x_shape' in '{path}' to be nodes and features")
    return RawNodeData(
        row_starts=whole["x_indptr"],
        columns=whole["x_indices"],
        values=np.asarray(arrays["x_data"], dtype=np.float32),
        num_features=int(whole["x_shape"][1]),
        labels=whole["y"],
        edges=whole["edge_index"],
        train=whole["train_idx"],
        validation=whole["val_idx"],
        test=whole["test_idx"],
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        licence="MIT",
        source=_SOURCE,
    )


def _integers(array: Array, what: str) -> IntArray:
    if array.dtype.kind not in "iu":
        raise DataError(f"Expected integers as {what} (got {array.dtype})")
    return array.astype(np.int64)
