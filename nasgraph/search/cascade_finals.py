"""The last stage of a cascade: the best trials of a search, trained in full. Their results are no trials: they stand beside them."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna

from nasgraph.errors import CandidateError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation, Evaluator, never_stop
from nasgraph.search.experience import Observation
from nasgraph.search.reliability import Agreement, rank_agreement
from nasgraph.seeding import derive_seed
from nasgraph.spaces import Candidate

logger = logging.getLogger(__name__)

FULL = "full_training"
"""User attribute `full_training:<number of the trial>` of a study: metrics, or why there are none."""


@dataclass(frozen=True)
class Finalist:
    """A trial that was trained in full.

    Attributes:
        number: Number of the trial.
        candidate: What was trained.
        short: The trial's first objective, higher is better.
        full: The objective after full training; NaN if that failed.
        metrics: What was measured after full training; empty if it failed.
        reason: Why it failed; empty otherwise.
        cpu_s: CPU seconds that it took.
    """

    number: int
    candidate: Candidate
    short: float
    full: float
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Finals:
    """What full training of the best trials brought.

    Attributes:
        finalists: Best first by the full training; failures at the end.
        evaluation: The evaluation of the first, with its weights.
        agreement: Rank agreement of short and full training among the finalists. They are the best of many: among all candidates it is
            higher.
    """

    finalists: tuple[Finalist, ...]
    evaluation: Evaluation = field(repr=False)
    agreement: Agreement


def train_finalists(
    study: optuna.Study,
    observations: Sequence[Observation],
    evaluate: Evaluator,
    *,
    count: int,
    seed: int,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Finals:
    """Train the best trials in full, one after the other, and say which one wins.

    Each result is in the study before the next begins, and is not computed again when the search goes on after a kill; only the
    winner is evaluated again if its weights are gone, which costs nothing with an evaluator that keeps checkpoints.

    Args:
        study: Keeps the results.
        observations: The trials of the search. Complete ones compete, the earlier of equals first.
        evaluate: Trains in full. Its objective is another metric than that of the trials: more epochs.
        count: How many.
        seed: Decides the seed of each training, with its graph.
        out_of_time: Asked before each but the first; the finals end with those that are done if it says so.

    Raises:
        NasGraphError: If no trial is complete, or every finalist failed.
    """
    complete = [each for each in observations if each.gains]
    best = sorted(complete, key=lambda each: (-each.gain, each.number))[: max(1, count)]
    if not best:
        raise NasGraphError(
            f"No trial of the study '{study.study_name}' is complete: there is nothing to train in full"
        )
    finalists: list[Finalist] = []
    kept: tuple[float, int, Evaluation] | None = None
    for place, observation in enumerate(best):
        if place and out_of_time():
            break
        finalist, evaluation = _finalist(study, observation, evaluate, seed)
        finalists.append(finalist)
        if evaluation is not None and (kept is None or finalist.full > kept[0]):
            kept = finalist.full, finalist.number, evaluation
    ranked = sorted(
        finalists, key=lambda each: (-each.full if each.metrics else math.inf, -each.short, each.number)
    )
    winner = ranked[0]
    if not winner.metrics:
        raise NasGraphError(f"Full training failed for every finalist, the best with: {winner.reason}")
    if kept is None or kept[1] != winner.number:
        graph = winner.candidate.graph
        state = evaluate(graph, seed=_seed(seed, graph.fingerprint), keep_going=never_stop)
    else:
        state = kept[2]
    agreement = rank_agreement([each.short for each in finalists], [each.full for each in finalists])
    return Finals(tuple(ranked), state, agreement)


def _finalist(
    study: optuna.Study, observation: Observation, evaluate: Evaluator, seed: int
) -> tuple[Finalist, Evaluation | None]:
    """The full training of a trial, from the study if it is there."""
    key, graph = f"{FULL}:{observation.number}", observation.candidate.graph
    known = study.user_attrs.get(key)
    evaluation = None
    if known is None:
        began = time.process_time()
        try:
            evaluation = evaluate(graph, seed=_seed(seed, graph.fingerprint), keep_going=never_stop)
            known = {"value": evaluation.value, "metrics": dict(evaluation.metrics), "reason": ""}
        except CandidateError as error:
            logger.warning("Trial %d fails in full training: %s", observation.number, error)
            known = {"value": None, "metrics": {}, "reason": str(error)}
        known["cpu_s"] = time.process_time() - began
        study.set_user_attr(key, known)
    value = known["value"]
    return (
        Finalist(
            observation.number,
            observation.candidate,
            observation.gain,
            math.nan if value is None else float(value),
            dict(known["metrics"]),
            str(known["reason"]),
            float(known["cpu_s"]),
        ),
        evaluation,
    )


def _seed(seed: int, fingerprint: str) -> int:
    return derive_seed(seed, "full", fingerprint) & 0x7FFFFFFF
