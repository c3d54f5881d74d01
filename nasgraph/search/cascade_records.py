"""What a cascade is made of, and what it reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nasgraph.errors import ConfigError
from nasgraph.files import Json
from nasgraph.ir import ComputationalGraph
from nasgraph.search.records import Screen, ScreenedCandidate
from nasgraph.search.reliability import Agreement, agreement_from_json
from nasgraph.spaces import Candidate

Scores = Mapping[str, float]
LearntScreen = Callable[[Sequence[ComputationalGraph], Sequence[Scores]], Sequence[Scores]]
"""Scores many graphs by what was learnt. The second argument holds what earlier stages say of each, by `stage.score`."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A trial that ended with a number.

    Attributes:
        graph: What was trained.
        gain: The first objective, higher is better. Of a pruned trial what it last reported.
        scores: What the stages said of it, by `stage.score`; empty if it came from elsewhere.
    """

    graph: ComputationalGraph
    gain: float
    scores: Scores


class Learn(Protocol):
    """Learns a stage from the trials of the search so far. Pure: equal trials, equal screen."""

    def __call__(self, trials: Sequence[Labelled]) -> LearntScreen | None:
        """What was learnt; None if the trials are too few or too alike, so that the stage is left out of this round."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a cascade: it scores those who reach it and lets a share of them pass.

    Attributes:
        name: Prefix of its scores in the record: the score `accuracy`, or `ghn_accuracy`, of the stage `ghn` is `ghn.accuracy`.
        keep: Share that passes. The last stage passes as many as the round keeps, whatever its share.
        rank_by: Its scores whose ranks are summed to decide who passes, higher is better; also those of earlier stages, with
            their prefix.
        score: Scores graphs; a `Screen`.
        learn: Or: learns from the trials how to score.
        batch: Graphs that are scored in one call.
        may_give_up: Whether the cascade may give this stage up when it does not help.

    Raises:
        ConfigError: If there is not exactly one of `score` and `learn`, or a number is out of range.
    """

    name: str
    keep: float
    rank_by: tuple[str, ...]
    score: Screen | None = None
    learn: Learn | None = None
    batch: int = 16
    may_give_up: bool = True

    def __post_init__(self) -> None:
        if not self.name or "." in self.name:
            raise ConfigError(f"Expected a name without a point for a stage (got {self.name!r})")
        if not 0 < self.keep <= 1:
            raise ConfigError(
                f"Expected 'keep' of the stage '{self.name}' above 0, up to 1 (got {self.keep})"
            )
        if (self.score is None) == (self.learn is None):
            raise ConfigError(f"Expected 'score' or 'learn' for the stage '{self.name}', and not both")
        if not self.rank_by or self.batch < 1:
            raise ConfigError(
                f"Expected something to rank by and a batch of at least 1 in the stage '{self.name}'"
            )

    def full_name(self, score: str) -> str:
        """Name of a score in the record."""
        if "." in score:
            return score
        return f"{self.name}.{score.removeprefix(f'{self.name}_')}"

    @property
    def rank_name(self) -> str:
        """Name of the one number that decides: the mean of the ranks by `rank_by` in its round, from 0 (worst) to 1 (best)."""
        return f"{self.name}.rank"

    @property
    def judged_by(self) -> tuple[str, bool]:
        """The score that its reliability is learnt by, and whether scores of different rounds can be compared."""
        if len(self.rank_by) == 1 and self.learn is None:
            return self.full_name(self.rank_by[0]), True
        return self.rank_name, False


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """Settings of a cascade.

    Attributes:
        num_candidates: Proposals of a round that are scored.
        num_kept: Of them, how many become trials.
        random_share: Share of these that is drawn at random among all candidates of the round, so that the reliability of the stages
            can be learnt without the bias of their own choice; at least one in a round unless it is 0, where no stage
            is ever given up.
        every: Trials from the beginning of one round to that of the next; the rest of them are the sampler's. None: as
            many as a round keeps, so that all trials come from rounds.
        max_rounds: Rounds in all; None: no limit.
        seed: Decides everything random.
        max_duplicates: Draws in a row that bring nothing new, after which a round makes do with fewer candidates.
        least_agreement: A stage is given up when the upper end of the interval of its rank agreement with the results of the trials
            lies below this.
        level: Probability of these intervals.
        min_trials: Trials that a stage is judged on at the earliest.
        min_random: Of them, those that were drawn at random.

    Raises:
        ConfigError: If a number is out of range.
    """

    num_candidates: int = 200
    num_kept: int = 8
    random_share: float = 0.125
    every: int | None = None
    max_rounds: int | None = None
    seed: int = 0
    max_duplicates: int = 50
    least_agreement: float = 0.1
    level: float = 0.9
    min_trials: int = 16
    min_random: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.num_kept <= self.num_candidates or self.max_duplicates < 1:
            raise ConfigError(
                f"Expected 'num_kept' from 1 to 'num_candidates' (got {self.num_kept} and {self.num_candidates})"
            )
        if not 0 <= self.random_share < 1 or not 0 < self.level < 1:
            raise ConfigError("Expected 'random_share' from 0 to below 1 and 'level' between 0 and 1")
        if self.every is not None and self.every < self.num_kept:
            raise ConfigError(
                f"Expected 'every' of at least 'num_kept' (got {self.every} and {self.num_kept})"
            )
        if self.max_rounds is not None and self.max_rounds < 1:
            raise ConfigError(f"Expected 'max_rounds' of at least 1 (got {self.max_rounds})")
        if self.min_trials < 4 or self.min_random < 1:
            raise ConfigError("Expected 'min_trials' of at least 4 and 'min_random' of at least 1")

    @property
    def num_random(self) -> int:
        """How many of the kept are drawn at random."""
        if not self.random_share or self.num_kept < 2:
            return 0
        return min(self.num_kept - 1, max(1, round(self.random_share * self.num_kept)))

    @property
    def trials_per_round(self) -> int:
        """Trials from one round to the next."""
        return self.every or self.num_kept


@dataclass(frozen=True)
class StageReport:
    """What one stage did in one round.

    Attributes:
        name: Its name.
        state: "active"; "not ready", if there was too little to learn from; or "given up".
        num_scored: Candidates that it scored, those that chance passed on included.
        num_passed: Candidates that it let pass.
        cpu_s: CPU seconds per scored candidate, learning included.
        with_next: Rank agreement with the stage after it, in this round.
        with_result: Rank agreement with the results of the trials of all earlier rounds, among candidates that reach it.
    """

    name: str
    state: str
    num_scored: int = 0
    num_passed: int = 0
    cpu_s: float = 0.0
    with_next: Agreement | None = None
    with_result: Agreement | None = None

    def to_json(self) -> dict[str, Json]:
        """What the study keeps."""
        document: dict[str, Json] = {
            "name": self.name,
            "state": self.state,
            "num_scored": self.num_scored,
            "num_passed": self.num_passed,
            "cpu_s": self.cpu_s,
        }
        for name, agreement in (("with_next", self.with_next), ("with_result", self.with_result)):
            document[name] = None if agreement is None else dict(agreement.to_json())
        return document


def stage_report_from_json(document: Mapping[str, Json]) -> StageReport:
    """What `StageReport.to_json` wrote."""
    values: dict[str, object] = dict(document)
    for name in ("with_next", "with_result"):
        agreement = document.get(name)
        values[name] = agreement_from_json(agreement) if isinstance(agreement, dict) else None  # type: ignore[arg-type]  # written here
    return StageReport(**values)  # type: ignore[arg-type]  # written here


@dataclass(frozen=True)
class CascadeRound:
    """What one round decided.

    Attributes:
        number: Of the round, from 0.
        num_candidates: Candidates that were drawn.
        num_kept: Candidates that became trials.
        stages: What each stage did, in order, those given up included.
        screened: All candidates with their scores, those that became trials first and best first; empty for a round that another process
            decided.
        cpu_s: CPU seconds of the whole round.
    """

    number: int
    num_candidates: int
    num_kept: int
    stages: tuple[StageReport, ...]
    screened: tuple[ScreenedCandidate, ...] = field(default=(), repr=False)
    cpu_s: float = 0.0

    @property
    def given_up(self) -> tuple[str, ...]:
        """Names of the stages that were given up, in this round or before."""
        return tuple(stage.name for stage in self.stages if stage.state == "given up")


@dataclass(eq=False)
class Entrant:
    """A candidate on its way through a round.

    Attributes:
        candidate: The candidate.
        is_random: Whether chance passes it on whatever the stages say.
        scores: What the stages have said, by `stage.score`.
        reached: Names of the stages that it has reached by merit.
    """

    candidate: Candidate
    is_random: bool
    scores: dict[str, float] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)
