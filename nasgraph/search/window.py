"""What a proposal may see of a study: everything but the trials right before it, whose end depends on the machine.

With `ahead` trials underway, the proposal for trial n sees the results of the trials up to n - ahead and of none after, whether
or not they have ended. So the course of a search depends on the seed and on `ahead`, not on how many workers there are, how
quick they are, or when they were killed.
"""

from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nasgraph.search.experience import Admits, Experience, Observation
from nasgraph.search.history import FINGERPRINT, OWNER, STATES, History
from nasgraph.search.owners import Owner
from nasgraph.spaces import Candidate, SearchSpace


def is_open(history: History, owner: Owner, *, ahead: int, number: int) -> bool:
    """Whether all trials of one run that the proposal for trial `number` may see have ended.

    Trials of other runs are not waited for: several processes that ask for themselves have no common course anyway.
    """
    return not ahead or not any(
        unfinished <= number - ahead and (trial.user_attrs.get(OWNER) or {}).get("run") == owner["run"]
        for unfinished, trial in history.unfinished.items()
    )


def as_seen(trials: Sequence[FrozenTrial], *, ahead: int, number: int) -> list[FrozenTrial]:
    """The trials of a study as the sampler of trial `number` may see them: the last ones are running, whatever they are.

    Args:
        trials: All trials by number.
        ahead: As above; 0: all that has ended is seen.
        number: Trial that is proposed.
    """
    if not ahead:
        return list(trials)
    first_hidden = max(0, number - ahead + 1)
    return [
        *trials[:first_hidden],
        *map(_as_running, trials[first_hidden:number]),
        *trials[number : number + 1],
    ]


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    if trial.state == OptunaState.RUNNING and not trial.intermediate_values:
        return trial
    return FrozenTrial(
        number=trial.number,
        state=OptunaState.RUNNING,
        value=None,
        datetime_start=trial.datetime_start,
        datetime_complete=None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values={},
        trial_id=trial._trial_id,
    )


class GrowingExperience:
    """Keeps the `Experience` of a search up to date.

    Args:
        space: What is searched.
        history: Of the study.
        ahead: As above.
        admits: Whether a graph keeps the constraints.
    """

    def __init__(self, space: SearchSpace, history: History, *, ahead: int, admits: Admits) -> None:
        self._history = history
        self._ahead = ahead
        self._signs = [
            1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in history.study.directions
        ]
        self._unseen: dict[int, Candidate] = {}
        self._claimed: dict[int, Candidate] = {}
        self._num_read = 0
        self._observations: list[Observation] = []
        self._experience = Experience(
            space,
            num_objectives=len(self._signs),
            observations=self._observations,
            known=history.known,
            admits=admits,
        )

    def remember(self, number: int, candidate: Candidate) -> None:
        """What a trial claimed, so that it need not be built again."""
        self._claimed[number] = candidate

    def at(self, number: int) -> Experience:
        """What the proposal for trial `number` may see. Call it with rising numbers, and after `History.refresh`."""
        history = self._history
        last = number - self._ahead if self._ahead else number - 1
        for new in range(self._num_read, number):
            trial = history.evaluated.get(new) or history.unfinished.get(new)
            if trial is None or FINGERPRINT not in trial.user_attrs:
                if new in history.unfinished:
                    break  # of another process, which is about to claim a graph; all after it is read later
            else:
                claimed = self._claimed.pop(new, None)
                self._unseen[new] = claimed or history.candidate_of(self._experience.space, trial)
            self._num_read = new + 1
        for seen in [n for n in self._unseen if n <= last and n in history.evaluated]:
            self._observations.append(self._observation(history.evaluated[seen], self._unseen.pop(seen)))
        self._experience.pending = tuple(self._unseen.values())
        return self._experience

    def _observation(self, trial: FrozenTrial, candidate: Candidate) -> Observation:
        gains: tuple[float, ...] = ()
        if trial.state == OptunaState.COMPLETE:
            gains = tuple(sign * value for sign, value in zip(self._signs, trial.values, strict=True))
        last = None
        if trial.state == OptunaState.PRUNED and trial.last_step is not None:
            last = self._signs[0] * trial.intermediate_values[trial.last_step]
        return Observation(trial.number, candidate, STATES[trial.state], gains, last)
