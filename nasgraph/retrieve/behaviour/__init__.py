"""Which model fits my data: models and data sets described by behaviour alone, and rankings of one for the other."""

from nasgraph.retrieve.behaviour.alignment import (
    AlignConfig,
    Alignment,
    AlignmentConfig,
    Episode,
    train_alignment,
)
from nasgraph.retrieve.behaviour.alignment_files import load_alignment, save_alignment
from nasgraph.retrieve.behaviour.baselines import Probe, leep, linear_probe, log_me
from nasgraph.retrieve.behaviour.data_side import DataDescription, describe_classes, describe_data
from nasgraph.retrieve.behaviour.episodes import EpisodeConfig, draw_episodes
from nasgraph.retrieve.behaviour.features import EXTRACTOR, NUM_FEATURES, image_features
from nasgraph.retrieve.behaviour.inputs import fit_images
from nasgraph.retrieve.behaviour.model_side import DescribeConfig, ModelDescription, describe_model
from nasgraph.retrieve.behaviour.probes import PROBES, probe_images
from nasgraph.retrieve.behaviour.ranking import METHODS, RankConfig, RankedModel, rank_models
from nasgraph.retrieve.behaviour.records import (
    Candidate,
    QueryData,
    candidate_from_graph,
    lazy_candidate,
    outputs_of,
    query_from_dataset,
    query_from_split,
)

__all__ = [
    "EXTRACTOR",
    "METHODS",
    "NUM_FEATURES",
    "PROBES",
    "AlignConfig",
    "Alignment",
    "AlignmentConfig",
    "Candidate",
    "DataDescription",
    "DescribeConfig",
    "Episode",
    "EpisodeConfig",
    "ModelDescription",
    "Probe",
    "QueryData",
    "RankConfig",
    "RankedModel",
    "candidate_from_graph",
    "describe_classes",
    "describe_data",
    "describe_model",
    "draw_episodes",
    "fit_images",
    "image_features",
    "lazy_candidate",
    "leep",
    "linear_probe",
    "load_alignment",
    "log_me",
    "outputs_of",
    "probe_images",
    "query_from_dataset",
    "query_from_split",
    "rank_models",
    "save_alignment",
    "train_alignment",
]
