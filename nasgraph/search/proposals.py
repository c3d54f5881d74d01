"""From the study's next trial to a candidate that has not been evaluated yet."""

import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import InvalidGraphError
from nasgraph.search.architecture_sampler import ArchitectureSampler, distribution_of
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_records import CascadeRound
from nasgraph.search.constraints import MAX_DRAWS, Constraints, sample_admitted
from nasgraph.search.history import (
    ARCHITECTURE,
    DUPLICATE_OF,
    FINGERPRINT,
    OWNER,
    PARENT,
    REASON,
    REFUSED,
    SCORES,
    History,
)
from nasgraph.search.owners import Owner, machine_lock
from nasgraph.search.records import SearchConfig
from nasgraph.search.trial_chooser import TrialChooser, parameter_name
from nasgraph.search.window import GrowingExperience, is_open
from nasgraph.spaces import Candidate, ReplayChooser, SearchSpace, realise

logger = logging.getLogger(__name__)

FINISHED = "finished"
EXHAUSTED = "space exhausted"
TIME_LIMIT = "time limit"
NOT_ADMITTED = "breaks a constraint"


@dataclass(frozen=True)
class Proposal:
    """A candidate to evaluate, and the running trial that asks for it.

    Attributes:
        trial: The trial, claimed by this process.
        candidate: A candidate whose graph no other trial has.
        scores: Scores from screening; empty if it was not screened.
        reported: Objective by step, as far as a process that died on this trial got.
        parent: Number of the trial of which it is a mutation; None if of none, or if the sampler does not tell.
        parent_fingerprint: Of the parent's graph; empty without a parent.
    """

    trial: optuna.Trial
    candidate: Candidate
    scores: Mapping[str, float]
    reported: Mapping[int, float]
    parent: int | None = None
    parent_fingerprint: str = ""


@dataclass(frozen=True)
class Later:
    """There is nothing to propose right now. `reason` says what is waited for."""

    reason: str


class Proposer:
    """Asks a study for candidates to evaluate.

    Args:
        space: What is searched.
        history: Of the study.
        config: Settings.
        owner: Written into the trials.
        ahead: See `SearchConfig.ahead`.
        constraints: What a graph must keep.
        cascade: Enqueues rounds of chosen candidates; None: the sampler decides alone.
        out_of_time: Asked while a round is decided.

    Attributes:
        rounds: Rounds of the cascade that were decided or enqueued and that nobody has taken from here yet.
    """

    def __init__(
        self,
        space: SearchSpace,
        history: History,
        config: SearchConfig,
        *,
        owner: Owner,
        ahead: int,
        constraints: Constraints,
        cascade: Cascade | None = None,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        self._space = space
        self._history = history
        self._config = config
        self._owner = dict(owner)
        self._ahead = ahead
        self._constraints = constraints
        self._cascade = cascade
        self._out_of_time = out_of_time
        self.rounds: list[CascadeRound] = []
        sampler = history.study.sampler
        self._sampler = sampler if isinstance(sampler, ArchitectureSampler) else None
        self._experience = GrowingExperience(space, history, ahead=ahead, admits=constraints)
        self._parameters: dict[
            str, tuple[str, BaseDistribution]
        ] = {}  # by choice: Optuna's name and distribution

    def propose(self, underway: Container[int] = ()) -> Proposal | Later | str:
        """Ask until there is a graph that has not been evaluated.

        Enqueued trials and those given back come first, then the sampler's. Proposals with a known graph are told what is
        known. When the sampler repeats itself, a random candidate takes its turn.

        Args:
            underway: Numbers of the trials that this process is evaluating.

        Returns:
            The proposal; `Later` if others are still evaluating what this one needs; or why there is no more: "finished" or
            "space exhausted".

        Raises:
            UnsatisfiableError: If no candidate keeps the constraints.
            NasGraphError: If the space gives no valid graph at all.
        """
        history = self._history
        while True:
            with machine_lock():
                history.give_back_own(
                    self._owner, but=underway
                )  # a trial that a broken connection made without our knowing
                reason = self._nothing_to_ask()
                if reason is not None:
                    return reason
                trial = self._waiting_trial()
                if trial is None and not is_open(
                    history, self._owner, ahead=self._ahead, number=history.num_trials
                ):
                    return Later("trials before it")
            if trial is None and self._cascade is not None and self._refill(self._cascade):
                continue
            if trial is None and self._out_of_time():
                return TIME_LIMIT
            if trial is None and self._sampler is None and not self._repeats_itself():
                trial = self._asked()
            proposal: Proposal | str | None
            if trial is not None:
                proposal = self._claim(trial)
            elif self._sampler is not None:
                proposal = self._from_architecture_sampler(self._sampler)
            else:
                proposal = None
                if not self._enqueue_random():
                    return EXHAUSTED
            if isinstance(proposal, str):
                return proposal
            if proposal is not None:
                self._experience.remember(proposal.trial.number, proposal.candidate)
                return proposal

    def _nothing_to_ask(self) -> Later | str | None:
        """Why no trial should start. Call it with the machine's lock held."""
        history = self._history
        missing = self._config.num_trials - len(history.evaluated)
        if missing <= 0:
            return FINISHED
        if any(trial.user_attrs.get(OWNER) != self._owner for trial in history.running):
            history.give_back_orphans()
        return Later("the last trials") if missing <= history.num_underway else None

    def _refill(self, cascade: Cascade) -> bool:
        """Let the cascade enqueue a round if it is time for one. Whether it did."""
        number = self._history.num_trials
        done = cascade.step(
            self._history.study,
            self._experience.at(number),
            num_trials=number,
            out_of_time=self._out_of_time,
        )
        if done is not None:
            self.rounds.append(done)
        return done is not None

    def _asked(self) -> optuna.Trial:
        """A new trial of Optuna's sampler, marked as ours."""
        with machine_lock():
            trial = self._history.study.ask()
            trial.set_user_attr(OWNER, self._owner)
            return trial

    def _repeats_itself(self) -> bool:
        return self._history.unused_in_row >= self._config.max_duplicates

    def _waiting_trial(self) -> optuna.Trial | None:
        """The first trial that was enqueued or given back, marked as ours. Call it with the machine's lock held."""
        # `study.ask` does the same, but overlooks trials in memory that were given back.
        study = self._history.study
        for number in self._history.waiting:
            trial_id = self._history.unfinished[number]._trial_id
            try:
                if study._storage.set_trial_state_values(trial_id, OptunaState.RUNNING):
                    trial = optuna.Trial(study, trial_id)
                    trial.set_user_attr(OWNER, self._owner)
                    return trial
            except UpdateFinishedTrialError:  # a process of another machine was quicker
                continue
        return None

    def _claim(self, trial: optuna.Trial) -> Proposal | None:
        """Build the trial's candidate and claim its graph. None if it is known or invalid: the trial is told so."""
        history = self._history
        frozen = history.unfinished.get(trial.number)
        if frozen is not None and FINGERPRINT in frozen.user_attrs:  # claimed before it was given back
            candidate = history.candidate_of(self._space, frozen)
            return self._proposal(trial, candidate, frozen)
        try:
            candidate, _ = realise(self._space, TrialChooser(trial))
        except InvalidGraphError as error:
            logger.warning(
                "Trial %d: the space '%s' gives an invalid graph: %s", trial.number, self._space.name, error
            )
            self._refuse(trial, f"invalid graph: {error}")
            return None
        if not self._constraints(candidate.graph):
            self._refuse(trial, NOT_ADMITTED)
            return None
        fingerprint = candidate.graph.fingerprint
        with machine_lock():
            history.refresh()
            original = history.known.get(fingerprint, trial.number)
            if original == trial.number:
                # The fingerprint comes last: a trial that has one has an architecture.
                trial.set_user_attr(ARCHITECTURE, candidate.architecture.to_json())
                trial.set_user_attr(FINGERPRINT, fingerprint)
                history.refresh()
        if original != trial.number:
            self._tell_duplicate(trial, original)
            return None
        return self._proposal(trial, candidate, history.unfinished[trial.number])

    def _proposal(self, trial: optuna.Trial, candidate: Candidate, frozen: FrozenTrial) -> Proposal:
        parent = frozen.user_attrs.get(PARENT)
        known = None if parent is None else self._history.evaluated.get(parent)
        return Proposal(
            trial,
            candidate,
            frozen.user_attrs.get(SCORES, {}),
            frozen.intermediate_values,
            parent,
            "" if known is None else known.user_attrs[FINGERPRINT],
        )

    def _refuse(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(REASON, reason)
        self._history.study.tell(trial, state=OptunaState.FAIL)

    def _tell_duplicate(self, trial: optuna.Trial, original: int) -> None:
        """Tell the sampler what is known about this graph."""
        study = self._history.study
        trial.set_user_attr(DUPLICATE_OF, original)
        known = self._history.evaluated.get(original)
        if known is None or (self._ahead and original > trial.number - self._ahead):
            # It is being evaluated, or its end may not be seen yet.
            study.tell(trial, state=OptunaState.FAIL)
        elif known.state == OptunaState.COMPLETE:
            study.tell(trial, known.values)
        else:
            step = known.last_step
            if step is not None and known.state == OptunaState.PRUNED:
                trial.report(known.intermediate_values[step], step)
            study.tell(trial, state=known.state)

    def _from_architecture_sampler(self, sampler: ArchitectureSampler) -> Proposal | str | None:
        """Let the sampler propose, and write its trial in one record. None if another process took the graph meanwhile."""
        history = self._history
        number = history.num_trials
        experience = self._experience.at(number)
        for refused in range(self._config.max_duplicates):
            try:
                candidate = sampler.propose(experience, number=number, attempt=refused)
            except InvalidGraphError:
                continue
            if experience.is_new(candidate.graph):
                break
        else:
            at_random = self._random(number)
            if at_random is None:
                return EXHAUSTED
            refused, candidate = self._config.max_duplicates, at_random
            sampler.parents.pop(number, None)
        with machine_lock():
            history.refresh()
            if candidate.graph.fingerprint in history.known:
                return None
            trial = self._create(candidate, refused, sampler.parents.pop(number, None))
            history.refresh()
        if (
            history.known[candidate.graph.fingerprint] != trial.number
        ):  # a process of another machine was quicker
            self._tell_duplicate(trial, history.known[candidate.graph.fingerprint])
            return None
        return self._proposal(trial, candidate, history.unfinished[trial.number])

    def _create(self, candidate: Candidate, refused: int, parent: int | None) -> optuna.Trial:
        study, choices = self._history.study, dict(candidate.architecture.choices)
        if not choices.keys() <= self._parameters.keys():
            _, questions = realise(self._space, ReplayChooser(choices))
            self._parameters.update(
                {q.name: (parameter_name(q.name, q.options), distribution_of(q)) for q in questions}
            )
        attributes = {
            OWNER: self._owner,
            ARCHITECTURE: candidate.architecture.to_json(),
            FINGERPRINT: candidate.graph.fingerprint,
            **({REFUSED: refused} if refused else {}),
            **({PARENT: parent} if parent is not None else {}),
        }
        template = create_trial(
            state=OptunaState.RUNNING,
            params={self._parameters[name][0]: answer for name, answer in choices.items()},
            distributions=dict(self._parameters[name] for name in choices),
            user_attrs=attributes,
        )
        return optuna.Trial(study, study._storage.create_new_trial(study._study_id, template_trial=template))

    def _enqueue_random(self) -> bool:
        """Enqueue a random candidate with an unknown graph. False if none was found. Raises as `_random` does."""
        candidate = self._random(self._history.num_trials)
        if candidate is not None:
            self._history.study.enqueue_trial(dict(candidate.architecture.choices))
        return candidate is not None

    def _random(self, number: int) -> Candidate | None:
        """A random candidate with an unknown graph that keeps the constraints. None if none was found.

        Raises:
            UnsatisfiableError: If no draw keeps the constraints.
            NasGraphError: If no draw gives a valid graph.
        """
        return sample_admitted(
            self._space,
            self._constraints,
            seed=self._config.seed,
            labels=("random", number),
            known=self._history.known,
            max_draws=MAX_DRAWS if self._constraints else self._config.max_duplicates,
        )
