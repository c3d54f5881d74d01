"""Searches over PostgreSQL: several processes, a server that goes away, and one that died."""

import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from nasgraph.search import SearchConfig, create_or_resume, finishing, make_sampler, open_storage, run_search
from nasgraph.search.records import SearchResult
from tests.search.postgres import Postgres, postgres_server
from tests.search.processes import STUDY, exit_code, fork, kill_after
from tests.search.toys import OBJECTIVE, Chain, slow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as found:
        yield found


def search(url: str, name: str, log: Path, config: SearchConfig, *, seconds: float = 0.05) -> SearchResult:
    space = Chain()
    study = create_or_resume(
        open_storage(url), name, space=space, objective=OBJECTIVE, resume=True, or_create=True, seed=config.seed,
        sampler=make_sampler("evolution", seed=config.seed, space=space),
    )  # fmt: skip
    return run_search(space, slow(log, seconds), study, config)


def trials(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(storage=open_storage(url), study_name=name).get_trials(deepcopy=False)


def test_two_processes_that_make_the_database_at_once_share_the_search(
    server: Postgres, tmp_path: Path
) -> None:
    config, log = SearchConfig(num_trials=30, ahead=0), tmp_path / "log"
    processes = [fork(lambda: search(server.url, STUDY, log, config)) for _ in range(2)]
    assert [exit_code(pid) for pid in processes] == [0, 0]
    found = trials(server.url, STUDY)
    fingerprints = [t.user_attrs["fingerprint"] for t in found if "fingerprint" in t.user_attrs]
    assert len(set(fingerprints)) == 30
    assert all(t.state.is_finished() for t in found)
    assert len(log.read_text().split()) == len(set(log.read_text().split())) == 30
    assert len({t.user_attrs["owner"]["pid"] for t in found}) == 2


def test_a_killed_search_goes_on_as_if_it_had_not_been(server: Postgres, tmp_path: Path) -> None:
    config, log = SearchConfig(num_trials=20, seed=3), tmp_path / "log"
    search(server.url, "reference", log, config, seconds=0)
    for _ in range(3):
        kill_after(fork(lambda: search(server.url, "killed", log, config)), 1.5)
    search(server.url, "killed", log, config, seconds=0)
    reference, killed = (
        [(t.number, t.state, t.value, t.params) for t in trials(server.url, name)]
        for name in ("reference", "killed")
    )
    assert killed == reference


def test_a_database_that_goes_away_for_a_while_is_waited_for(server: Postgres, tmp_path: Path) -> None:
    config, log = SearchConfig(num_trials=15, seed=5), tmp_path / "log"
    pid = fork(lambda: search(server.url, "away", log, config, seconds=0.3))
    while not log.exists() or len(log.read_text().split()) < 4:
        time.sleep(0.05)
    server.stop()
    time.sleep(5)
    server.start()
    assert exit_code(pid) == 0
    found = trials(server.url, "away")
    assert [t.state for t in found if "fingerprint" in t.user_attrs] == [OptunaState.COMPLETE] * 15
    assert all(t.state.is_finished() for t in found)
    evaluated = log.read_text().split()
    assert len(set(evaluated)) == 15
    assert len(evaluated) <= 16, "at most the trial that was underway was evaluated again"


def test_one_of_all_that_took_part_does_what_comes_after(server: Postgres, tmp_path: Path) -> None:
    config, log = SearchConfig(num_trials=4), tmp_path / "log"
    done = tmp_path / "done"

    def take_part() -> None:
        search(server.url, "after", log, config)
        study = optuna.load_study(storage=open_storage(server.url), study_name="after")
        with finishing(study) as mine:
            if mine:
                time.sleep(0.5)
                with done.open("a") as file:
                    file.write("done\n")

    processes = [fork(take_part) for _ in range(3)]
    assert [exit_code(pid) for pid in processes] == [0, 0, 0]
    assert done.read_text() == "done\n"
