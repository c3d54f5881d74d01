"""What came of a search's trials so far: written into the study, told to listeners, and the best of it."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import NasGraphError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.cascade_records import CascadeRound
from nasgraph.search.experience import Observation
from nasgraph.search.history import METRICS, REASON, SECONDS, History
from nasgraph.search.measuring import MAX_REASON, Outcome, failure
from nasgraph.search.objectives import Objective, are_finite, values_of
from nasgraph.search.owners import machine_lock
from nasgraph.search.pareto import pareto_front
from nasgraph.search.patience import patiently
from nasgraph.search.proposals import Proposal
from nasgraph.search.records import ScreenedCandidate, SearchListener, TrialResult, TrialState
from nasgraph.spaces import SearchSpace

logger = logging.getLogger(__name__)

MAX_FAILURES_AT_FIRST = 10
TRAIN_FLOPS = "train_flops"
_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


@dataclass
class Course:
    """The trials of a search.

    Attributes:
        space: What is searched.
        history: Of the study.
        objectives: What the study optimises; empty if it does not say: then an evaluation's own objective, maximised.
        listeners: Hear of every trial.
        results: Evaluated trials by number, without trained weights.
        own_best: The best that this process evaluated, with its weights.
        screened: Candidates of the rounds that this process decided.
    """

    space: SearchSpace
    history: History
    objectives: tuple[Objective, ...]
    listeners: Sequence[SearchListener]
    results: dict[int, TrialResult]
    own_best: TrialResult | None = None
    screened: list[ScreenedCandidate] = field(default_factory=list)

    def hear_of_rounds(self, rounds: list[CascadeRound]) -> None:
        """Take the rounds of the cascade that were decided, and tell the listeners of their candidates."""
        for done in rounds:
            if done.screened:  # decided by this process, not read from the study
                self.screened += done.screened
                for listener in self.listeners:
                    listener.on_screened(done.screened, total=len(done.screened))
                    listener.on_kept(done.screened)
        rounds.clear()

    def record(self, proposal: Proposal, outcome: Outcome) -> None:
        """Write an outcome into the study; when this returns it is durable. Then tell the listeners.

        Raises:
            NasGraphError: If the evaluator does not give what the study optimises, or the first ten candidates all failed.
            StudyError: If the study cannot be written.
        """
        outcome, values = self._with_values(outcome)
        if not patiently(lambda: _write(self.history.study, proposal.trial, outcome, values)):
            logger.warning(
                "Trial %d was taken over by another process. What was measured here is dropped",
                proposal.trial.number,
            )
            return
        self._add(
            TrialResult(
                number=proposal.trial.number,
                candidate=proposal.candidate,
                state=outcome.state,
                evaluation=outcome.evaluation,
                metrics=outcome.metrics,
                reason=outcome.reason,
                scores=proposal.scores,
                seconds=outcome.seconds,
                values=values,
                parent=proposal.parent,
            )
        )

    def record_death(self, proposal: Proposal) -> None:
        """Let a trial wait again whose worker died. If it keeps killing workers it has failed."""
        number = proposal.trial.number
        with machine_lock():
            self.history.refresh()
            self.history.give_back(self.history.unfinished[number], by_death=True)
            self.history.refresh()
        if number in self.history.evaluated:
            self._add(self.history.restore(self.space, number))

    def finish(self) -> tuple[TrialResult | None, tuple[TrialResult, ...]]:
        """Add the trials of other processes; return the best of all in the first objective, and those that none beats."""
        history, results = self.history, self.results
        history.refresh()
        for number in history.evaluated:
            if number not in results:
                results[number] = history.restore(self.space, number)
        if self.own_best is not None:
            results[self.own_best.number] = self.own_best
        complete = [n for n, result in results.items() if result.state is TrialState.COMPLETE]
        best = max(complete, key=lambda number: (history.gain(number), -number), default=None)
        if self.own_best is not None and self.own_best.number != best:
            results[self.own_best.number] = _without_state(self.own_best)
        return None if best is None else results[best], tuple(results[n] for n in self._front(complete))

    @property
    def flops(self) -> float:
        """Floating-point operations of all trainings so far."""
        return sum(result.metrics.get(TRAIN_FLOPS, 0.0) for result in self.results.values())

    def _with_values(self, outcome: Outcome) -> tuple[Outcome, tuple[float, ...]]:
        """The outcome, and the value of each objective if it is complete. It has failed if one is no finite number."""
        evaluation = outcome.evaluation
        if evaluation is None:
            return outcome, ()
        if not self.objectives:
            return outcome, (float(evaluation.value),) if outcome.state is TrialState.COMPLETE else ()
        first = self.objectives[0].name
        if len(self.objectives) == 1 and first != evaluation.objective and first not in outcome.metrics:
            raise NasGraphError(
                f"The study optimises '{first}', but the evaluator measures '{evaluation.objective}'"
            )
        if outcome.state is not TrialState.COMPLETE:
            return outcome, ()
        values = values_of(self.objectives, outcome.metrics)
        if are_finite(values):
            return outcome, values
        named = zip((each.name for each in self.objectives), values, strict=True)
        reason = "; ".join(f"'{name}' is {value}" for name, value in named if not are_finite([value]))
        return failure(reason[:MAX_REASON], seconds=outcome.seconds), ()

    def _add(self, result: TrialResult) -> None:
        self.results[result.number] = _without_state(result)
        if result.state is TrialState.COMPLETE and (
            self.own_best is None or self._gain(result) > self._gain(self.own_best)
        ):
            self.own_best = result
        for listener in self.listeners:
            listener.on_trial(result)
        self._stop_if_nothing_works()

    def _gain(self, result: TrialResult) -> float:
        value = result.values[0]
        return self.objectives[0].gain(value) if self.objectives else value

    def _front(self, complete: Sequence[int]) -> list[int]:
        directions = self.objectives or (Objective("value", maximise=True),)
        observations = [
            Observation(
                number,
                self.results[number].candidate,
                TrialState.COMPLETE,
                tuple(
                    each.gain(value)
                    for each, value in zip(directions, self.results[number].values, strict=True)
                ),
            )
            for number in complete
        ]
        return [observation.number for observation in pareto_front(observations)]

    def _stop_if_nothing_works(self) -> None:
        results = self.results.values()
        if len(results) < MAX_FAILURES_AT_FIRST or any(r.state is not TrialState.FAILED for r in results):
            return
        reason, times = Counter(result.reason for result in results).most_common(1)[0]
        raise NasGraphError(
            f"All of the first {len(results)} candidates failed, {times} of them with: {reason}"
        )


def _write(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, values: Sequence[float]) -> bool:
    """Write an outcome into the study. May be called again if it broke off. False if the trial is no longer ours."""
    now = study._storage.get_trial(trial._trial_id)
    if now.state.is_finished():
        return now.user_attrs.get(SECONDS) == outcome.seconds  # written by us before the connection broke
    if now.state != OptunaState.RUNNING:
        return False
    trial.set_user_attr(METRICS, dict(outcome.metrics))
    if outcome.reason:
        trial.set_user_attr(REASON, outcome.reason)
    trial.set_user_attr(SECONDS, outcome.seconds)
    state = _STATES[outcome.state]
    complete = list(values) if outcome.state is TrialState.COMPLETE else None
    if isinstance(study.sampler, ArchitectureSampler):
        # `tell` copies trials and reads the whole study, for samplers that want to hear of the end of a trial.
        study._storage.set_trial_state_values(trial._trial_id, state=state, values=complete)
    elif complete is not None:
        study.tell(trial, complete)
    else:
        study.tell(trial, state=state)
    return True


def _without_state(result: TrialResult) -> TrialResult:
    """Hundreds of trained networks do not fit into memory."""
    if result.evaluation is None:
        return result
    return replace(result, evaluation=replace(result.evaluation, state={}))
