"""Pruners by name."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.predict.curves import CurvePredictor
from nasgraph.search.curve_pruner import CurvePruner

PRUNERS = ("none", "median", "halving", "hyperband", "curve")
"""Names of all pruners."""
REDUCTION = 3
"""One in so many trials passes a rung of successive halving."""


def make_pruner(
    name: str, *, num_steps: int, warmup_steps: int, predictor: CurvePredictor | None = None
) -> BasePruner:
    """A pruner for trials that report an accuracy, higher is better, after every step from 0.

    Args:
        name: One of `PRUNERS`: "none"; "median" stops a trial whose best value so far is below the median of what others
            had at that step, once five are finished (Golovin et al. 2017); "halving" lets the best third pass at steps 1, 3, 9 ...
            after the warm-up (ASHA, Li et al. 2020); "hyperband" does so with several numbers of first steps (Li et al. 2018);
            "curve" is `CurvePruner`.
        num_steps: Reports of a trial that is not stopped.
        warmup_steps: Reports before which none is stopped.
        predictor: Extrapolates curves, for "curve".

    Raises:
        UnknownNameError: If there is no pruner of that name.
        ConfigError: If "curve" has no predictor.
    """
    if name not in PRUNERS:
        raise UnknownNameError("pruner", name, PRUNERS)
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=warmup_steps)
    if name == "halving":
        return SuccessiveHalvingPruner(min_resource=max(1, warmup_steps), reduction_factor=REDUCTION)
    if name == "hyperband":
        return HyperbandPruner(
            min_resource=max(1, warmup_steps), max_resource=num_steps, reduction_factor=REDUCTION
        )
    if name == "curve":
        if predictor is None:
            raise ConfigError("Expected a predictor of curves for the pruner 'curve'")
        return CurvePruner(predictor, num_steps=num_steps, warmup_steps=warmup_steps)
    return NopPruner()
