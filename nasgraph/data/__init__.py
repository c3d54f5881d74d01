"""Data sets: found by name or path, split so that a search never sees test data, kept in memory."""

from nasgraph.data.batches import Augmentation, add_noise, augment, batches, random_flip, random_shift
from nasgraph.data.load import dataset_names, find_data_dir, load_dataset
from nasgraph.data.nodes import RawNodeData, prepare_nodes
from nasgraph.data.prepare import Preparation, prepare
from nasgraph.data.records import (
    DataGraph,
    DataRequest,
    DataSet,
    Nodes,
    Normalisation,
    RawData,
    SearchData,
    Split,
)

__all__ = [
    "Augmentation",
    "DataGraph",
    "DataRequest",
    "DataSet",
    "Nodes",
    "Normalisation",
    "Preparation",
    "RawData",
    "RawNodeData",
    "SearchData",
    "Split",
    "add_noise",
    "augment",
    "batches",
    "dataset_names",
    "find_data_dir",
    "load_dataset",
    "prepare",
    "prepare_nodes",
    "random_flip",
    "random_shift",
]
