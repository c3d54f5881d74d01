"""Searches that are killed, interrupted or shared, and go on as if nothing had happened."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from nasgraph.search import (
    SearchConfig,
    TrialState,
    create_or_resume,
    history,
    open_storage,
    owners,
    run_search,
)
from nasgraph.search.history import DEATHS, MAX_DEATHS, OWNER
from nasgraph.search.owners import machine_lock
from tests.search.processes import (
    STUDY,
    evaluations,
    exit_code,
    fork,
    kill_after,
    kill_after_growth,
    load,
    search,
    trajectory,
)
from tests.search.toys import OBJECTIVE, Chain, instant, screen
from tests.signals import heed_ctrl_c

SECONDS = 0.003


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random kills may hit one candidate three times, which would count against it."""
    monkeypatch.setattr(history, "MAX_DEATHS", 1000)


def kill_and_resume(journal: Path, config: SearchConfig, *, kills: int, **options: object) -> int:
    """Kill a search at random moments until it is done; return how often it was killed."""
    rng = random.Random(str(journal.name))
    done = 0
    for _ in range(kills):
        pid = fork(lambda: search(journal, config, seconds=SECONDS, **options))  # type: ignore[arg-type]
        if not kill_after_growth(pid, journal, rng.randrange(12_000)):
            break
        done += 1
    assert exit_code(fork(lambda: search(journal, config, seconds=SECONDS, **options))) == 0  # type: ignore[arg-type]
    return done


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii", "evolution"])
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path, sampler: str) -> None:
    config = SearchConfig(num_trials=45, seed=3)
    reference, killed = tmp_path / "reference", tmp_path / f"killed-{sampler}"
    search(reference, config, sampler=sampler)
    kills = kill_and_resume(killed, config, kills=15, sampler=sampler)
    assert kills >= 5
    assert trajectory(killed) == trajectory(reference)
    assert len(evaluations(killed)) - len(set(evaluations(killed))) <= kills


@pytest.mark.usefixtures("patient")
def test_a_search_killed_while_it_screens_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    config = SearchConfig(num_trials=20, num_screened=60, num_kept=12, screen_batch=4, seed=1)

    def slow_screen(graphs):  # type: ignore[no-untyped-def]
        time.sleep(0.008)
        return screen(graphs)

    search(tmp_path / "reference", config, screen=screen)
    kills = kill_and_resume(tmp_path / "killed", config, kills=15, screen=slow_screen)
    assert kills >= 5
    assert trajectory(tmp_path / "killed") == trajectory(tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii", "evolution"])
def test_sixty_kills_lose_nothing(tmp_path: Path, sampler: str) -> None:
    config = SearchConfig(num_trials=150, num_screened=40, num_kept=10, seed=11)
    search(tmp_path / "reference", config, sampler=sampler, screen=screen)
    kills = kill_and_resume(tmp_path / "killed", config, kills=60, sampler=sampler, screen=screen)
    assert kills >= 20
    assert trajectory(tmp_path / "killed") == trajectory(tmp_path / "reference")


@pytest.mark.usefixtures("patient")
def test_what_was_finished_before_a_kill_is_never_lost(tmp_path: Path) -> None:
    journal, config = tmp_path / "journal", SearchConfig(num_trials=30)
    finished: dict[int, float | None] = {}
    for num_bytes in (9_000, 3_000, 12_000, 5_000):
        kill_after_growth(fork(lambda: search(journal, config)), journal, num_bytes)
        now = {t.number: t.value for t in load(journal).get_trials() if t.state.is_finished()}
        assert finished.items() <= now.items()
        finished = now
    assert len(finished) > 5
    result = search(journal, config)
    assert len(result.trials) == 30
    assert {number: load(journal).trials[number].value for number in finished} == finished
    assert not [t for t in load(journal).trials if not t.state.is_finished()]


def test_resuming_restores_metrics_and_the_best(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = search(journal, SearchConfig(num_trials=10))
    again = search(journal, SearchConfig(num_trials=10))
    assert again.stopped_because == "finished"
    assert [t.number for t in again.trials] == [t.number for t in first.trials]
    assert [t.candidate for t in again.trials] == [t.candidate for t in first.trials]
    assert [t.metrics for t in again.trials] == [t.metrics for t in first.trials]
    assert first.best is not None
    assert again.best is not None
    assert again.best.number == first.best.number
    assert first.best.evaluation is not None
    assert again.best.evaluation is None


def test_a_longer_search_continues_a_shorter_one(tmp_path: Path) -> None:
    search(tmp_path / "a", SearchConfig(num_trials=12), sampler="tpe")
    search(tmp_path / "a", SearchConfig(num_trials=30), sampler="tpe")
    search(tmp_path / "b", SearchConfig(num_trials=30), sampler="tpe")
    assert trajectory(tmp_path / "a") == trajectory(tmp_path / "b")


def test_a_torn_last_line_is_repaired_and_the_search_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = SearchConfig(num_trials=12, seed=5)
    search(tmp_path / "reference", config)
    journal = tmp_path / "journal"
    assert exit_code(fork(lambda: search(journal, config))) == 0
    data = journal.read_bytes()
    journal.write_bytes(data[: len(data) * 2 // 3 - 7])
    search(journal, config)
    assert "torn last line" in caplog.text
    assert trajectory(journal) == trajectory(tmp_path / "reference")


def test_two_processes_share_a_journal(tmp_path: Path) -> None:
    journal, config = tmp_path / "journal", SearchConfig(num_trials=40, num_screened=20, num_kept=6)
    search(journal, SearchConfig(num_trials=1, num_screened=20, num_kept=1), screen=screen)
    workers = [fork(lambda: search(journal, config, seconds=0.01)) for _ in range(2)]
    assert [exit_code(pid) for pid in workers] == [0, 0]
    trials = load(journal).trials
    evaluated = [t.user_attrs["fingerprint"] for t in trials if "fingerprint" in t.user_attrs]
    assert len(evaluated) == len(set(evaluated)) == 40
    assert sorted(evaluations(journal)) == sorted(evaluated)
    assert all(t.state.is_finished() for t in trials)
    assert len({t.user_attrs["owner"]["pid"] for t in trials}) >= 2


def test_a_survivor_takes_over_what_its_sibling_left(tmp_path: Path) -> None:
    journal, config = tmp_path / "journal", SearchConfig(num_trials=25)
    search(journal, SearchConfig(num_trials=1))
    victim = fork(lambda: search(journal, config, seconds=0.5))
    while not load(journal).get_trials(states=[OptunaState.RUNNING]):
        time.sleep(0.01)
    survivor = fork(lambda: search(journal, config, seconds=0.02))
    assert kill_after(victim, 0.1)
    assert exit_code(survivor) == 0
    trials = load(journal).trials
    assert sum("fingerprint" in t.user_attrs for t in trials) == 25
    assert all(t.state.is_finished() for t in trials)


def test_the_trial_of_a_living_process_is_left_to_it_and_waited_for(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    search(journal, SearchConfig(num_trials=1))
    other = fork(lambda: search(journal, SearchConfig(num_trials=2), seconds=1.0))
    while not load(journal).get_trials(states=[OptunaState.RUNNING]):
        time.sleep(0.01)
    result = search(journal, SearchConfig(num_trials=3))
    assert exit_code(other) == 0
    assert len(result.trials) == 3
    assert len({t.user_attrs["fingerprint"] for t in load(journal).trials}) == 3
    assert [t.user_attrs[OWNER]["pid"] for t in load(journal).trials] == [os.getpid(), other, os.getpid()]
    assert len(evaluations(journal)) == 3


def test_a_candidate_that_keeps_killing_its_process_counts_as_failed(tmp_path: Path) -> None:
    journal, space = tmp_path / "journal", Chain()

    def deadly(graph, *, seed, keep_going):  # type: ignore[no-untyped-def]
        if len(finished()) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return instant(graph, seed=seed, keep_going=keep_going)

    def study() -> optuna.Study:
        return create_or_resume(
            open_storage(journal), STUDY, space=space, objective=OBJECTIVE, resume=True, seed=0
        )

    def finished() -> list[optuna.trial.FrozenTrial]:
        return load(journal).get_trials(states=[OptunaState.COMPLETE])

    config = SearchConfig(num_trials=6)
    for _ in range(MAX_DEATHS):
        assert exit_code(fork(lambda: run_search(space, deadly, study(), config))) == -signal.SIGKILL
    result = run_search(space, instant, study(), config)
    assert [t.state for t in result.trials].count(TrialState.FAILED) == 1
    assert "died 3 times" in result.trials[2].reason
    assert load(journal).trials[2].user_attrs[DEATHS] == MAX_DEATHS
    assert len(result.trials) == 6


def test_the_trial_of_another_machine_is_taken_over_when_its_heartbeat_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    search(journal, SearchConfig(num_trials=2))
    owner = {"host": socket.gethostname() + "-other", "boot": "", "pid": 1, "started": "1", "run": "x"}
    load(journal).ask().set_user_attr(OWNER, owner)

    def show_life() -> None:
        for beat in range(20):
            load(journal).set_user_attr("heartbeat x", beat)
            time.sleep(0.1)

    monkeypatch.setattr(owners, "GRACE_S", 1.0)
    other, started = fork(show_life), time.monotonic()
    result = search(journal, SearchConfig(num_trials=4))
    assert time.monotonic() - started > 2.0, "it was taken over while its machine showed signs of life"
    assert exit_code(other) == 0
    assert len(result.trials) == 4
    assert [t.state for t in load(journal).trials] == [OptunaState.COMPLETE] * 4
    assert load(journal).trials[2].user_attrs[OWNER]["pid"] == os.getpid()


def test_ctrl_c_stops_with_what_is_done_and_resuming_completes_it(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    program = (
        "import sys; from nasgraph.search import SearchConfig; from tests.search.processes import search\n"
        f"result = search({str(journal)!r}, SearchConfig(num_trials=40, seed=2), seconds=0.1)\n"
        "print(result.stopped_because, len(result.trials))"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        preexec_fn=heed_ctrl_c,
    ) as process:
        while len(evaluations(journal)) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    reason, number = output.split()
    assert reason == "interrupted"
    assert 2 <= int(number) < 40
    states = {t.state for t in load(journal).trials}
    assert not {OptunaState.RUNNING, OptunaState.FAIL} & states
    search(journal, SearchConfig(num_trials=40, seed=2))
    search(tmp_path / "reference", SearchConfig(num_trials=40, seed=2))
    assert trajectory(journal) == trajectory(tmp_path / "reference")


@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_an_interrupted_search_continues_in_every_storage(tmp_path: Path, place: str) -> None:
    space, config, calls = Chain(), SearchConfig(num_trials=8, seed=4), 0

    def interrupted_once(graph, *, seed, keep_going):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return instant(graph, seed=seed, keep_going=keep_going)

    storage = open_storage("memory" if place == "memory" else f"sqlite:///{tmp_path / 'study.db'}")
    study = create_or_resume(storage, STUDY, space=space, objective=OBJECTIVE, resume=False, seed=4)
    first = run_search(space, interrupted_once, study, config)
    assert (first.stopped_because, len(first.trials)) == ("interrupted", 3)
    assert [t.state for t in study.trials][3:] == [OptunaState.WAITING]
    second = run_search(space, interrupted_once, study, config)
    assert second.stopped_because == "finished"
    uninterrupted = create_or_resume(
        open_storage("memory"), STUDY, space=space, objective=OBJECTIVE, resume=False, seed=4
    )
    run_search(space, instant, uninterrupted, config)
    assert [(t.number, t.params, t.value) for t in study.trials] == [
        (t.number, t.params, t.value) for t in uninterrupted.trials
    ]


def test_the_machine_lock_is_released_by_death(tmp_path: Path) -> None:
    def hold() -> None:
        with machine_lock():
            (tmp_path / "held").touch()
            time.sleep(60)

    pid = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert kill_after(pid, 0)
    with machine_lock():
        pass
