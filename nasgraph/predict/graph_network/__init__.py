"""A graph network with a ranking loss, and what is learnt from several spaces for another one."""

from nasgraph.predict.graph_network.checkpoint import load_pretrained, save_pretrained
from nasgraph.predict.graph_network.inputs import GraphTensors, from_batch, graph_tensors, join, to_data
from nasgraph.predict.graph_network.losses import RANKING_LOSSES, RankingLoss
from nasgraph.predict.graph_network.network import GraphNetwork, NetworkConfig, with_adapters
from nasgraph.predict.graph_network.path_features import PathFeatures
from nasgraph.predict.graph_network.predictor import GraphNetworkPredictor, Tuning
from nasgraph.predict.graph_network.pretrained import (
    Description,
    Memory,
    PretrainedPredictor,
    Pretraining,
    Tables,
    pretrain,
)
from nasgraph.predict.graph_network.process import fit_process
from nasgraph.predict.graph_network.training import LabelledGraphs, NetworkTraining, scores_of, train_network

__all__ = [
    "RANKING_LOSSES",
    "Description",
    "GraphNetwork",
    "GraphNetworkPredictor",
    "GraphTensors",
    "LabelledGraphs",
    "Memory",
    "NetworkConfig",
    "NetworkTraining",
    "PathFeatures",
    "PretrainedPredictor",
    "Pretraining",
    "RankingLoss",
    "Tables",
    "Tuning",
    "fit_process",
    "from_batch",
    "graph_tensors",
    "join",
    "load_pretrained",
    "pretrain",
    "save_pretrained",
    "scores_of",
    "to_data",
    "train_network",
    "with_adapters",
]
