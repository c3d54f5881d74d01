"""Graph hypernetworks: graphs to parameters."""

from nasgraph.hyper.checkpoint import load_ghn, save_ghn
from nasgraph.hyper.distributed import Ranks, joined_ranks
from nasgraph.hyper.ghn import GHNConfig, GraphHyperNetwork, Parameters
from nasgraph.hyper.initialise import Initialisation, initialise, orthogonalise
from nasgraph.hyper.splits import (
    EvaluationSplit,
    SplitList,
    held_out_candidates,
    held_out_fingerprints,
    split_list,
    training_candidate,
)
from nasgraph.hyper.train import TrainStep, train_ghn
from nasgraph.hyper.training_config import Execution, GHNTrainConfig

__all__ = [
    "EvaluationSplit",
    "Execution",
    "GHNConfig",
    "GHNTrainConfig",
    "GraphHyperNetwork",
    "Initialisation",
    "Parameters",
    "Ranks",
    "SplitList",
    "TrainStep",
    "held_out_candidates",
    "held_out_fingerprints",
    "initialise",
    "joined_ranks",
    "load_ghn",
    "orthogonalise",
    "save_ghn",
    "split_list",
    "train_ghn",
    "training_candidate",
]
