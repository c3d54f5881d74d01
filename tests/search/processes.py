"""Searches in processes of their own, to be killed. Forked, so that a start costs milliseconds, not imports."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import TrialState as OptunaState

from nasgraph.search import (
    Screen,
    SearchConfig,
    SearchResult,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from tests.search.toys import OBJECTIVE, Chain, slow

STUDY = "study"


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a new process and return its number. Its exit code is 0 if it ends well."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  the child must end here, not in its parent's test runner
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """Wait for a process. Negative: the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_after(pid: int, seconds: float) -> bool:
    """Kill a process with SIGKILL after a while. False if it had ended by itself."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return exit_code(pid) == -signal.SIGKILL


def kill_after_growth(pid: int, journal: Path, num_bytes: int) -> bool:
    """Kill a process when a file has grown by some bytes. False if the process ended before.

    Progress rather than time, for on a busy machine nothing is done in any given time.
    """
    start = journal.stat().st_size if journal.exists() else 0
    while not journal.exists() or journal.stat().st_size < start + num_bytes:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    return exit_code(pid) == -signal.SIGKILL


def search(
    journal: str | Path,
    config: SearchConfig,
    *,
    sampler: str = "random",
    seconds: float = 0.0,
    screen: Screen | None = None,
) -> SearchResult:
    """Start or continue the search in a journal, and note finished evaluations beside it."""
    space = Chain()
    study = create_or_resume(
        open_storage(journal),
        STUDY,
        space=space,
        objective=OBJECTIVE,
        resume=True,
        seed=config.seed,
        sampler=make_sampler(sampler, seed=config.seed, space=space),
    )
    return run_search(space, slow(Path(f"{journal}.log"), seconds), study, config, screen=screen)


def load(journal: Path) -> optuna.Study:
    return optuna.load_study(storage=open_storage(journal), study_name=STUDY)


def trajectory(journal: Path) -> list[tuple[int, OptunaState, float | None, object, object]]:
    """What a search did, trial by trial."""
    return [
        (t.number, t.state, t.value, t.user_attrs.get("fingerprint"), sorted(t.params.items()))
        for t in load(journal).get_trials(deepcopy=False)
    ]


def evaluations(journal: Path) -> list[str]:
    """Fingerprints of the evaluations that ran to their end."""
    log = Path(f"{journal}.log")
    return log.read_text().split() if log.exists() else []
