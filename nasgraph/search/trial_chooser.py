"""The chooser that lets Optuna decide."""

from collections.abc import Sequence

from optuna import Trial

from nasgraph.errors import InvalidChoiceError
from nasgraph.spaces.space import C


class TrialChooser:
    """Asks an Optuna trial for every answer, so that its sampler decides and its storage remembers.

    Answers that the trial already has come back unchanged: replaying a trial gives the same candidate.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def categorical(self, name: str, options: Sequence[C]) -> C:
        """One of `options`. Raises `InvalidChoiceError` if two are equal, like `1` and `True`: Optuna mixes them up."""
        if len(set(options)) < len(options):
            raise InvalidChoiceError(
                f"Expected different options for '{name}' (got {', '.join(map(repr, options))})"
            )
        answer = self._trial.suggest_categorical(name, options)
        return options[options.index(answer)]

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return self._trial.suggest_int(name, low, high)
