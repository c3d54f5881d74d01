"""Graph hypernetworks: graphs to parameters."""

from nasgraph.hyper.checkpoint import load_ghn, save_ghn
from nasgraph.hyper.ghn import GHNConfig, GraphHyperNetwork, Parameters
from nasgraph.hyper.train import GHNTrainConfig, TrainStep, held_out_candidates, train_ghn

__all__ = [
    "GHNConfig",
    "GHNTrainConfig",
    "GraphHyperNetwork",
    "Parameters",
    "TrainStep",
    "held_out_candidates",
    "load_ghn",
    "save_ghn",
    "train_ghn",
]
