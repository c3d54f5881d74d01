"""A search whose trials a cascade chooses: kills, workers, samplers."""

import random
from pathlib import Path

import pytest

from nasgraph.search import SearchConfig, create_or_resume, history, make_sampler, open_storage
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_records import CascadeConfig, Labelled, LearntScreen, Stage
from nasgraph.search.cascade_rounds import rounds_of
from nasgraph.search.cascade_trials import ORIGIN
from nasgraph.search.constraints import parse_constraints
from nasgraph.search.executors import Executor, SerialExecutor
from nasgraph.search.history import SCORES
from nasgraph.search.loop import run_search
from nasgraph.search.processes import Constant, ProcessExecutor
from nasgraph.search.records import SearchResult
from tests.search.processes import STUDY, exit_code, kill_after_growth, load, trajectory
from tests.search.test_cascade import TWO
from tests.search.test_parallel import Uneven, in_fork
from tests.search.toys import OBJECTIVE, Chain, instant, quality


def by_total(trials: list[Labelled]) -> LearntScreen | None:
    """Hangs on everything that it may see."""
    if len(trials) < 9:
        return None
    total = sum(trial.gain for trial in trials)
    return lambda graphs, _: [{"score": quality(graph) * total} for graph in graphs]


def cascade(**settings: int) -> Cascade:
    learnt = Stage(name="learnt", keep=0.5, rank_by=("score",), learn=by_total)  # type: ignore[arg-type]
    config = {"num_candidates": 24, "num_kept": 6, "seed": 3, **settings}
    return Cascade([*TWO, learnt], CascadeConfig(random_share=0.2, **config))


def search(
    journal: Path, config: SearchConfig, *, workers: int = 1, seconds: float = 0.0, every: int = 8
) -> SearchResult:
    evaluate = Uneven(Path(f"{journal}.log"), seconds)
    executor: Executor = (
        SerialExecutor(evaluate) if workers == 1 else ProcessExecutor(Constant(evaluate), workers)
    )
    study = create_or_resume(
        open_storage(journal), STUDY, space=Chain(), objective=OBJECTIVE, resume=True, seed=config.seed,
        sampler=make_sampler("tpe", seed=config.seed),
    )  # fmt: skip
    try:
        return run_search(Chain(), executor, study, config, cascade=cascade(every=every))
    finally:
        executor.close()


def test_one_worker_and_three_decide_the_same_rounds(tmp_path: Path) -> None:
    config = SearchConfig(num_trials=40, seed=5, ahead=4)
    search(tmp_path / "one", config)
    search(tmp_path / "three", config, workers=3, seconds=0.02)
    assert trajectory(tmp_path / "three") == trajectory(tmp_path / "one")
    attrs = [trial.user_attrs for trial in load(tmp_path / "one").get_trials(deepcopy=False)]
    assert sum(ORIGIN in each for each in attrs) == 6 * len(rounds_of(load(tmp_path / "one"))) >= 30
    assert all(("learnt.score" in each.get(SCORES, {})) == (ORIGIN in each) for each in attrs[16:])


def test_a_cascade_that_is_killed_at_random_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_DEATHS", 1000)
    config, rng = SearchConfig(num_trials=48, seed=7, ahead=3), random.Random(1)
    search(tmp_path / "reference", config)
    journal, kills = tmp_path / "killed", 0
    for _ in range(12):
        growth = rng.randrange(12_000)
        if not kill_after_growth(in_fork(lambda: search(journal, config, seconds=0.002)), journal, growth):
            break
        kills += 1
    assert exit_code(in_fork(lambda: search(journal, config, workers=2))) == 0
    assert kills >= 4
    assert trajectory(journal) == trajectory(tmp_path / "reference")


def test_a_search_keeps_its_constraints_and_its_number_of_trials() -> None:
    study = create_or_resume(
        open_storage("memory"), STUDY, space=Chain(), objective=OBJECTIVE, resume=False, seed=1
    )
    result = run_search(
        Chain(),
        instant,
        study,
        SearchConfig(num_trials=20, seed=1),
        cascade=cascade(),
        constraints=parse_constraints("depth<=6"),
    )
    assert len(result.trials) == 20
    assert len(rounds_of(study)) == 4
    assert all(len(trial.candidate.graph) <= 12 for trial in result.trials)
    assert all("fine.score" in trial.scores for trial in result.trials)


def test_a_space_that_is_exhausted_ends_the_search() -> None:
    space = Chain(num_layers=1, widths=2)
    study = create_or_resume(
        open_storage("memory"), STUDY, space=space, objective=OBJECTIVE, resume=False, seed=1
    )
    result = run_search(space, instant, study, SearchConfig(num_trials=50, seed=1), cascade=cascade())
    assert len(result.trials) == 8
    assert result.stopped_because == "space exhausted"


def test_a_search_whose_time_is_over_during_a_round_stops() -> None:
    study = create_or_resume(
        open_storage("memory"), STUDY, space=Chain(), objective=OBJECTIVE, resume=False, seed=1
    )
    config = SearchConfig(num_trials=50, seed=1, time_limit_s=1e-9)
    result = run_search(Chain(), instant, study, config, cascade=cascade())
    assert (len(result.trials), result.stopped_because) == (0, "time limit")
