"""What a search does in one process: evaluate, learn, fail, repeat nothing, stop."""

import math
import time
from collections.abc import Callable, Sequence

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import CandidateError, ConfigError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.search import (
    SearchConfig,
    SearchResult,
    StudyError,
    TrialState,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.search.records import Screen
from nasgraph.seeding import derive_seed
from nasgraph.spaces import Chooser, SearchSpace
from tests.search.toys import OBJECTIVE, Chain, Conditional, Diary, evaluation, instant, quality, screen

Evaluate = Callable[..., Evaluation]


def new_study(space: SearchSpace, *, sampler: str = "random", seed: int = 0) -> optuna.Study:
    return create_or_resume(
        open_storage("memory"),
        "study",
        space=space,
        objective=OBJECTIVE,
        resume=False,
        seed=seed,
        sampler=make_sampler(sampler, seed=seed),
    )


def run(
    num_trials: int,
    evaluate: Evaluate = instant,
    *,
    space: SearchSpace | None = None,
    study: optuna.Study | None = None,
    **config: float,
) -> SearchResult:
    space = space or Chain()
    settings = SearchConfig(num_trials=num_trials, **config)  # type: ignore[arg-type]
    return run_search(space, evaluate, study or new_study(space), settings)


def failing(error: BaseException, *, at: int) -> Evaluate:
    """An evaluator that raises at one call."""
    calls = 0

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return instant(graph, seed=seed, keep_going=keep_going)

    return evaluate


def giving(*evaluations: Evaluation) -> Evaluate:
    """An evaluator that gives these results in turn, whatever the graph."""
    rest = iter(evaluations)

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        return next(rest)

    return evaluate


def test_a_search_evaluates_different_graphs_and_finds_the_best() -> None:
    result = run(30)
    assert result.stopped_because == "finished"
    assert len({trial.candidate.graph.fingerprint for trial in result.trials}) == 30
    assert [trial.number for trial in result.trials] == sorted(trial.number for trial in result.trials)
    assert result.best is not None
    assert result.best.metrics[OBJECTIVE] == max(quality(trial.candidate.graph) for trial in result.trials)
    assert all(trial.state is TrialState.COMPLETE and trial.reason == "" for trial in result.trials)


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii"])
@pytest.mark.parametrize(
    "space", [Chain(), Conditional(input_shape=(4,), num_classes=3)], ids=lambda s: s.name
)
def test_same_seed_same_search(sampler: str, space: SearchSpace) -> None:
    one, two, other = (
        run(25, space=space, study=new_study(space, sampler=sampler, seed=s), seed=s) for s in (1, 1, 2)
    )
    assert [t.candidate for t in one.trials] == [t.candidate for t in two.trials]
    assert [t.candidate for t in one.trials] != [t.candidate for t in other.trials]


def test_tpe_beats_random_proposals() -> None:
    space = Chain(num_layers=5)

    def mean_of_latest(sampler: str) -> float:
        result = run(80, space=space, study=new_study(space, sampler=sampler))
        return sum(trial.metrics[OBJECTIVE] for trial in result.trials[-20:]) / 20

    assert mean_of_latest("tpe") > mean_of_latest("random") + 0.1


def test_seeds_follow_from_the_searchs_seed_and_the_graph() -> None:
    seeds: dict[str, int] = {}

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        seeds[graph.fingerprint] = seed
        return instant(graph, seed=seed, keep_going=keep_going)

    run(10, evaluate, seed=5)
    assert len(set(seeds.values())) == 10
    assert all(seed == derive_seed(5, "trial", name) & 0x7FFFFFFF for name, seed in seeds.items())


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii"])
def test_no_graph_is_evaluated_twice_and_a_small_space_is_exhausted(sampler: str) -> None:
    space, evaluated = Chain(num_layers=1, widths=2), []

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        evaluated.append(graph.fingerprint)
        return instant(graph, seed=seed, keep_going=keep_going)

    study = new_study(space, sampler=sampler)
    result = run(100, evaluate, space=space, study=study, max_duplicates=30)
    assert result.stopped_because == "space exhausted"
    assert len(evaluated) == len(set(evaluated)) == len(result.trials) == 8
    assert result.num_duplicates == len(study.trials) - 8 > 0


def test_the_sampler_is_told_what_is_known_about_a_duplicate() -> None:
    space = Chain(num_layers=2, widths=2)
    study = new_study(space)

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        if graph.fingerprint < "6":
            raise CandidateError("of this name")
        return instant(graph, seed=seed, keep_going=keep_going)

    run(20, evaluate, space=space, study=study)
    copies = [trial for trial in study.trials if "duplicate_of" in trial.user_attrs]
    assert {trial.state for trial in copies} == {OptunaState.COMPLETE, OptunaState.FAIL}
    for copy in copies:
        original = study.trials[copy.user_attrs["duplicate_of"]]
        assert (copy.state, copy.value) == (original.state, original.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CandidateError("does not converge"), "does not converge"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: CUDA out of memory."),
        (RuntimeError("mat1 and mat2\nshapes"), "RuntimeError: mat1 and mat2 shapes"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (KeyError("n3"), "KeyError: 'n3'"),
        (StudyError("raised by the evaluator itself"), "StudyError: raised by the evaluator itself"),
        (ValueError("x" * 5000), "ValueError: " + "x" * 100),
    ],
)
def test_a_failing_candidate_is_recorded_and_the_search_goes_on(error: Exception, reason: str) -> None:
    study = new_study(Chain())
    result = run(8, failing(error, at=3), study=study)
    failed = [trial for trial in result.trials if trial.state is TrialState.FAILED]
    assert len(result.trials) == 8
    assert [trial.number for trial in failed] == [2]
    assert failed[0].reason.startswith(reason)
    assert len(failed[0].reason) < 600
    assert failed[0].evaluation is None
    assert failed[0].metrics == {}
    assert study.trials[2].state == OptunaState.FAIL
    assert study.trials[2].user_attrs["reason"] == failed[0].reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_no_number_is_a_failure(value: float) -> None:
    result = run(3, giving(evaluation(0.1), evaluation(value), evaluation(0.3)))
    assert [trial.state.value for trial in result.trials] == ["complete", "failed", "complete"]
    assert result.trials[1].reason == f"'{OBJECTIVE}' is {value}"


def test_an_evaluation_without_its_objective_is_a_failure() -> None:
    broken = Evaluation(OBJECTIVE, {"val_loss": 1.0}, (), 0)
    result = run(3, giving(evaluation(0.1), broken, evaluation(0.2)))
    assert result.trials[1].reason == f"KeyError: '{OBJECTIVE}'"


def test_a_search_in_which_everything_fails_stops_and_says_why() -> None:
    study = new_study(Chain())

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        raise ValueError("no such file")

    with pytest.raises(
        NasGraphError, match="All of the first 10 candidates failed, 10 of them with: ValueError: no such"
    ):
        run(50, evaluate, study=study)
    assert [trial.state for trial in study.trials if "fingerprint" in trial.user_attrs] == [
        OptunaState.FAIL
    ] * 10


def test_a_late_failure_streak_does_not_stop_a_search() -> None:
    calls = 0

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise CandidateError("no")
        return instant(graph, seed=seed, keep_going=keep_going)

    assert len(run(20, evaluate).trials) == 20


def test_an_evaluator_of_another_metric_stops_the_search() -> None:
    other = Evaluation("val_loss", {"val_loss": 1.0}, (), 0)
    with pytest.raises(
        NasGraphError, match=f"optimises '{OBJECTIVE}', but the evaluator measures 'val_loss'"
    ):
        run(5, giving(other))


def test_a_bug_in_a_listener_stops_the_search_and_leaves_nothing_running() -> None:
    class Buggy(Diary):
        def on_trial(self, result: object) -> None:
            raise AssertionError("bug")

    space = Chain()
    study = new_study(space)
    with pytest.raises(AssertionError, match="bug"):
        run_search(space, instant, study, SearchConfig(num_trials=5), listeners=[Buggy()])
    assert [trial.state for trial in study.trials] == [OptunaState.COMPLETE]


def test_the_time_limit_of_a_trial() -> None:
    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        for step in range(1000):
            if not keep_going(step, 0.0):
                break
            time.sleep(0.01 if graph.fingerprint < "4" else 0)
        return instant(graph, seed=seed, keep_going=keep_going)

    result = run(12, evaluate, trial_time_limit_s=0.5)
    slow = [trial for trial in result.trials if trial.candidate.graph.fingerprint < "4"]
    assert slow
    assert all(trial.reason == "time limit of 0.5 s" for trial in slow)
    assert all(trial.seconds >= 0.5 for trial in slow)


def test_the_time_limit_of_a_search() -> None:
    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        time.sleep(0.1)
        return instant(graph, seed=seed, keep_going=keep_going)

    result = run(1000, evaluate, time_limit_s=0.35)
    assert result.stopped_because == "time limit"
    assert 1 <= len(result.trials) <= 4
    assert run(5, evaluate, time_limit_s=0.0).trials == ()


class StopBadOnes(optuna.pruners.BasePruner):
    """Prunes at step 2 whatever is below 0.3."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.last_step == 2 and trial.intermediate_values[2] < 0.3


def test_pruned_trials_are_measured_and_told_as_pruned() -> None:
    space = Chain()
    study = new_study(space)
    study.pruner = StopBadOnes()

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        value = quality(graph)
        for step in range(5):
            if not keep_going(step, value):
                return Evaluation(
                    OBJECTIVE, {OBJECTIVE: value}, (value,) * (step + 1), seed, stopped_early=True
                )
        return Evaluation(OBJECTIVE, {OBJECTIVE: value}, (value,) * 5, seed)

    result = run(30, evaluate, study=study)
    pruned = [trial for trial in result.trials if trial.state is TrialState.PRUNED]
    assert 0 < len(pruned) < 30
    assert all(
        (trial.metrics[OBJECTIVE] < 0.3) == (trial.state is TrialState.PRUNED) for trial in result.trials
    )
    assert all(trial.reason == "pruned at step 2" for trial in pruned)
    assert all(study.trials[t.number].state == OptunaState.PRUNED for t in pruned)
    assert all(study.trials[t.number].value == t.metrics[OBJECTIVE] for t in pruned)
    assert result.best is not None
    assert result.best.state is TrialState.COMPLETE


def test_a_fault_of_the_study_is_not_taken_for_a_failing_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study(Chain())

    def full(*_: object) -> None:
        raise StudyError("disk full")

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        monkeypatch.setattr(study._storage, "set_trial_intermediate_value", full)
        try:
            keep_going(0, 0.5)
        except Exception as error:
            raise CandidateError("something") from error
        raise AssertionError

    with pytest.raises(StudyError, match="disk full"):
        run(5, evaluate, study=study)
    assert [trial.state for trial in study.trials] == [OptunaState.WAITING]


def test_reports_of_impossible_steps_are_the_candidates_failure() -> None:
    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        keep_going(-1, 0.5)
        return instant(graph, seed=seed, keep_going=keep_going)

    assert "report steps 0, 1" in run(2, evaluate).trials[0].reason


def test_screened_survivors_are_the_first_trials() -> None:
    space, diary = Chain(num_layers=4), Diary()
    study = new_study(space)
    config = SearchConfig(num_trials=12, num_screened=50, num_kept=5, screen_batch=16)
    result = run_search(space, instant, study, config, screen=screen, listeners=[diary])
    assert diary.events[:6] == ["start", *[f"screened {n} of 50" for n in (16, 16, 16, 2)], "kept"]
    assert len({item.candidate.graph.fingerprint for item in result.screened}) == 50
    scores = [item.scores["screen_score"] for item in result.screened]
    assert scores == sorted(scores, reverse=True)
    assert [item.kept for item in result.screened] == [True] * 5 + [False] * 45
    assert [t.candidate for t in result.trials[:5]] == [item.candidate for item in result.screened[:5]]
    assert [t.scores for t in result.trials[:5]] == [item.scores for item in result.screened[:5]]
    assert all(trial.scores == {} for trial in result.trials[5:])
    assert run_search(space, instant, study, config, screen=screen).screened == ()


def test_candidates_without_a_score_rank_last_and_are_reported() -> None:
    def some(graphs: Sequence[ComputationalGraph]) -> list[dict[str, float]]:
        return [{"screen_score": math.nan if g.fingerprint < "8" else -5.0} for g in graphs]

    result = run_search(
        Chain(),
        instant,
        new_study(Chain()),
        SearchConfig(num_trials=3, num_screened=30, num_kept=3),
        screen=some,
    )
    unknown = [math.isnan(item.scores["screen_score"]) for item in result.screened]
    assert unknown == sorted(unknown)
    assert 0 < sum(unknown) < 30
    names = [item.candidate.graph.fingerprint for item in result.screened if item.scores["screen_score"] < 0]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (lambda graphs: [{"score": 1.0} for _ in graphs], NasGraphError),
        (lambda graphs: [{"screen_score": 1.0} for _ in graphs[1:]], ValueError),
    ],
)
def test_a_broken_screen_stops_the_search(broken: Screen, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_search(
            Chain(), instant, new_study(Chain()), SearchConfig(num_trials=3, num_screened=5), screen=broken
        )


def test_a_small_space_is_screened_as_far_as_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    space = Chain(num_layers=1, widths=2)
    config = SearchConfig(num_trials=4, num_screened=100, num_kept=4, max_duplicates=40)
    assert len(run_search(space, instant, new_study(space), config, screen=screen).screened) == 8
    assert "Screened 8 candidates, not 100" in caplog.text


def test_listeners_hear_everything_in_order() -> None:
    space, diary = Chain(), Diary()
    study = new_study(space)

    class Checking(Diary):
        def on_trial(self, result) -> None:  # type: ignore[no-untyped-def]
            assert study.trials[result.number].state.is_finished()

    result = run_search(
        space,
        instant,
        study,
        SearchConfig(num_trials=3),
        listeners=[diary, Checking()],
        tags={"data": "digits"},
    )
    assert diary.events == ["start", "trial 0", "trial 1", "trial 2", "end"]
    info = diary.infos[0]
    assert (info.study, info.space, info.objective, info.resumed_trials) == ("study", "chain", OBJECTIVE, 0)
    assert info.tags == {"data": "digits"}
    assert diary.ends == [result]
    again = Diary()
    run_search(space, instant, study, SearchConfig(num_trials=5), listeners=[again])
    assert again.infos[0].resumed_trials == 3
    assert again.events == ["start", "trial 3", "trial 4", "end"]


def test_only_the_best_trial_keeps_its_state() -> None:
    import torch

    def evaluate(graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        return Evaluation(OBJECTIVE, {OBJECTIVE: quality(graph)}, (), seed, state={"w": torch.zeros(3)})

    class Seeing(Diary):
        def on_trial(self, result) -> None:  # type: ignore[no-untyped-def]
            assert result.evaluation.state.keys() == {"w"}

    space = Chain()
    result = run_search(space, evaluate, new_study(space), SearchConfig(num_trials=10), listeners=[Seeing()])
    assert result.best is not None
    for trial in result.trials:
        assert trial.evaluation is not None
        assert bool(trial.evaluation.state) == (trial.number == result.best.number)


class Fragile(SearchSpace):
    """Some or all of its graphs break a rule."""

    def __init__(self, *, always: bool) -> None:
        super().__init__(input_shape=(4,), num_classes=2)
        self._always = always

    @property
    def name(self) -> str:
        return "fragile"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        node = graph("input", shape=(4,))
        width = choose.integer("width", 1, 40)
        if self._always or width % 2:
            node = graph("conv2d", node, out_channels=3, kernel_size=3)
        return graph.finish(graph("linear", graph("linear", node, out_features=width), out_features=2))


def test_invalid_graphs_are_failures_that_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    space = Fragile(always=False)
    study = new_study(space)
    result = run(10, space=space, study=study)
    assert len(result.trials) == 10
    invalid = [
        trial
        for trial in study.trials
        if trial.user_attrs.get("reason", "").startswith("invalid graph: Node 1")
    ]
    assert invalid
    assert all(trial.state == OptunaState.FAIL for trial in invalid)
    assert "gives an invalid graph" in caplog.text


def test_a_space_without_any_valid_graph_is_a_clear_error() -> None:
    space = Fragile(always=True)
    with pytest.raises(NasGraphError, match="The space 'fragile' gives no valid graph: Node 1"):
        run(10, space=space, max_duplicates=5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_trials": 0},
        {"num_trials": 5, "num_kept": 3},
        {"num_trials": 2, "num_kept": 3, "num_screened": 9},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        SearchConfig(**wrong)  # type: ignore[arg-type]
