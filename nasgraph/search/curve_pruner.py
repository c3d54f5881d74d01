"""Stopping trials that will not beat the best, by extrapolating their learning curves."""

import math

import optuna
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nasgraph.errors import ConfigError
from nasgraph.predict.curves import ACCURACY, CurvePredictor, CurveScale, PartialCurve


class CurvePruner(BasePruner):
    """Prunes a trial when the probability that it ends better than the best finished trial falls below a threshold.

    The rule of Domhan et al. 2015 and Adriaensen et al. 2023 with any `CurvePredictor`: after each report the values so far are
    extrapolated to the last step, and the trial goes on if P(final value better than the best | values so far) is at least
    `threshold`. Nothing is pruned before one trial is finished, nor in the first `warmup_steps` steps, nor at the last step.
    A trial whose newest value is not finite is pruned; earlier values that were not finite are passed over.

    The pruner keeps no state: it reads the study, whatever its storage, and equal studies give equal decisions. A trial that
    would end better is pruned with a probability of about `threshold` at each step if the model is calibrated, so a search
    over many steps pays for its speed with some of its best trials.

    Args:
        predictor: Extrapolates curves, such as `NetworkCurves(load_curve_network(folder))`.
        num_steps: Reports of a trial that is not pruned.
        threshold: Least probability of ending better that keeps a trial alive.
        warmup_steps: Reports without pruning.
        first_step: Step of the first report: 0 as nasgraph's evaluators count, 1 as some others do.
        scale: Range of the metric; its direction must be the study's. The default is an accuracy in [0, 1]. For a loss give
            `loss_scale(worst)`, with the loss of a model that knows nothing.

    Raises:
        ConfigError: If a number is out of its range.
    """

    def __init__(
        self,
        predictor: CurvePredictor,
        *,
        num_steps: int,
        threshold: float = 0.05,
        warmup_steps: int = 1,
        first_step: int = 0,
        scale: CurveScale = ACCURACY,
    ) -> None:
        if num_steps < 1 or warmup_steps < 0:
            raise ConfigError(
                f"Expected 'num_steps' of at least 1 and 'warmup_steps' of at least 0 (got {num_steps} and {warmup_steps})"
            )
        if not 0 <= threshold < 1:
            raise ConfigError(f"Expected 'threshold' in [0, 1) (got {threshold})")
        self._predictor, self._scale = predictor, scale
        self._num_steps, self._threshold = num_steps, threshold
        self._warmup_steps, self._first_step = warmup_steps, first_step

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should stop now.

        Raises:
            ConfigError: If the study's direction is not that of the scale, or a step lies outside the trial's length.
            CurveError: If a value lies outside the scale.
        """
        self._check_direction(study)
        step = trial.last_step
        if step is None:
            return False
        taken = step - self._first_step + 1
        if not 1 <= taken <= self._num_steps:
            last = self._first_step + self._num_steps - 1
            raise ConfigError(
                f"Expected steps from {self._first_step} to {last} (got {step}). Give the pruner 'num_steps' and "
                "'first_step' as the trials report them"
            )
        if not math.isfinite(trial.intermediate_values[step]):
            return True
        incumbent = best_finished(study)
        if taken <= self._warmup_steps or taken == self._num_steps or incumbent is None:
            return False
        (posterior,) = self._predictor.predict([self._curve(trial)])
        better = (
            posterior.probability_above(incumbent)
            if self._scale.direction == "maximize"
            else posterior.probability_below(incumbent)
        )
        return better < self._threshold

    def _curve(self, trial: FrozenTrial) -> PartialCurve:
        known = sorted(
            (step, value) for step, value in trial.intermediate_values.items() if math.isfinite(value)
        )
        return PartialCurve(
            values=tuple(value for _, value in known),
            horizon=float(self._num_steps),
            steps=tuple(float(step - self._first_step + 1) for step, _ in known),
            scale=self._scale,
        )

    def _check_direction(self, study: Study) -> None:
        wanted = StudyDirection.MAXIMIZE if self._scale.direction == "maximize" else StudyDirection.MINIMIZE
        if study.directions != [wanted]:
            found = ", ".join(direction.name.lower() for direction in study.directions)
            raise ConfigError(
                f"Expected a study that is to {self._scale.direction} one number, as the pruner's scale (got: {found}). "
                "Give the pruner the scale of the metric: CurveScale(worst=..., best=...)"
            )


def best_finished(study: optuna.Study) -> float | None:
    """The best value of a finished trial; None if there is none."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [trial.value for trial in finished if trial.value is not None and math.isfinite(trial.value)]
    if not values:
        return None
    return max(values) if study.direction == StudyDirection.MAXIMIZE else min(values)
