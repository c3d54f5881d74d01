"""Learning curves and scaling laws: what a training will reach, and what a larger model would."""

from nasgraph.predict.curves.baselines import LastValue, LeastSquares, SampledPrior
from nasgraph.predict.curves.checkpoint import load_curve_network, save_curve_network
from nasgraph.predict.curves.curve import (
    ACCURACY,
    PERCENT,
    CurveError,
    CurveScale,
    PartialCurve,
    loss_scale,
    scale_for,
)
from nasgraph.predict.curves.fitted import NetworkCurves
from nasgraph.predict.curves.network import CurveNetwork, CurveNetworkConfig
from nasgraph.predict.curves.posterior import CurvePosterior, CurvePredictor
from nasgraph.predict.curves.prior import (
    PAPER_PRIOR,
    WIDE_PRIOR,
    CurvePriorConfig,
    draw_curves,
    sample_curves,
)
from nasgraph.predict.curves.scaling import (
    ScalingConfig,
    ScalingError,
    ScalingLaw,
    ScalingPrediction,
    fit_scaling_law,
    what_if_larger,
)
from nasgraph.predict.curves.train import CurveTrainConfig, train_step

__all__ = [
    "ACCURACY",
    "PAPER_PRIOR",
    "PERCENT",
    "WIDE_PRIOR",
    "CurveError",
    "CurveNetwork",
    "CurveNetworkConfig",
    "CurvePosterior",
    "CurvePredictor",
    "CurvePriorConfig",
    "CurveScale",
    "CurveTrainConfig",
    "LastValue",
    "LeastSquares",
    "NetworkCurves",
    "PartialCurve",
    "SampledPrior",
    "ScalingConfig",
    "ScalingError",
    "ScalingLaw",
    "ScalingPrediction",
    "draw_curves",
    "fit_scaling_law",
    "load_curve_network",
    "loss_scale",
    "sample_curves",
    "save_curve_network",
    "scale_for",
    "train_step",
    "what_if_larger",
]
