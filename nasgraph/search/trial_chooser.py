"""The chooser that lets Optuna decide."""

import re
from collections.abc import Mapping, Sequence

from optuna import Trial

from nasgraph.errors import InvalidChoiceError
from nasgraph.spaces.grow import GrownOptions
from nasgraph.spaces.space import C, Choice

_GROWN = re.compile(r"(.+) \(\d+ options\)")


def parameter_name(name: str, options: Sequence[Choice]) -> str:
    """Optuna's name of a choice: the same, until the choice grows.

    Optuna refuses new options under a known name. So a grown choice gets a name with the number of its options, such as
    `kernel (4 options)`, and its old trials keep the old one. Integers may get new bounds under their name.
    """
    grown = isinstance(options, GrownOptions) and len(options.generations) > 1
    return f"{name} ({len(options)} options)" if grown else name


def choices_of(parameters: Mapping[str, Choice]) -> dict[str, Choice]:
    """The choices that a trial's parameters stand for: the inverse of `parameter_name`."""
    return {
        found[1] if (found := _GROWN.fullmatch(name)) else name: value for name, value in parameters.items()
    }


class TrialChooser:
    """Asks an Optuna trial for every answer, so that its sampler decides and its storage remembers.

    Answers that the trial already has come back unchanged: replaying a trial gives the same candidate. So do those that were
    enqueued or recorded before a choice grew.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def categorical(self, name: str, options: Sequence[C]) -> C:
        """One of `options`.

        Raises:
            InvalidChoiceError: If two are equal, like `1` and `True`: Optuna mixes them up. Or if the study knows the choice with
                other options.
        """
        if len(set(options)) < len(options):
            raise InvalidChoiceError(
                f"Expected different options for '{name}' (got {', '.join(map(repr, options))})"
            )
        parameter, offered = self._parameter(name, options)
        try:
            answer = self._trial.suggest_categorical(parameter, tuple(offered))
        except ValueError as error:
            raise InvalidChoiceError(
                f"The study does not take the choice '{parameter}' with the options {', '.join(map(repr, offered))} ({error}). "
                "To add options to a study that runs, use nasgraph.spaces.grow, in the same steps everywhere"
            ) from error
        return options[options.index(answer)]

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        recorded = self._trial._cached_frozen_trial.params.get(name)  # maybe from before the bounds grew
        if isinstance(recorded, int) and low <= recorded <= high:
            return recorded
        return self._trial.suggest_int(name, low, high)

    def _parameter(self, name: str, options: Sequence[C]) -> tuple[str, Sequence[C]]:
        """Name and options under which the trial has, or should have, the answer."""
        if not isinstance(options, GrownOptions):
            return name, options
        trial = self._trial
        stages = [GrownOptions(options.generations[: end + 1]) for end in range(len(options.generations))]
        names = {parameter_name(name, stage): stage for stage in stages}
        known = trial._cached_frozen_trial.params
        for parameter, stage in names.items():
            if parameter in known:
                return parameter, stage
        current = parameter_name(name, options)
        for given in (
            trial._fixed_params,
            trial.relative_params,
        ):  # enqueued; proposed by the choice's own name
            answer = next((given[each] for each in names if each in given), None)
            if answer is not None and answer in options:
                trial._fixed_params = {**trial._fixed_params, current: answer}
                break
        return current, options
