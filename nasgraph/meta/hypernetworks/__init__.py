"""Parameters as a function of something: one hypernetwork base, continual learning, and the response to hyper-parameters."""

from nasgraph.meta.hypernetworks.config import CONDITIONS, GENERATORS, HypernetworkConfig
from nasgraph.meta.hypernetworks.continual import (
    ContinualConfig,
    ContinualLearner,
    ContinualScores,
    LearntTask,
)
from nasgraph.meta.hypernetworks.files import load_hypernetwork, save_hypernetwork
from nasgraph.meta.hypernetworks.hypernetwork import Hypernetwork, encode_condition
from nasgraph.meta.hypernetworks.response import (
    Box,
    JointConfig,
    Response,
    ResponseConfig,
    Tuned,
    fit_response,
    tune,
    tune_jointly,
)
from nasgraph.meta.hypernetworks.self_tuning import (
    ConditionalGraph,
    SelfTuned,
    SelfTuningConfig,
    conditional_graph,
    self_tune,
)
from nasgraph.meta.hypernetworks.target import Target

__all__ = [
    "CONDITIONS",
    "GENERATORS",
    "Box",
    "ConditionalGraph",
    "ContinualConfig",
    "ContinualLearner",
    "ContinualScores",
    "Hypernetwork",
    "HypernetworkConfig",
    "JointConfig",
    "LearntTask",
    "Response",
    "ResponseConfig",
    "SelfTuned",
    "SelfTuningConfig",
    "Target",
    "Tuned",
    "conditional_graph",
    "encode_condition",
    "fit_response",
    "load_hypernetwork",
    "save_hypernetwork",
    "self_tune",
    "tune",
    "tune_jointly",
]
