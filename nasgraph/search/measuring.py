"""Evaluating one graph: limits, pruning, and what happens when it fails. Knows nothing of studies."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nasgraph.errors import CandidateError
from nasgraph.evaluate.evaluation import Evaluation, Evaluator, InheritingEvaluator
from nasgraph.ir import ComputationalGraph
from nasgraph.search.records import TrialState

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


def failure(reason: str, *, seconds: float = 0.0) -> Outcome:
    """The outcome of an evaluation that gave nothing."""
    return Outcome(TrialState.FAILED, None, {}, reason, seconds)


def measure(
    evaluate: Evaluator,
    graph: ComputationalGraph,
    *,
    seed: int,
    time_limit_s: float | None,
    on_report: Callable[[int, float], bool],
    parent: str = "",
) -> Outcome:
    """Evaluate a graph. Whatever the evaluator raises becomes the reason of a failed outcome.

    Args:
        evaluate: Measures the graph.
        graph: What to measure.
        seed: Seed of the measurement.
        time_limit_s: Seconds after which it is stopped when it next reports.
        on_report: Told each step and the objective after it; False prunes.
        parent: Fingerprint of the graph whose weights an `InheritingEvaluator` starts from; empty: none.

    Raises:
        Exception: What `on_report` raised. It is a fault of the study, which the evaluator must not pass off as its own.
    """
    watch = _Watch(on_report, time_limit_s)
    started = time.monotonic()
    evaluation: Evaluation | None = None
    reason = ""
    try:
        if parent and isinstance(evaluate, InheritingEvaluator):
            evaluate = evaluate.from_parent(parent)
        evaluation = evaluate(graph, seed=seed, keep_going=watch.keep_going)
        metrics = {name: float(value) for name, value in evaluation.metrics.items()}
        value = float(evaluation.value)
    except Exception as error:
        reason = reason_of(error)
        logger.debug("The evaluation of %s failed", graph.fingerprint, exc_info=True)
    seconds = time.monotonic() - started
    if watch.fault is not None:
        raise watch.fault
    if evaluation is None or reason:
        return failure(reason, seconds=seconds)
    if watch.pruned_at is not None:
        return Outcome(TrialState.PRUNED, evaluation, metrics, f"pruned at step {watch.pruned_at}", seconds)
    if not math.isfinite(value):
        return failure(f"'{evaluation.objective}' is {value}", seconds=seconds)
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
    """Answers an evaluator's `keep_going`: passes reports on, and keeps the time limit."""

    def __init__(self, on_report: Callable[[int, float], bool], time_limit_s: float | None) -> None:
        self._on_report = on_report
        self._limit = time_limit_s
        self._started = time.monotonic()
        self.pruned_at: int | None = None
        self.fault: Exception | None = None

    def keep_going(self, step: int, value: float) -> bool:
        if self._limit is not None and time.monotonic() - self._started > self._limit:
            raise CandidateError(f"time limit of {self._limit:g} s")
        if not isinstance(step, int) or step < 0:
            raise CandidateError(f"Expected the evaluator to report steps 0, 1, ... (got {step!r})")
        number = float(value)
        try:
            if not self._on_report(step, number):
                self.pruned_at = step
        except Exception as error:
            self.fault = error
            raise
        return self.pruned_at is None
