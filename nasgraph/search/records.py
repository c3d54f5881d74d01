"""What a search is asked to do, what it reports while it runs, and what it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation
from nasgraph.ir import ComputationalGraph
from nasgraph.search.objectives import Objective
from nasgraph.spaces import Candidate

Screen = Callable[[Sequence[ComputationalGraph]], Sequence[Mapping[str, float]]]
"""Scores many graphs cheaply, without training. Returns for each graph its scores by name, the same names for all; NaN
where a graph cannot be scored. `SearchConfig.rank_by` names those that rank; of these, higher is better."""


class StudyError(NasGraphError, RuntimeError):
    """The study cannot be read, written or continued: full disk, damaged file, another search's study.

    It stops a search. Everything that was finished before is safe.
    """


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of one search.

    Attributes:
        num_trials: Really evaluated candidates of the whole study, screened survivors and failures among them.
        num_screened: Candidates that are sampled and scored before the first trial; 0: no screening.
        num_kept: Best of the screened that become the first trials. At most `num_trials`.
        screen_batch: Graphs that are scored in one call.
        rank_by: Scores of the screen whose ranks among all screened candidates are summed; the sum decides who is kept.
        seed: Decides everything random.
        time_limit_s: Seconds after which no further trial starts; None: no limit.
        max_flops: Floating-point operations of all trainings (the metric `train_flops`) after which no further trial starts; None:
            no limit.
        trial_time_limit_s: Seconds after which one evaluation is stopped and recorded as failed. Noticed when the
            evaluator asks `keep_going`; None: no limit.
        ahead: Makes the course of a search independent of how many workers there are, how quick they are, and when they are
            killed: a proposal sees the results of all earlier trials but the `ahead - 1` right before it, ended or not. So at
            most that many are underway at a time. 0: a proposal sees all that has ended; with several workers nothing is waited
            for, and no two searches are alike. None: what the study was begun with; 1 for a new study and one worker, else twice
            the number of workers.
        max_duplicates: Proposals in a row with a graph already evaluated, after which random proposals are tried, and
            as many of these again after which the space counts as exhausted.
    """

    num_trials: int
    num_screened: int = 0
    num_kept: int = 0
    screen_batch: int = 16
    rank_by: tuple[str, ...] = ("screen_score",)
    seed: int = 0
    time_limit_s: float | None = None
    max_flops: float | None = None
    trial_time_limit_s: float | None = None
    ahead: int | None = None
    max_duplicates: int = 50

    def __post_init__(self) -> None:
        if self.num_trials < 1 or self.num_screened < 0 or self.screen_batch < 1 or self.max_duplicates < 1:
            raise ConfigError(
                "Expected positive numbers of trials, batch size and duplicates, and no negative number"
            )
        if self.ahead is not None and self.ahead < 0:
            raise ConfigError(f"Expected 'ahead' of at least 0 (got {self.ahead})")
        if not self.rank_by:
            raise ConfigError("Expected 'rank_by' to name at least one score")
        if not 0 <= self.num_kept <= min(self.num_screened, self.num_trials):
            raise ConfigError(
                f"Expected 'num_kept' between 0 and the numbers of screened candidates and of trials "
                f"(got {self.num_kept}, {self.num_screened} and {self.num_trials})"
            )


class TrialState(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class ScreenedCandidate:
    """A candidate that was scored but not trained. `scores` is what the screen said, and after the
    decision `rank_score`: the mean of its ranks by `SearchConfig.rank_by`, from 0 (worst) to 1 (best)."""

    candidate: Candidate
    scores: Mapping[str, float]
    kept: bool


@dataclass(frozen=True)
class TrialResult:
    """One really evaluated candidate.

    Attributes:
        number: Number of the Optuna trial.
        candidate: What was evaluated.
        state: How it ended.
        evaluation: The measurement; None for a failed trial, and for one that another process evaluated.
        metrics: The measurement's metrics; empty for a failed trial. Kept also across a resume.
        reason: Why it failed or was pruned; empty otherwise.
        scores: Scores from screening; empty if it was not screened.
        seconds: Wall time of the evaluation.
        values: One number per objective of the study, as measured; empty unless the trial is complete.
        parent: Number of the trial of which the candidate is a mutation; None if of none, or if the strategy does not tell.
    """

    number: int
    candidate: Candidate
    state: TrialState
    evaluation: Evaluation | None
    metrics: Mapping[str, float]
    reason: str
    scores: Mapping[str, float]
    seconds: float
    values: tuple[float, ...] = ()
    parent: int | None = None


@dataclass(frozen=True)
class SearchInfo:
    """What listeners are told at the start.

    Attributes:
        study: Name of the Optuna study.
        space: Name of the search space.
        objective: Name of the metric that is optimised, the first if there are several; empty if the study does not say.
        config: Settings.
        resumed_trials: Trials that an earlier process finished.
        tags: Facts for the record: data set, its hash, versions, git commit, device.
        objectives: What is optimised, with directions; empty if the study does not say.
    """

    study: str
    space: str
    objective: str
    config: SearchConfig
    resumed_trials: int
    tags: Mapping[str, str] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ()


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        study: Name of the Optuna study.
        trials: Every finished trial in order, those of other processes included. To save memory only the best
            trial's evaluation keeps its `state`; listeners see every `state` as it is measured.
        best: The complete trial that is best in the first objective (the earliest of equals); None if there is none.
        screened: All candidates scored by this process, best first.
        num_duplicates: Proposals of the whole study that were answered from memory, not evaluated again.
        stopped_because: "finished", "time limit", "flops", "interrupted" or "space exhausted".
        seconds: Wall time of this process.
        front: Complete trials that no other one beats in all objectives, best in the first first; with one objective the best.
    """

    study: str
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    screened: tuple[ScreenedCandidate, ...]
    num_duplicates: int
    stopped_because: str
    seconds: float
    front: tuple[TrialResult, ...] = ()


@runtime_checkable
class SearchListener(Protocol):
    """Hears of a search's progress, in the driver's thread. It must not change what it is given.

    A listener that raises stops the search: listeners that may fail (a tracking server) handle it themselves.
    """

    def on_start(self, info: SearchInfo) -> None:
        """Called once, before anything is sampled."""

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None:
        """Called after each scored batch with the new candidates (`kept` is not decided yet, hence False), and
        how many will be scored in all."""

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None:
        """Called once after screening with all candidates, best first and `kept` decided. A resumed search that was
        screened before does not screen again, and does not call this."""

    def on_trial(self, result: TrialResult) -> None:
        """Called after each trial is durable in the study."""

    def on_end(self, result: SearchResult) -> None:
        """Called once at the end, also after an interruption; not if an error stops the search."""
