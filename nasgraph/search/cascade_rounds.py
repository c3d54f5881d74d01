"""Rounds of a cascade as a study keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from nasgraph.search.cascade_records import CascadeRound, Entrant, StageReport, stage_report_from_json
from nasgraph.search.cascade_trials import ORIGIN
from nasgraph.search.history import SCORES
from nasgraph.search.owners import machine_lock
from nasgraph.search.records import ScreenedCandidate
from nasgraph.search.reliability import Agreement, pooled

ROUND = "cascade"
"""User attribute `cascade:<number>` of a study: a round."""
SCHEMA = "nasgraph/cascade/1"


def round_key(number: int) -> str:
    """Name of the user attribute that holds a round."""
    return f"{ROUND}:{number}"


def round_record(
    number: int,
    entrants: Sequence[Entrant],
    merit: Sequence[Entrant],
    reports: Sequence[StageReport],
    *,
    weight: float,
    cpu_s: float,
) -> tuple[dict[str, Any], tuple[ScreenedCandidate, ...]]:
    """A decided round as JSON, and all of its candidates, those that become trials first.

    Args:
        number: Of the round.
        entrants: All candidates, scored.
        merit: Those that passed every stage, best first. Those that chance passed on follow them.
        reports: What the stages did.
        weight: How many candidates one stands for that only chance let through.
        cpu_s: CPU seconds of the round.
    """
    by_merit = set(map(id, merit))
    lucky = [each for each in entrants if each.is_random and id(each) not in by_merit]
    kept = [*merit, *lucky]
    record = {
        "schema": SCHEMA,
        "number": number,
        "num_candidates": len(entrants),
        "num_kept": len(kept),
        "cpu_s": cpu_s,
        "stages": [report.to_json() for report in reports],
        "kept": [
            {
                "choices": [list(pair) for pair in each.candidate.architecture.choices],
                "scores": each.scores,
                "reached": each.reached,
                "is_random": each.is_random,
                "weight": 1.0 if id(each) in by_merit else weight,
            }
            for each in kept
        ],
    }
    chosen = set(map(id, kept))
    rest = sorted(
        (each for each in entrants if id(each) not in chosen),
        key=lambda each: (-len(each.reached), each.candidate.graph.fingerprint),
    )
    screened = [
        *(ScreenedCandidate(each.candidate, each.scores, kept=True) for each in kept),
        *(ScreenedCandidate(each.candidate, each.scores, kept=False) for each in rest),
    ]
    return record, tuple(screened)


def rounds_of(study: optuna.Study) -> tuple[CascadeRound, ...]:
    """The rounds that a study holds, by number."""
    records = [
        value
        for name, value in study.user_attrs.items()
        if name.startswith(f"{ROUND}:") and isinstance(value, dict)
    ]
    return tuple(sorted((round_from_json(record) for record in records), key=lambda each: each.number))


def round_from_json(
    record: Mapping[str, Any], *, screened: tuple[ScreenedCandidate, ...] = ()
) -> CascadeRound:
    """A round as a study keeps it."""
    return CascadeRound(
        number=int(record["number"]),
        num_candidates=int(record["num_candidates"]),
        num_kept=int(record["num_kept"]),
        stages=tuple(stage_report_from_json(stage) for stage in record["stages"]),
        screened=screened,
        cpu_s=float(record["cpu_s"]),
    )


def enqueue_missing(study: optuna.Study, kept: Sequence[Mapping[str, Any]], number: int) -> int:
    """Enqueue what is not there yet. Returns how many that were."""
    with machine_lock():
        there = {
            attrs["place"]
            for trial in study.get_trials(deepcopy=False)
            if (attrs := trial.user_attrs.get(ORIGIN)) is not None and attrs["round"] == number
        }
        missing = [place for place in range(len(kept)) if place not in there]
        for place in missing:
            item = kept[place]
            origin = {
                "round": number,
                "place": place,
                "reached": item["reached"],
                "is_random": item["is_random"],
                "weight": item["weight"],
            }
            choices = dict(item["choices"])
            study.enqueue_trial(choices, user_attrs={SCORES: item["scores"], ORIGIN: origin})
    return len(missing)


def stage_lines(rounds: Sequence[CascadeRound]) -> list[str]:
    """What the stages of a cascade did in all rounds, one line each, for people.

    Agreement with the next stage is the mean over rounds, that with the results of trials is the latest; both with their intervals.
    """
    lines = []
    for name in [stage.name for stage in rounds[-1].stages] if rounds else []:
        reports = [stage for each in rounds for stage in each.stages if stage.name == name]
        active = [report for report in reports if report.state == "active"]
        scored = sum(report.num_scored for report in active)
        passed = sum(report.num_passed for report in active)
        spent = sum(report.cpu_s * report.num_scored for report in active)
        later = pooled([report.with_next for report in active if report.with_next is not None])
        parts = [
            f"{name}: {reports[-1].state}",
            f"{scored} scored, {passed} passed",
            f"{1000 * spent / max(1, scored):.3g} ms CPU each",
            f"agreement with the next stage {_in_words(later)}",
            f"with the results {_in_words(reports[-1].with_result)}",
        ]
        lines.append("; ".join(parts))
    return lines


def _in_words(agreement: Agreement | None) -> str:
    if agreement is None or not agreement.is_known:
        return "unknown"
    return f"{agreement.tau:.2f} [{agreement.low:.2f}, {agreement.high:.2f}] of {agreement.num_seen}"
