"""Candidates, trials and searches to record, made by hand so that every number is known."""

from collections.abc import Sequence

from nasgraph.evaluate.evaluation import Evaluation
from nasgraph.ir import GraphBuilder
from nasgraph.modules import build
from nasgraph.search.records import (
    ScreenedCandidate,
    SearchConfig,
    SearchInfo,
    SearchResult,
    TrialResult,
    TrialState,
)
from nasgraph.spaces import Architecture, Candidate


def candidate(width: int = 4) -> Candidate:
    """A one-hidden-layer network on eight numbers; each width is another graph."""
    builder = GraphBuilder()
    hidden = builder("relu", builder("linear", builder("input", shape=(8,)), out_features=width))
    graph = builder.finish(builder("linear", hidden, out_features=3))
    return Candidate(Architecture("toy", (("width", width), ("act", "relu"), ("edge<-0", True))), graph)


def trial(number: int, *, accuracy: float = 0.5, state: TrialState = TrialState.COMPLETE) -> TrialResult:
    """A trial with a curve of three points and real weights; a failed one with a reason."""
    item = candidate(4 + number % 50)
    if state is TrialState.FAILED:
        return TrialResult(number, item, state, None, {}, "loss is NaN", {}, 0.5)
    metrics = {"val_accuracy": accuracy, "val_loss": 1 - accuracy}
    curve = (accuracy / 2, accuracy * 0.8, accuracy)
    evaluation = Evaluation("val_accuracy", metrics, curve, seed=7, state=build(item.graph).state_dict())
    return TrialResult(number, item, state, evaluation, metrics, "", {"screen_score": 0.25}, 1.5)


def restored(result: TrialResult) -> TrialResult:
    """The trial as a later process gets it from the study: without the measurement."""
    return TrialResult(
        result.number, result.candidate, result.state, None, result.metrics, result.reason, {}, 1.5
    )


def info(*, study: str = "it's a study", resumed_trials: int = 0, num_trials: int = 10) -> SearchInfo:
    """What a listener is told at the start."""
    config = SearchConfig(num_trials=num_trials, seed=3)
    tags = {"data": "digits", "data_sha256": "ab" * 32, "device": "cpu"}
    return SearchInfo(study, "toy", "val_accuracy", config, resumed_trials, tags)


def screened(count: int) -> list[ScreenedCandidate]:
    """Candidates with scores 0, 1, 2 ..; every tenth could not be scored."""
    scores = [float("nan") if index % 10 == 9 else float(index) for index in range(count)]
    return [
        ScreenedCandidate(candidate(4 + i % 7), {"screen_score": s, "loss": 2.0}, False)
        for i, s in enumerate(scores)
    ]


def end(trials: Sequence[TrialResult], *, stopped_because: str = "finished") -> SearchResult:
    """What a listener is told at the end."""
    complete = [result for result in trials if result.state is TrialState.COMPLETE]
    best = max(complete, key=lambda result: result.metrics["val_accuracy"], default=None)
    return SearchResult("it's a study", tuple(trials), best, (), 2, stopped_because, 12.5)
