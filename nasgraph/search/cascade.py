"""Many proposals, ever dearer scores, few trials: a cascade of stages, in rounds, that learns what its stages are worth.

A round draws candidates, lets each stage score those that the stages before it kept, and enqueues what is left as trials, with
everything that any stage said of them. Scores are never mixed with the objective: they are kept beside it, by stage.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import optuna
from scipy.stats import rankdata

from nasgraph.errors import ConfigError, InvalidGraphError, NasGraphError
from nasgraph.search.cascade_records import CascadeConfig, CascadeRound, Entrant, Stage, StageReport
from nasgraph.search.cascade_rounds import (
    enqueue_missing,
    round_from_json,
    round_key,
    round_record,
    rounds_of,
)
from nasgraph.search.cascade_trials import SeenTrials
from nasgraph.search.experience import Experience
from nasgraph.search.records import ScreenedCandidate, StudyError
from nasgraph.search.reliability import Agreement, rank_agreement
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, sample

logger = logging.getLogger(__name__)

Propose = Callable[[Experience, int], Candidate]
"""The candidate of a draw of a round. Pure: a round that was killed draws the same again. May raise `InvalidGraphError`."""


def _never() -> bool:
    return False


class Cascade:
    """Stages from free to dear, and the rounds in which they choose trials.

    Guaranteed: which candidates a round chooses is a function of the stages, the settings, the number of the round, and what the
    experience holds, if the stages are such functions of what they score. The decision is written into the study in one piece
    before any candidate is enqueued: a search killed before that decides the same again, killed after it enqueues what is missing.

    Reliability: some of the trials of each round are drawn at random among all its candidates and scored by every stage. With them a
    stage's rank agreement with the results of the trials is estimated without the bias of its own choice (see `reliability`),
    among the candidates that reach it. A stage whose agreement is surely below `least_agreement` is given up for the rest of the
    search: its scores are no longer computed, and as many fewer candidates are drawn as it would have dropped.

    Args:
        stages: In the order in which they score, cheap ones first.
        config: Settings.

    Raises:
        ConfigError: If there is no stage, or two have one name.
    """

    def __init__(self, stages: Sequence[Stage], config: CascadeConfig | None = None) -> None:
        names = [stage.name for stage in stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"Expected stages of different names, at least one (got {names})")
        self.stages = tuple(stages)
        self.config = config or CascadeConfig()
        self._done: set[tuple[int, int]] = set()

    def is_due(self, study: optuna.Study, num_trials: int) -> bool:
        """Whether `step` has something to look at. Cheap. Still true after a step whose time ran out."""
        number = num_trials // self.config.trials_per_round
        return (study._study_id, number) not in self._done and number < (self.config.max_rounds or math.inf)

    def step(
        self,
        study: optuna.Study,
        experience: Experience,
        *,
        num_trials: int,
        propose: Propose | None = None,
        out_of_time: Callable[[], bool] = _never,
    ) -> CascadeRound | None:
        """Decide and enqueue a round if it is time for one. Call it whenever no trial waits, before the sampler is asked.

        Round r begins with trial r x `trials_per_round`. Costs nothing when there is nothing to do.

        Args:
            study: Holds the rounds and the trials.
            experience: What the trial `num_trials` may know.
            num_trials: Number that the next trial will have.
            propose: Draws candidates; None: at random.
            out_of_time: Asked between batches; the round is dropped if it says so.

        Returns:
            The round; None if there was none to decide or enqueue.
        """
        if not self.is_due(study, num_trials):
            return None
        number = num_trials // self.config.trials_per_round
        return self.run_round(study, experience, number=number, propose=propose, out_of_time=out_of_time)

    def run_round(
        self,
        study: optuna.Study,
        experience: Experience,
        *,
        number: int,
        propose: Propose | None = None,
        out_of_time: Callable[[], bool] = _never,
    ) -> CascadeRound | None:
        """Decide a round, or read what was decided, and enqueue what is not enqueued yet. See `step` for the arguments.

        Returns:
            The round; None if the time ran out before it was decided, or all of its trials were there already.

        Raises:
            NasGraphError: If a stage breaks its contract.
            StudyError: If the round in the study is of another cascade.
        """
        key = round_key(number)
        record = study.user_attrs.get(key)
        decided: CascadeRound | None = None
        if record is None:
            found = self._decide(study, experience, number, propose or self._random(number), out_of_time)
            if found is None:
                return None
            record, screened = found
            study.set_user_attr(key, record)
            decided = round_from_json(record, screened=screened)
        elif [stage["name"] for stage in record["stages"]] != [stage.name for stage in self.stages]:
            raise StudyError(
                f"The study '{study.study_name}' was begun with other stages in its cascade. Repeat the command as it was"
            )
        num_enqueued = enqueue_missing(study, record["kept"], number)
        self._done.add((study._study_id, number))
        return decided or (round_from_json(record) if num_enqueued else None)

    # ---- deciding

    def _decide(
        self,
        study: optuna.Study,
        experience: Experience,
        number: int,
        propose: Propose,
        out_of_time: Callable[[], bool],
    ) -> tuple[dict[str, Any], tuple[ScreenedCandidate, ...]] | None:
        began = time.process_time()
        seen = SeenTrials(study, experience)
        judged = {stage.name: self._judge(stage, seen) for stage in self.stages}
        given_up = self._given_up(study, number, judged, seen)
        entrants = self._draw(experience, number, propose, self._num_candidates(given_up))
        reports = {
            stage.name: StageReport(
                stage.name,
                "given up" if stage.name in given_up else "not ready",
                with_result=judged[stage.name],
            )
            for stage in self.stages
        }
        merit, before = entrants, None
        ready = [each for each in self.stages if each.name not in given_up and seen.is_ready(each)]
        for stage in ready:
            spent = self._run(stage, seen, merit, entrants, out_of_time)
            if spent is None:
                return None
            if before is not None:
                agreement = self._with_next(before, stage, entrants)
                reports[before.name] = replace(reports[before.name], with_next=agreement)
            merit, before = self._passing(stage, merit, entrants, is_last=stage is ready[-1]), stage
            num_scored = sum(stage.rank_name in each.scores for each in entrants)
            reports[stage.name] = replace(
                reports[stage.name],
                state="active",
                num_scored=num_scored,
                num_passed=len(merit),
                cpu_s=spent / max(1, num_scored),
            )
        if before is None:
            merit = self._without_stage(merit, entrants, number)
        cpu_s = time.process_time() - began
        weight = self._weight(len(entrants))
        return round_record(number, entrants, merit, list(reports.values()), weight=weight, cpu_s=cpu_s)

    def _num_candidates(self, given_up: set[str]) -> int:
        """As many as keep the later stages as busy as if the stages that were given up still dropped their share."""
        share = math.prod(stage.keep for stage in self.stages if stage.name in given_up)
        return max(self.config.num_kept, round(self.config.num_candidates * share))

    def _random(self, number: int) -> Propose:
        def propose(experience: Experience, draw: int) -> Candidate:
            return sample(experience.space, generator(self.config.seed, "cascade", number, draw))

        return propose

    def _draw(
        self, experience: Experience, number: int, propose: Propose, num_candidates: int
    ) -> list[Entrant]:
        """Different new candidates that keep the constraints: the free signals."""
        found = list(islice(self._distinct(experience, propose), num_candidates))
        if len(found) < num_candidates:
            logger.warning(
                "Round %d of the cascade draws %d candidates, not %d: the space '%s' has few more that are new and keep the constraints",
                number,
                len(found),
                num_candidates,
                experience.space.name,
            )
        rng = generator(self.config.seed, "cascade", number, "random")
        lucky = set(rng.permutation(len(found))[: self.config.num_random].tolist())
        return [Entrant(candidate, place in lucky) for place, candidate in enumerate(found)]

    def _distinct(self, experience: Experience, propose: Propose) -> Iterator[Candidate]:
        seen: set[str] = set()
        in_vain = 0
        for draw in count():
            try:
                candidate = propose(experience, draw)
                is_new = candidate.graph.fingerprint not in seen and experience.is_new(candidate.graph)
            except InvalidGraphError as error:
                logger.warning("The space '%s' gives an invalid graph: %s", experience.space.name, error)
                is_new = False
            in_vain = 0 if is_new else in_vain + 1
            if in_vain >= self.config.max_duplicates:
                return
            if is_new:
                seen.add(candidate.graph.fingerprint)
                yield candidate

    def _run(
        self,
        stage: Stage,
        seen: SeenTrials,
        merit: Sequence[Entrant],
        entrants: Sequence[Entrant],
        out_of_time: Callable[[], bool],
    ) -> float | None:
        """Let a stage score those that merit or chance brings to it. Returns the CPU seconds; None if the time ran out."""
        began = time.process_time()
        for entrant in merit:
            entrant.reached.append(stage.name)
        reaching = [each for each in entrants if each.is_random or stage.name in each.reached]
        for start in range(0, len(reaching), stage.batch):
            if out_of_time():
                return None
            part = reaching[start : start + stage.batch]
            said = seen.score(stage, [each.candidate.graph for each in part], [each.scores for each in part])
            for entrant, scores in zip(part, said, strict=True):
                entrant.scores |= {stage.full_name(name): float(value) for name, value in scores.items()}
        self._rank(stage, reaching)
        return time.process_time() - began + seen.learning_s.get(stage.name, 0.0)

    def _rank(self, stage: Stage, reaching: Sequence[Entrant]) -> None:
        """Who lacks a score stands last by it."""
        total = np.zeros(len(reaching))
        for name in map(stage.full_name, stage.rank_by):
            missing = next((each for each in reaching if name not in each.scores), None)
            if missing is not None:
                raise NasGraphError(
                    f"Expected the stage '{stage.name}' to give '{name}' (got {', '.join(sorted(missing.scores)) or 'nothing'})"
                )
            values = np.array([each.scores[name] for each in reaching])
            total += rankdata(np.where(np.isnan(values), -np.inf, values)) - 1
        total /= len(stage.rank_by) * max(1, len(reaching) - 1)
        for entrant, rank in zip(reaching, total.tolist(), strict=True):
            entrant.scores[stage.rank_name] = rank

    def _passing(
        self, stage: Stage, merit: Sequence[Entrant], entrants: Sequence[Entrant], *, is_last: bool
    ) -> list[Entrant]:
        """The best by merit, best first. After the last stage as many as fill the round, with those that chance passes on."""
        ranked = sorted(
            merit, key=lambda each: (-each.scores[stage.rank_name], each.candidate.graph.fingerprint)
        )
        if not is_last:
            return ranked[: max(self.config.num_kept, math.ceil(stage.keep * len(ranked)))]
        return self._filled(ranked, entrants)

    def _filled(self, ranked: Sequence[Entrant], entrants: Sequence[Entrant]) -> list[Entrant]:
        lucky = sum(each.is_random for each in entrants)
        chosen: list[Entrant] = []
        for entrant in ranked:
            if lucky >= self.config.num_kept:
                break
            chosen.append(entrant)
            lucky += not entrant.is_random
        return chosen

    def _without_stage(
        self, merit: Sequence[Entrant], entrants: Sequence[Entrant], number: int
    ) -> list[Entrant]:
        """No stage is left, or none is ready: chance decides."""
        order = generator(self.config.seed, "cascade", number, "order").permutation(len(merit))
        return self._filled([merit[place] for place in order.tolist()], entrants)

    # ---- learning how reliable a stage is

    def _weight(self, num_candidates: int) -> float:
        """How many candidates one stands for that only chance let through."""
        return num_candidates / max(1, self.config.num_random)

    def _with_next(self, stage: Stage, later: Stage, entrants: Sequence[Entrant]) -> Agreement:
        """Rank agreement with the next stage, in this round, among those that reached this one."""
        both = [each for each in entrants if stage.name in each.reached and later.rank_name in each.scores]
        weight = self._weight(len(entrants))
        return rank_agreement(
            [each.scores[stage.rank_name] for each in both],
            [each.scores[later.rank_name] for each in both],
            weights=[1.0 if later.name in each.reached else weight for each in both],
            level=self.config.level,
        )

    def _judge(self, stage: Stage, seen: SeenTrials) -> Agreement:
        """Rank agreement with the results of trials, among candidates that reached the stage."""
        name, is_fixed = stage.judged_by
        rows = [row for row in seen.from_rounds if stage.name in row.reached and name in row.scores]
        return rank_agreement(
            [row.scores[name] for row in rows],
            [row.gain for row in rows],
            weights=[row.weight for row in rows],
            groups=None if is_fixed else [row.round for row in rows],
            level=self.config.level,
        )

    def _given_up(
        self, study: optuna.Study, number: int, judged: Mapping[str, Agreement], seen: SeenTrials
    ) -> set[str]:
        """Stages that were given up before, and those that are now."""
        earlier = [each for each in rounds_of(study) if each.number < number]
        names = set(earlier[-1].given_up) if earlier else set()
        for stage in self.stages:
            if stage.name not in names and self._is_useless(stage, judged[stage.name], seen):
                names.add(stage.name)
                logger.warning(
                    "The cascade goes on without the stage '%s': its rank agreement with the results is %.2f, and surely below %.2f "
                    "(%d trials)",
                    stage.name,
                    judged[stage.name].tau,
                    self.config.least_agreement,
                    judged[stage.name].num_seen,
                )
        return names

    def _is_useless(self, stage: Stage, agreement: Agreement, seen: SeenTrials) -> bool:
        lucky = sum(row.is_random and stage.name in row.reached for row in seen.from_rounds)
        return (
            stage.may_give_up
            and agreement.is_known
            and agreement.num_seen >= self.config.min_trials
            and lucky >= self.config.min_random
            and agreement.high < self.config.least_agreement
        )
