"""The search: ask, build, evaluate, tell, until there is enough."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna

from nasgraph.errors import NasGraphError
from nasgraph.evaluate.evaluation import Evaluator
from nasgraph.search.cascade import Cascade
from nasgraph.search.constraints import Constraints
from nasgraph.search.course import Course
from nasgraph.search.executors import Executor, SerialExecutor, Task
from nasgraph.search.history import History
from nasgraph.search.owners import heartbeat, machine_lock, run_identity
from nasgraph.search.patience import patiently
from nasgraph.search.proposals import TIME_LIMIT, Later, Proposal, Proposer
from nasgraph.search.records import (
    Screen,
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchListener,
    SearchResult,
)
from nasgraph.search.reports import TrialReports
from nasgraph.search.samplers import ReproducibleSampler
from nasgraph.search.screening import screen_candidates
from nasgraph.search.study import check_study, objectives_of
from nasgraph.seeding import derive_seed
from nasgraph.spaces import SearchSpace

logger = logging.getLogger(__name__)

FLOPS = "flops"
INTERRUPTED = "interrupted"
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
    constraints: Constraints | None = None,
    cascade: Cascade | None = None,
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
        evaluate: Measures one candidate; or an executor, which measures several at a time. It is closed only if the search
            breaks off while it works.
        study: Optimises one or several numbers. `create_or_resume` makes it; one made by Optuna that maximises one serves too.
        config: Settings.
        screen: Scores candidates without training; used if `config.num_screened` is positive.
        constraints: What a graph must keep; others are not evaluated.
        cascade: Chooses trials in rounds by ever dearer scores. Listeners hear of its candidates as of screened ones.
        listeners: Hear of the progress.
        tags: Facts for the record, passed on to the listeners.

    Returns:
        What was found, also after Ctrl-C (`stopped_because` is "interrupted").

    Raises:
        StudyError: If the study belongs to another search, or cannot be written.
        UnsatisfiableError: If no candidate keeps the constraints.
        NasGraphError: If the first ten candidates all fail, or the evaluator does not give what the study optimises.
    """
    started = time.monotonic()
    check_study(study, space)
    executor = evaluate if isinstance(evaluate, Executor) else SerialExecutor(evaluate)
    history = History(study)
    with machine_lock():
        history.give_back_orphans()
    results = {number: history.restore(space, number) for number in history.evaluated}
    objectives = objectives_of(study)
    info = SearchInfo(
        study.study_name,
        space.name,
        objectives[0].name if objectives else "",
        config,
        len(results),
        dict(tags or {}),
        objectives,
    )
    for listener in listeners:
        listener.on_start(info)

    def out_of_time() -> bool:
        return config.time_limit_s is not None and time.monotonic() - started > config.time_limit_s

    screened: tuple[ScreenedCandidate, ...] = ()
    course = Course(space, history, objectives, listeners, results)
    with _own_trials(history) as owner:
        proposer = Proposer(
            space,
            history,
            config,
            owner=owner,
            ahead=_ahead(study, config, executor),
            constraints=constraints or Constraints(),
            cascade=cascade,
            out_of_time=out_of_time,
        )
        try:
            if screen is not None and config.num_screened:
                screened = screen_candidates(
                    space, screen, history, config, listeners=listeners, out_of_time=out_of_time
                )
            with _closed_on_error(executor):
                stopped_because = _run_trials(proposer, executor, course, config, out_of_time=out_of_time)
        except KeyboardInterrupt:
            stopped_because = INTERRUPTED
    screened += tuple(course.screened)
    best, front = course.finish()
    end = SearchResult(
        study=study.study_name,
        trials=tuple(result for _, result in sorted(results.items())),
        best=best,
        screened=screened,
        num_duplicates=history.num_duplicates,
        stopped_because=stopped_because,
        seconds=time.monotonic() - started,
        front=front,
    )
    for listener in listeners:
        listener.on_end(end)
    return end


def _run_trials(
    proposer: Proposer,
    executor: Executor,
    course: Course,
    config: SearchConfig,
    *,
    out_of_time: Callable[[], bool],
) -> str:
    """Keep the executor busy until there is enough. Returns why it stopped."""
    underway: dict[int, Underway] = {}
    stopped_because = ""

    def on_report(number: int, step: int, value: float) -> bool:
        if len(course.objectives) > 1:  # Optuna prunes towards one objective only
            return True
        return patiently(lambda: underway[number].reports.keep_going(step, value))

    while True:
        others = False
        while not stopped_because and len(underway) < executor.num_workers:
            if out_of_time():
                proposal: Proposal | Later | str = TIME_LIMIT
            elif config.max_flops is not None and course.flops >= config.max_flops:
                proposal = FLOPS
            else:
                proposal = patiently(lambda: proposer.propose(underway))
                course.hear_of_rounds(proposer.rounds)
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


@contextmanager
def _closed_on_error(executor: Executor) -> Iterator[None]:
    """Whatever ends the search early ends its evaluations too, so that none is taken for one of another search."""
    try:
        yield
    except BaseException:
        executor.close()
        raise


@dataclass(frozen=True)
class Underway:
    """A trial that is being evaluated."""

    proposal: Proposal
    reports: TrialReports


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
    return Task(proposal.trial.number, graph, seed, config.trial_time_limit_s, proposal.parent_fingerprint)


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
