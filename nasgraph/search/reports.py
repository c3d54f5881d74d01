"""What running evaluations report, on its way to the pruner."""

from collections.abc import Mapping

import optuna


class TrialReports:
    """Writes the reports of one trial into the study, and asks the pruner.

    Args:
        trial: The running trial.
        reported: Objective by step, as far as a process that died on this trial got. These steps are not written again, and
            up to the last of them the trial goes on, for so it was told.
    """

    def __init__(self, trial: optuna.Trial, reported: Mapping[int, float]) -> None:
        self._trial = trial
        self._reported = set(reported)
        self._last_known = max(reported, default=-1)

    def keep_going(self, step: int, value: float) -> bool:
        """Whether the trial should go on. Raises what the storage raises."""
        if step < self._last_known:
            return True
        if step not in self._reported:
            self._trial.report(value, step)
            self._reported.add(step)
        return not self._trial.should_prune()
