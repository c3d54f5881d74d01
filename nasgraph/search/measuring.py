"""Evaluating one proposal: limits, pruning, and what happens when it fails."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import optuna

from nasgraph.errors import CandidateError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation
from nasgraph.search.proposals import Proposal
from nasgraph.search.records import Measurement, SearchConfig, TrialState
from nasgraph.seeding import derive_seed

logger = logging.getLogger(__name__)

MAX_REASON = 500


@dataclass(frozen=True)
class Outcome:
    """How one evaluation went. See `TrialResult` for the fields."""

    state: TrialState
    evaluation: Evaluation | None
    metrics: Mapping[str, float]
    reason: str
    seconds: float


def measure(evaluate: Measurement, proposal: Proposal, config: SearchConfig, *, objective: str) -> Outcome:
    """Evaluate a proposal. Whatever the evaluator raises becomes the reason of a failed outcome.

    The seed depends on the search's seed and the graph alone.

    Args:
        evaluate: Measures the graph.
        proposal: What to measure.
        config: Settings.
        objective: Metric that the evaluation must optimise; empty: any.

    Raises:
        NasGraphError: If the evaluator optimises another metric: no candidate can repair that.
        StudyError: If the study cannot be written.
    """
    graph = proposal.candidate.graph
    seed = derive_seed(config.seed, "trial", graph.fingerprint) & 0x7FFFFFFF
    watch = _Watch(proposal, config.trial_time_limit_s)
    started = time.monotonic()
    evaluation: Evaluation | None = None
    reason = ""
    try:
        evaluation = evaluate(graph, seed=seed, keep_going=watch.keep_going)
        metrics = {name: float(value) for name, value in evaluation.metrics.items()}
        value = float(evaluation.value)
    except Exception as error:
        reason = reason_of(error)
        logger.debug("Trial %d failed", proposal.trial.number, exc_info=True)
    seconds = time.monotonic() - started
    if watch.fault is not None:
        raise watch.fault
    if evaluation is None or reason:
        return Outcome(TrialState.FAILED, None, {}, reason, seconds)
    if objective and evaluation.objective != objective:
        raise NasGraphError(
            f"The study optimises '{objective}', but the evaluator measures '{evaluation.objective}'"
        )
    if watch.pruned_at is not None:
        return Outcome(TrialState.PRUNED, evaluation, metrics, f"pruned at step {watch.pruned_at}", seconds)
    if not math.isfinite(value):
        return Outcome(TrialState.FAILED, None, {}, f"'{evaluation.objective}' is {value}", seconds)
    return Outcome(TrialState.COMPLETE, evaluation, metrics, "", seconds)


def reason_of(error: Exception) -> str:
    """One line that tells why a candidate failed."""
    text = " ".join(str(error).split())[:MAX_REASON]
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in text.lower()
    ):
        return f"out of memory: {text}" if text else "out of memory"
    if isinstance(error, CandidateError):
        return text
    return f"{type(error).__name__}: {text}"


class _Watch:
    """Answers an evaluator's `keep_going`: reports to the pruner, and keeps the time limit."""

    def __init__(self, proposal: Proposal, time_limit_s: float | None) -> None:
        self._trial: optuna.Trial = proposal.trial
        self._reported = dict(proposal.reported)
        self._last_known = max(self._reported, default=-1)
        self._limit = time_limit_s
        self._started = time.monotonic()
        self.pruned_at: int | None = None
        self.fault: Exception | None = None

    def keep_going(self, step: int, value: float) -> bool:
        if self._limit is not None and time.monotonic() - self._started > self._limit:
            raise CandidateError(f"time limit of {self._limit:g} s")
        if not isinstance(step, int) or step < 0:
            raise CandidateError(f"Expected the evaluator to report steps 0, 1, ... (got {step!r})")
        if step < self._last_known:  # a process that died later than this was told to go on
            return True
        number = float(value)
        try:
            if step not in self._reported:
                self._trial.report(number, step)
                self._reported[step] = number
            if self._trial.should_prune():
                self.pruned_at = step
        except Exception as error:  # a fault of the study, which the evaluator must not pass off as its own
            self.fault = error
            raise
        return self.pruned_at is None
