"""What a study knows: which graphs were evaluated, which are being evaluated, and how it went.

Everything is kept in the user attributes of Optuna's trials, so that a study is all that a resumed search needs:

    owner          who evaluates the trial (see `owners`), or evaluated it last
    fingerprint    of its graph; set when the evaluation begins, unless the graph is known
    duplicate_of   number of the trial that has the same graph; such a trial is not evaluated
    architecture   canonical JSON of the choices
    scores         from screening
    metrics, seconds, reason    how the evaluation went
    deaths         how many processes died evaluating it
    parent         number of the trial of which it is a mutation, if the strategy tells
    refused        proposals for this trial that were refused before it, as their graphs were known
"""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import InvalidChoiceError
from nasgraph.search.owners import Heartbeats, is_dead, is_here
from nasgraph.search.records import StudyError, TrialResult, TrialState
from nasgraph.spaces import Candidate, SearchSpace, architecture_from_json, replay

OWNER = "owner"
FINGERPRINT = "fingerprint"
DUPLICATE_OF = "duplicate_of"
ARCHITECTURE = "architecture"
SCORES = "scores"
METRICS = "metrics"
SECONDS = "seconds"
REASON = "reason"
DEATHS = "deaths"
REFUSED = "refused"
PARENT = "parent"

MAX_DEATHS = 3
"""Processes that may die evaluating one candidate before it counts as failed: it may be what kills them."""

STATES = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
}


@dataclass
class History:
    """A view of a study that `refresh` brings up to date. Trials of other processes appear in it too.

    Attributes:
        study: The study.
        known: Number of the trial that evaluated, or is evaluating, the graph of each fingerprint.
        evaluated: Finished trials that were evaluated, by number.
        unfinished: Waiting and running trials, by number.
        num_trials: Trials of every kind: the number that the next will have.
        num_duplicates: Proposals whose graph was known.
        last_claimed: Highest number of a trial that claimed a graph; -1 if there is none.
        heartbeats: Which owners on other machines still live.
    """

    study: optuna.Study
    known: dict[str, int] = field(default_factory=dict)
    evaluated: dict[int, FrozenTrial] = field(default_factory=dict)
    unfinished: dict[int, FrozenTrial] = field(default_factory=dict)
    num_trials: int = 0
    num_duplicates: int = 0
    last_claimed: int = -1
    heartbeats: Heartbeats = field(default_factory=Heartbeats)

    def refresh(self) -> None:
        """Read what is new: trials that appeared, and those that were unfinished."""
        trials = self.study.get_trials(deepcopy=False)
        numbers = [*sorted(self.unfinished), *range(self.num_trials, len(trials))]
        self.num_trials = len(trials)
        for number in numbers:
            trial = trials[number]
            fingerprint = trial.user_attrs.get(FINGERPRINT)
            if fingerprint is not None:
                self.known.setdefault(fingerprint, number)
                self.last_claimed = max(self.last_claimed, number)
            if trial.state.is_finished():
                self.unfinished.pop(number, None)
                self._add_finished(trial)
            else:
                self.unfinished[number] = trial

    def _add_finished(self, trial: FrozenTrial) -> None:
        if FINGERPRINT in trial.user_attrs:
            self.evaluated[trial.number] = trial
            self.num_duplicates += int(trial.user_attrs.get(REFUSED, 0))
        elif DUPLICATE_OF in trial.user_attrs:
            self.num_duplicates += 1

    @property
    def unused_in_row(self) -> int:
        """How many trials after the last that claimed a graph are finished."""
        after = self.num_trials - self.last_claimed - 1
        return after - sum(number > self.last_claimed for number in self.unfinished)

    @property
    def waiting(self) -> list[int]:
        """Numbers of the trials that were enqueued or given back, in order."""
        return sorted(n for n, trial in self.unfinished.items() if trial.state == OptunaState.WAITING)

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials that are marked as running, in order."""
        return [trial for _, trial in sorted(self.unfinished.items()) if trial.state == OptunaState.RUNNING]

    @property
    def num_underway(self) -> int:
        """Trials that living processes are evaluating."""
        return sum(not self._is_orphan(trial) for trial in self.running)

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        """Whether nobody evaluates a running trial. One without an owner is an orphan: owners are written under the lock."""
        owner = trial.user_attrs.get(OWNER)
        if not owner:
            return True
        return is_dead(owner) if is_here(owner) else self.heartbeats.has_stopped(self.study, owner)

    def give_back(self, trial: FrozenTrial, *, by_death: bool) -> None:
        """Let a running trial wait again, under its number and with its choices; call it with the machine's lock held.

        So whoever continues the study evaluates the same candidates in the same order as if nothing had happened. A
        trial that died with `MAX_DEATHS` processes is recorded as failed instead.
        """
        storage, trial_id = self.study._storage, trial._trial_id
        deaths = int(trial.user_attrs.get(DEATHS, 0)) + (by_death and FINGERPRINT in trial.user_attrs)
        storage.set_trial_user_attr(trial_id, DEATHS, deaths)
        if deaths < MAX_DEATHS:
            storage.set_trial_state_values(trial_id, OptunaState.WAITING)
        else:
            reason = f"the process died {deaths} times while it evaluated this candidate"
            storage.set_trial_user_attr(trial_id, REASON, reason)
            self.study.tell(trial.number, state=OptunaState.FAIL)

    def give_back_orphans(self) -> int:
        """Give back the running trials of dead processes; call it with the machine's lock held. Returns how many there were."""
        self.refresh()
        orphans = [trial for trial in self.running if self._is_orphan(trial)]
        for trial in orphans:
            self.give_back(trial, by_death=True)
        if orphans:
            self.refresh()
        return len(orphans)

    def give_back_own(self, owner: Mapping[str, str | int], *, but: Container[int] = ()) -> None:
        """Give back the running trials of the run that `owner` identifies; call it with the machine's lock held.

        Args:
            owner: The run.
            but: Numbers of trials that it keeps.
        """
        self.refresh()
        own = [t for t in self.running if (t.user_attrs.get(OWNER) or {}).get("run") == owner["run"]]
        for trial in own:
            if trial.number not in but:
                self.give_back(trial, by_death=False)
        if len(own) > sum(trial.number in but for trial in own):
            self.refresh()

    def gain(self, number: int) -> float:
        """The first objective of a complete trial, turned so that higher is better."""
        value: float = self.evaluated[number].values[0]
        return value if self.study.directions[0] == StudyDirection.MAXIMIZE else -value

    def restore(self, space: SearchSpace, number: int) -> TrialResult:
        """The result of an evaluated trial, without its evaluation.

        Raises:
            StudyError: If the space no longer gives the graph that was evaluated.
        """
        trial = self.evaluated[number]
        attrs = trial.user_attrs
        candidate = self.candidate_of(space, trial)
        return TrialResult(
            number=number,
            candidate=candidate,
            state=STATES[trial.state],
            evaluation=None,
            metrics=attrs.get(METRICS, {}),
            reason=attrs.get(REASON, ""),
            scores=attrs.get(SCORES, {}),
            seconds=attrs.get(SECONDS, 0.0),
            values=tuple(trial.values or ()),
            parent=attrs.get(PARENT),
        )

    def candidate_of(self, space: SearchSpace, trial: FrozenTrial) -> Candidate:
        """The candidate that a trial claimed.

        Raises:
            StudyError: If the space no longer gives the graph that was claimed.
        """
        attrs = trial.user_attrs
        try:
            candidate = replay(space, architecture_from_json(json.loads(attrs[ARCHITECTURE])))
        except InvalidChoiceError as error:
            raise self._changed_space(space, trial.number) from error
        if candidate.graph.fingerprint != attrs[FINGERPRINT]:
            raise self._changed_space(space, trial.number)
        return candidate

    def _changed_space(self, space: SearchSpace, number: int) -> StudyError:
        return StudyError(
            f"The space '{space.name}' no longer gives the graph of trial {number} of the study "
            f"'{self.study.study_name}'. Go on with the version that started the study, or start another"
        )
