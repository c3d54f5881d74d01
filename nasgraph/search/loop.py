"""The search: ask, build, evaluate, tell, until there is enough."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import optuna
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import NasGraphError
from nasgraph.search.history import METRICS, OWNER, REASON, SECONDS, History
from nasgraph.search.measuring import Outcome, measure
from nasgraph.search.owners import is_here, machine_lock, run_identity
from nasgraph.search.proposals import Proposal, propose
from nasgraph.search.records import (
    Measurement,
    Screen,
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchListener,
    SearchResult,
    TrialResult,
    TrialState,
)
from nasgraph.search.screening import screen_candidates
from nasgraph.search.study import check_study, study_facts
from nasgraph.spaces import SearchSpace

logger = logging.getLogger(__name__)

TIME_LIMIT = "time limit"
INTERRUPTED = "interrupted"
MAX_FAILURES_AT_FIRST = 10


def run_search(
    space: SearchSpace,
    evaluate: Measurement,
    study: optuna.Study,
    config: SearchConfig,
    *,
    screen: Screen | None = None,
    listeners: Sequence[SearchListener] = (),
    tags: Mapping[str, str] | None = None,
) -> SearchResult:
    """Search a space, or continue a search: call it again with the same study.

    Guarantees:

    - A finished trial is in the study, for good if the storage is persistent, before the next is asked for.
    - No graph is evaluated twice, also not by several processes of one machine, nor after a failure. A candidate whose
      process died or was interrupted is evaluated again, under its number.
    - Same seed, same trials, whether or not the search was killed and continued in between: with one process, a sampler
      from `make_sampler`, and an evaluator that keeps its promise of equal results. One exception: a candidate whose
      evaluation three processes did not survive counts as failed.
    - A candidate that fails (exception, memory, time limit, no finite number) is recorded with its reason, and the
      search goes on.

    Args:
        space: What is searched.
        evaluate: Measures one candidate.
        study: Maximises one number. `create_or_resume` makes it; one made by Optuna serves too.
        config: Settings.
        screen: Scores candidates without training; used if `config.num_screened` is positive.
        listeners: Hear of the progress.
        tags: Facts for the record, passed on to the listeners.

    Returns:
        What was found, also after Ctrl-C (`stopped_because` is "interrupted").

    Raises:
        StudyError: If the study belongs to another search, or cannot be written.
        NasGraphError: If the first ten candidates all fail, or the evaluator optimises another metric.
    """
    started = time.monotonic()
    check_study(study, space)
    objective = str(study_facts(study).get("objective", ""))
    history = History(study)
    with machine_lock():
        history.give_back_orphans()
    _warn_of_other_machines(history)
    results = {number: history.restore(space, number) for number in history.evaluated}
    info = SearchInfo(study.study_name, space.name, objective, config, len(results), dict(tags or {}))
    for listener in listeners:
        listener.on_start(info)

    def out_of_time() -> bool:
        return config.time_limit_s is not None and time.monotonic() - started > config.time_limit_s

    screened: tuple[ScreenedCandidate, ...] = ()
    own_best: TrialResult | None = None
    with _own_trials(history) as owner:
        try:
            if screen is not None and config.num_screened:
                screened = screen_candidates(
                    space, screen, history, config, listeners=listeners, out_of_time=out_of_time
                )
            while True:
                proposal = TIME_LIMIT if out_of_time() else propose(space, history, config, owner=owner)
                if isinstance(proposal, str):
                    stopped_because = proposal
                    break
                outcome = measure(evaluate, proposal, config, objective=objective)
                result = _record(study, proposal, outcome)
                results[result.number] = _without_state(result)
                own_best = _better(own_best, result)
                for listener in listeners:
                    listener.on_trial(result)
                _stop_if_nothing_works(results)
        except KeyboardInterrupt:
            stopped_because = INTERRUPTED
    trials, best = _finish(space, history, results, own_best)
    end = SearchResult(
        study=study.study_name,
        trials=trials,
        best=best,
        screened=screened,
        num_duplicates=history.num_duplicates,
        stopped_because=stopped_because,
        seconds=time.monotonic() - started,
    )
    for listener in listeners:
        listener.on_end(end)
    return end


@contextmanager
def _own_trials(history: History) -> Iterator[Mapping[str, str | int]]:
    """Identity of this run. However the run ends, no trial of its stays marked as running."""
    with run_identity() as owner:
        try:
            yield owner
        finally:
            try:
                with machine_lock():
                    history.give_back_own(owner)
            except NasGraphError:
                # The disk is full, or the like. The next to open the study sees that the owner is dead.
                logger.warning("The running trial could not be given back", exc_info=True)


def _record(study: optuna.Study, proposal: Proposal, outcome: Outcome) -> TrialResult:
    """Write an outcome into the study. When this returns it is durable."""
    trial = proposal.trial
    trial.set_user_attr(METRICS, dict(outcome.metrics))
    trial.set_user_attr(SECONDS, outcome.seconds)
    if outcome.reason:
        trial.set_user_attr(REASON, outcome.reason)
    if outcome.state is TrialState.COMPLETE:
        assert outcome.evaluation is not None
        study.tell(trial, float(outcome.evaluation.value))
    else:
        study.tell(
            trial, state=OptunaState.PRUNED if outcome.state is TrialState.PRUNED else OptunaState.FAIL
        )
    return TrialResult(
        number=trial.number,
        candidate=proposal.candidate,
        state=outcome.state,
        evaluation=outcome.evaluation,
        metrics=outcome.metrics,
        reason=outcome.reason,
        scores=proposal.scores,
        seconds=outcome.seconds,
    )


def _without_state(result: TrialResult) -> TrialResult:
    """Hundreds of trained networks do not fit into memory."""
    if result.evaluation is None:
        return result
    return replace(result, evaluation=replace(result.evaluation, state={}))


def _better(best: TrialResult | None, result: TrialResult) -> TrialResult | None:
    """The better of two complete trials, the earlier of equals."""
    if result.state is not TrialState.COMPLETE:
        return best
    return result if best is None or _value(result) > _value(best) else best


def _value(result: TrialResult) -> float:
    assert result.evaluation is not None
    return result.evaluation.value


def _stop_if_nothing_works(results: Mapping[int, TrialResult]) -> None:
    if len(results) < MAX_FAILURES_AT_FIRST or any(
        r.state is not TrialState.FAILED for r in results.values()
    ):
        return
    reasons = Counter(result.reason for result in results.values())
    reason, times = reasons.most_common(1)[0]
    raise NasGraphError(f"All of the first {len(results)} candidates failed, {times} of them with: {reason}")


def _finish(
    space: SearchSpace, history: History, results: dict[int, TrialResult], own_best: TrialResult | None
) -> tuple[tuple[TrialResult, ...], TrialResult | None]:
    """All evaluated trials in order, those of other processes included, and the best of them."""
    history.refresh()
    for number in history.evaluated:
        if number not in results:
            results[number] = history.restore(space, number)
    if own_best is not None:
        results[own_best.number] = own_best
    complete = [n for n, result in results.items() if result.state is TrialState.COMPLETE]
    best = max(complete, key=lambda number: (history.value(number), -number), default=None)
    if own_best is not None and own_best.number != best:
        results[own_best.number] = _without_state(own_best)
    return tuple(result for _, result in sorted(results.items())), None if best is None else results[best]


def _warn_of_other_machines(history: History) -> None:
    for trial in history.running:
        owner = trial.user_attrs[OWNER]
        if not is_here(owner):
            logger.warning(
                "Trial %d is marked as running on '%s' (process %s). If that machine stopped, the trial is lost",
                trial.number,
                owner["host"],
                owner["pid"],
            )
