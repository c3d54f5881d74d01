"""The search: ask, build, evaluate, tell, until there is enough."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import optuna
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import NasGraphError
from nasgraph.evaluate.evaluation import Evaluator
from nasgraph.search.executors import Executor, SerialExecutor, Task
from nasgraph.search.history import METRICS, REASON, SECONDS, History
from nasgraph.search.measuring import Outcome
from nasgraph.search.owners import heartbeat, machine_lock, run_identity
from nasgraph.search.patience import patiently
from nasgraph.search.proposals import Later, Proposal, Proposer
from nasgraph.search.records import (
    Screen,
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchListener,
    SearchResult,
    TrialResult,
    TrialState,
)
from nasgraph.search.reports import TrialReports
from nasgraph.search.samplers import ReproducibleSampler
from nasgraph.search.screening import screen_candidates
from nasgraph.search.study import check_study, study_facts
from nasgraph.seeding import derive_seed
from nasgraph.spaces import SearchSpace

logger = logging.getLogger(__name__)

TIME_LIMIT = "time limit"
INTERRUPTED = "interrupted"
MAX_FAILURES_AT_FIRST = 10
AHEAD = "ahead"
WAIT_S = 1.0
POLL_S = 0.2


def run_search(
    space: SearchSpace,
    evaluate: Evaluator | Executor,
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
    - No graph is evaluated twice, also not by several processes, nor after a failure. A candidate whose process died or was
      interrupted is evaluated again, under its number.
    - Same seed and same `config.ahead`, same trials, with any number of workers, whether or not the search was killed and
      continued in between: with a sampler from `make_sampler`, no pruner, and an evaluator that keeps its promise of equal
      results. One exception: a candidate whose evaluation three processes did not survive counts as failed.
    - A candidate that fails (exception, memory, time limit, no finite number) is recorded with its reason, and the
      search goes on.
    - A storage that is away for a while is waited for (`patience.MAX_WAIT_S`).

    Several processes, on one machine or several, may call this with one study in a shared storage. They share the trials;
    each ends when all are done, and takes over what a dead one left.

    Args:
        space: What is searched.
        evaluate: Measures one candidate; or an executor, which measures several at a time and is not closed.
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
    executor = evaluate if isinstance(evaluate, Executor) else SerialExecutor(evaluate)
    history = History(study)
    with machine_lock():
        history.give_back_orphans()
    results = {number: history.restore(space, number) for number in history.evaluated}
    objective = str(study_facts(study).get("objective", ""))
    info = SearchInfo(study.study_name, space.name, objective, config, len(results), dict(tags or {}))
    for listener in listeners:
        listener.on_start(info)

    def out_of_time() -> bool:
        return config.time_limit_s is not None and time.monotonic() - started > config.time_limit_s

    screened: tuple[ScreenedCandidate, ...] = ()
    course = _Course(space, history, results, objective, listeners)
    with _own_trials(history) as owner:
        proposer = Proposer(
            space,
            history,
            config,
            owner=owner,
            ahead=_ahead(study, config, executor),
            admits=lambda graph: True,  # noqa: ARG005
        )
        try:
            if screen is not None and config.num_screened:
                screened = screen_candidates(
                    space, screen, history, config, listeners=listeners, out_of_time=out_of_time
                )
            stopped_because = _run_trials(proposer, executor, course, config, out_of_time=out_of_time)
        except KeyboardInterrupt:
            stopped_because = INTERRUPTED
    trials, best = _finish(space, history, results, course.own_best)
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


def _run_trials(
    proposer: Proposer,
    executor: Executor,
    course: "_Course",
    config: SearchConfig,
    *,
    out_of_time: Callable[[], bool],
) -> str:
    """Keep the executor busy until there is enough. Returns why it stopped."""
    underway: dict[int, Underway] = {}
    stopped_because = ""

    def on_report(number: int, step: int, value: float) -> bool:
        return patiently(lambda: underway[number].reports.keep_going(step, value))

    while True:
        others = False
        while not stopped_because and len(underway) < executor.num_workers:
            proposal = TIME_LIMIT if out_of_time() else patiently(lambda: proposer.propose(underway))
            if isinstance(proposal, str):
                stopped_because = proposal
            elif isinstance(proposal, Later):
                others = not underway
                break
            else:
                reports = TrialReports(proposal.trial, proposal.reported)
                underway[proposal.trial.number] = Underway(proposal, reports)
                executor.submit(_task(proposal, config))
        if not underway and stopped_because:
            return stopped_because
        if others:
            time.sleep(POLL_S)
        for finished in executor.wait(on_report, timeout_s=WAIT_S):
            one = underway.pop(finished.number)
            if finished.outcome is not None:
                course.record(one.proposal, finished.outcome)
            else:
                course.record_death(one.proposal)


@dataclass(frozen=True)
class Underway:
    """A trial that is being evaluated."""

    proposal: Proposal
    reports: TrialReports


@dataclass
class _Course:
    """What came of the trials so far, and who hears of it."""

    space: SearchSpace
    history: History
    results: dict[int, TrialResult]
    objective: str
    listeners: Sequence[SearchListener]
    own_best: TrialResult | None = None

    def record(self, proposal: Proposal, outcome: Outcome) -> None:
        """Write an outcome into the study; when this returns it is durable. Then tell the listeners."""
        evaluation = outcome.evaluation
        if evaluation is not None and self.objective not in ("", evaluation.objective):
            raise NasGraphError(
                f"The study optimises '{self.objective}', but the evaluator measures '{evaluation.objective}'"
            )
        if not patiently(lambda: _write(self.history.study, proposal.trial, outcome)):
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
                evaluation=evaluation,
                metrics=outcome.metrics,
                reason=outcome.reason,
                scores=proposal.scores,
                seconds=outcome.seconds,
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

    def _add(self, result: TrialResult) -> None:
        self.results[result.number] = _without_state(result)
        self.own_best = _better(self.own_best, result)
        for listener in self.listeners:
            listener.on_trial(result)
        _stop_if_nothing_works(self.results)


def _ahead(study: optuna.Study, config: SearchConfig, executor: Executor) -> int:
    """See `SearchConfig.ahead`. What a study is begun with is kept in it."""
    known = study.user_attrs.get(AHEAD)
    wanted = config.ahead
    if wanted is None:
        wanted = (
            known if known is not None else (1 if executor.num_workers == 1 else 2 * executor.num_workers)
        )
    if known is None:
        study.set_user_attr(AHEAD, wanted)
    elif known != wanted:
        logger.warning(
            "The study was begun with 'ahead' %d, and goes on with %d: its course is no longer that of an uninterrupted search",
            known,
            wanted,
        )
        study.set_user_attr(AHEAD, wanted)
    if 0 < wanted < executor.num_workers:
        logger.warning(
            "Only %d of %d workers will be busy: 'ahead' is %d", wanted, executor.num_workers, wanted
        )
    if isinstance(study.sampler, ReproducibleSampler):
        study.sampler.ahead = wanted
    return int(wanted)


def _task(proposal: Proposal, config: SearchConfig) -> Task:
    """The seed depends on the search's seed and the graph alone."""
    graph = proposal.candidate.graph
    seed = derive_seed(config.seed, "trial", graph.fingerprint) & 0x7FFFFFFF
    return Task(proposal.trial.number, graph, seed, config.trial_time_limit_s)


@contextmanager
def _own_trials(history: History) -> Iterator[Mapping[str, str | int]]:
    """Identity of this run. However the run ends, no trial of its stays marked as running."""
    with run_identity() as owner, heartbeat(history.study, owner):
        try:
            yield owner
        finally:
            try:
                with machine_lock():
                    history.give_back_own(owner)
            except NasGraphError:
                # The disk is full, or the like. The next to open the study sees that the owner is dead.
                logger.warning("The running trial could not be given back", exc_info=True)


def _write(study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> bool:
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
    if outcome.state is TrialState.COMPLETE:
        assert outcome.evaluation is not None
        study.tell(trial, float(outcome.evaluation.value))
    else:
        study.tell(
            trial, state=OptunaState.PRUNED if outcome.state is TrialState.PRUNED else OptunaState.FAIL
        )
    return True


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
