"""From the study's next trial to a candidate that has not been evaluated yet."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import InvalidGraphError, NasGraphError
from nasgraph.search.history import ARCHITECTURE, DUPLICATE_OF, FINGERPRINT, OWNER, REASON, SCORES, History
from nasgraph.search.owners import machine_lock
from nasgraph.search.records import SearchConfig
from nasgraph.search.trial_chooser import TrialChooser
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace, realise, sample

logger = logging.getLogger(__name__)

FINISHED = "finished"
EXHAUSTED = "space exhausted"


@dataclass(frozen=True)
class Proposal:
    """A candidate to evaluate, and the running trial that asks for it.

    Attributes:
        trial: The trial, claimed by this process.
        candidate: A candidate whose graph no other trial has.
        scores: Scores from screening; empty if it was not screened.
        reported: Objective by step, as far as a process that died on this trial got.
    """

    trial: optuna.Trial
    candidate: Candidate
    scores: Mapping[str, float]
    reported: Mapping[int, float]


def propose(
    space: SearchSpace, history: History, config: SearchConfig, *, owner: Mapping[str, str | int]
) -> Proposal | str:
    """Ask the study until it proposes a graph that has not been evaluated.

    Enqueued trials and those given back come first, then the sampler's. Proposals with a known graph are told what is
    known. When the sampler repeats itself, a random candidate takes its turn.

    Returns:
        The proposal; or why there is none: "finished" or "space exhausted".

    Raises:
        NasGraphError: If the space gives no valid graph at all.
    """
    while True:
        with machine_lock():
            history.refresh()
            if _is_enough(history, config):
                return FINISHED
            repeats_itself = history.unused_in_row >= config.max_duplicates and not history.waiting
            trial = None if repeats_itself else _next_trial(history, owner)
        if trial is not None:
            proposal = _claim(space, history, trial)
            if proposal is not None:
                return proposal
        elif not _enqueue_random(space, history, config):
            return EXHAUSTED


def _is_enough(history: History, config: SearchConfig) -> bool:
    """Whether enough is done or underway. Call it with the machine's lock held."""
    missing = config.num_trials - len(history.evaluated)
    return missing <= 0 or (missing <= history.num_underway and not history.give_back_orphans())


def _next_trial(history: History, owner: Mapping[str, str | int]) -> optuna.Trial:
    """The next trial, marked as ours. Call it with the machine's lock held."""
    trial = _waiting_trial(history) or history.study.ask()
    trial.set_user_attr(OWNER, dict(owner))
    return trial


def _waiting_trial(history: History) -> optuna.Trial | None:
    # `study.ask` does the same, but overlooks trials in memory that were given back.
    study = history.study
    for number in history.waiting:
        trial_id = history.unfinished[number]._trial_id
        try:
            if study._storage.set_trial_state_values(trial_id, OptunaState.RUNNING):
                return optuna.Trial(study, trial_id)
        except UpdateFinishedTrialError:  # a process of another machine was quicker
            continue
    return None


def _claim(space: SearchSpace, history: History, trial: optuna.Trial) -> Proposal | None:
    """Build the trial's candidate and claim its graph. None if it is known or invalid: the trial is told so."""
    try:
        candidate, _ = realise(space, TrialChooser(trial))
    except InvalidGraphError as error:
        logger.warning("Trial %d: the space '%s' gives an invalid graph: %s", trial.number, space.name, error)
        trial.set_user_attr(REASON, f"invalid graph: {error}")
        history.study.tell(trial, state=OptunaState.FAIL)
        return None
    fingerprint = candidate.graph.fingerprint
    with machine_lock():
        history.refresh()
        original = history.known.get(fingerprint, trial.number)
        if original == trial.number:
            # The fingerprint comes last: a trial that has one has an architecture.
            trial.set_user_attr(ARCHITECTURE, candidate.architecture.to_json())
            trial.set_user_attr(FINGERPRINT, fingerprint)
    frozen = history.unfinished[trial.number]
    if original != trial.number:
        _tell_duplicate(history, trial, original)
        return None
    return Proposal(trial, candidate, frozen.user_attrs.get(SCORES, {}), frozen.intermediate_values)


def _tell_duplicate(history: History, trial: optuna.Trial, original: int) -> None:
    """Tell the sampler what is known about this graph."""
    trial.set_user_attr(DUPLICATE_OF, original)
    known = history.evaluated.get(original)
    if known is None:  # another process is evaluating it
        history.study.tell(trial, state=OptunaState.FAIL)
    elif known.state == OptunaState.COMPLETE:
        history.study.tell(trial, known.value)
    else:
        _copy_reports(known, trial)
        history.study.tell(trial, state=known.state)


def _copy_reports(known: FrozenTrial, trial: optuna.Trial) -> None:
    step = known.last_step
    if step is not None and known.state == OptunaState.PRUNED:
        trial.report(known.intermediate_values[step], step)


def _enqueue_random(space: SearchSpace, history: History, config: SearchConfig) -> bool:
    """Enqueue a random candidate with an unknown graph. False if none was found in `max_duplicates` draws.

    Raises:
        NasGraphError: If no draw, and nothing before, gave a valid graph.
    """
    place = len(history.study.get_trials(deepcopy=False))
    reason: Exception | None = None
    for draw in range(config.max_duplicates):
        try:
            candidate = sample(space, generator(config.seed, "random", place, draw))
        except InvalidGraphError as error:
            reason = error
            continue
        if candidate.graph.fingerprint not in history.known:
            history.study.enqueue_trial(dict(candidate.architecture.choices))
            return True
    if reason is not None and not history.known:
        raise NasGraphError(f"The space '{space.name}' gives no valid graph: {reason}") from reason
    return False
